"""The live view and its terminal: keys are neither echoed nor left for the shell, the title shows the progress."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import environment
from patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from uploader_server.serving import EmbeddedServer


class Screen:
    """A command with its live view on a terminal; `text` is its output."""

    def __init__(
        self, *arguments: str | Path, home: Path, program: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        self.screen, self.program = pty.openpty()
        fcntl.ioctl(self.program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.program)
        self.text = b""
        self.process = subprocess.Popen(
            program or [sys.executable, "-m", "uploader_cli", *map(str, arguments)],
            stdin=self.program,
            stdout=self.program,
            stderr=self.program,
            cwd=home,
            env=environment(home, TERM="xterm", **(env or {})),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def read(self, until: Callable[[], bool]) -> None:
        """Read the output until the condition is met."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline, self.text
            if select.select([self.screen], [], [], 0.02)[0]:
                self.text += os.read(self.screen, 65536)

    def type(self, keys: bytes) -> None:
        """Type; a terminal that echoes has done so when this returns."""
        os.write(self.screen, keys)

    def end(self) -> int:
        """Read to the end; the exit code."""
        self.read(lambda: self.process.poll() is not None)
        while select.select([self.screen], [], [], 0.02)[0]:
            self.text += os.read(self.screen, 65536)
        return self.process.wait()

    @property
    def waiting(self) -> bytes:
        """Return the typed bytes that were not read: the shell would run them."""
        os.set_blocking(self.program, False)
        try:
            return os.read(self.program, 1000)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close both ends."""
        os.close(self.screen)
        os.close(self.program)


@pytest.mark.parametrize("keys", [b"", b"\x03"])
def test_keys_are_not_drawn_and_not_left_to_the_shell(
    keys: bytes, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The terminal settings are restored; Ctrl-C keeps its meaning."""
    files = make_files(**{"a.mp4": 1_000_000})
    one = Screen("upload", files, "-s", server.url, "--limit-rate", "500K", home=tmp_path)
    one.read(lambda: b"KiB/s" in one.text)
    one.type(b"rm -rf precious\n" + keys)
    assert one.end() == (130 if keys else 0)
    assert b"precious" not in one.text
    assert one.waiting == b""
    assert termios.tcgetattr(one.program) == one.before
    one.close()


def test_window_title_and_task_bar_show_the_progress(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Both are restored at the end; terminals that don't know the task bar and links get only the title and URLs."""
    files = make_files(**{"a.mp4": 300_000, "b.mp4": 300_000})
    command = ["upload", files, "-s", server.url, "--limit-rate", "500K"]
    for more in ({"WT_SESSION": "1"}, {}):
        one = Screen(*command, home=tmp_path, env=more)
        assert one.end() == 0
        assert re.search(rb"\x1b\[22;2t\x1b\]2;\d+ % files/ \xe2\x80\x93 uploader\x1b", one.text)
        assert b"\x1b[23;2t" in one.text
        bar = re.findall(rb"\x1b\]9;4;(\d(?:;\d+)?)\x1b", one.text)
        assert bool(bar) == bool(more)
        assert not bar or (bar[0].startswith(b"1;") and bar[-1] == b"0")
        url = f"{server.url}/uploads/personal/files/a.mp4".encode()
        assert (b"\x1b]8;;" + url + b"\x1b\\" + bytes(files)[:9] in one.text) is bool(more)
        assert (b"\n    " + url in one.text) is not bool(more)
        one.close()


def test_bash_restores_echo_after_kill_9(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The killed command can't restore them: docs/reliability.md describes what the shells do."""
    files = make_files(**{"a.mp4": 1_000_000})
    arguments = ["upload", str(files), "-s", server.url, "--limit-rate", "100K"]
    one = Screen(home=tmp_path, program=["bash", "--norc", "--noprofile", "-i"])
    one.type(shlex.join([sys.executable, "-m", "uploader_cli", *arguments]).encode() + b"\n")
    one.read(lambda: b"KiB/s" in one.text)
    assert not termios.tcgetattr(one.program)[3] & termios.ECHO
    (client,) = Path(f"/proc/{one.process.pid}/task/{one.process.pid}/children").read_text().split()
    os.kill(int(client), signal.SIGKILL)
    one.read(lambda: b"Killed" in one.text)
    one.type(b"stty -a\n")
    one.read(lambda: b" echoe " in one.text)
    assert b" echo " in one.text
    one.type(b"exit\n")
    one.end()
    one.close()


def test_terminal_settings_of_a_background_job_are_unchanged(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """A command in the background must not change it: the system would stop the command."""
    files = make_files(**{"a.mp4": 200_000})
    screen, program = pty.openpty()
    script = 'set -m; "$0" -m uploader_cli "$@" & wait $!; echo "ended $?"'
    line = ["bash", "-c", script, sys.executable, "upload", files, "-s", server.url, "--progress", "live"]
    process = subprocess.Popen(
        [*map(str, line)],
        stdin=program,
        stdout=program,
        stderr=program,
        cwd=tmp_path,
        env=environment(tmp_path, TERM="xterm"),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    text = b""
    deadline = time.monotonic() + PATIENCE
    while b"ended" not in text and time.monotonic() < deadline:
        if select.select([screen], [], [], 0.02)[0]:
            text += os.read(screen, 65536)
    process.kill()
    process.wait()
    assert b"ended 0" in text
    os.close(screen)
    os.close(program)
