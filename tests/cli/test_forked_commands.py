"""Commands that tests fork behave as commands that a new Python runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import forking
import pytest
from command import finish, start, uploader
from time_limits import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["--version", "nonsense", "upload gone.mp4", "config", "config --json"])
def test_forked_command_has_code_and_outputs_of_a_new_python(command: str, tmp_path: Path) -> None:
    """Environment and working directory included; also where the process does not free its objects at its end."""
    (tmp_path / "uploader.toml").write_text("retries = 8")
    how = {"home": tmp_path, "UPLOADER_SERVER": "localhost:1", "UPLOADER_JOBS": "7"}
    new = finish(start(*command.split(), fresh=True, **how))
    assert finish(start(*command.split(), free=True, **how)) == uploader(*command.split(), **how) == new


@pytest.mark.skipif(not forking.AVAILABLE, reason="commands are not forked")
@pytest.mark.parametrize("user", [os.geteuid(), *([65534] if os.geteuid() == 0 else [])])  # root may become others
def test_commands_are_forked_only_for_the_user_of_the_tests(user: int, tmp_path: Path) -> None:
    """Others see the address in `/proc/net/unix`."""
    forking.make_program(tmp_path / "uploader")
    *_, address, _ = shlex.split((tmp_path / "uploader").read_text())
    seconds = 1.0 if user == os.geteuid() else PATIENCE
    asks = f"import os, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); os.setuid({user})"
    asks += f"; s.connect(chr(0) + {address!r}); s.settimeout({seconds}); print(s.recv(1))"  # it is closed, or waits
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=False)
    assert ("b''" in done.stdout, "TimeoutError" in done.stderr) == (user != os.geteuid(), user == os.geteuid()), (
        done.stderr
    )
