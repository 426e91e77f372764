"""The bytes of selected files: those of paths, of file objects and of standard input, and their SHA-256.

A file that changes while it is read never arrives whole. A `FileObject` can be read again at any position, as a file.
A `Stream` is read once: only the chunk being sent is in memory, so that it can be resent.
"""

from __future__ import annotations

import hashlib
import io
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import IO, BinaryIO, NoReturn, cast

from uploader_cli.core.codes import FailureCode
from uploader_cli.core.plan import LocalFile, is_url
from uploader_cli.errors import FileError, UsageError
from uploader_cli.sources import checksums
from uploader_cli.sources.checksums import CACHE_BLOCK
from uploader_cli.sources.unchanged import OnDoubt, check_unchanged, failure, ignore_doubt, open_unchanged, unreadable

OnRead = Callable[[LocalFile, int, bytes | memoryview], None]
"""Gets the bytes of a file that were read from a position on."""

PIECE = 1 << 20  # most bytes of one read
TICK = 0.1  # seconds between two checks for a stop
PART_AFTER = 5.0  # seconds after which a part of a chunk is sent, where the source is slow
MOST_EARLIER = 1024  # earlier states of a digest that are kept: those of the last 256 MiB or more
MOST_DESCRIPTORS = 1024  # `select` takes smaller numbers only


def ignore_read(_file: LocalFile, _position: int, _data: bytes | memoryview) -> None:
    """Do nothing with bytes that were read."""


def is_local(file: LocalFile) -> bool:
    """Return whether the file is on this machine: to read its bytes again costs a copy from the page cache."""
    return file.content is None and not is_url(file.path)


def read_at(file: LocalFile, source: IO[bytes], position: int, piece: memoryview) -> None:
    """Fill `piece` with the file's bytes from `position` on."""
    try:
        source.seek(position)
        while piece:
            count: int = source.readinto(piece)  # type: ignore[attr-defined]  # an unbuffered file has it
            if not count:
                raise failure(file, "it became shorter while it was being read")
            piece = piece[count:]
    except (OSError, ValueError) as error:  # ValueError: a file object that was closed
        raise unreadable(file, error) from error


