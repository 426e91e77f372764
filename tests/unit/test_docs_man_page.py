"""The man pages that `docs/man_page.py` makes of the commands are valid."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path

from docs_pages import ROOT

from uploader_cli.cli.app import COMMANDS


def test_each_command_has_a_valid_man_page_with_its_options(tmp_path: Path) -> None:
    """Without groff their form is not tested."""
    made: dict[str, str] = runpy.run_path(str(ROOT / "docs/man_page.py"))["pages"]()
    assert set(made) == {"uploader.1", *(f"uploader-{name}.1" for name in COMMANDS if name != "runs")}
    assert r"\fB\-\-chunk\-size\fR \fISIZE|auto\fR" in made["uploader-upload.1"]
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    if shutil.which("groff"):
        command = ["groff", "-man", "-Tutf8", "-ww", "-z", *map(str, tmp_path.iterdir())]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
