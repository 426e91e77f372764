"""What of tus uploads survives a restart: a row for each in the database, and the data file of an unfinished one.

The offset is never stored: it is the length of the data file, so that nothing can be told that is not there, and all
that arrived counts even after `kill -9`. Only while the body of a request with a checksum arrives does the row say
from where on the bytes are unchecked (`unchecked_from`); what is found there at the next start is cut off.

Nothing is synced to the disk: data that was written outlives the process, not the power supply. After a loss of power
a data file is at worst shorter than what was told, and a client that asks (HEAD) goes on from there.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from uploader_server.tus.upload import FINISHED, OPEN, Upload

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.storage.store import Change, Store

COPY_BLOCK = 1 << 20


_SAVE = (
    "INSERT OR REPLACE INTO tus_uploads VALUES (:id, :owner, :upload_key, :session, :category, :metadata, :concat,"
    " :length, :status, :touched, :unchecked_from, :path, :sha256)"
)


class TusStore:
    """Rows and data files."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = store.private / "tus"
        self._directory.mkdir(exist_ok=True)

    def data(self, upload: Upload) -> Path:
        """The data file of an unfinished upload."""
        return self._directory / upload.id

    async def save(self, upload: Upload, **changed: Any) -> None:
        """Insert or update the row, with other values in some columns. Raises sqlite3.Error."""
        await self._store.save(self.saved(upload, **changed))

    def saved(self, upload: Upload, **changed: Any) -> Change:
        """The same as a change. The key of an upload that is gone is free again."""
        path: Path | None = changed.pop("path", upload.path)
        row = {
            "id": upload.id,
            "owner": upload.owner,
            "upload_key": None if upload.gone else upload.key or None,
            "session": upload.session,
            "category": upload.category,
            "metadata": upload.metadata,
            "concat": upload.concat_header,
            "length": upload.length,
            "status": upload.status,
            "touched": upload.touched,
            "unchecked_from": upload.unchecked_from,
            "path": None if path is None else self._store.below(path),
            "sha256": upload.sha256,
            **changed,
        }
        return lambda db: db.execute(_SAVE, row)

    async def forget(self, upload: Upload) -> None:
        """Delete the row."""
        await self._store.save(lambda db: db.execute("DELETE FROM tus_uploads WHERE id = ?", (upload.id,)))

    async def find(self, upload_id: str) -> Upload | None:
        """The upload with this id."""
        return await self._first("id = ?", upload_id)

    async def find_key(self, owner: str, key: str) -> Upload | None:
        """The upload that this owner created with this key."""
        return await self._first("owner = ? AND upload_key = ?", owner, key)

    def unfinished(self) -> list[Upload]:
        """The open uploads that an earlier server on this root left; data files of no upload are removed.

        For the start: it waits for the database.
        """
        query = "SELECT * FROM tus_uploads WHERE status = ? OR (status = ? AND path IS NULL)"
        rows = self._store.database.wait(lambda db: db.execute(query, (OPEN, FINISHED)).fetchall())
        uploads = [self._loaded(row) for row in rows]
        for stray in {entry.name for entry in self._directory.iterdir()} - {upload.id for upload in uploads}:
            (self._directory / stray).unlink()
        opened = [upload for upload in uploads if upload.status == OPEN]
        for upload in opened:
            self._measure(upload)
        return opened

    async def with_data(self, session_id: str) -> list[str]:
        """Ids of the uploads of a session that have a data file (see `Upload.has_data`)."""
        return await self._ids(
            "session = ? AND (status = ? OR (status = ? AND path IS NULL))", session_id, OPEN, FINISHED
        )

    async def untouched_since(self, moment: float) -> list[str]:
        """Ids of uploads whose row was last touched before a moment (seconds since the epoch)."""
        return await self._ids("touched < ?", moment)

    async def _ids(self, condition: str, *values: object) -> list[str]:
        query = f"SELECT id FROM tus_uploads WHERE {condition}"  # noqa: S608 - of our own
        return await self._store.database.read(lambda db: [row["id"] for row in db.execute(query, values)])

    async def _first(self, condition: str, *values: str) -> Upload | None:
        query = f"SELECT * FROM tus_uploads WHERE {condition}"  # noqa: S608 - of our own
        row = await self._store.database.read(lambda db: db.execute(query, values).fetchone())
        return None if row is None else self._loaded(row)

    def _measure(self, upload: Upload) -> None:
        """Learn the offset from the data file, after cutting off what no checksum vouches for."""
        path = self.data(upload)
        if not path.exists():
            path.touch()
        if upload.unchecked_from is not None:
            self.cut(upload, min(upload.unchecked_from, path.stat().st_size))
            upload.unchecked_from = None
            self._store.database.wait(self.saved(upload))
        stat = path.stat()
        upload.offset = 0 if upload.concat.parts else stat.st_size
        upload.touched = max(upload.touched, stat.st_mtime)

    def _loaded(self, row: sqlite3.Row) -> Upload:
        upload = Upload(
            owner=row["owner"],
            session=row["session"],
            category=row["category"],
            metadata=row["metadata"],
            concat_header=row["concat"],
            length=row["length"],
            id=row["id"],
            status=row["status"],
            touched=row["touched"],
            unchecked_from=row["unchecked_from"],
            path=None if row["path"] is None else self._store.root / row["path"],
            sha256=row["sha256"],
        )
        if upload.status == FINISHED:
            upload.offset = upload.length or 0
        return upload

    def cut(self, upload: Upload, offset: int) -> None:
        """Shorten the data file."""
        os.truncate(self.data(upload), offset)

    def join(self, upload: Upload, parts: list[Upload]) -> None:
        """Write the data of all parts, one after the other, into a final upload (slow: runs in a thread)."""
        upload.hasher = hashlib.sha256()
        buffer = memoryview(bytearray(COPY_BLOCK))
        with self.data(upload).open("wb", buffering=0) as whole:
            for part in parts:
                with self.data(part).open("rb", buffering=0) as source:
                    _copy(source.readinto, whole.write, upload.hasher, buffer)
        upload.offset = self.data(upload).stat().st_size

    def hash(self, upload: Upload) -> None:
        """Read the data anew for its SHA-256 (slow: runs in a thread)."""
        with self.data(upload).open("rb") as file:
            upload.hasher = hashlib.file_digest(file, "sha256")


def _copy(read: Callable[..., int], write: Callable[..., int], digest: Any, buffer: memoryview) -> None:
    while count := read(buffer):
        block = buffer[:count]
        digest.update(block)
        while block:
            block = block[write(block) :]
