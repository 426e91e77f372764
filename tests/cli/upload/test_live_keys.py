"""The live view and its terminal: keys act on the run, and are neither echoed nor left for the shell."""

from __future__ import annotations

import fcntl
import json
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
import threading
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from command import environment, start
from proxy import Onlooker, Proxy
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from command import Process
    from proxy import Request

    from uploader_server.serving import EmbeddedServer


FRAME = b"\x1b[?2026h"
SHOW_CURSOR = b"\x1b[?25h"
ERASED = b"\r\x1b[K\x1b[C\x1b[J"  # from the first row on
REST_OF_KEY = "uploader_cli.render.keyboard.REST_OF_KEY"


class Held(Onlooker):
    """Holds answers to bytes of files until `released` is set: the upload does not end before that."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def at_answer(self, request: Request) -> None:
        if request.carries:
            assert self.released.wait(PATIENCE)


class Screen:
    """A command with its live view on a terminal; `text` is its output."""

    def __init__(
        self,
        *arguments: str | Path,
        home: Path,
        program: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        stdout: IO[bytes] | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> None:
        self.screen, self.program = pty.openpty()
        fcntl.ioctl(self.program, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.program)
        self.text = b""
        variables = {"TERM": "xterm", **(env or {})}
        ends: dict[str, Any] = {
            "stdin": self.program if stdin is None else stdin,
            "stdout": stdout or self.program,
            "stderr": self.program,
        }
        self.process: Process
        if program:
            self.process = subprocess.Popen(
                program,
                **ends,
                cwd=home,
                env=environment(home, **variables),
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
            )
        else:
            self.process = start(*arguments, home=home, on_terminal=True, constants=constants, **ends, **variables)

    def read(self, until: Callable[[], bool]) -> None:
        """Read the output until the condition is met."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline, self.text
            if select.select([self.screen], [], [], 0.02)[0]:
                self.text += os.read(self.screen, 65536)

    def type(self, keys: bytes, answer: bytes = b"") -> None:
        """Type; a terminal that echoes has done so when this returns. Wait for `answer` in the output after it."""
        self._read_what_is_there()
        before = len(self.text)
        os.write(self.screen, keys)
        self.read(lambda: answer in self.text[before:])

    def wait_for_frames(self, count: int = 2) -> None:
        """Wait for frames that begin after the call."""
        self._read_what_is_there()
        before = self.text.count(FRAME)
        self.read(lambda: self.text.count(FRAME) >= before + count)

    def end(self) -> int:
        """Read to the end; the exit code."""
        self.read(lambda: self.process.poll() is not None)
        self._read_what_is_there()
        return self.process.wait()

    def _read_what_is_there(self) -> None:
        while select.select([self.screen], [], [], 0)[0]:
            self.text += os.read(self.screen, 65536)

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


