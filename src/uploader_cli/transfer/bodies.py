"""Local files as request bodies. A file that changes while it is read never arrives whole."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from contextlib import nullcontext, suppress
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from uploader_cli.core.events import FailureCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import wire_name
from uploader_cli.errors import FileError
from uploader_cli.sources import is_url, open_file, status, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from uploader_cli.sources import Status

    Content = LocalFile | Iterable[bytes | bytearray]
    OnRead = Callable[[LocalFile, int, memoryview], None]
    """Gets the bytes of a file that were read from a position on."""

REPORT_EVERY = 0.05  # seconds between two reports of a file's sent bytes
PIECE = 1 << 20  # bytes read from disk at a time
IN_MEMORY = 16 << 20  # most bytes of a chunk kept in memory after hashing; a larger one is read again
MEMORY = 40 << 20  # most bytes of all such chunks of a run


def ignore_read(_file: LocalFile, _position: int, _data: memoryview) -> None:
    """Do nothing with bytes that were read."""


def open_unchanged(file: LocalFile, end: int | None = None) -> IO[bytes]:
    """Open the selected file, unbuffered, for reading up to `end`.

    Raise `FileError` (vanished, unreadable, changed), as all readers do.
    """
    if file.content is not None:
        return file.content.open()
    try:
        source = open_file(file.path, end)
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        check_unchanged(file, source)
    except FileError:
        source.close()
        raise
    return source


def check_unchanged(file: LocalFile, source: IO[bytes]) -> None:
    """Check that size and mtime are those of the selection, which a file object does not have."""
    if file.content is not None:
        return
    try:
        info = status_of(source)
    except OSError as error:
        raise _unreadable(file, error) from error
    if not _is_same(file, info):
        raise _failure(file, "changed while it was being read")


def read_at(file: LocalFile, source: IO[bytes], position: int, piece: memoryview) -> None:
    """Fill `piece` with the file's bytes from `position` on."""
    try:
        source.seek(position)
        while piece:
            count: int = source.readinto(piece)  # type: ignore[attr-defined]  # an unbuffered file has it
            if not count:
                raise _failure(file, "became shorter while it was being read")
            piece = piece[count:]
    except (OSError, ValueError) as error:  # ValueError: a file object that was closed
        raise _unreadable(file, error) from error


def read_whole(file: LocalFile) -> bytearray:
    """Return the bytes of a small file."""
    data = bytearray(file.size)
    with open_unchanged(file) as source:
        read_at(file, source, 0, memoryview(data))
        check_unchanged(file, source)
    return data


