"""The live view in tmux, which wraps the lines of a screen that becomes narrower, and in the shells of users."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import environment
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.serving import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.debian]


class Tmux:
    """A shell in a window of a private tmux server."""

    def __init__(self, home: Path, shell: str = "bash --norc --noprofile") -> None:
        self._socket, self._env = str(home / "tmux"), environment(home, TERM="xterm-256color", PS1="$ ")
        self("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", shell)

    def __call__(self, *command: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *command], env=self._env, capture_output=True, text=True, check=True
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        self("send-keys", *keys)

    def screen(self) -> str:
        """Return the text with everything that was scrolled away."""
        return self("capture-pane", "-p", "-S", "-")

    def wait_for(self, ready: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + PATIENCE
        while not ready(text := self.screen()):
            assert time.monotonic() < deadline, text
            time.sleep(0.05)
        return text


@pytest.fixture
def command(server: EmbeddedServer, tmp_path: Path) -> str:
    """An upload that takes longer than the test."""
    (tmp_path / "trip").mkdir()
    for number in range(4):
        (tmp_path / "trip" / f"clip-{number}.mp4").write_bytes(bytes(2_000_000))
    words = [
        sys.executable,
        "-m",
        "uploader_cli",
        "upload",
        tmp_path / "trip",
        "-s",
        server.url,
        "--limit-rate",
        "100K",
    ]
    return shlex.join(map(str, words))


@pytest.mark.parametrize("before", ["\n".join(map(str, range(1, 31))), ""], ids=["full", "empty"])
def test_resized_terminal_shows_one_frame_below_what_was_there(before: str, command: str, tmp_path: Path) -> None:
    """Neither the screen nor the history has rows of another frame, also where the screen was empty."""
    tmux = Tmux(tmp_path)
    try:
        if before:
            tmux.type("seq 30", "Enter")
        tmux.type(command, "Enter")
        tmux.wait_for(lambda text: "clip-3.mp4" in text and "? keys" in text)
        for columns, lines in (
            (50, 30),
            (120, 40),
            (40, 40),
            (100, 30),
            (60, 30),
            (40, 24),
            (80, 24),
        ):  # the view has room
            time.sleep(0.5)  # tmux tells a program of two changes within 250 ms later than it makes them
            tmux("resize-window", "-x", str(columns), "-y", str(lines))
            tmux.wait_for(  # a frame may be read half drawn
                lambda text, width=columns: (  # type: ignore[misc]
                    any(len(line) == width and "●" in line for line in text.splitlines())
                    and [text.count(part) for part in ("→", " of 4", "? keys")] == [1, 1, 1]
                )
            )
        tmux.type("q")
        text = tmux.wait_for(lambda text: "to resume" in text)
        assert "━" not in text
        assert "? keys" not in text
        assert before in text
        assert re.search(r"[$#]" + re.escape(command.replace(" ", "")), "".join(text.split()))
    finally:
        tmux("kill-server")


@pytest.mark.parametrize("shell", ["bash --norc --noprofile", "zsh -f"])
def test_terminal_is_usable_after_kill_9(shell: str, command: str, tmp_path: Path) -> None:
    """Typed text is seen, there is a cursor, and the screen scrolls."""
    tmux = Tmux(tmp_path, shell)
    try:
        tmux.type("seq 30", "Enter")
        tmux.type(command, "Enter")
        tmux.wait_for(lambda text: "? keys" in text)
        shell_id = int(tmux("display-message", "-p", "#{pane_pid}"))
        (client,) = Path(f"/proc/{shell_id}/task/{shell_id}/children").read_text().split()
        os.kill(int(client), signal.SIGKILL)
        tmux.wait_for(lambda text: "illed" in text)
        tmux.type("cat", "Enter")
        tmux.type("typed text")
        text = tmux.wait_for(lambda text: "typed text" in text)
        assert "\n".join(map(str, range(1, 31))) in text
        assert tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").split() == ["0", "1"]
    finally:
        tmux("kill-server")
