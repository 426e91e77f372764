"""Files that are hashed and written while their bytes arrive: temporary ones (batch) and data files (tus).

Never more than two blocks of a request are in memory: one that is being gathered and one that a thread is writing.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BLOCK = 1 << 20
SMALL = 64 << 10
"""Bytes of a file that is written at once: handing it to a thread would take longer."""


class Sink:
    """One temporary file: blocks are hashed and written in a thread, one block at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._held: list[bytes] = []
        self._size = 0
        self._job: asyncio.Future[None] | None = None

    async def write(self, piece: bytes) -> None:
        """Take a piece; waits only when the block before is still being written. Raises OSError (late)."""
        self._held.append(piece)
        self._size += len(piece)
        if self._size >= BLOCK:
            await self._pass_on()

    async def finish(self) -> bytes:
        """Write what is left and return the SHA-256 of the whole. Raises OSError."""
        if self._job is None and self._file is None and self._size <= SMALL:
            self._write(self._held, last=True)
        else:
            await self._pass_on(last=True)
            await self._wait()
        return self._digest.digest()

    async def abandon(self) -> None:
        """Close and remove the file, whatever state it is in."""
        if self._job is not None:
            await asyncio.wait({self._job})
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)

    async def _pass_on(self, *, last: bool = False) -> None:
        await self._wait()
        held, self._held, self._size = self._held, [], 0
        self._job = asyncio.get_running_loop().run_in_executor(None, functools.partial(self._write, held, last=last))

    async def _wait(self) -> None:
        if self._job is not None:
            await asyncio.shield(self._job)
            self._job = None

    def _write(self, pieces: list[bytes], *, last: bool) -> None:
        if self._file is None:
            self._file = self._path.open("xb")
        for piece in pieces:
            self._digest.update(piece)
            self._file.write(piece)
        if last:
            self._file.close()


class Appender:
    """Appends to a file from `start` on (bytes); every digest is fed with what is written.

    What is written is handed to the operating system at once, without fsync: it survives `kill -9` of the server,
    not a loss of power.
    """

    def __init__(self, path: Path, start: int, digests: Sequence[Any]) -> None:
        self.offset = start
        """How much of the file is written: start, and what was added since."""
        self.taken = start
        """The same with what is still in memory."""
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

    async def close(self) -> None:
        """Write what is left, and close the file. Raises OSError; `offset` is right in any case."""
        # Whoever is cancelled meanwhile leaves the file to a task of its own: a thread may still be writing.
        await asyncio.shield(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        try:
            await self._wait()
            if self._size > SMALL:
                await asyncio.get_running_loop().run_in_executor(None, self._append, self._held)
            else:
                self._append(self._held)
        finally:
            self._held = []
            os.close(self._fd)

    async def _wait(self) -> None:
        if self._job is not None:
            job = self._job
            await asyncio.shield(job)
            self._job = None

    def _append(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            view = memoryview(piece)
            while view:
                count = os.pwrite(self._fd, view, self.offset)
                for digest in self._digests:
                    digest.update(view[:count])
                self.offset += count
                view = view[count:]
