"""Run the tests in a copy of the tree without a feature: `python tests/without.py NAME [ARGUMENT OF PYTEST]…`

The folder of the feature, its tests and its name in the list are deleted from the copy. What is written from the table
of options is written anew. Then mypy and the tests run, without those of the pages.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MADE = (".git", ".venv*", ".*_cache", ".nox", "__pycache__", "build", "dist", "node_modules")
PAGES = "tests/**/test_docs_*.py"
SCRIPT = """#!/bin/sh
exec "{python}" -m uploader_cli "$@"
"""


def delete(feature: str, place: Path) -> None:
    """Delete a feature from a tree."""
    client = place / "src/uploader_cli"
    shutil.rmtree(client / "features" / feature)
    shutil.rmtree(place / "tests/features" / feature)
    names = client / "features/__init__.py"
    names.write_text(re.sub(rf'"{feature}",? ?', "", names.read_text(encoding="utf-8")), encoding="utf-8")


def python_of(place: Path) -> str:
    """Return a Python that imports the packages of a tree, and otherwise those that this one has."""
    made = venv.EnvBuilder(symlinks=True)
    made.create(place / ".venv")
    (packages,) = (place / ".venv").glob("lib/python*/site-packages")
    paths = (place / "src", place / "server_stub", sysconfig.get_path("purelib"))
    (packages / "tree.pth").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    python = place / ".venv/bin/python"
    script = python.with_name("uploader")
    script.write_text(SCRIPT.format(python=python), encoding="utf-8")
    script.chmod(0o755)
    return str(python)


def main(feature: str, *arguments: str) -> int:
    """Return the exit code of the first check that fails, or 0."""
    with tempfile.TemporaryDirectory(prefix=f"without-{feature}-") as name:
        place = Path(name) / "tree"
        shutil.copytree(ROOT, place, symlinks=True, ignore=shutil.ignore_patterns(*MADE))
        delete(feature, place)
        python = python_of(place)
        for command in (
            ["docs/cli_options.py"],
            ["-m", "mypy"],
            ["-m", "pytest", f"--ignore-glob={PAGES}", *arguments],
        ):
            code = subprocess.run([python, *command], cwd=place, check=False).returncode
            if code:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
