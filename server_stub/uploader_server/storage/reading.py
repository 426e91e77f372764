"""Digests, comparisons and copies of whole files, in threads that a stop of the server ends."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from uploader_server.storage.categories import Categories
from uploader_server.storage.database import Database
from uploader_server.storage.turns import HASHING, Turns

logger = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes per read
SMALLEST = 4 << 10  # minimum bytes of a buffer
LATE = 60.0  # seconds for which a digest that was read anew, and came too late for its request, waits for the next one
_SAVE = "INSERT OR REPLACE INTO digests (path, size, modified, changed, inode, sha256) VALUES (?, ?, ?, ?, ?, ?)"
LARGEST_INTEGER = (1 << 63) - 1  # of SQLite; some file systems use all 64 bits of an inode


class StoredFile(NamedTuple):
    """Identity of a stored file's content: a recorded digest counts only while all fields are those of the recording.

    They are taken once no temporary name of the file is left, since to remove that changes the ctime.
    """

    path: str  # below the root
    size: int
    modified: int  # mtime in nanoseconds
    changed: int | None  # ctime in nanoseconds; None in a row of an early version, which never counts
    inode: int | None

    @classmethod
    def of(cls, path: str, status: os.stat_result) -> StoredFile:
        return cls(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & LARGEST_INTEGER)


class Reading:
    """Reads whole files. Every call may raise OSError, also after `stop`."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End running reads after their current block."""
        self._stopped.set()

    def blocks(self, source: Path | int) -> Iterator[memoryview]:
        """Yield the blocks of a file, or of a descriptor, which is closed then; each is valid until the next one."""
        with open(source, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            buffer = memoryview(bytearray(min(max(size, SMALLEST), BLOCK)))
            while count := file.readinto(buffer):
                if self._stopped.is_set():
                    raise OSError(errno.ECANCELED, "The server is stopping")
                yield buffer[:count]

    def sha256(self, fd: int) -> bytes:
        """Return the digest of a file, and close its descriptor."""
        digest = hashlib.sha256()
        for block in self.blocks(fd):
            digest.update(block)
        return digest.digest()

    def equal(self, one: Path, other: int) -> bool:
        """Return whether two files of equal length have the same bytes, and close the descriptor of the other."""
        with open(other, "rb") as file:
            # `bytes`: a memoryview compares item by item, 5 ms a MiB.
            return all(file.read(len(block)) == bytes(block) for block in self.blocks(one))

    def join(self, parts: Iterable[Path], target: Path) -> None:
        """Concatenate parts into a new file, which is removed on an error."""
        try:
            with target.open("xb", buffering=0) as file:
                for part in parts:
                    for block in self.blocks(part):
                        while block:
                            block = block[file.write(block) :]
        except BaseException:
            target.unlink(missing_ok=True)
            raise


class Digests:
    """The SHA-256 of stored files, recorded with their identity (see `StoredFile`) and computed on request.

    Every answer with the digest of a file that was stored by an earlier request gets it here.
    """

    def __init__(self, categories: Categories, database: Database, reading: Reading) -> None:
        self.patience = 10.0  # seconds after which `compute` returns what is ready
        self._categories = categories
        self._database = database
        self._reading = reading
        self.jobs: set[asyncio.Task[None]] = set()
        self._hashing: set[asyncio.Task[None] | None] = set()  # those that have their turn
        self._late: dict[tuple[str, StoredFile], tuple[float, bytes]] = {}
        """Digests that were read anew, with the time (monotonic), for the next request of the same client."""
        self._turns = Turns(HASHING)

    def saved(self, files: Sequence[tuple[StoredFile, bytes]]) -> Callable[[sqlite3.Connection], object]:
        """Return a change for `Store.save` that saves the SHA-256 of stored files."""
        return lambda db: db.executemany(_SAVE, [(*file, sha256) for file, sha256 in files])

    async def known(self, files: Iterable[StoredFile]) -> dict[StoredFile, bytes]:
        """Return the recorded digests that count."""
        query = "SELECT path, size, modified, changed, inode, sha256 FROM digests"
        query += " WHERE path IN (SELECT value FROM json_each(?))"
        paths = json.dumps([file.path for file in files])
        rows = await self._database.read(lambda db: db.execute(query, (paths,)).fetchall())
        return {StoredFile(*identity): bytes(sha256) for *identity, sha256 in rows}

    async def compute(self, files: Iterable[StoredFile], client: str, *, anew: bool = False) -> dict[StoredFile, bytes]:
        """Return the digests that are known or ready within `patience` seconds; an empty one for an unreadable file.

        With `anew` no recorded digest counts: each file is read. A file that is being read at the end of that time is
        read to its end, so that a client that asks again for the others makes progress; its digest is then recorded,
        and with `anew` kept for the next request of this client within `LATE` seconds. HASHING files are read at a
        time, one for each client (see `Turns`). Raises sqlite3.Error.
        """
        files = list(files)
        ready = self._take_late(files, client) if anew else await self.known(files)
        missing = [file for file in files if file not in ready]
        if missing:
            end = time.monotonic() + self.patience
            job = asyncio.create_task(self._compute(missing, client, end, ready, anew=anew))
            self.jobs.add(job)
            job.add_done_callback(self.jobs.discard)
            job.add_done_callback(self._hashing.discard)
            job.add_done_callback(lambda done: done.cancelled() or done.exception())  # the client may have its answer
            try:
                await asyncio.wait({job}, timeout=self.patience)
            finally:
                if job not in self._hashing:  # nobody waits for it any more: it would read nothing
                    job.cancel()
            if job.done() and not job.cancelled():
                job.result()
        return {file: ready[file] for file in files if file in ready}

    def identify(self, path: str) -> StoredFile:
        """Return the identity of a stored file. Raises OSError."""
        return StoredFile.of(path, self._categories.known_status(path))

    def _take_late(self, files: Iterable[StoredFile], client: str) -> dict[StoredFile, bytes]:
        """Return what was read anew for an earlier request of this client that did not wait for it."""
        after = time.monotonic() - LATE
        self._late = {key: late for key, late in self._late.items() if late[0] > after}
        found = {file: self._late.pop((client, file), None) for file in files}
        return {file: late[1] for file, late in found.items() if late is not None}

    async def _compute(
        self, files: list[StoredFile], client: str, end: float, ready: dict[StoredFile, bytes], *, anew: bool
    ) -> None:
        """Add the digests of files to `ready` and save them; start no file after `end` (monotonic seconds)."""
        async with self._turns.of(client):
            if time.monotonic() >= end:  # the client asks again
                return
            self._hashing.add(asyncio.current_task())
            # Those of an earlier request of this client.
            ready.update(self._take_late(files, client) if anew else await self.known(files))
            hashed = await asyncio.to_thread(self._hash, [file for file in files if file not in ready], end, ready)
            if anew and hashed and time.monotonic() >= end:
                file, sha256 = hashed[-1]
                self._late[client, file] = time.monotonic(), sha256
            await self._database.transaction(self.saved(hashed))

    def _hash(
        self, files: list[StoredFile], end: float, ready: dict[StoredFile, bytes]
    ) -> list[tuple[StoredFile, bytes]]:
        """Add digests to `ready` until `end`, at least one; return those that can be saved (runs in a thread)."""
        hashed = []
        for file in files:
            try:
                ready[file] = self._reading.sha256(self._categories.open(file.path).fd)
                if self.identify(file.path) == file:
                    hashed.append((file, ready[file]))
            except OSError as error:
                logger.warning("can't read %r: %s", file.path, error.strerror)
                ready[file] = b""
            if time.monotonic() >= end:
                break
        return hashed