def hash_range(
    file: LocalFile,
    start: int,
    length: int,
    algorithm: str,
    *,
    check: Callable[[], None] = lambda: None,
    into: memoryview | None = None,
    on_read: OnRead = ignore_read,
) -> bytes:
    """Return the digest of a byte range, which `into` receives. `check` raises to stop."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    for position, piece in read_range(file, start, length, check=check, into=into):
        digest.update(piece)
        on_read(file, position, piece)
    return digest.digest()


def read_range(
    file: LocalFile,
    start: int,
    length: int,
    *,
    check: Callable[[], None] = lambda: None,
    into: memoryview | None = None,
) -> Iterator[tuple[int, memoryview]]:
    """Yield the pieces of a byte range with their positions, in `into` or in one buffer."""
    buffer = memoryview(bytearray(min(PIECE, length) if into is None else 0))
    with open_unchanged(file, start + length) as source:
        for done in range(0, length, PIECE):
            check()
            piece = (buffer if into is None else into[done:])[: length - done][:PIECE]
            read_at(file, source, start + done, piece)
            yield start + done, piece
        check_unchanged(file, source)


def content_type(name: str) -> str:
    """Return the media type by extension."""
    return _content_type(os.path.splitext(name)[1].lower())


@cache
def _content_type(suffix: str) -> str:
    import mimetypes

    known = {".avi": "video/x-msvideo", ".mp4": "video/mp4", ".mkv": "video/x-matroska", ".mov": "video/quicktime"}
    guess = mimetypes.guess_type(f"name{suffix}", strict=False)[0]
    return known.get(suffix) or guess or "application/octet-stream"


def _unreadable(file: LocalFile, error: OSError | ValueError) -> FileError:
    if isinstance(error, FileNotFoundError):
        return _failure(file, "is gone", FailureCode.VANISHED)
    words = getattr(error, "strerror", None) or error
    failure = _failure(file, f"can't be read: {words}", FailureCode.UNREADABLE)
    if is_url(file.path) and getattr(error, "errno", None) == errno.EIO:
        with suppress(OSError):  # some services refuse a range of an old version
            if not _is_same(file, status(file.path)):
                return _failure(file, "changed while it was being read")
        failure.retryable = True  # its server may be unreachable
    return failure


def _is_same(file: LocalFile, info: Status) -> bool:
    return (info.st_size, info.st_mtime_ns) == (file.size, file.mtime_ns)


def _failure(file: LocalFile, how: str, code: FailureCode = FailureCode.CHANGED) -> FileError:
    hint = "upload it again when nothing writes to it any more" if code is FailureCode.CHANGED else ""
    return FileError(f"{file.path} {how}", path=file.path, code=code, hint=hint)


class Piece(NamedTuple):
    """Bytes of a body: `data`, or those of `file` from `start` on, read from `source` if it is open."""

    length: int
    data: memoryview | None = None
    file: LocalFile | None = None
    start: int = 0
    source: IO[bytes] | None = None


class Body:
    """A request body of known length, which is read while it is sent."""

    def __init__(
        self,
        content_type: str,
        parts: Sequence[Piece],
        *,
        check: Callable[[], None],
        throttle: Callable[[int], int] = lambda wanted: wanted,
        on_sent: Callable[[LocalFile, int], None] = lambda _file, _sent: None,
        on_last: Callable[[], None] = lambda: None,
        on_through: Callable[[], None] = lambda: None,
        on_read: OnRead = ignore_read,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check` raises to stop; `throttle` waits and returns how many bytes may be sent.

        `on_sent(file, bytes)` is called as the kernel takes bytes, `on_last()` before the last piece is read (no server
        has the whole request before), `on_through()` after the last byte, `on_read` with what is read from a file.
        """
        self.content_type, self.check = content_type, check
        self._parts, self._throttle, self._clock = parts, throttle, clock
        self._on_sent, self._on_last, self._on_through, self._on_read = on_sent, on_last, on_through, on_read
        self._began: float | None = None
        self._ended: float | None = None
        self._unsent: deque[tuple[int, int, LocalFile]] = deque()
        """Files not sent completely, each with its end in the body and its length."""
        self._length = 0
        for part in parts:
            self._length += part.length
            if part.file is not None:
                self._unsent.append((self._length, part.length, part.file))
        self._reported_at, self._reported = clock(), 0
        self._given = self._taken = self._wanted = 0
        self._pieces = self._read_parts()

    def __len__(self) -> int:
        return self._length

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= self._length

    @property
    def given_out(self) -> bool:
        """True once the last piece was read: the server may have the whole request."""
        return self._given >= self._length

    @property
    def seconds(self) -> float:
        """Seconds from the first byte to the last, or to now."""
        if self._began is None:
            return 0.0
        return (self._clock() if self._ended is None else self._ended) - self._began

    def read(self, amount: int) -> memoryview:
        """Return up to `amount` bytes, valid until the next call; empty at the end. Raise `FileError`."""
        self.check()
        if self._began is None:
            self._began = self._clock()
        self._wanted = self._throttle(min(amount, PIECE, self._length - self._given))
        piece = next(self._pieces, memoryview(b""))
        self._given += len(piece)
        if piece and self.given_out:
            self._on_last()
        return piece

    def taken(self, count: int) -> None:
        """Count bytes that the kernel took, and report them."""
        self._taken += count
        now = self._clock()
        while self._unsent and self._taken >= self._unsent[0][0]:
            _, length, file = self._unsent.popleft()
            self._on_sent(file, length)
            self._reported = 0
        if self._unsent and now - self._reported_at >= REPORT_EVERY:
            end, length, file = self._unsent[0]
            sent = self._taken - (end - length)
            if sent > self._reported:
                self._reported_at, self._reported = now, sent
                self._on_sent(file, sent)
        if self.through and self._ended is None:
            self._ended = now
            self._on_through()

    def rewind(self) -> None:
        """Start again after a redirect. Reported bytes stay reported."""
        self._given = self._taken = 0
        self._pieces = self._read_parts()

    def close(self) -> None:
        """Close the file being read."""
        self._pieces.close()

    def _read_parts(self) -> Generator[memoryview, None, None]:
        """Yield pieces of `_wanted` bytes; a piece of one part in memory is not copied."""
        buffer, filled = memoryview(b""), 0
        for length, data, file, start, opened in self._parts:
            unread = file is not None and opened is None and data is None
            with open_unchanged(file) if file is not None and unread else nullcontext(opened) as source:
                done = 0
                while done < length:
                    size = min(self._wanted - filled, length - done)
                    if data is not None and size == self._wanted:
                        piece = data[done : done + size]
                    else:
                        buffer = buffer or memoryview(bytearray(min(PIECE, self._length)))
                        piece = buffer[: filled + size]
                        if data is not None:
                            piece[filled:] = data[done : done + size]
                        elif file is not None and source is not None:
                            read_at(file, source, start + done, piece[filled:])
                            self._on_read(file, start + done, piece[filled:])
                    done, filled = done + size, len(piece)
                    if done == length and file is not None and source is not None:
                        check_unchanged(file, source)
                    if filled == self._wanted:
                        filled = 0
                        yield piece


