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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_server.tus.upload import FINISHED, OPEN, Upload

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from uploader_server.storage.store import Store

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tus_uploads (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, upload_key TEXT, session TEXT NOT NULL, category TEXT NOT NULL,
  metadata TEXT, concat TEXT, length INTEGER, status TEXT NOT NULL, touched REAL NOT NULL, unchecked_from INTEGER,
  path BLOB, sha256 BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS tus_uploads_of_session ON tus_uploads (session);
CREATE UNIQUE INDEX IF NOT EXISTS tus_upload_keys ON tus_uploads (owner, upload_key);
"""

COPY_BLOCK = 1 << 20


class TusStore:
    """Rows and data files. Every method may be called in any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = store.private / "tus"
        self._directory.mkdir(exist_ok=True)
        store.script(_SCHEMA)

    def data(self, upload: Upload) -> Path:
        """The data file of an unfinished upload."""
        return self._directory / upload.id

    def save(self, upload: Upload) -> None:
        """Insert or update the row. The key of an upload that is gone is free again."""
        self._store.write(
            "INSERT OR REPLACE INTO tus_uploads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                upload.id,
                upload.owner,
                None if upload.gone else upload.key or None,
                upload.session,
                upload.category,
                upload.metadata,
                upload.concat_header,
                upload.length,
                upload.status,
                upload.touched,
                upload.unchecked_from,
                None if upload.path is None else os.fsencode(upload.path),
                upload.sha256,
            ),
        )

    def forget(self, upload: Upload) -> None:
        """Delete the row."""
        self._store.write("DELETE FROM tus_uploads WHERE id = ?", (upload.id,))

    def find(self, upload_id: str) -> Upload | None:
        """The upload with this id."""
        return self._first("id = ?", upload_id)

    def find_key(self, owner: str, key: str) -> Upload | None:
        """The upload that this owner created with this key."""
        return self._first("owner = ? AND upload_key = ?", owner, key)

    def unfinished(self) -> list[Upload]:
        """The open uploads that an earlier server on this root left; data files of no upload are removed."""
        rows = self._store.rows("SELECT * FROM tus_uploads WHERE status IN (?, ?)", (OPEN, FINISHED))
        uploads = [upload for upload in map(_loaded, rows) if upload.has_data]
        for stray in {entry.name for entry in self._directory.iterdir()} - {upload.id for upload in uploads}:
            (self._directory / stray).unlink()
        opened = [upload for upload in uploads if upload.status == OPEN]
        for upload in opened:
            self._measure(upload)
        return opened

    def with_data(self, session_id: str) -> list[str]:
        """Ids of the uploads of a session that have a data file (see `Upload.has_data`)."""
        rows = self._store.rows(
            "SELECT id FROM tus_uploads WHERE session = ? AND (status = ? OR (status = ? AND path IS NULL))",
            (session_id, OPEN, FINISHED),
        )
        return [row["id"] for row in rows]

    def untouched_since(self, moment: float) -> list[str]:
        """Ids of uploads whose row was last touched before a moment (seconds since the epoch)."""
        return [row["id"] for row in self._store.rows("SELECT id FROM tus_uploads WHERE touched < ?", (moment,))]

    def _first(self, condition: str, *values: str) -> Upload | None:
        row = self._store.row(f"SELECT * FROM tus_uploads WHERE {condition}", values)  # noqa: S608 - of our own
        return None if row is None else _loaded(row)

    def _measure(self, upload: Upload) -> None:
        """Learn the offset from the data file, after cutting off what no checksum vouches for."""
        path = self.data(upload)
        if not path.exists():
            path.touch()
        if upload.unchecked_from is not None:
            self.cut(upload, min(upload.unchecked_from, path.stat().st_size))
            upload.unchecked_from = None
            self.save(upload)
        stat = path.stat()
        upload.offset = 0 if upload.concat.parts else stat.st_size
        upload.touched = max(upload.touched, stat.st_mtime)

    def cut(self, upload: Upload, offset: int) -> None:
        """Shorten the data file."""
        os.truncate(self.data(upload), offset)

    def drop_data(self, upload: Upload) -> None:
        """Remove the data file."""
        self.data(upload).unlink(missing_ok=True)
        upload.hasher = None

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

    def spare(self, upload: Upload) -> Path:
        """A second name for the data, to be given away; the data file stays until everything is recorded.

        On a file system without hard links it is the data file itself.
        """
        spare = self._store.incoming()
        try:
            os.link(self.data(upload), spare)
        except OSError:
            return self.data(upload)
        return spare


def _copy(read: Callable[..., int], write: Callable[..., int], digest: Any, buffer: memoryview) -> None:
    while count := read(buffer):
        block = buffer[:count]
        digest.update(block)
        while block:
            block = block[write(block) :]


def _loaded(row: sqlite3.Row) -> Upload:
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
        path=None if row["path"] is None else Path(os.fsdecode(row["path"])),
        sha256=row["sha256"],
    )
    if upload.status == FINISHED:
        upload.offset = upload.length or 0
    return upload
