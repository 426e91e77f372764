"""The keyboard beside the live view: what is typed is not drawn into it, and not left to the shell.

After `kill -9` the shell restores the terminal. No process of ours could: it would change it under the shell's prompt.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS = 3
"""The place of the local modes in what `tcgetattr` returns."""


class Keys:
    """The terminal behind a stream, if it is one. Ctrl-C and its like keep their meaning. Does nothing on Windows."""

    def __init__(self, stream: IO[str]) -> None:
        self._terminal: int | None = None
        self._before: list[Any] | None = None
        if sys.platform != "win32":
            with suppress(OSError, ValueError, AttributeError):  # a stream of a test has no descriptor
                self._terminal = stream.fileno() if stream.isatty() else None

    def hush(self) -> None:
        """Switch the echo off. To be repeated: a shell that had the terminal meanwhile (Ctrl-Z) has switched it on."""
        self._in_foreground(self._hush)

    def release(self) -> None:
        """Drop what was typed, and restore the terminal."""
        self._in_foreground(self._release)

    def _in_foreground(self, action: Callable[[int], None]) -> None:
        """The system stops a process in the background that changes its terminal."""
        if self._terminal is not None:
            import termios

            with suppress(OSError, termios.error):  # the terminal is gone
                if os.tcgetpgrp(self._terminal) == os.getpgrp():
                    action(self._terminal)

    def _hush(self, terminal: int) -> None:
        import termios

        modes = termios.tcgetattr(terminal)
        if modes[_FLAGS] & termios.ECHO:
            self._before = self._before or termios.tcgetattr(terminal)
            modes[_FLAGS] &= ~termios.ECHO
            termios.tcsetattr(terminal, termios.TCSANOW, modes)

    def _release(self, terminal: int) -> None:
        import termios

        before, self._before = self._before, None
        if before is not None:
            termios.tcflush(terminal, termios.TCIFLUSH)
            termios.tcsetattr(terminal, termios.TCSANOW, before)
