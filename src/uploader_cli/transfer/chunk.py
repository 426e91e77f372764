"""A chunk of a file as a request's body, straight from disk, and its checksum, computed ahead."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING

from uploader_cli.core.events import FailureCode
from uploader_cli.errors import FileError
from uploader_cli.transfer.limiter import unlimited
from uploader_cli.transfer.multipart import REPORT_EVERY, check_unchanged, open_unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uploader_cli.core.plan import LocalFile

PIECE = 1 << 20
"""Bytes read from disk at a time, into one buffer."""


class ChunkBody:
    """Bytes `start` to `start + length` of a file (`wire.Body`); `length` is at least 1: an empty one has no body.

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
        throttle: Callable[[int], int] = unlimited,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source` is `file`, open unbuffered; `on_sent(total)` hears of the chunk's bytes as the kernel takes them.

        `throttle` is a `Limiter` or the like: asked before each piece, it waits and says how many bytes may go.
        """
        self.check = check
        self.started = False
        self._file, self._source, self._start, self._length = file, source, start, length
        self._on_sent, self._throttle, self._clock = on_sent, throttle, clock
        self._buffer = bytearray(min(PIECE, length))
        self._read = self._taken = self._told = 0
        self._reported = clock()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        while piece := self.read(PIECE):
            yield piece

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= self._length

    def read(self, amount: int) -> memoryview:
        """Up to `amount` bytes, valid until the next call; empty at the end. Raises `FileError`."""
        self.started = True
        self.check()
        amount = self._throttle(min(amount, len(self._buffer), self._length - self._read))
        piece = memoryview(self._buffer)[:amount]
        if piece:
            read_at(self._file, self._source, self._start + self._read, piece)
            self._read += amount
            if self._read == self._length:
                check_unchanged(self._file, self._source)
        return piece

    def taken(self, count: int) -> None:
        """The kernel took `count` more bytes."""
        self._taken += count
        now = self._clock()
        if self._taken > self._told and (self.through or now - self._reported >= REPORT_EVERY):
            self._reported, self._told = now, self._taken
            self._on_sent(self._taken)

    def rewind(self) -> None:
        """Start over: a redirect wants the body again. What was told as sent stays told."""
        self._read = self._taken = 0
        self.started = False


class Digests:
    """Checksums of a file's chunks. The next one is computed in a thread of its own while the one before it travels."""

    def __init__(self, file: LocalFile, algorithm: str, check: Callable[[], None]) -> None:
        """No thread is started before `prepare`. `check` raises to stop."""
        self._file, self._algorithm, self._check = file, algorithm, check
        self._helper: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, int, Future[bytes]] | None = None
        self._closed = False

    def of(self, start: int, length: int) -> bytes:
        """The digest of a chunk, the prepared one where it is that. Raises `FileError`."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:2] == (start, length):
            return ahead[2].result()
        if ahead is not None:
            ahead[2].cancel()
        return hash_range(self._file, start, length, self._algorithm, check=self._check)

    def prepare(self, start: int, length: int) -> None:
        """Begin with a chunk that will be asked for."""
        if length <= 0:
            return
        if self._helper is None:
            self._helper = ThreadPoolExecutor(1, thread_name_prefix="checksum")
        future = self._helper.submit(
            hash_range, self._file, start, length, self._algorithm, check=self._check_or_closed
        )
        self._ahead = (start, length, future)

    def close(self) -> None:
        """End the thread: it looks up after each piece."""
        self._closed = True
        if self._helper is not None:
            self._helper.shutdown(wait=True, cancel_futures=True)

    def _check_or_closed(self) -> None:
        self._check()
        if self._closed:
            raise _Closed


class _Closed(Exception):
    """Nobody waits for the digest any more."""


def hash_range(
    file: LocalFile, start: int, length: int, algorithm: str, *, check: Callable[[], None] = lambda: None
) -> bytes:
    """The digest of a byte range, read in pieces. Raises `FileError`, and what `check` raises between two pieces."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    buffer = memoryview(bytearray(min(PIECE, length)))
    with open_unchanged(file) as source:
        done = 0
        while done < length:
            check()
            piece = buffer[: length - done]
            read_at(file, source, start + done, piece)
            digest.update(piece)
            done += len(piece)
        check_unchanged(file, source)
    return digest.digest()


def read_at(file: LocalFile, source: IO[bytes], position: int, piece: memoryview) -> None:
    """Fill `piece` with the file's bytes from `position` on. Raises `FileError`, also where the file ends before."""
    try:
        source.seek(position)
        while piece:
            count: int = source.readinto(piece)  # type: ignore[attr-defined]  # an unbuffered file has it
            if not count:
                raise FileError(
                    f"{file.path} became shorter while it was being read",
                    path=file.path,
                    code=FailureCode.CHANGED,
                    hint="upload it again when nothing writes to it any more",
                )
            piece = piece[count:]
    except OSError as error:
        raise FileError(
            f"{file.path} can't be read: {error.strerror}", path=file.path, code=FailureCode.UNREADABLE
        ) from error
