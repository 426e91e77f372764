"""Packs: their temporary files, and their database rows with the idempotency keys.

File ids of one pack differ in the last 12 digits, in manifest order, so that the first and the last id select them all.
`packed` is NULL for files that were not sent in a pack. `session` is empty for a file that its session doesn't count: a
retryable failure, or a file counted before.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from uploader_server.batch.packbody import Manifest
from uploader_server.config import Limits
from uploader_server.session import FileRow
from uploader_server.storage.put import Incoming
from uploader_server.storage.reading import StoredFile
from uploader_server.storage.store import Change, Store
from uploader_server.wire import extension

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)

PLAIN, EXISTING, RETRYABLE = 0, 1, 2  # the values of `packed`

Key = tuple[str, str]  # owner and Idempotency-Key


@dataclass(slots=True, kw_only=True)
class Packed(Incoming):
    """One file of a pack."""

    id: str
    sha256: str  # 64 lower-case hex digits
    counted: bool = False  # whether the session counts it

    @property
    def name(self) -> str:
        """The file name."""
        return self.wanted.rpartition("/")[2]


class Unpacking:
    """Writes the files of one pack to temporary files."""

    def __init__(self, store: Store, category: str, manifest: Manifest, data: bytearray) -> None:
        prefix, incoming = str(uuid.uuid4())[:24], store.incoming()
        self.files = [
            Packed(
                data=f"{incoming}-{number:012x}",
                category=category,
                wanted=entry.path,
                size=entry.size,
                may_rename=manifest.may_rename,
                id=f"{prefix}{number:012x}",
                sha256=entry.sha256,
            )
            for number, entry in enumerate(manifest.entries)
        ]
        ends = list(itertools.accumulate((file.size for file in self.files), initial=0))
        self._data = [memoryview(data)[start:end] for start, end in itertools.pairwise(ends)]

    def refuse(self, limits: Limits, ending: str | None, fails: Callable[..., bool]) -> None:
        """Fail each file that the session can't accept; `ending` is the extension of its first file."""
        for file in self.files:
            name, own = file.name, extension(file.wanted)
            if fails(name, file.wanted):
                file.fail("UPLOAD_FAILED", "Failed by the server's option --fail-file")
            elif not limits.allows(own):
                file.fail("INVALID_FILE_FORMAT", f"Files of this type are not accepted: {name}")
            elif not limits.mixed_types:
                ending = own if ending is None else ending
                if own != ending:
                    file.fail("INVALID_FILE_FORMAT", "All files of a session must have the same type")

    def write(self) -> None:
        """Verify the digest of each file that has not failed, and write it (runs in a thread)."""
        for file, data in zip(self.files, self._data, strict=True):
            if file.error:
                continue
            if hashlib.sha256(data).hexdigest() != file.sha256:
                file.fail("CHECKSUM_MISMATCH", "The bytes don't match sha256", retryable=True)
                continue
            try:
                file.changed = _write(file.data, data)
            except OSError as error:
                file.fail("UPLOAD_FAILED", error.strerror or str(error), cause=error)

    def discard(self) -> None:
        """Remove the temporary files (runs in a thread)."""
        for file in self.files:
            if file.changed or file.cause is not None:  # it was written, or a part of it
                try:  # noqa: SIM105 - `suppress` costs a tenth of the call
                    os.unlink(file.data)
                except FileNotFoundError:
                    pass


def _write(path: str | Path, data: memoryview) -> int:
    """Write a new file and return its modification time (nanoseconds)."""
    fd = os.open(path, _NEW_FILE, 0o666)
    try:
        while data:
            data = data[os.write(fd, data) :]
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


class KnownPack(NamedTuple):
    """A pack whose response is saved."""

    session: str
    manifest: bytes  # SHA-256 of its manifest
    files: list[Packed]


class PackRows:
    """Reads and writes the rows of packs. Responses are kept for `ttl` seconds."""

    def __init__(self, store: Store, ttl: float) -> None:
        self._store = store
        self._ttl = ttl

    def saved(self, key: Key, manifest: bytes, session: str, position: int, files: Sequence[Packed]) -> list[Change]:
        """Return the changes that save a pack and its files.

        `manifest` is the digest of the manifest, `position` the index of the first file in the session.
        """
        rows, digests = [], []
        for number, file in enumerate(files, position):
            sha256 = bytes.fromhex(file.sha256)
            rows.append(_row(session, number, file, sha256))
            if file.path is not None:
                digests.append((StoredFile(file.path, file.size, file.changed), sha256))
        pack = (*key, manifest, session, files[0].id, files[-1].id, self._store.clock.now())
        return [
            self._store.files_saved(rows),
            self._store.digests.saved(digests),
            lambda db: db.execute("INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?, ?)", pack),
        ]

    async def find(self, key: Key) -> KnownPack | None:
        """Return the saved pack, or None if there is none or it has expired."""
        values = (*key, self._store.clock.now() - self._ttl)

        def look(db: sqlite3.Connection) -> KnownPack | None:
            pack = db.execute("SELECT * FROM packs WHERE owner = ? AND key = ? AND touched >= ?", values).fetchone()
            if pack is None:
                return None
            rows = db.execute("SELECT * FROM files WHERE id BETWEEN ? AND ? ORDER BY id", (pack["first"], pack["last"]))
            return KnownPack(pack["session"], pack["manifest"], [_packed(row) for row in rows])

        return await self._store.database.read(look)

    async def forget_old(self) -> None:
        """Delete responses older than `ttl`. Raises sqlite3.Error."""
        before = self._store.clock.now() - self._ttl
        await self._store.save(lambda db: db.execute("DELETE FROM packs WHERE touched < ?", (before,)), frees=True)


def _row(session: str, position: int, file: Packed, sha256: bytes) -> FileRow:
    stored = file.path is not None
    return FileRow(
        file.id,
        session if file.counted else "",
        position,
        file.name,
        file.wanted,
        file.size,
        "completed" if stored else "failed",
        100 if stored else 0,
        0.0,
        file.path,
        file.message or None,
        file.error or None,
        sha256,
        RETRYABLE if file.retryable else EXISTING if file.existing else PLAIN,
    )


def _packed(row: sqlite3.Row) -> Packed:
    return Packed(
        data="",
        category="",
        wanted=row["relative_path"],
        size=row["size"],
        id=row["id"],
        sha256=row["sha256"].hex(),
        path=row["path"],
        existing=row["packed"] == EXISTING,
        error=row["error_code"] or "",
        message=row["error"] or "",
        retryable=row["packed"] == RETRYABLE,
        counted=bool(row["session"]),
    )
