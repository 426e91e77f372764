"""Writes and hashes files while their bytes arrive: temporary files (batch) and data files (tus).

A request has at most two blocks in memory: one being filled and one being written by a thread.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uploader_server.storage.disk import Disk

BUFFERED = 512 << 10  # bytes that are buffered before a thread hashes and writes them
MOST_PIECES = 512  # buffers per system call (IOV_MAX is 1,024 on Linux and macOS)
SMALL = 64 << 10  # largest file in bytes that is written on the event loop: a thread would take longer


class Appender:
    """Writes to a file from offset `start` (bytes) and updates every digest with the bytes written.

    Written bytes survive `kill -9` of the server. With a durable `disk`, flushed bytes also survive a power loss.
    """

    def __init__(self, path: str | Path, start: int, digests: Sequence[Any], disk: Disk | None = None) -> None:
        self._start = start
        self.written = 0  # bytes written
        self.taken = 0  # bytes written or buffered
        self._flushed = 0
        self._flush_failed = False
        self._disk = disk if disk is not None and disk.durable else None
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        self._digests = digests
        self._pending: list[bytes] = []
        self._size = 0
        self._job: asyncio.Future[None] | None = None

    async def write(self, piece: bytes) -> None:
        """Buffer a piece; wait only if the previous block is being written. Raises OSError of earlier writes."""
        self._pending.append(piece)
        self._size += len(piece)
        self.taken += len(piece)
        if self._size >= BUFFERED:
            await self._wait()
            block, self._pending, self._size = self._pending, [], 0
            self._job = asyncio.get_running_loop().run_in_executor(None, self.append, block)

    @property
    def safe(self) -> int:
        """Number of bytes that may be confirmed to the client."""
        return self.written if self._disk is None else self._flushed

    async def flush(self) -> None:
        if self._disk is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._flush, self._disk)

    def _flush(self, disk: Disk) -> None:
        written = self.written
        if written == self._flushed:
            return
        if self._flush_failed:  # a retry would succeed although the system dropped the bytes
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        try:
            disk.file(self._fd)
        except OSError:
            self._flush_failed = True
            raise
        self._flushed = written

    async def close(self) -> None:
        """Write and flush the rest, and close the file. Raises OSError; `safe` is correct then, too."""
        # Shielded from cancellation: a thread may still be writing.
        await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        try:
            await self._wait()
        except BaseException:
            self._pending = []
            raise
        finally:
            if self._disk is not None or self.taken > SMALL:
                await asyncio.get_running_loop().run_in_executor(None, self._end)
            else:
                self._end()

    def _end(self) -> None:
        """Write the rest, flush, and close the file."""
        try:
            self.append(self._pending)
        finally:
            self._pending = []
            try:
                if self._disk is not None:
                    self._flush(self._disk)
            finally:
                os.close(self._fd)

    async def _wait(self) -> None:
        if self._job is not None:
            job = self._job
            await asyncio.shield(job)
            self._job = None

    def append(self, pieces: list[bytes]) -> None:
        """Write pieces with as few system calls as possible; hash what is written, even on an error."""
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
