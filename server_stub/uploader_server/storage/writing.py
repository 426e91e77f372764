"""Files that are hashed and written while their bytes arrive: temporary ones (batch) and data files (tus).

Never more than two blocks of a request are in memory: one that is being gathered and one that a thread is writing.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from uploader_server.storage.disk import Disk

BLOCK = 512 << 10
"""Bytes that are gathered before a thread hashes and writes them."""
MOST_PIECES = 512
"""Pieces of one system call (IOV_MAX is 1,024 on Linux and macOS)."""
SMALL = 64 << 10
"""Bytes of a file that is written at once: handing it to a thread would take longer."""


class Appender:
    """Writes to a file from `start` on (bytes); every digest is fed with what is written.

    What is written is handed to the operating system at once: it survives `kill -9` of the server. What `disk` is there
    for is on the disk as well once it was flushed; without it nobody is going to tell of these bytes yet.
    """

    def __init__(self, path: Path, start: int, digests: Sequence[Any], disk: Disk | None = None) -> None:
        self._start = start
        self.written = 0
        """Bytes that are written."""
        self.taken = 0
        """The same with what is still in memory."""
        self._flushed = 0
        self._flush_failed = False
        self._disk = disk if disk is not None and disk.durable else None
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        self._digests = digests
        self._held: list[bytes] = []
        self._size = 0
        self._job: asyncio.Future[None] | None = None

    async def write(self, piece: bytes) -> None:
        """Take a piece; waits only while the block before is being written. Raises OSError (late)."""
        self._held.append(piece)
        self._size += len(piece)
        self.taken += len(piece)
        if self._size >= BLOCK:
            await self._wait()
            held, self._held, self._size = self._held, [], 0
            self._job = asyncio.get_running_loop().run_in_executor(None, self._append, held)

    @property
    def safe(self) -> int:
        """How many bytes may be told of."""
        return self.written if self._disk is None else self._flushed

    async def flush(self) -> None:
        """Make all bytes safe that are written when this is called. Raises OSError."""
        if self._disk is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._flush, self._disk)

    def _flush(self, disk: Disk) -> None:
        written = self.written
        if written == self._flushed:
            return
        if self._flush_failed:  # another try would succeed: the system has dropped the bytes that it could not write
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            disk.file(self._fd)
        except OSError:
            self._flush_failed = True
            raise
        self._flushed = written

    async def close(self) -> None:
        """Write and flush what is left, and close the file. Raises OSError; `safe` is right in any case."""
        # Whoever is cancelled meanwhile leaves the file to a task of its own: a thread may still be writing.
        await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        try:
            await self._wait()
            if self.taken > SMALL:
                await asyncio.get_running_loop().run_in_executor(None, self._append, self._held)
            elif self._held:
                self._append(self._held)
        finally:
            self._held = []
            try:
                await self.flush()
            finally:
                os.close(self._fd)

    async def _wait(self) -> None:
        if self._job is not None:
            job = self._job
            await asyncio.shield(job)
            self._job = None

    def _append(self, pieces: list[bytes]) -> None:
        """Write pieces with one system call, if the system takes them; hash what is written, also where it fails."""
        views = [memoryview(piece) for piece in pieces]
        while views:
            count = os.pwritev(self._fd, views[:MOST_PIECES], self._start + self.written)
            self.written += count
            while count:
                first, rest = views[0][:count], views[0][count:]
                for digest in self._digests:
                    digest.update(first)
                count -= len(first)
                views[:1] = [rest] if rest else []
