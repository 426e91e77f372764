"""Request bodies: a multipart body, a chunk of a file, and chunks that are hashed ahead.

Bodies are read from disk while they are sent; only chunks with a checksum are read before, and kept in memory while
that is small. A file that changes while it is read never arrives whole.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple

from uploader_cli.core.events import FailureCode
from uploader_cli.core.protocol import wire_name
from uploader_cli.errors import FileError
from uploader_cli.transfer.pacing import unlimited

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from uploader_cli.core.plan import LocalFile

REPORT_EVERY = 0.05
"""Seconds between two reports of one file's bytes: a renderer can't show more."""
PIECE = 1 << 20
"""Bytes read from disk at a time, into one buffer."""
IN_MEMORY = 16 << 20
"""Bytes of a chunk that is kept in memory between its hash and its way; a larger one is read again."""
MEMORY = 64 << 20
"""Bytes of all such chunks of a run."""


# --- local files ------------------------------------------------------------------------------------------------------


def open_unchanged(file: LocalFile) -> IO[bytes]:
    """Open the file, unbuffered, as it was when it was selected. Raise `FileError` (vanished, unreadable, changed)."""
    try:
        source = open(file.path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except FileNotFoundError as error:
        raise FileError(f"{file.path} is gone", path=file.path, code=FailureCode.VANISHED) from error
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        check_unchanged(file, source)
    except FileError:
        source.close()
        raise
    return source


def check_unchanged(file: LocalFile, source: IO[bytes]) -> None:
    """Raise `FileError` (changed) where size or mtime are not those of the selection."""
    info = os.fstat(source.fileno())
    if (info.st_size, info.st_mtime_ns) != (file.size, file.mtime_ns):
        raise _changed(file, "changed")


def read_at(file: LocalFile, source: IO[bytes], position: int, piece: memoryview) -> None:
    """Fill `piece` with the file's bytes from `position` on. Raise `FileError`, also where the file ends earlier."""
    try:
        source.seek(position)
        while piece:
            count: int = source.readinto(piece)  # type: ignore[attr-defined]  # an unbuffered file has it
            if not count:
                raise _changed(file, "became shorter")
            piece = piece[count:]
    except OSError as error:
        raise _unreadable(file, error) from error


