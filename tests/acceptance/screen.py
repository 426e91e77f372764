"""A pseudo-terminal that records the time of each frame of the live view."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import threading
import time
from itertools import pairwise
from typing import Self

FRAME = b"\x1b[?2026h"
"""What the live view writes before each frame."""
ROWS, COLUMNS = 24, 80
KEPT = 1 << 16
"""Bytes of the end that are kept: what stands there after the last frame."""


class Screen:
    """A pseudo-terminal. `theirs` is its descriptor for the drawing process, to be used as stderr."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.frames: list[float] = []
        """When each began to come, in seconds of the monotonic clock."""
        self._end = b""
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.theirs)  # the last one that has it open: reading ends
        self._reader.join()
        os.close(self._ours)

    @property
    def last(self) -> str:
        """The output after the last frame, as far as it was kept."""
        return self._end.rpartition(FRAME)[2].decode(errors="replace")

    def gaps(self) -> list[float]:
        """Return the seconds between frames in ascending order."""
        return sorted(after - before for before, after in pairwise(self.frames))

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._ours, KEPT)
            except OSError:  # no process has it open any more
                return
            now, joined = time.monotonic(), self._end[1 - len(FRAME) :] + piece
            self.frames += [now] * joined.count(FRAME)
            self._end = (self._end + piece)[-KEPT:]
