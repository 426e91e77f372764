"""The keys that are typed during the live view: neither echoed nor left for the shell, and read as commands.

Ctrl-C and similar keys keep their meaning. No library is used, see docs/decisions.md.
"""

from __future__ import annotations

import os
import re
import select
import signal
import termios
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import IO, Any

_LOCAL, _CONTROL = 3, 6  # indexes in the result of `tcgetattr`: local modes, control characters
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O.|[^\[O])", re.DOTALL)
"""A key with several bytes (arrows, F1, Alt and a letter)."""
_PARTIAL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
REST_OF_KEY = 1.0
"""Seconds in which the rest of a key with several bytes must follow; Esc has none."""


class Keyboard:
    """The keyboard of a stream's terminal; of another stream it does nothing.

    Keys are read where the standard input is the same terminal. After `kill -9` the shell restores the terminal's
    modes; another process would change them under the shell's prompt.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stopping = False  # true after Ctrl-Z, until `stop` is called
        self._is_input = False  # whether the standard input is the same terminal
        self._terminal: int | None = None
        self._before: list[Any] | None = None  # the terminal's modes
        self._catches_stop = False
        self._partial, self._partial_at = b"", 0.0
        with suppress(OSError, ValueError, AttributeError):  # not every stream has a descriptor
            if stream.isatty():
                self._terminal = stream.fileno()
                self._is_input = _is_standard_input(self._terminal)

    @property
    def reads(self) -> bool:
        return self._is_input and self._before is not None

    def take(self) -> bool:
        """Switch echo and line mode off. Return False in the background, where the terminal is the shell's.

        To be called repeatedly: a shell changes the modes when it stops and continues the process.
        """
        if self._terminal is None:
            return True

        with suppress(OSError, termios.error):  # it does not control this process, or was closed
            if os.tcgetpgrp(self._terminal) != os.getpgrp():
                return False  # a background process that changes its terminal is stopped
            modes, off = termios.tcgetattr(self._terminal), termios.ECHO | (termios.ICANON if self._is_input else 0)
            if self._before is None or modes[_LOCAL] & off:
                self._before = self._before or termios.tcgetattr(self._terminal)
                modes[_LOCAL] &= ~off
                if self._is_input:
                    modes[_CONTROL][termios.VMIN], modes[_CONTROL][termios.VTIME] = 1, 0
                termios.tcsetattr(self._terminal, termios.TCSANOW, modes)
                termios.tcflush(self._terminal, termios.TCIFLUSH)
            self._catch_stop()
        return True

    def give_back(self) -> None:
        """Restore the terminal and discard what was typed."""
        if self._terminal is None:
            return

        if self._catches_stop:
            self._catches_stop = False
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        before, self._before = self._before, None
        with suppress(OSError, termios.error):
            if before is not None and os.tcgetpgrp(self._terminal) == os.getpgrp():
                termios.tcflush(self._terminal, termios.TCIFLUSH)
                termios.tcsetattr(self._terminal, termios.TCSANOW, before)

    def read(self) -> str:
        """Return the key that was pressed since the last call, repeated as often; empty without one.

        Different keys at once are pasted text, and no commands.
        """
        typed = _SEQUENCE.sub(b"", self._typed()) if self.reads else b""
        return typed.decode("ascii", "ignore") if len(set(typed)) == 1 else ""

    def stop(self) -> None:
        """Stop the process as Ctrl-Z does, after `give_back`; return when it is continued."""
        self.stopping = False
        os.kill(os.getpid(), signal.SIGTSTP)

    def _typed(self) -> bytes:
        """Return the typed bytes without a key of several bytes that is not complete yet."""
        typed, now = self._partial, time.monotonic()
        with suppress(OSError):
            while select.select([0], [], [], 0)[0] and (piece := os.read(0, 4096)):
                typed, self._partial_at = typed + piece, now
        partial = _PARTIAL.search(typed) if now - self._partial_at <= REST_OF_KEY else None
        self._partial = partial[0] if partial else b""
        return typed.removesuffix(self._partial)

    def _catch_stop(self) -> None:
        """Have Ctrl-Z set `stopping`, so that the terminal can be restored before."""
        if (
            not self._catches_stop
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        ):
            self._catches_stop = True
            signal.signal(signal.SIGTSTP, self._note_stop)

    def _note_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True


def _is_standard_input(terminal: int) -> bool:
    return os.isatty(0) and os.fstat(terminal).st_rdev == os.fstat(0).st_rdev
