"""Local files as request bodies. A file that changes while it is read never arrives whole."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple, cast

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


# --- local files: all raise `FileError` (vanished, unreadable, changed) -----------------------------------------------


def open_unchanged(file: LocalFile) -> IO[bytes]:
    """Open the file, unbuffered, as it was when it was selected."""
    try:
        source = open(file.path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        check_unchanged(file, source)
    except FileError:
        source.close()
        raise
    return source


def check_unchanged(file: LocalFile, source: IO[bytes]) -> None:
    """Raise `FileError` where size or mtime are not those of the selection."""
    info = os.fstat(source.fileno())
    if (info.st_size, info.st_mtime_ns) != (file.size, file.mtime_ns):
        raise _changed(file, "changed")


def read_at(file: LocalFile, source: IO[bytes], position: int, piece: memoryview) -> None:
    """Fill `piece` with the file's bytes from `position` on."""
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
    """Return the bytes of a small file."""
    with open_unchanged(file) as source:
        try:
            data = source.read(file.size)
            while len(data) < file.size and (more := source.read(file.size - len(data))):
                data += more
        except OSError as error:
            raise _unreadable(file, error) from error
        check_unchanged(file, source)
    if len(data) != file.size:
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
    """Return the digest of a byte range, which stays in `into` where that is given. `check` raises to stop."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    buffer = memoryview(bytearray(min(PIECE, length) if into is None else 0))
    with open_unchanged(file) as source:
        for done in range(0, length, PIECE):
            check()
            piece = (buffer if into is None else into[done:])[: length - done][:PIECE]
            read_at(file, source, start + done, piece)
            digest.update(piece)
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
    if isinstance(error, FileNotFoundError):
        return FileError(f"{file.path} is gone", path=file.path, code=FailureCode.VANISHED)
    return FileError(f"{file.path} can't be read: {error.strerror}", path=file.path, code=FailureCode.UNREADABLE)


def _changed(file: LocalFile, how: str) -> FileError:
    return FileError(
        f"{file.path} {how} while it was being read",
        path=file.path,
        code=FailureCode.CHANGED,
        hint="upload it again when nothing writes to it any more",
    )


# --- bodies -----------------------------------------------------------------------------------------------------------


class _Body:
    """A body of known length that counts what is given out and what the kernel took (`http.Payload`)."""

    def __init__(
        self, length: int, check: Callable[[], None], throttle: Callable[[int], int], clock: Callable[[], float]
    ) -> None:
        """`throttle` is a `Limiter` or the like: asked before each piece, it waits and says how many bytes may go."""
        self.check = check
        self._length, self._throttle, self._clock = length, throttle, clock
        self._given = self._taken = 0

    def __len__(self) -> int:
        return self._length

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= self._length


class ChunkBody(_Body):
    """At least one byte of a file, from `start` on; of a file that has changed no chunk is ever complete."""

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
        """`source` is `file`, open and unbuffered; `data` are the chunk's bytes where they are in memory already.

        `on_sent(total)` reports bytes as the kernel takes them.
        """
        super().__init__(length, check, throttle, clock)
        self._file, self._source, self._start, self._data, self._on_sent = file, source, start, data, on_sent
        self._buffer = memoryview(bytearray(min(PIECE, length) if data is None else 0))
        self._reported, self._reported_bytes = clock(), 0

    def read(self, amount: int) -> memoryview:
        """Return up to `amount` bytes, valid until the next call; empty at the end. Raise `FileError`."""
        self.check()
        given, amount = self._given, self._throttle(min(amount, PIECE, self._length - self._given))
        if self._data is None:
            piece = self._buffer[:amount]
            read_at(self._file, self._source, self._start + given, piece)
        else:
            piece = self._data[given : given + amount]
        self._given += amount
        if piece and self._given == self._length:
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
        self._given = self._taken = 0


class MultipartBody(_Body):
    """A multipart/form-data body, as in docs/protocol.md, section 3.13."""

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

        `on_last()` is called before the last piece is given out: without it no server has the whole request. `sized`
        adds a Content-Length to each file's part, for servers known to read it.
        """
        self.boundary = f"uploader-{secrets.token_hex(12)}"
        self.content_type = f"multipart/form-data; boundary={self.boundary}"
        self._began: float | None = None
        self._ended: float | None = None
        self._on_sent, self._on_through, self._on_last = on_sent, on_through, on_last
        self._ends: deque[tuple[int, LocalFile]] = deque()
        """Files that are not yet through, by the position in the body where each ends."""
        self._parts, length = list(self._lay_out(fields, files, sized=sized)), 0
        for part, size in self._parts:
            length += size
            if not isinstance(part, bytes):
                self._ends.append((length, part))
        super().__init__(length, check, throttle, clock)
        self._reading, self._wanted, self._reported = self._read_all(), 0, 0.0
        self._buffer = bytearray(0)

    @property
    def given_out(self) -> bool:
        """True once the last piece was given out: the server may have the whole request."""
        return self._given >= self._length

    @property
    def seconds(self) -> float:
        """Seconds from the first byte to the last (or to now)."""
        if self._began is None:
            return 0.0
        return (self._clock() if self._ended is None else self._ended) - self._began

    def read(self, amount: int) -> memoryview:
        """Return up to `amount` bytes, valid until the next call; empty at the end. Raise `FileError`."""
        if self._began is None:
            self._began = self._clock()
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
        while self._ends and self._taken >= self._ends[0][0]:
            _, file = self._ends.popleft()
            self._on_sent(file, file.size)
        if self._ends and now - self._reported >= REPORT_EVERY:
            end, file = self._ends[0]
            if self._taken > end - file.size:
                self._on_sent(file, self._taken - (end - file.size))
                self._reported = now
        if self.through and self._ended is None:
            self._ended = now
            self._on_through()

    def close(self) -> None:
        """Close the file being read."""
        self._reading.close()

    def _lay_out(
        self, fields: Sequence[tuple[str, str]], files: Sequence[LocalFile], *, sized: bool
    ) -> Iterator[tuple[bytes | LocalFile, int]]:
        """Yield given bytes and files in their order, each with its length."""
        head = f"--{self.boundary}\r\nContent-Disposition: form-data; name="
        lead = "".join(f'{head}"{name}"\r\n\r\n{value}\r\n' for name, value in fields)
        for file in files:
            length = f"Content-Length: {file.size}\r\n" if sized else ""
            lead += f'{head}"files"; filename="{wire_name(file.name)}"\r\n'
            lead += f"Content-Type: {content_type(file.name)}\r\n{length}\r\n"
            yield (given := lead.encode()), len(given)
            yield file, file.size
            lead = "\r\n"
        yield (given := f"{lead}--{self.boundary}--\r\n".encode()), len(given)

    def _read_all(self) -> Generator[memoryview, None, None]:
        filled = 0
        for part, length in self._parts:
            with io.BytesIO(part) if isinstance(part, bytes) else open_unchanged(part) as source:
                done = 0
                while done < length:
                    space = memoryview(self._buffer)[filled : min(self._wanted, filled + length - done)]
                    if isinstance(part, bytes):
                        space[:] = source.read(len(space))
                    else:
                        read_at(part, source, done, space)
                    done += len(space)
                    filled += len(space)
                    if filled == self._wanted:
                        yield memoryview(self._buffer)[:filled]
                        filled = 0
                if not isinstance(part, bytes):
                    check_unchanged(part, source)
        if filled:
            yield memoryview(self._buffer)[:filled]


