"""docs/uploader.1 is what `docs/man_page.py` makes of the commands."""

from __future__ import annotations

import runpy
import shutil
import subprocess

import pytest
from docs_pages import ROOT


def test_man_page_is_current_and_valid() -> None:
    """Without groff only the text is compared."""
    page = ROOT / "docs/uploader.1"
    assert page.read_text() == runpy.run_path(str(ROOT / "docs/man_page.py"))["man_page"](), "run docs/man_page.py"
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tutf8", "-ww", "-z", page]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["upload", "serve", "completion"])
def test_man_page_names_each_command(command: str) -> None:
    assert f".B {command}\n" in (ROOT / "docs/uploader.1").read_text()