def read_whole(file: LocalFile) -> bytes:
    """Return the bytes of a small file. Raise `FileError`, also where it changes while it is read."""
    try:
        handle = os.open(file.path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError as error:
        raise FileError(f"{file.path} is gone", path=file.path, code=FailureCode.VANISHED) from error
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        before = os.fstat(handle)
        data = os.read(handle, file.size + 1)  # one more byte: a file that grows is noticed
        while len(data) < file.size and (more := os.read(handle, file.size + 1 - len(data))):
            data += more
        after = os.fstat(handle)
    except OSError as error:
        raise _unreadable(file, error) from error
    finally:
        os.close(handle)
    expected = (file.size, file.mtime_ns)
    if len(data) != file.size or (before.st_size, before.st_mtime_ns) != expected:
        raise _changed(file, "changed")
    if (after.st_size, after.st_mtime_ns) != expected:
        raise _changed(file, "changed")
    return data


def hash_range(
    file: LocalFile,
    start: int,
    length: int,
    algorithm: str,
    *,
    check: Callable[[], None] = lambda: None,
    into: memoryview | None = None,
) -> bytes:
    """Return the digest of a byte range, which stays in `into` where that is given.

    Raise `FileError`, and what `check` raises between two pieces.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    buffer = memoryview(bytearray(min(PIECE, length))) if into is None else into
    with open_unchanged(file) as source:
        done = 0
        while done < length:
            check()
            at = 0 if into is None else done
            piece = buffer[at : at + min(PIECE, length - done)]
            read_at(file, source, start + done, piece)
            digest.update(piece)
            done += len(piece)
        check_unchanged(file, source)
    return digest.digest()


def content_type(name: str) -> str:
    """Return the media type by extension; servers that check it know these."""
    return _content_type(os.path.splitext(name)[1].lower())


@cache
def _content_type(suffix: str) -> str:
    import mimetypes

    known = {".avi": "video/x-msvideo", ".mp4": "video/mp4", ".mkv": "video/x-matroska", ".mov": "video/quicktime"}
    guess = mimetypes.guess_type(f"name{suffix}", strict=False)[0]
    return known.get(suffix) or guess or "application/octet-stream"


def _unreadable(file: LocalFile, error: OSError) -> FileError:
    return FileError(f"{file.path} can't be read: {error.strerror}", path=file.path, code=FailureCode.UNREADABLE)


def _changed(file: LocalFile, how: str) -> FileError:
    return FileError(
        f"{file.path} {how} while it was being read",
        path=file.path,
        code=FailureCode.CHANGED,
        hint="upload it again when nothing writes to it any more",
    )


# --- a chunk ----------------------------------------------------------------------------------------------------------


class ChunkBody:
    """Bytes `start` to `start + length` of a file (`wire.Body`); `length` is at least 1.

    The last piece is given out only after a look at the file's size and mtime: of a file that changes while it is read
    no chunk is ever complete.
    """

    content_type = "application/offset+octet-stream"

    def __init__(
        self,
        file: LocalFile,
        source: IO[bytes],
        start: int,
        length: int,
        *,
        on_sent: Callable[[int], None],
        check: Callable[[], None],
        data: memoryview | None = None,
        throttle: Callable[[int], int] = unlimited,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source` is `file`, open and unbuffered; `on_sent(total)` reports the chunk's bytes as the kernel takes them.

        `data` are the chunk's bytes, where they are in memory already.

        `throttle` is a `Limiter` or the like: asked before each piece, it waits and says how many bytes may go.
        """
        self.check = check
        self._file, self._source, self._start, self._length = file, source, start, length
        self._on_sent, self._throttle, self._clock = on_sent, throttle, clock
        self._data = data
        self._buffer = memoryview(bytearray(min(PIECE, length) if data is None else 0))
        self._read = self._taken = self._reported_bytes = 0
        self._reported = clock()

    def __len__(self) -> int:
        return self._length

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= self._length

    def read(self, amount: int) -> memoryview:
        """Return up to `amount` bytes, valid until the next call; empty at the end. Raise `FileError`."""
        self.check()
        amount = self._throttle(min(amount, PIECE, self._length - self._read))
        if self._data is None:
            piece = self._buffer[:amount]
            read_at(self._file, self._source, self._start + self._read, piece)
        else:
            piece = self._data[self._read : self._read + amount]
        self._read += amount
        if piece and self._read == self._length:
            check_unchanged(self._file, self._source)
        return piece

    def taken(self, count: int) -> None:
        """Count `count` more bytes that the kernel took."""
        self._taken += count
        now = self._clock()
        if self._taken > self._reported_bytes and (self.through or now - self._reported >= REPORT_EVERY):
            self._reported, self._reported_bytes = now, self._taken
            self._on_sent(self._taken)

    def rewind(self) -> None:
        """Start over: a redirect wants the body again. What was reported as sent stays reported."""
        self._read = self._taken = 0


class Buffers:
    """Memory for chunks, shared by all workers: at most `most` bytes, used again and again."""

    def __init__(self, most: int = MEMORY) -> None:
        self._most, self._made = most, 0
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self, length: int) -> bytearray | None:
        """Return a buffer of at least `length` bytes; None where that is too much."""
        with self._lock:
            for index, buffer in enumerate(self._free):
                if len(buffer) >= length:
                    return self._free.pop(index)
            while self._free and self._made + length > self._most:
                self._made -= len(self._free.pop())
            if self._made + length > self._most:
                return None
            self._made += length
        return bytearray(length)

    def give(self, buffer: bytearray) -> None:
        """Take back a buffer that is not used any more."""
        with self._lock:
            self._free.append(buffer)


class HashedChunk(NamedTuple):
    """A chunk's digest, and its bytes where they are in memory."""

    digest: bytes
    data: memoryview | None = None


