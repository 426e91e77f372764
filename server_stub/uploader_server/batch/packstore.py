"""Packs: their temporary files, and their database rows with the idempotency keys.

File ids of one pack differ in the last 12 digits, in manifest order, so that the first and the last id select them all.
The session of a row is empty for a file that its session doesn't count: a retryable failure, or a file counted before.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from uploader_server.batch.packbody import Manifest
from uploader_server.config import Limits
from uploader_server.errors import Refusal
from uploader_server.storage.file_state import FileState
from uploader_server.storage.store import Change, Store
from uploader_server.wire import extension

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY

Key = tuple[str, str]  # owner and Idempotency-Key


class Unpacking:
    """Writes the files of one pack to temporary files."""

    def __init__(self, store: Store, manifest: Manifest, data: bytearray, owner: str) -> None:
        prefix, incoming = str(uuid.uuid4())[:24], store.incoming()
        self.files = [
            FileState(
                entry.path.rpartition("/")[2],
                entry.path,
                id=f"{prefix}{number:012x}",
                size=entry.size,
                started="",  # it is not shown
                data=f"{incoming}-{number:012x}",
                may_rename=manifest.may_rename,
                sha256=bytes.fromhex(entry.sha256),
                packed=True,
                owner=owner,
            )
            for number, entry in enumerate(manifest.entries)
        ]
        ends = list(itertools.accumulate((file.size for file in self.files), initial=0))
        self._data = [memoryview(data)[start:end] for start, end in itertools.pairwise(ends)]

    def refuse(self, limits: Limits, first: str | None) -> str | None:
        """Fail each file whose type the session refuses; `first` is the extension of its first file.

        Return that, also where this pack has the first file.
        """
        for file in self.files:
            if file.error_code is not None:
                continue
            try:
                limits.check(file.original_name, first)
            except Refusal as refusal:
                file.fail(refusal.code, refusal.message)
            else:
                first = extension(file.original_name) if first is None else first
        return first

    def write(self) -> None:
        """Verify the digest of each file that has not failed, and write it (runs in a thread)."""
        for file, data in zip(self.files, self._data, strict=True):
            if file.error_code is not None:
                continue
            if hashlib.sha256(data).digest() != file.sha256:
                file.fail("CHECKSUM_MISMATCH", "The bytes don't match sha256", retryable=True)
                continue
            try:
                _write(file.data, data)
                file.written = True
            except OSError as error:
                file.fail_by_disk(error)

    def discard(self) -> None:
        """Remove the temporary files (runs in a thread)."""
        for file in self.files:
            if file.data and (file.written or file.cause is not None):  # it was written, or a part of it
                try:  # noqa: SIM105 - `suppress` costs a tenth of the call
                    os.unlink(file.data)
                except FileNotFoundError:
                    pass


def _write(path: str | Path, data: memoryview) -> None:
    """Write a new file."""
    fd = os.open(path, _NEW_FILE, 0o666)
    try:
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


class KnownPack(NamedTuple):
    session: str
    manifest: bytes  # SHA-256 of its manifest
    files: list[FileState]


class PackRows:
    """Reads and writes the rows of packs. Responses are kept for `ttl` seconds."""

    def __init__(self, store: Store, ttl: float) -> None:
        self._store = store
        self._ttl = ttl

    def saved(self, key: Key, manifest: bytes, session: str, files: Sequence[FileState]) -> Change:
        """Return the change that saves a pack; `manifest` is the digest of the manifest."""
        pack = (*key, manifest, session, files[0].id, files[-1].id, self._store.clock.now())
        return lambda db: db.execute("INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?, ?)", pack)

    async def find(self, key: Key) -> KnownPack | None:
        """Return the saved pack, or None if there is none or it has expired."""
        values = (*key, self._store.clock.now() - self._ttl)

        def look(db: sqlite3.Connection) -> KnownPack | None:
            pack = db.execute("SELECT * FROM packs WHERE owner = ? AND key = ? AND touched >= ?", values).fetchone()
            if pack is None:
                return None
            rows = db.execute("SELECT * FROM files WHERE id BETWEEN ? AND ? ORDER BY id", (pack["first"], pack["last"]))
            return KnownPack(pack["session"], pack["manifest"], [FileState.restored(row) for row in rows])

        return await self._store.database.read(look)

    async def forget_old(self) -> None:
        """Delete responses older than `ttl`. Raises sqlite3.Error."""
        before = self._store.clock.now() - self._ttl
        await self._store.save(lambda db: db.execute("DELETE FROM packs WHERE touched < ?", (before,)), frees=True)