def multipart(items: Iterable[tuple[str, Content]]) -> tuple[str, list[Piece]]:
    """Return type and parts of a multipart/form-data body (docs/protocol.md, section 3.13).

    Each item is the rest of its header after `name=`, and a file or pieces of bytes.
    """
    boundary = f"uploader-{secrets.token_hex(12)}"
    parts, lead = list[Piece](), list[bytes | bytearray]()
    for head, content in items:
        lead.append(f"--{boundary}\r\nContent-Disposition: form-data; name={head}\r\n\r\n".encode())
        if isinstance(content, LocalFile):
            parts += [_in_memory(lead), Piece(content.size, file=content)]
            lead = [b"\r\n"]
        else:
            lead += [*content, b"\r\n"]
    return f"multipart/form-data; boundary={boundary}", [*parts, _in_memory([*lead, f"--{boundary}--\r\n".encode()])]


def _in_memory(pieces: Iterable[bytes | bytearray]) -> Piece:
    data = b"".join(pieces)
    return Piece(len(data), memoryview(data))


def upload_form(
    fields: Iterable[tuple[str, str]], files: Iterable[LocalFile], *, sized: bool = False
) -> Iterator[tuple[str, Content]]:
    """Yield the items of a batch request. `sized` adds a Content-Length to each file."""
    for name, value in fields:
        yield f'"{name}"', [value.encode()]
    for file in files:
        length = f"\r\nContent-Length: {file.size}" if sized else ""
        yield f'"files"; filename="{wire_name(file.name)}"\r\nContent-Type: {content_type(file.name)}{length}', file


class Buffers:
    """At most `most` bytes of memory for chunks, shared by all workers."""

    def __init__(self, most: int = MEMORY) -> None:
        self._most, self._made = most, 0
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self, length: int) -> bytearray | None:
        """Return a buffer of at least `length` bytes; None if that exceeds the limit."""
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
        """Take back an unused buffer."""
        with self._lock:
            self._free.append(buffer)


class HashedChunk(NamedTuple):
    """A chunk's digest, and its bytes if they are in memory."""

    digest: bytes
    data: memoryview | None


class HashedChunks:
    """Chunks of a file with their checksums, computed one chunk ahead."""

    def __init__(
        self,
        file: LocalFile,
        algorithm: str,
        check: Callable[[], None],
        helper: Callable[[], Executor],
        buffers: Buffers,
        on_read: OnRead = ignore_read,
    ) -> None:
        """`helper()` is the worker's one-thread executor. `check` raises to stop."""
        self._file, self._algorithm, self._check, self._helper = file, algorithm, check, helper
        self._buffers, self._on_read = buffers, on_read
        self._current: HashedChunk | None = None
        self._ahead: tuple[int, int, Future[HashedChunk]] | None = None
        self._closed = False

    def of(self, start: int, length: int) -> HashedChunk:
        """Return a chunk; the previous one becomes invalid."""
        self._release(self._current)
        self._current = None
        if self._ahead is not None and self._ahead[:2] == (start, length):
            (_, _, ahead), self._ahead = self._ahead, None
            self._current = ahead.result()
        else:
            self._discard()
            self._current = self._load(start, length)
        return self._current

    def prepare(self, start: int, length: int) -> None:
        """Compute the next chunk in the background."""
        self._discard()
        if length > 0:
            self._ahead = (start, length, self._helper().submit(self._load, start, length))

    def close(self) -> None:
        """Cancel what was prepared; a running read ends after its piece."""
        self._closed = True
        self._discard()
        self._release(self._current)
        self._current = None

    def _load(self, start: int, length: int) -> HashedChunk:
        def check() -> None:
            self._check()
            if self._closed:
                raise CancelledError

        buffer = self._buffers.take(length) if length <= IN_MEMORY else None
        data = memoryview(buffer)[:length] if buffer is not None else None
        try:
            digest = hash_range(
                self._file, start, length, self._algorithm, check=check, into=data, on_read=self._on_read
            )
            return HashedChunk(digest, data)
        except BaseException:
            self._release(HashedChunk(b"", data))
            raise

    def _discard(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead[2].cancel():
            ahead[2].add_done_callback(lambda done: self._release(None if done.exception() else done.result()))

    def _release(self, chunk: HashedChunk | None) -> None:
        if chunk is not None and chunk.data is not None:
            self._buffers.give(cast("bytearray", chunk.data.obj))
