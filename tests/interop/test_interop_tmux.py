"""The live view in tmux, which wraps the lines of a screen that becomes narrower."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from command import environment
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.debian]


class Tmux:
    """A shell in a window of a private tmux server."""

    def __init__(self, home: Path) -> None:
        self._socket, self._env = str(home / "tmux"), environment(home, TERM="xterm-256color", PS1="$ ")
        self("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "bash --norc --noprofile")

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


def test_resized_terminal_keeps_no_rows_of_earlier_frames(server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "trip").mkdir()
    for number in range(9):
        (tmp_path / "trip" / f"clip-{number}.mp4").write_bytes(bytes(2_000_000))
    command = [
        sys.executable,
        "-m",
        "uploader_cli",
        "upload",
        tmp_path / "trip",
        "-s",
        server.url,
        "--limit-rate",
        "1M",
    ]
    tmux = Tmux(tmp_path)
    try:
        tmux.type(shlex.join(map(str, command)), "Enter")
        tmux.wait_for(lambda text: "clip-3.mp4" in text and "? keys" in text)
        for columns, lines in ((50, 24), (40, 10), (100, 30), (60, 24), (80, 24)):
            tmux("resize-window", "-x", str(columns), "-y", str(lines))
            text = tmux.wait_for(
                lambda text, width=columns: any(  # type: ignore[misc]
                    len(line) == width and "●" in line for line in text.splitlines()
                )
            )
            assert [text.count(part) for part in ("→", " of 9", "? keys")] == [1, 1, 1]
        tmux.type("q")
        text = tmux.wait_for(lambda text: "to resume" in text)
        assert "━" not in text
        assert "? keys" not in text
    finally:
        tmux("kill-server")
