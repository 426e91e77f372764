"""Run the tests in a copy of the tree without features: `python tests/without.py NAME[,NAME]… [ARGUMENT OF PYTEST]…`

`--all` in place of the names stands for all features. Their folders, and those of features that use them, their tests,
their public modules with the entry points, their extras and their names in the list are deleted from the copy. What is
written from the table of options is written anew. Then mypy and the tests run, without those of the pages.

`server/NAME` is a feature of the server, and `--server` stands for all of them: only tests of the server run then,
unless others are given.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

import uploader_cli.feature
import uploader_server.feature

ROOT = Path(__file__).resolve().parent.parent
MADE = (".git", ".venv*", ".*_cache", ".nox", "__pycache__", "build", "dist", "node_modules")
PAGES = "tests/**/test_docs_*.py"
SCRIPT = """#!/bin/sh
"exec" "{python}" "$0" "$@"
from uploader_cli.__main__ import run

raise SystemExit(run())
"""
"""Both the shell and Python read it: the path of Python may be too long for `#!`, or have spaces."""


def chosen(names: str, package: Any = uploader_cli) -> set[str]:
    """Return the features of a package with these names, or all, and those that can't be without them."""
    features = package.feature.features()
    found = {feature.name for feature in features} if names == "--all" else set(names.split(","))
    while more := {feature.name for feature in features if found.intersection(feature.uses)} - found:
        found |= more
    return found


def modules_of(names: set[str]) -> list[str]:
    """Return the public modules of the client's features."""
    return [one for feature in uploader_cli.feature.features() if feature.name in names for one in feature.modules]


def delete(names: set[str], place: Path, package: Any = uploader_cli) -> None:
    """Delete features from a copy of their package."""
    for name in names:
        shutil.rmtree(place / "features" / name)
    for module in modules_of(names) if package is uploader_cli else ():
        (place / f"{module}.py").unlink()
    listed = place / "features/__init__.py"
    left = tuple(feature.name for feature in package.feature.features() if feature.name not in names)
    text, count = re.subn(r"= \(.*?\)", f"= {left!r}", listed.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert count == 1, text
    listed.write_text(text, encoding="utf-8")


def delete_plugins(modules: list[str], project: Path) -> str:
    """Delete the entry points of modules; return options of pytest that leave these plugins out.

    The installation whose packages the copy uses still has them.
    """
    entry = rf'^(\S+) = "uploader_cli\.(?:{"|".join(modules)})"\n'
    text = project.read_text(encoding="utf-8")
    project.write_text(re.sub(entry, "", text, flags=re.MULTILINE), encoding="utf-8")
    return " ".join(f"-p no:{name}" for name in re.findall(entry, text, re.MULTILINE))


def delete_extras(names: set[str], project: Path) -> None:
    """Delete the extras of features, also from those that have others."""
    extras = {feature.extra for feature in uploader_cli.feature.features() if feature.name in names and feature.extra}
    lines = project.read_text(encoding="utf-8").splitlines(keepends=True)
    left = "".join(line for line in lines if line.partition(" = [")[0] not in extras)

    def others(named: re.Match[str]) -> str:
        return f"uploader-cli[{','.join(one for one in named[1].split(',') if one not in extras)}]"

    project.write_text(re.sub(r"uploader-cli\[(.*?)\]", others, left), encoding="utf-8")


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


def delete_with_tests(names: str, place: Path, package: Any, top: str, tests: str) -> set[str]:
    """Delete features from a copy of the tree, with their tests; return their names."""
    gone = chosen(names, package)
    delete(gone, place / top / package.__name__, package)
    for feature in gone:
        shutil.rmtree(place / tests / feature)
    return gone


def main(names: str, arguments: list[str]) -> int:
    """Return the exit code of the first check that fails, or 0."""
    with tempfile.TemporaryDirectory(prefix="without-") as name:
        place = Path(name) / "tree"
        shutil.copytree(ROOT, place, symlinks=True, ignore=shutil.ignore_patterns(*MADE))
        env = dict(os.environ)
        if names == "--server" or names.startswith("server/"):
            names = names.replace("--server", "--all").replace("server/", "")
            delete_with_tests(names, place, uploader_server, "server_stub", "tests/server/features")
            arguments = arguments or ["tests/server"]
        else:
            gone = delete_with_tests(names, place, uploader_cli, "src", "tests/features")
            plugins = delete_plugins(modules_of(gone), place / "pyproject.toml")
            delete_extras(gone, place / "pyproject.toml")
            env["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} {plugins}"
        python = python_of(place)
        for command in (
            ["docs/cli_options.py"],
            ["-m", "mypy"],
            ["-m", "pytest", f"--ignore-glob={PAGES}", *arguments],
        ):
            code = subprocess.run([python, *command], cwd=place, env=env, check=False).returncode
            if code:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