# --- chunks that are hashed before they are sent ----------------------------------------------------------------------


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
    data: memoryview | None


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
        self._current: HashedChunk | None = None
        self._ahead: tuple[int, int, Future[HashedChunk]] | None = None
        self._closed = False

    def of(self, start: int, length: int) -> HashedChunk:
        """Return a chunk, the prepared one where it is that; the one before it is not valid any more."""
        self._release(self._current)
        self._current = None
        ahead = self._ahead
        if ahead is not None and ahead[:2] == (start, length):
            self._ahead = None
            self._current = ahead[2].result()
        else:
            self._discard()
            self._current = self._load(start, length)
        return self._current

    def prepare(self, start: int, length: int) -> None:
        """Begin with a chunk that will be asked for."""
        self._discard()
        if length > 0 and self._helper is not None:
            self._ahead = (start, length, self._helper().submit(self._load, start, length))

    def close(self) -> None:
        """Stop what was prepared and is not needed, after the piece that is being read."""
        self._closed = True
        self._discard()
        self._release(self._current)
        self._current = None

    def _load(self, start: int, length: int) -> HashedChunk:
        buffer = self._buffers.take(length) if length <= IN_MEMORY else None
        data = memoryview(buffer)[:length] if buffer is not None else None
        try:
            return HashedChunk(
                hash_range(self._file, start, length, self._algorithm, check=self._go_on, into=data), data
            )
        except BaseException:
            self._release(HashedChunk(b"", data))
            raise

    def _go_on(self) -> None:
        self._check()
        if self._closed:
            raise CancelledError

    def _discard(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead[2].cancel():
            ahead[2].add_done_callback(lambda done: self._release(None if done.exception() else done.result()))

    def _release(self, chunk: HashedChunk | None) -> None:
        if chunk is not None and chunk.data is not None:
            self._buffers.give(cast("bytearray", chunk.data.obj))
