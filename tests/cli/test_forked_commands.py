"""Commands that tests fork behave as commands that a new Python runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command import finish, start, uploader

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("command", ["--version", "nonsense", "upload gone.mp4", "config", "config --json"])
def test_forked_command_has_code_and_outputs_of_a_new_python(command: str, tmp_path: Path) -> None:
    """Environment and working directory included; also where the process does not free its objects at its end."""
    (tmp_path / "uploader.toml").write_text("retries = 8")
    how = {"home": tmp_path, "UPLOADER_SERVER": "localhost:1", "UPLOADER_JOBS": "7"}
    new = finish(start(*command.split(), fresh=True, **how))
    assert finish(start(*command.split(), free=True, **how)) == uploader(*command.split(), **how) == new
