"""Whole files that are read: their digests, comparisons and copies. Threads do it; a stop of the server ends them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from uploader_server.storage.database import Database

BLOCK = 1 << 20
"""Bytes that are read at once."""
PRUNED_AT_ONCE = 1000
"""Digests whose files are looked for in one go."""


class StoredFile(NamedTuple):
    """A stored file as it is now: by a digest that was made of an earlier one it is not known."""

    path: str
    """Below the root."""
    size: int
    changed: int
    """Time of change (nanoseconds)."""


class Reading:
    """Reads whole files until `stop`; every call may raise OSError, after a stop as well."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End what is being read, within a block."""
        self._stopped.set()

    def blocks(self, path: Path) -> Iterator[memoryview]:
        """The bytes of a file; each block is valid until the next one is asked for."""
        buffer = memoryview(bytearray(BLOCK))
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                if self._stopped.is_set():
                    raise OSError(errno.ECANCELED, "The server stops")
                yield buffer[:count]

    def sha256(self, path: Path) -> bytes:
        """The SHA-256 of a file."""
        digest = hashlib.sha256()
        for block in self.blocks(path):
            digest.update(block)
        return digest.digest()

    def equal(self, one: Path, other: Path) -> bool:
        """Whether two files of one length have the same bytes."""
        with other.open("rb") as file:
            return all(file.read(len(block)) == block for block in self.blocks(one))

    def join(self, parts: Iterable[Path], target: Path) -> None:
        """Write the bytes of all parts, one after the other, into a new file; there is none where that fails."""
        try:
            with target.open("wb", buffering=0) as file:
                for part in parts:
                    for block in self.blocks(part):
                        while block:
                            block = block[file.write(block) :]
        except BaseException:
            target.unlink(missing_ok=True)
            raise


class Digests:
    """The SHA-256 of stored files: those that are known, and others on request.

    They are remembered with the size and the time of change of the file that they were made of.
    """

    def __init__(self, root: Path, database: Database, reading: Reading) -> None:
        self.patience = 10.0
        """Seconds that somebody waits for a digest."""
        self._root = root
        self._database = database
        self._reading = reading
        self._running: dict[StoredFile, asyncio.Task[bytes]] = {}
        self._turn = asyncio.Semaphore(1)
        """One file is read at a time: other work needs the threads, and the disk."""

    def saved(self, files: Sequence[tuple[Path, bytes]]) -> Callable[[sqlite3.Connection], object]:
        """Remember the SHA-256 of stored files: a change for `Store.save`."""

        def change(db: sqlite3.Connection) -> None:
            for path, sha256 in files:
                with contextlib.suppress(FileNotFoundError):  # somebody has deleted it meanwhile
                    db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", (*self._now(path), sha256))

        return change

    async def known(self, files: Iterable[StoredFile]) -> dict[StoredFile, bytes]:
        """The digest of each of these files that is known, read at once; none is computed."""
        query = "SELECT * FROM digests WHERE path IN (SELECT value FROM json_each(?))"
        paths = json.dumps([file.path for file in files])
        rows = await self._database.read(lambda db: db.execute(query, (paths,)).fetchall())
        return {StoredFile(row["path"], row["size"], row["modified"]): bytes(row["sha256"]) for row in rows}

    async def find(self, path: Path) -> bytes | None:
        """The digest of a file as it is now, if it is known. Raises OSError, sqlite3.Error."""
        now = self._now(path)
        return (await self.known([now])).get(now)

    async def compute(self, path: Path) -> bytes | None:
        """The digest of a file; None where that takes longer than `patience`: it goes on, to be asked for again.

        Raises OSError, sqlite3.Error.
        """
        known = await self.find(path)
        if known is not None:
            return known
        now = self._now(path)
        task = self._running.get(now)
        if task is None:
            task = self._running[now] = asyncio.create_task(self._compute(path, now))
        done, _ = await asyncio.wait({task}, timeout=self.patience)
        return task.result() if done else None

    async def prune(self, after: str) -> str:
        """Forget the digests of files that are gone: of PRUNED_AT_ONCE paths after this one; the last one of them.

        Empty where these were the last ones of all. Raises sqlite3.Error.
        """
        query = "SELECT path FROM digests WHERE path > ? ORDER BY path LIMIT ?"
        rows = await self._database.read(lambda db: db.execute(query, (after, PRUNED_AT_ONCE)).fetchall())
        paths = [str(row["path"]) for row in rows]
        gone = await asyncio.to_thread(
            lambda: [(path,) for path in paths if not os.path.exists(f"{self._root}/{path}")]
        )
        if gone:
            await self._database.transaction(lambda db: db.executemany("DELETE FROM digests WHERE path = ?", gone))
        return paths[-1] if len(paths) == PRUNED_AT_ONCE else ""

    async def _compute(self, path: Path, now: StoredFile) -> bytes:
        try:
            async with self._turn:
                sha256 = await asyncio.to_thread(self._reading.sha256, path)
            row = (*now, sha256)
            await self._database.transaction(
                lambda db: db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)", row)
            )
            return sha256
        finally:
            del self._running[now]

    def _now(self, path: Path) -> StoredFile:
        stat = path.stat()
        return StoredFile(path.relative_to(self._root).as_posix(), stat.st_size, stat.st_mtime_ns)
