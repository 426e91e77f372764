"""Suppress the echo of keys while the live view is shown, and discard what was typed.

After `kill -9` the shell restores the terminal; another process would change it under the shell's prompt.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS = 3
"""Index of the local modes in the result of `tcgetattr`."""


class Keys:
    """The terminal of a stream, if it is one. Ctrl-C and similar keys still work. Does nothing on Windows."""

    def __init__(self, stream: IO[str]) -> None:
        self._terminal: int | None = None
        self._before: list[Any] | None = None
        if sys.platform != "win32":
            with suppress(OSError, ValueError, AttributeError):  # not every stream has a descriptor
                self._terminal = stream.fileno() if stream.isatty() else None

    def hush(self) -> None:
        """Switch the echo off; call it repeatedly, because a shell switches it on again (Ctrl-Z)."""
        self._in_foreground(self._hush)

    def release(self) -> None:
        """Discard the typed input and restore the terminal."""
        self._in_foreground(self._release)

    def _in_foreground(self, action: Callable[[int], None]) -> None:
        """Run `action` in the foreground only: a background process that changes its terminal is stopped."""
        if self._terminal is not None:
            import termios

            with suppress(OSError, termios.error):  # the terminal was closed
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