@pytest.mark.parametrize("keys", [b"", b"\x03", b"TERM"])
def test_keys_are_not_drawn_and_not_left_to_the_shell(
    keys: bytes, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The terminal settings are restored, also after SIGTERM; Ctrl-C keeps its meaning. Pasted text is no command."""
    files = make_files(**{"a.mp4": 1_000_000})
    held = Held()
    with Proxy(server.url, held) as proxy:
        rate = "100K" if keys else "600K"
        one = Screen("upload", files, "-s", proxy.url, "--limit-rate", rate, home=tmp_path)
        one.read(lambda: b"KiB/s" in one.text)
        one.type(b"rm -rf precious\n" + (keys if keys == b"\x03" else b""))
        if keys == b"TERM":
            one.process.send_signal(signal.SIGTERM)
        elif not keys:
            held.released.set()
        assert one.end() == {b"": 0, b"\x03": 130, b"TERM": 143}[keys]
        held.released.set()
    assert b"precious" not in one.text
    assert one.waiting == b""
    assert termios.tcgetattr(one.program) == one.before
    assert one.text.count(SHOW_CURSOR) == one.text.count(FRAME)
    one.close()


def test_keys_change_the_view_and_the_run(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Keys of several bytes are none of ours, even where a read gets only their start.

    A shell restores the terminal settings when it continues the process.
    """
    files = make_files(**{"a.mp4": 30_000_000})
    command = ("upload", files, "-s", server.url, "-j", "4", "--limit-rate", "100K", "--cancel-on-interrupt")
    one = Screen(*command, home=tmp_path, constants={REST_OF_KEY: PATIENCE})
    one.read(lambda: b"? keys" in one.text)
    termios.tcsetattr(one.program, termios.TCSANOW, one.before)
    one.wait_for_frames()
    one.type(b"?", b"p pause  +/- jobs  f failures  q stop")
    one.type(b"+", b"5 jobs")
    one.type(b"--", b"3 jobs")
    one.type(b"f", b"no file has failed")
    one.type(b"f", b"a.mp4")
    for key in (b"\x1bOp", b"\x1bq", b"\x1b[1;5q", "\u00fc".encode()):
        one.type(key[:1])
        one.wait_for_frames(3)  # at least two reads of the keyboard
        one.type(key[1:])
        one.wait_for_frames()
    assert b"pausing" not in one.text
    one.type(b"p", b"pausing")
    one.type(b"q", b"to resume: uploader resume")
    assert one.end() == 130
    assert server.faults.count("POST", "/api/upload/cancel/*") == 1
    assert termios.tcgetattr(one.program) == one.before
    one.close()


@pytest.mark.thorough
@pytest.mark.parametrize(("deadline", "size", "code"), [("none", 1_200_000, 0), ("6", 3_000_000, 3)])
def test_paused_run_begins_no_request_and_uses_no_retry(
    deadline: str, size: int, code: int, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """`--deadline` goes on, and ends a run in its pause."""
    files = make_files(**{f"{name}.mp4": size for name in "ab"})
    options = ("--chunk-size", "100K", "--limit-rate", "600K", "-j", "1", "--no-pack", "--retries", "0", "--json")
    with (tmp_path / "events").open("w+b") as lines:
        command = ("upload", files, "-s", server.url, *options, "--deadline", deadline)
        one = Screen(*command, home=tmp_path, stdout=lines, constants={REST_OF_KEY: 0})
        one.read(lambda: b"? keys" in one.text)
        one.type(b"\x1b")  # Esc: the next key is one of its own
        one.wait_for_frames(3)
        one.type(b"p", b"pausing" if code else b", p resumes")
        if not code:
            one.type(b"p", b"KiB/s")
        assert one.end() == code
        lines.seek(0)
        events = [json.loads(line) for line in lines]
    kinds = [event["type"] for event in events]
    assert "file.retry" not in kinds
    pause = events[kinds.index("run.paused") : kinds.index("run.finished" if code else "run.resumed")]
    confirmed = [event["confirmed"] for event in pause if event["type"] == "file.progress"]
    assert "file.started" not in kinds[kinds.index("run.paused") :][: len(pause)]
    assert max(confirmed, default=0) - min(confirmed, default=0) <= 102_400
    one.close()


@pytest.mark.thorough
def test_keys_are_not_read_where_the_input_is_no_terminal(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """They are discarded, as they are where keys are read."""
    files = make_files(**{"a.mp4": 500_000})
    held = Held()
    with (tmp_path / "empty").open("w+b") as empty, Proxy(server.url, held) as proxy:
        one = Screen("upload", files, "-s", proxy.url, home=tmp_path, stdin=empty.fileno())
        one.read(lambda: FRAME in one.text)
        one.type(b"q")
        held.released.set()
        assert one.end() == 0
    assert b"? keys" not in one.text
    assert one.waiting == b""
    assert termios.tcgetattr(one.program) == one.before
    one.close()


def test_ctrl_z_gives_the_terminal_back_until_fg(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """In the background, after `bg`, nothing is drawn."""
    files = make_files(**{"a.mp4": 3_000_000})
    arguments = ["upload", str(files), "-s", server.url, "--limit-rate", "100K"]
    one = Screen(home=tmp_path, program=["bash", "--norc", "--noprofile", "-i"])
    one.type(shlex.join([sys.executable, "-m", "uploader_cli", *arguments]).encode() + b"\n", b"? keys")
    before = len(one.text)
    one.type(b"\x1a", b"Stopped")
    assert ERASED in one.text[before:].partition(b"Stopped")[0]
    one.type(b"stty -a; bg; sleep 0.5; echo not\\ drawn\n", b"not drawn\r\n")
    for mode in (b" icanon ", b" echo "):
        assert mode in one.text[before:]
    assert FRAME not in one.text[before:].partition(b"Stopped")[2]
    one.type(b"fg\n", b"? keys")
    one.type(b"q", b"to resume")
    one.type(b"exit\n")
    one.end()
    one.close()


def test_window_title_and_task_bar_show_the_progress(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Both are restored at the end; terminals that don't know the task bar and links get only the title and URLs."""
    files = make_files(**{"a.mp4": 300_000, "b.mp4": 300_000})
    command = ("upload", files, "-s", server.url, "--limit-rate", "500K")
    for more in ({"WT_SESSION": "1"}, {}):
        with subtests.test(more=more):
            one = Screen(*command, home=tmp_path, env=more)
            assert one.end() == 0
            assert re.search(rb"\x1b\[22;2t\x1b\]2;\d+ % files/ \xe2\x80\x93 uploader\x1b", one.text)
            assert b"\x1b[23;2t" in one.text
            bar = re.findall(rb"\x1b\]9;4;(\d(?:;\d+)?)\x1b", one.text)
            assert bool(bar) == bool(more)
            assert not bar or (bar[0].startswith(b"1;") and bar[-1] == b"0")
            url = f"{server.url}/uploads/personal/files/a.mp4".encode()
            shown = bytes(files)[:9].split()[0]  # a line may end at a space
            assert (b"\x1b]8;;" + url + b"\x1b\\" + shown in one.text) is bool(more)
            assert (b"\n    " + url in one.text) is not bool(more)
            one.close()


@pytest.mark.thorough
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
    assert FRAME not in text
    os.close(screen)
    os.close(program)
