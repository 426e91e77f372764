"""The man pages are what `docs/man_page.py` makes of the commands."""

from __future__ import annotations

import runpy
import shutil
import subprocess

from docs_pages import ROOT

from uploader_cli.cli.app import COMMANDS


def test_man_pages_are_current_and_valid() -> None:
    """Without groff only the text is compared."""
    made = runpy.run_path(str(ROOT / "docs/man_page.py"))["pages"]()
    paths = [ROOT / "docs" / name for name in made]
    assert {path.name: path.read_text() for path in paths} == {
        path.name: text for path, text in zip(paths, made.values(), strict=True)
    }, "run docs/man_page.py"
    assert {path.stem for path in paths} == {"uploader", *(f"uploader-{name}" for name in COMMANDS if name != "runs")}
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tutf8", "-ww", "-z", *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
