"""Chunks of a file that are hashed before they are sent: one chunk ahead, and within one limit of memory.

A local file is read once more when it is sent, from the page cache: that costs less than to keep the chunk in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from typing import IO, NamedTuple, cast

from uploader_cli.core.bottleneck import Waits
from uploader_cli.core.plan import LocalFile
from uploader_cli.sources.content import OnRead, hash_range, ignore_read
from uploader_cli.sources.unchanged import OnDoubt, ignore_doubt, open_unchanged

IN_MEMORY = 16 << 20  # most bytes of a chunk kept in memory after hashing; a larger one is read again
LOCAL_IN_MEMORY = 1 << 20  # the same for a local file
LEAST_AHEAD = 64 << 10  # least bytes of a chunk of a local file that takes longer to hash than to pass to the helper
CHUNK_MEMORY = 40 << 20  # most bytes of all such chunks of a run


class Buffers:
    """At most `most` bytes of memory for chunks, shared by all workers."""

    def __init__(self, most: int = CHUNK_MEMORY) -> None:
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
    """A chunk's digest, its bytes if they are in memory, and the share of its time that took reading them."""

    digest: bytes
    data: memoryview | None
    reading: float = 0.0


class HashedChunks:
    """Chunks of a file with their checksums, computed one chunk ahead."""

    def __init__(
        self,
        file: LocalFile,
        algorithm: str,
        checkpoint: Callable[[], None],
        helper: Executor,
        buffers: Buffers,
        source: IO[bytes] | None = None,
        on_read: OnRead = ignore_read,
        on_doubt: OnDoubt = ignore_doubt,
        waits: Waits | None = None,
    ) -> None:
        """`helper` is the worker's one-thread executor. `checkpoint` raises to stop; `waits` are those of the worker.

        `source` is a local file that is open, for reads of the calling thread. Other files are opened for each chunk.
        """
        self._file, self._algorithm, self._checkpoint, self._helper = file, algorithm, checkpoint, helper
        self._source, self.helpers_source = source, cast("IO[bytes] | None", None)
        self._buffers, self._waits = buffers, waits or Waits()
        self._on_read, self._on_doubt = on_read, on_doubt
        self._current: HashedChunk | None = None
        self._ahead: tuple[int, int, Future[HashedChunk]] | None = None
        self._discarded = 0  # how often a chunk that was prepared became useless

    def of(self, start: int, length: int) -> HashedChunk:
        """Return a chunk; the previous one becomes invalid."""
        self._release(self._current)
        self._current = None
        began = time.monotonic()
        if self._ahead is not None and self._ahead[:2] == (start, length):
            (_, _, ahead), self._ahead = self._ahead, None
            self._current = ahead.result()
        else:
            self._discard()
            self._current = self._load(start, length, self._source, self._discarded)
        self._waits.reading += (time.monotonic() - began) * self._current.reading
        return self._current

    def prepare(self, start: int, length: int) -> None:
        """Compute the next chunk in the background. Raise `FileError` for a file that can't be opened."""
        self._discard()
        if length >= (LEAST_AHEAD if self._source is not None else 1):
            if self._source is not None and self.helpers_source is None:
                self.helpers_source = open_unchanged(self._file)
            loading = self._helper.submit(self._load, start, length, self.helpers_source, self._discarded)
            self._ahead = (start, length, loading)

    def prepared(self, start: int, length: int) -> int:
        """Return the length of the chunk prepared at `start`, if it is less than twice `length`; else `length`."""
        ahead = self._ahead
        return ahead[1] if ahead is not None and ahead[0] == start and ahead[1] < 2 * length else length

    def close(self) -> None:
        """Cancel what was prepared; a running read ends after its block."""
        self._discard()
        self._release(self._current)
        self._current = None
        if self.helpers_source is not None:
            self._helper.submit(self.helpers_source.close)  # after its last read: else that may use another file

    def _load(self, start: int, length: int, source: IO[bytes] | None, discarded: int) -> HashedChunk:
        def checkpoint() -> None:
            self._checkpoint()
            if self._discarded != discarded:
                raise CancelledError

        most = IN_MEMORY if source is None else LOCAL_IN_MEMORY
        buffer = self._buffers.take(length) if length <= most else None
        data = memoryview(buffer)[:length] if buffer is not None else None
        began = time.monotonic()
        try:
            digest, hashing = hash_range(
                self._file,
                start,
                length,
                self._algorithm,
                checkpoint,
                into=data,
                source=source,
                on_read=self._on_read,
                on_doubt=self._on_doubt,
            )
            took = time.monotonic() - began
            return HashedChunk(digest, data, max(0.0, 1 - hashing / took) if took > 0 else 0.0)
        except BaseException:
            self._release(HashedChunk(b"", data))
            raise

    def _discard(self) -> None:
        ahead, self._ahead, self._discarded = self._ahead, None, self._discarded + 1
        if ahead is not None and not ahead[2].cancel():
            ahead[2].add_done_callback(lambda done: self._release(None if done.exception() else done.result()))

    def _release(self, chunk: HashedChunk | None) -> None:
        if chunk is not None and chunk.data is not None:
            self._buffers.give(cast("bytearray", chunk.data.obj))
