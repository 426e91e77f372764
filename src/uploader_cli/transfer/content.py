"""Content that is not read from a path: standard input and file objects.

A `FileObject` can be read again at any position, as a file. A `Stream` is read once: only the chunk being sent is in
memory, so that it can be sent again.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, BinaryIO, NoReturn, cast

from uploader_cli.core.codes import FailureCode
from uploader_cli.errors import FileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

PIECE = 1 << 20  # most bytes of one read
TICK = 0.1  # seconds between two checks for a stop
PATIENCE = 5.0  # seconds after which a part of a chunk is sent, where the source is slow
MOST_DESCRIPTORS = 1024  # `select` takes smaller numbers only


def content_of(source: BinaryIO, name: str) -> FileObject | Stream:
    """Return the content of a binary file object from its position on.

    Raise `UsageError` for another object, or one that can't be read.
    """
    if isinstance(source, io.TextIOBase) or not hasattr(source, "read"):
        raise UsageError(f"{name}: not a binary file object", hint='open it with mode "rb"')
    try:
        descriptor = _descriptor(source)
        mode = os.fstat(descriptor).st_mode if descriptor is not None else stat.S_IFREG
        has_end = stat.S_ISREG(mode) or stat.S_ISBLK(mode)  # a terminal or /dev/zero claims to be seekable
        if has_end and hasattr(source, "seekable") and source.seekable():
            return FileObject(source, name)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: can't be read: {error}") from error
    return Stream(source, name, descriptor)


class FileObject:
    """A file object that can seek, from its position to its end. All readers share it."""

    once = False

    def __init__(self, source: BinaryIO, name: str) -> None:
        self._source, self._name, self._lock = source, name, threading.Lock()
        self._start = source.tell()
        self.length: int | None = source.seek(0, os.SEEK_END) - self._start

    def open(self) -> IO[bytes]:
        """Return a reader with a position of its own."""
        return cast("IO[bytes]", _Reader(self))

    def read_into(self, position: int, piece: memoryview) -> int:
        """Read bytes from `position` on into `piece`; return their number."""
        with self._lock:
            self._source.seek(self._start + position)
            data = _bytes(self._source.read(len(piece)), self._name)
        piece[: len(data)] = data
        return len(data)


class _Reader(io.RawIOBase):
    def __init__(self, content: FileObject) -> None:
        self._content, self._position = content, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("only from the start")
        self._position = offset
        return offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._content.read_into(self._position, memoryview(buffer))
        self._position += count
        return count


class Stream:
    """A source that is read once, by one thread at a time. `start` is the first byte that is still in memory."""

    once = True

    def __init__(self, source: BinaryIO, name: str, descriptor: int | None) -> None:
        self.length: int | None = None
        self.start = 0
        self._source, self._name = source, name
        self._window = memoryview(b"")
        raw = isinstance(source, io.FileIO)
        buffered = isinstance(source, io.BufferedReader) and isinstance(source.raw, io.FileIO)
        usable = descriptor is not None and descriptor < MOST_DESCRIPTORS and sys.platform != "win32"
        self._descriptor = descriptor if usable and (raw or buffered) else None
        self._may_be_buffered = buffered  # by earlier reads, which `select` does not know of
        self._read = getattr(source, "read1", source.read)  # `read` waits until it has all

    def open(self) -> IO[bytes]:
        """Raise `FileError`: there is no second reader."""
        self._fail("can't be read again")

    def chunk(self, offset: int, size: int, check: Callable[[], None], patience: float = PATIENCE) -> memoryview:
        """Return up to `size` bytes from `offset` on; earlier bytes are dropped. Set `length` at the end.

        Wait for the first byte, then at most `patience` seconds for the others. `check` raises to stop. Raise
        `FileError` for bytes that were dropped, and for a source that can't be read.
        """
        if not self.start <= offset <= self.start + len(self._window):
            self._fail(f"the server needs its bytes from {offset} on, which can't be read again")
        window = self._window[offset - self.start :]
        if self.length is None and len(window) <= size:
            try:
                # One more byte tells whether the chunk is the last one.
                window = self._fill(offset, window, size + 1, check, patience)
            except (OSError, ValueError) as error:
                self._fail(f"can't be read: {getattr(error, 'strerror', None) or error}")
        self.start, self._window = offset, window
        return window[:size]

    def _fill(self, offset: int, kept: memoryview, size: int, check: Callable[[], None], patience: float) -> memoryview:
        """Return `kept`, which begins at `offset`, and what follows: `size` bytes or fewer."""
        buffer, filled = memoryview(bytearray(size)), len(kept)
        buffer[:filled] = kept
        began = time.monotonic()
        while filled < size and (not filled or time.monotonic() - began < patience):
            check()
            if not self._is_ready():
                continue
            data = self._read(min(size - filled, PIECE))
            if data is None:  # the source does not block, and has nothing yet
                time.sleep(TICK)
                continue
            data = _bytes(data, self._name)
            if not data:
                self.length = offset + filled
                break
            buffer[filled : filled + len(data)] = data
            filled += len(data)
        return buffer[:filled].toreadonly()

    def _is_ready(self) -> bool:
        """Return whether a read returns at once, as far as that is known."""
        if self._descriptor is None or self._may_be_buffered:
            self._may_be_buffered = False
            return True
        return bool(select.select([self._descriptor], [], [], TICK)[0])

    def _fail(self, why: str) -> NoReturn:
        raise FileError(f"{self._name}: {why}", path=self._name, code=FailureCode.UNREADABLE)


def _descriptor(source: BinaryIO) -> int | None:
    try:
        return source.fileno()
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return None


def _bytes(data: object, name: str) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise FileError(f"{name}: its read() returned {type(data).__name__}", path=name, code=FailureCode.UNREADABLE)
    return bytes(data)