def read_range(
    file: LocalFile,
    start: int,
    length: int,
    checkpoint: Callable[[], None],
    source: IO[bytes] | None = None,
    on_doubt: OnDoubt = ignore_doubt,
) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a byte range with their positions, read from `source` if it is open.

    `checkpoint` raises to stop; `on_doubt` is called at the end of the range.
    """
    with open_unchanged(file, start + length) if source is None else nullcontext(source) as opened:
        for position in range(start, start + length, CACHE_BLOCK):
            checkpoint()
            yield position, read_block(file, opened, position, min(CACHE_BLOCK, start + length - position))
        check_unchanged(file, opened, on_doubt)


def read_block(file: LocalFile, source: IO[bytes], position: int, length: int) -> bytes:
    """Return bytes of the file; those of one read are not copied."""
    try:
        source.seek(position)
        block = source.read(length)
        while len(block) < length:
            more = source.read(length - len(block))
            if not more:
                raise failure(file, "it became shorter while it was being read")
            block += more
    except (OSError, ValueError) as error:  # ValueError: a file object that was closed
        raise unreadable(file, error) from error
    return block


def hash_range(
    file: LocalFile,
    start: int,
    length: int,
    algorithm: str,
    checkpoint: Callable[[], None],
    *,
    into: memoryview | None = None,
    source: IO[bytes] | None = None,
    on_read: OnRead = ignore_read,
    on_doubt: OnDoubt = ignore_doubt,
) -> tuple[bytes, float]:
    """Return the digest of what `read_range` reads, also `into` memory, and the seconds that hashing took."""
    checksum, hashing = checksums.new(algorithm), 0.0
    for position, block in read_range(file, start, length, checkpoint, source, on_doubt):
        began = time.perf_counter()
        checksum.update(block)
        on_read(file, position, block)
        if into is not None:
            into[position - start :][: len(block)] = block
        hashing += time.perf_counter() - began
    return checksum.digest(), hashing


def read_whole(file: LocalFile, data: memoryview, checkpoint: Callable[[], None], on_doubt: OnDoubt) -> str:
    """Read a small file into memory of its size and return its hex SHA-256."""
    sha256 = hashlib.sha256(usedforsecurity=False)
    with open_unchanged(file, file.size) as source:
        for start in range(0, file.size, CACHE_BLOCK):
            checkpoint()
            block = data[start : start + CACHE_BLOCK]
            read_at(file, source, start, block)
            sha256.update(block)
        check_unchanged(file, source, on_doubt)
    return sha256.hexdigest()


def sha256_of(
    file: LocalFile,
    checkpoint: Callable[[], None],
    *,
    source: IO[bytes] | None = None,
    on_read: OnRead = ignore_read,
) -> str:
    """Return the hex SHA-256 of a file, which is read for it, from `source` if it is open."""
    digest, _ = hash_range(file, 0, file.size, "sha256", checkpoint, source=source, on_read=on_read)
    return digest.hex()


class Digests:
    """The SHA-256 of files, from the bytes that are read to send them. Thread-safe."""

    def __init__(self, checkpoint: Callable[[], None], wanted: Callable[[LocalFile], bool] | None = None) -> None:
        """`checkpoint` raises to stop a long read. Only files that are `wanted` are hashed while they are sent."""
        self._checkpoint, self._wanted = checkpoint, wanted
        self._prefixes: dict[int, _Prefix] = {}

    def read(self, file: LocalFile, start: int, data: bytes | memoryview) -> None:
        """Add bytes that were read to send them; those after a gap are read again by `complete`.

        Bytes that were read before are sent once more: they replace those from there on, which may have been others.
        """
        if self._wanted is not None and not self._wanted(file):
            return
        prefix = self._prefix(file)
        if start < prefix.length and not file.once:  # what is read once is kept, and is the same
            prefix.go_back(start)
            self.reach(file, start)
        prefix.add(start, data)

    def reach(self, file: LocalFile, end: int) -> None:
        """Add the bytes before `end` that were not read yet: an earlier run has sent them. Raise `FileError`."""
        prefix = self._prefix(file)
        if prefix.length < end:
            prefix.is_sent = False
            for start, data in read_range(file, prefix.length, end - prefix.length, self._checkpoint):
                prefix.add(start, data)

    def known(self, file: LocalFile) -> str | None:
        """Return the hex digest; None unless all bytes were read."""
        prefix = self._prefix(file)
        return prefix.sha256.hexdigest() if prefix.length == file.size else None

    def sent(self, file: LocalFile) -> str | None:
        """Return the hex digest of the bytes that this run has sent; None unless these are all."""
        return self.known(file) if self._prefix(file).is_sent else None

    def complete(self, file: LocalFile) -> str:
        """Return the hex digest; what was not read in order, as the parts of a large file, is read now."""
        self.reach(file, file.size)
        return self._prefix(file).sha256.hexdigest()

    def forget(self, file: LocalFile) -> None:
        """Drop what is known of a file that has ended."""
        self._prefixes.pop(file.file, None)

    def _prefix(self, file: LocalFile) -> _Prefix:
        return self._prefixes.setdefault(file.file, _Prefix())


class _Prefix:
    """The digest of the first `length` bytes of a file; `is_sent`: as they were read to be sent."""

    def __init__(self) -> None:
        self.is_sent = True
        self.sha256, self.length = hashlib.sha256(usedforsecurity=False), 0
        self._earlier: deque[tuple[int, hashlib._Hash]] = deque(maxlen=MOST_EARLIER)
        self._lock = threading.Lock()

    def go_back(self, position: int) -> None:
        """Forget the bytes from `position` on, and those before it that were added together with it."""
        with self._lock:
            while self.length > position and self._earlier:
                self.length, self.sha256 = self._earlier.pop()
            if self.length > position:
                self.sha256, self.length = hashlib.sha256(usedforsecurity=False), 0

    def add(self, start: int, data: bytes | memoryview) -> None:
        """Extend the digest by the bytes of `data` that continue it."""
        with self._lock:
            if start <= self.length < start + len(data):
                self._earlier.append((self.length, self.sha256.copy()))
                self.sha256.update(data[self.length - start :])
                self.length = start + len(data)


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
    """A file object that can seek, from its position to its end."""

    once = False

    def __init__(self, source: BinaryIO, name: str) -> None:
        self.source, self.name, self.lock = source, name, threading.Lock()  # the lock of all readers
        self.start = source.tell()
        self.length: int | None = source.seek(0, os.SEEK_END) - self.start

    def open(self) -> IO[bytes]:
        """Return a reader with a position of its own."""
        return cast("IO[bytes]", _Reader(self))


class _Reader(io.RawIOBase):
    def __init__(self, content: FileObject) -> None:
        self._content, self._position = content, 0

    def seek(self, offset: int, _whence: int = os.SEEK_SET) -> int:
        self._position = offset
        return offset

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._content
        with content.lock:
            content.source.seek(content.start + self._position)
            data = _bytes(content.source.read(len(buffer)), content.name)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class Stream:
    """A source that is read once, by one thread at a time. `start` is the first byte that is still in memory."""

    once = True

    def __init__(self, source: BinaryIO, name: str, descriptor: int | None) -> None:
        self.length: int | None = None
        self.start = 0
        self._source, self._name = source, name
        self.window = memoryview(b"")
        raw = isinstance(source, io.FileIO)
        buffered = isinstance(source, io.BufferedReader) and isinstance(source.raw, io.FileIO)
        usable = descriptor is not None and descriptor < MOST_DESCRIPTORS
        self._descriptor = descriptor if usable and (raw or buffered) else None
        self._may_be_buffered = buffered  # by earlier reads, which `select` does not know of
        self._read = getattr(source, "read1", source.read)  # `read` waits until it has all

    def open(self) -> IO[bytes]:
        """Raise `FileError`: there is no second reader."""
        self._fail("it can't be read again")

    def chunk(self, offset: int, size: int, checkpoint: Callable[[], None], patience: float = PART_AFTER) -> memoryview:
        """Return up to `size` bytes from `offset` on; earlier bytes are dropped. Set `length` at the end.

        Wait for the first byte, then at most `patience` seconds for the others. `checkpoint` raises to stop. Raise
        `FileError` for bytes that were dropped, and for a source that can't be read.
        """
        if not self.start <= offset <= self.start + len(self.window):
            self._fail(f"the server needs its bytes from {offset} on, which can't be read again")
        window = self.window[offset - self.start :]
        if self.length is None and len(window) <= size:
            try:
                # One more byte tells whether the chunk is the last one.
                window = self._fill(offset, window, size + 1, checkpoint, patience)
            except (OSError, ValueError) as error:
                self._fail(f"it can't be read: {getattr(error, 'strerror', None) or error}")
        self.start, self.window = offset, window
        return window[:size]

    def _fill(
        self, offset: int, kept: memoryview, size: int, checkpoint: Callable[[], None], patience: float
    ) -> memoryview:
        """Return `kept`, which begins at `offset`, and what follows: `size` bytes or fewer."""
        buffer, filled = memoryview(bytearray(size)), len(kept)
        buffer[:filled] = kept
        began = time.monotonic()
        while filled < size and (not filled or time.monotonic() - began < patience):
            checkpoint()
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
        raise FileError(why, path=self._name, code=FailureCode.UNREADABLE)


def _descriptor(source: BinaryIO) -> int | None:
    try:
        return source.fileno()
    except (AttributeError, OSError):  # io.UnsupportedOperation is an OSError
        return None


def _bytes(data: object, name: str) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise FileError(f"its read() returned {type(data).__name__}", path=name, code=FailureCode.UNREADABLE)
    return bytes(data)
