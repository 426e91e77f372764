"""Persistence of tus uploads: a database row for each, and the data file of an unfinished one.

The offset is the length of the data file, so that no received byte is lost by `kill -9`. The row has the offset instead
(`counted`) for bodies with a checksum, for parts in place, which share a data file, and with `--durability fsync`. The
next start truncates the data file to it, unless the file has its name in the root: then it is complete, and it is never
cut, written or linked again (docs/reliability.md, "How the bundled server stores a file"). With `--durability none` a
data file may be shorter than confirmed after a power loss; clients ask for the offset (HEAD) and resume from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uploader_server.storage.paths import UnsafePathError
from uploader_server.storage.store import Change, Store
from uploader_server.storage.writing import Appender
from uploader_server.tus.headers import parse_place
from uploader_server.tus.upload import FINISHED, OPEN, Upload

logger = logging.getLogger(__name__)

_COLUMNS = (
    *("id", "owner", "upload_key", "session", "category", "metadata", "concat_header", "length", "status", "touched"),
    *("counted", "path", "sha256", "data", "file_id", "holder", "completes"),
)
"""Fields of Upload in the order of the columns."""
_SAVE = f"INSERT OR REPLACE INTO tus_uploads VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"  # noqa: S608 - our own
UNSAVED = "new-"
"""Prefix of the data file of a small upload, whose row is saved after its bytes: without a row none was confirmed."""
LOST_TTL = 7 * 24 * 3600.0  # seconds for which lost files are kept
_HAS_DATA = f"(status = '{OPEN}' OR (status = '{FINISHED}' AND path IS NULL))"  # condition for `Upload.has_data`


class SavedUploads:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = store.private / "tus"
        self.lost = store.private / "lost"
        self._directory.mkdir(exist_ok=True)
        store.disk.names([self._directory])

    @property
    def durable(self) -> bool:
        """Whether confirmed bytes survive a power loss."""
        return self._store.disk.durable

    # Rows

    async def save(self, upload: Upload, *, frees: bool = False, **changed: Any) -> None:
        """Insert or update the row; `changed` overrides columns, `frees` is as in `Store.save`. Raises as it."""
        await self._store.save(self.saved(upload, **changed), frees=frees)

    def saved(self, upload: Upload, **changed: Any) -> Change:
        """Return `save` as a change. An upload that is gone frees its key."""
        row = {name: getattr(upload, name) for name in _COLUMNS if name != "upload_key"}
        row["upload_key"] = None if upload.gone else upload.key or None
        return lambda db: db.execute(_SAVE, {**row, **changed})

    async def find(self, upload_id: str) -> Upload | None:
        return next(map(_loaded, await self._rows("*", "id = ?", upload_id)), None)

    async def find_key(self, owner: str, key: str) -> Upload | None:
        return next(map(_loaded, await self._rows("*", "owner = ? AND upload_key = ?", owner, key)), None)

    async def find_file(self, file_id: str) -> str | None:
        return next((row["id"] for row in await self._rows("id", "file_id = ?", file_id)), None)

    async def with_data(self, session_id: str) -> list[str]:
        return [row["id"] for row in await self._rows("id", f"session = ? AND {_HAS_DATA}", session_id)]

    async def untouched_since(self, moment: float) -> list[str]:
        """Return the ids of uploads last touched before `moment` (seconds of `Store.clock`)."""
        return [row["id"] for row in await self._rows("id", "touched < ?", moment)]

    def unfinished(self) -> list[Upload]:
        """Return open uploads and parts written in place; clear up other data files (blocks; used at the start)."""
        query = f"SELECT * FROM tus_uploads WHERE {_HAS_DATA}"  # noqa: S608 - our own
        uploads = self._store.database.wait(lambda db: [_loaded(row) for row in db.execute(query)])
        self._clear({upload.data for upload in uploads})
        kept = [upload for upload in uploads if upload.status == OPEN or upload.place is not None]
        for upload in kept:
            self._measure(upload)
        self._store.disk.files([self.data(upload) for upload in kept if not upload.concat.parts])
        return kept

    def _clear(self, used: set[str]) -> None:
        """Remove data files of ended uploads. Those that the database doesn't know are moved to the lost files.

        Only an older database, restored from a backup, knows less than a file with data; its uploads may be resumed
        after the newer one is found.
        """
        strays = [entry for entry in self._directory.iterdir() if entry.name not in used]
        name, names = "coalesce(data, file_id)", json.dumps([stray.name for stray in strays])
        query = f"SELECT {name} FROM tus_uploads WHERE {name} IN (SELECT value FROM json_each(?))"  # noqa: S608 - our own
        ended = self._store.database.wait(lambda db: {name for (name,) in db.execute(query, (names,))})
        for stray in strays:
            status = stray.lstat()
            known = stray.name in ended or stray.name.startswith(UNSAVED)
            if known or status.st_size == 0 or status.st_nlink > 1:  # more than one name: stored, but not recorded
                stray.unlink()
                continue
            self.lost.mkdir(exist_ok=True)
            moved = stray.rename(self.lost / f"{self._store.clock.now():.0f}-{stray.name}")
            text = "the database doesn't know the upload of %s (%d bytes), now %s; it is removed after a week"
            logger.error(text, stray, status.st_size, moved)

    def remove_lost(self) -> None:
        """Remove lost files a week after they were moved. Raises OSError."""
        before = self._store.clock.now() - LOST_TTL
        for file in self.lost.iterdir() if self.lost.is_dir() else ():
            moved = file.name.partition("-")[0]
            if moved.isdigit() and int(moved) < before:
                file.unlink()
                logger.error("removed the lost file %s", file.name)

    async def _rows(self, columns: str, condition: str, *values: object) -> list[sqlite3.Row]:
        query = f"SELECT {columns} FROM tus_uploads WHERE {condition}"  # noqa: S608 - our own
        return await self._store.database.read(lambda db: db.execute(query, values).fetchall())

    # Data files

    def data(self, upload: Upload) -> Path:
        return self._directory / upload.data

    async def appender(self, upload: Upload, digests: Sequence[Any]) -> Appender:
        if self._store.is_shared(self.data(upload)):
            await asyncio.to_thread(self._store.own, self.data(upload))
        return Appender(self.data(upload), upload.start + upload.offset, digests, self._store.disk)

    async def make(self, upload: Upload) -> None:
        """Create the data file if it is missing. Raises OSError."""
        if self.durable:
            await asyncio.to_thread(self._make, self.data(upload))
        else:
            self._make(self.data(upload))

    def _make(self, path: Path) -> None:
        if not path.exists():  # touching it would change the time of a stored file that it is linked to
            path.touch()
        self._store.disk.names([path])

    def size(self, upload: Upload) -> int:
        """Return the bytes of this upload in the data file; 0 if the file is missing. Raises OSError."""
        try:
            return max(0, self.data(upload).stat().st_size - upload.start)
        except FileNotFoundError:
            return 0

    def sha256(self, upload: Upload) -> bytes:
        """Return the digest of the data (slow: run in a thread). Raises OSError."""
        with self.data(upload).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    def cut(self, upload: Upload, offset: int) -> None:
        """Truncate the data file, unless it is shared: bytes after the offset are ignored there."""
        if upload.place is None:
            self._store.own(self.data(upload))
            os.truncate(self.data(upload), offset)

    def remove(self, *uploads: Upload) -> None:
        """Remove the data files of uploads (many: run in a thread)."""
        for upload in uploads:
            self.data(upload).unlink(missing_ok=True)

    def join(self, upload: Upload, parts: list[Upload]) -> None:
        """Concatenate the data of all parts into a final upload (slow: run in a thread)."""
        self._store.build(self.data(upload), map(self.data, parts))
        upload.offset = self.size(upload)

    def _measure(self, upload: Upload) -> None:
        """Set the offset from the data file, limited to `counted` unless the file is stored already."""
        if upload.concat.parts:
            return
        path = self.data(upload)
        if not path.exists():
            path.touch()
        upload.offset = size = self.size(upload)
        if upload.counted is None or self._is_stored(upload):
            return
        upload.offset = min(upload.counted, size)
        if size > upload.offset:
            self.cut(upload, upload.offset)
        if upload.offset < upload.counted:
            upload.counted, upload.status = upload.offset, OPEN
            self._store.database.wait(self.saved(upload))

    def _is_stored(self, upload: Upload) -> bool:
        """Return whether the complete data file has its name in the root: the server stopped before it saved that."""
        if upload.is_part or upload.offset != upload.length:
            return False
        directory = f"{upload.category}/{upload.file.wanted_path}".rpartition("/")[0]
        try:
            with self._store.categories.descend(directory) as descent:
                return descent.named(os.stat(self.data(upload))) is not None
        except (FileNotFoundError, NotADirectoryError, UnsafePathError):
            return False


def _loaded(row: sqlite3.Row) -> Upload:
    values = dict(zip(_COLUMNS, row, strict=True))
    del values["upload_key"]  # part of the metadata
    named, completes = values["data"], values["completes"]
    upload = Upload(**{**values, "data": named or "", "completes": None if completes is None else bool(completes)})
    if upload.status == FINISHED:
        upload.offset = upload.length or 0
        upload.sha256 = b""  # of the bytes that arrived: the stored file may have changed since (see `StoredFile`)
    if upload.is_part and named:  # None in databases before version 3
        upload.place = parse_place(upload.fields)
    return upload