class HashedChunks:
    """Chunks of a file with their checksums. `helper` reads the next one while the chunk before it travels."""

    def __init__(
        self,
        file: LocalFile,
        algorithm: str,
        check: Callable[[], None],
        helper: Callable[[], Executor] | None,
        buffers: Buffers,
    ) -> None:
        """`helper()` is the worker's one-thread executor; None: nothing is read ahead. `check` raises to stop."""
        self._file, self._algorithm, self._check, self._helper = file, algorithm, check, helper
        self._buffers = buffers
        self._current: bytearray | None = None
        self._ahead: tuple[int, int, Future[tuple[HashedChunk, bytearray | None]]] | None = None
        self._closed = False

    def of(self, start: int, length: int) -> HashedChunk:
        """Return a chunk, the prepared one where it is that; the one before it is not valid any more.

        Raise `FileError`.
        """
        self._release(self._current)
        self._current = None
        ahead = self._ahead
        if ahead is not None and ahead[:2] == (start, length):
            self._ahead = None
            chunk, self._current = ahead[2].result()
        else:
            self._discard()
            chunk, self._current = self._load(start, length, self._check)
        return chunk

    def prepare(self, start: int, length: int) -> None:
        """Begin with a chunk that will be asked for."""
        self._discard()
        if length > 0 and self._helper is not None:
            self._ahead = (start, length, self._helper().submit(self._load, start, length, self._check_or_closed))

    def close(self) -> None:
        """Stop what was prepared and is not needed: it looks up after each piece."""
        self._closed = True
        self._discard()
        self._release(self._current)
        self._current = None

    def _load(self, start: int, length: int, check: Callable[[], None]) -> tuple[HashedChunk, bytearray | None]:
        buffer = self._buffers.take(length) if length <= IN_MEMORY else None
        data = memoryview(buffer)[:length] if buffer is not None else None
        try:
            digest = hash_range(self._file, start, length, self._algorithm, check=check, into=data)
        except BaseException:
            self._release(buffer)
            raise
        return HashedChunk(digest, data), buffer

    def _discard(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead[2].cancel():
            ahead[2].add_done_callback(lambda done: self._release(None if done.exception() else done.result()[1]))

    def _release(self, buffer: bytearray | None) -> None:
        if buffer is not None:
            self._buffers.give(buffer)

    def _check_or_closed(self) -> None:
        self._check()
        if self._closed:
            raise _Closed


class _Closed(Exception):
    """The chunk is not needed any more."""


# --- multipart --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Segment:
    """A run of bytes of the body: given ones, or those of a file."""

    length: int
    data: bytes = b""
    file: LocalFile | None = None


class MultipartBody:
    """A multipart/form-data body with a known length (docs/protocol.md, section 3.13).

    Field `files` only, text parts once each, quotes and line breaks in names percent-escaped. `sized` adds a
    Content-Length to each file's part, for servers known to read it.
    """

    def __init__(
        self,
        fields: Sequence[tuple[str, str]],
        files: Sequence[LocalFile],
        *,
        on_sent: Callable[[LocalFile, int], None],
        on_through: Callable[[], None],
        check: Callable[[], None],
        on_last: Callable[[], None] = lambda: None,
        throttle: Callable[[int], int] = unlimited,
        sized: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_sent(file, bytes)` is called as the kernel takes a file's bytes, `on_through()` after the last byte.

        `on_last()` is called before the last piece is given out: without it no server has the whole request.
        `throttle` is a `Limiter` or the like: asked before each piece, it waits and says how many bytes may go.
        """
        self.boundary = f"uploader-{secrets.token_hex(12)}"
        self.content_type = f"multipart/form-data; boundary={self.boundary}"
        self.check = check
        self.began: float | None = None
        self.ended: float | None = None
        self._on_sent, self._on_through, self._on_last = on_sent, on_through, on_last
        self._throttle, self._clock = throttle, clock
        self._segments = list(self._lay_out(fields, files, sized=sized))
        self._length = sum(segment.length for segment in self._segments)
        self._taken = self._given = self._wanted = 0
        self._reading = self._read_all()
        self._buffer = bytearray(0)
        self._marks = _Marks(self._segments)
        self._reported = 0.0

    def __len__(self) -> int:
        return self._length

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= self._length

    @property
    def given_out(self) -> bool:
        """True once the last piece was given out: the server may have the whole request."""
        return self._given >= self._length

    @property
    def seconds(self) -> float:
        """Seconds from the first byte to the last (or to now)."""
        if self.began is None:
            return 0.0
        return (self.ended if self.ended is not None else self._clock()) - self.began

    def read(self, amount: int) -> memoryview:
        """Return up to `amount` bytes, valid until the next call; empty at the end. Raise `FileError`."""
        if self.began is None:
            self.began = self._clock()
        if len(self._buffer) < amount:
            self._buffer = bytearray(amount)
        self._wanted = self._throttle(min(amount, self._length - self._given))
        piece = next(self._reading, memoryview(b""))
        self._given += len(piece)
        if piece and self._given == self._length:
            self._on_last()
        return piece

    def taken(self, count: int) -> None:
        """Count `count` more bytes that the kernel took, and report whose they are."""
        self._taken += count
        now = self._clock()
        due = now - self._reported >= REPORT_EVERY
        for file, sent, whole in self._marks.advance(self._taken, due=due):
            self._on_sent(file, sent)
            if not whole:
                self._reported = now
        if self.through and self.ended is None:
            self.ended = now
            self._on_through()

    def close(self) -> None:
        """Close the file being read."""
        self._reading.close()

    def _lay_out(
        self, fields: Sequence[tuple[str, str]], files: Sequence[LocalFile], *, sized: bool
    ) -> Iterator[_Segment]:
        for name, value in fields:
            part = f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            data = part.encode() + value.encode() + b"\r\n"
            yield _Segment(len(data), data)
        for file in files:
            length = f"Content-Length: {file.size}\r\n" if sized else ""
            head = (
                f"--{self.boundary}\r\n"
                f'Content-Disposition: form-data; name="files"; filename="{wire_name(file.name)}"\r\n'
                f"Content-Type: {content_type(file.name)}\r\n{length}\r\n"
            ).encode()
            yield _Segment(len(head), head)
            yield _Segment(file.size, file=file)
            yield _Segment(2, b"\r\n")
        tail = f"--{self.boundary}--\r\n".encode()
        yield _Segment(len(tail), tail)

    def _read_all(self) -> Generator[memoryview, None, None]:
        filled = 0
        for segment in self._segments:
            source = open_unchanged(segment.file) if segment.file is not None else None
            try:
                done = 0
                while done < segment.length:
                    space = memoryview(self._buffer)[filled : min(self._wanted, filled + segment.length - done)]
                    count = _fill(space, segment, done, source)
                    done += count
                    filled += count
                    if filled == self._wanted:
                        yield memoryview(self._buffer)[:filled]
                        filled = 0
                if segment.file is not None and source is not None:
                    check_unchanged(segment.file, source)
            finally:
                if source is not None:
                    source.close()
        if filled:
            yield memoryview(self._buffer)[:filled]


def _fill(space: memoryview, segment: _Segment, done: int, source: IO[bytes] | None) -> int:
    if source is None or segment.file is None:
        piece = segment.data[done : done + len(space)]
        space[: len(piece)] = piece
        return len(piece)
    try:
        count: int = source.readinto(space)  # type: ignore[attr-defined]  # an unbuffered file has it
    except OSError as error:
        raise _unreadable(segment.file, error) from error
    if not count:
        raise _changed(segment.file, "became shorter")
    return count


class _Marks:
    """Which file's bytes a position in the body belongs to. Positions only grow, so does the pointer."""

    def __init__(self, segments: Sequence[_Segment]) -> None:
        self._files: list[tuple[int, int, LocalFile]] = []
        position = 0
        for segment in segments:
            if segment.file is not None:
                self._files.append((position, position + segment.length, segment.file))
            position += segment.length
        self._next = 0

    def advance(self, position: int, *, due: bool) -> Iterator[tuple[LocalFile, int, bool]]:
        """Yield files whose last byte is now through, and (where a report is `due`) the one being sent."""
        while self._next < len(self._files):
            start, end, file = self._files[self._next]
            if position >= end:
                self._next += 1
                yield file, file.size, True
                continue
            if due and position > start:
                yield file, position - start, False
            return
