"""Storing packs: their files, in one thread, and their database rows with the idempotency keys.

File ids of one pack differ in the last 12 digits, in manifest order, so that the first and the last id select them all.
`packed` is NULL for files that were not sent in a pack. `session` is empty for a file that its session doesn't count: a
retryable failure, or a file counted before.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sqlite3
import stat
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from uploader_server.batch.packbody import Entry, Manifest
from uploader_server.config import Limits
from uploader_server.faults import Faults
from uploader_server.storage import paths
from uploader_server.storage.store import Store
from uploader_server.wire import TAKEN, extension

_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
_FILE = "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0.0, ?, ?, ?, ?, ?)"
_UNCOUNTED = "DELETE FROM files WHERE id BETWEEN ? AND ? AND session = '' AND status = 'failed'"
_DIGEST = "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)"

PLAIN, EXISTING, RETRYABLE = 0, 1, 2  # the values of `packed`

Key = tuple[str, str]  # owner and Idempotency-Key


@dataclass(slots=True)
class Packed:
    """The result of one file of a pack: stored if it has a `path`, else failed."""

    entry: Entry
    id: str
    path: str | None = None  # below the root
    existing: bool = False  # whether an equal file was stored before
    changed: int = 0  # modification time of the stored file in nanoseconds, for the digest cache
    error: str = ""
    message: str = ""
    retryable: bool = False
    counted: bool = False  # whether the session counts it

    @property
    def name(self) -> str:
        """The file name."""
        return self.entry.path.rpartition("/")[2]

    def fail(self, error: str, message: str, *, retryable: bool = False) -> None:
        """Mark the file as failed."""
        self.error, self.message, self.retryable = error, message, retryable


class Unpacking:
    """Stores the files of one pack; all temporary files are complete before the first one is linked to its name."""

    def __init__(self, store: Store, category: str, manifest: Manifest, data: bytearray) -> None:
        self._store = store
        self._category = category
        self._base = store.root / category
        entries, self._may_rename = manifest.entries, manifest.may_rename
        prefix = str(uuid.uuid4())[:24]
        self.files = [Packed(entry, f"{prefix}{number:012x}") for number, entry in enumerate(entries)]
        ends = list(itertools.accumulate((entry.size for entry in entries), initial=0))
        self._data = [memoryview(data)[start:end] for start, end in itertools.pairwise(ends)]
        self._incoming = f"{store.incoming()}-"
        self._temporaries: list[str] = []
        self._checked: set[str] = set()  # directories that are known to be inside the category

    def refuse(self, limits: Limits, ending: str | None, faults: Faults) -> None:
        """Fail each file that the session can't accept; `ending` is the extension of its first file."""
        for file in self.files:
            path, name, own = file.entry.path, file.name, extension(file.entry.path)
            if faults.fail_files and faults.fails(name, path):
                file.fail("UPLOAD_FAILED", "Failed by the server's option --fail-file")
            elif not limits.allows(own):
                file.fail("INVALID_FILE_FORMAT", f"Files of this type are not accepted: {name}")
            elif not limits.mixed_types:
                ending = own if ending is None else ending
                if own != ending:
                    file.fail("INVALID_FILE_FORMAT", "All files of a session must have the same type")

    def run(self) -> None:
        """Store every file that has not failed (runs in a thread).

        Raises OSError if the disk failed: files that were linked already must not be confirmed then.
        """
        root, disk = self._store.root, self._store.disk
        try:
            for file, data in zip(self.files, self._data, strict=True):
                if not file.error:
                    self._write(file, data)
            disk.files(self._temporaries)
            for file, data in zip(self.files, self._data, strict=True):  # in order
                if not file.error:
                    self._link(file, data)
            disk.files([f"{root}/{file.path}" for file in self.files if file.existing])  # they may be unflushed
            disk.names([f"{root}/{file.path}" for file in self.files if file.path is not None])
        finally:
            for temporary in self._temporaries:
                with contextlib.suppress(FileNotFoundError):  # moved, on a file system without hard links
                    os.unlink(temporary)

    def _write(self, file: Packed, data: memoryview) -> None:
        """Verify the digest of a file and write it to a temporary file."""
        if hashlib.sha256(data).hexdigest() != file.entry.sha256:
            file.fail("CHECKSUM_MISMATCH", "The bytes don't match sha256", retryable=True)
            return
        directory = file.entry.path.rpartition("/")[0]
        try:
            paths.safe_parts(file.entry.path)
            if directory not in self._checked:
                paths.check_inside(self._base / directory, self._base)
                self._checked.add(directory)
            temporary = f"{self._incoming}{file.id[24:]}"
            fd = os.open(temporary, _NEW_FILE, 0o666)
            try:
                self._temporaries.append(temporary)
                while data:
                    data = data[os.write(fd, data) :]
                file.changed = os.fstat(fd).st_mtime_ns
            finally:
                os.close(fd)
        except paths.UnsafePathError as error:
            file.fail("INVALID_PATH", str(error))
        except OSError as error:
            file.fail("UPLOAD_FAILED", error.strerror or str(error), retryable=True)

    def _link(self, file: Packed, data: memoryview) -> None:
        """Link a written file to its name, without overwriting."""
        path = f"{self._category}/{file.entry.path}"
        temporary, target = f"{self._incoming}{file.id[24:]}", f"{self._store.root}/{path}"
        try:
            try:
                os.link(temporary, target)
            except (FileNotFoundError, FileExistsError, PermissionError) as error:
                if isinstance(error, FileNotFoundError):
                    self._store.disk.made(os.path.dirname(target))
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                path = self._link_numbered(file, temporary, target, data)
            file.path = path
        except paths.NameTakenError as error:
            file.fail(TAKEN, str(error))
        except (FileExistsError, NotADirectoryError):
            file.fail("PATH_CONFLICT", "The path conflicts with a stored file or directory")
        except OSError as error:
            message, permanent = error.strerror or str(error), error.errno in paths.BAD_NAME
            file.fail("INVALID_PATH" if permanent else "UPLOAD_FAILED", message, retryable=not permanent)

    def _link_numbered(self, file: Packed, temporary: str, target: str, data: memoryview) -> str:
        """Link to the first free name, or use an existing equal file.

        Raises FileExistsError for a directory, NameTakenError instead of a second name if that is not allowed.
        """

        def equal(there: Path) -> bool:
            status = there.stat()
            if stat.S_ISDIR(status.st_mode):
                raise FileExistsError
            same = stat.S_ISREG(status.st_mode) and status.st_size == len(data)
            file.existing = same and not paths.leads_out(there, self._base) and there.read_bytes() == data
            if file.existing:
                file.changed = status.st_mtime_ns
            return file.existing

        return self._store.below(paths.link(Path(temporary), Path(target), equal, rename=self._may_rename))


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

    async def save(
        self, key: Key, manifest: bytes, session: dict[str, Any], position: int, files: Sequence[Packed]
    ) -> None:
        """Save a pack, its files and its session in one transaction. Raises sqlite3.Error.

        `manifest` is the digest of the manifest, `position` the index of the first file in the session.
        """

        def change(db: sqlite3.Connection) -> None:
            db.executemany(_FILE, [_row(session["id"], position + n, file) for n, file in enumerate(files)])
            stored = [file for file in files if file.path is not None]
            db.executemany(_DIGEST, [(f.path, f.entry.size, f.changed, bytes.fromhex(f.entry.sha256)) for f in stored])
            row = (*key, manifest, session["id"], files[0].id, files[-1].id, time.time())
            db.execute("INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?, ?)", row)

        await self._store.save(change, self._store.session_saved(session))

    async def find(self, key: Key) -> KnownPack | None:
        """Return the saved pack, or None if there is none or it has expired."""
        values = (*key, time.time() - self._ttl)

        def look(db: sqlite3.Connection) -> KnownPack | None:
            pack = db.execute("SELECT * FROM packs WHERE owner = ? AND key = ? AND touched >= ?", values).fetchone()
            if pack is None:
                return None
            rows = db.execute("SELECT * FROM files WHERE id BETWEEN ? AND ? ORDER BY id", (pack["first"], pack["last"]))
            return KnownPack(pack["session"], pack["manifest"], [_packed(row) for row in rows])

        return await self._store.database.read(look)

    async def forget_old(self) -> None:
        """Delete responses older than `ttl` and their uncounted failures. Raises sqlite3.Error."""
        before = time.time() - self._ttl

        def change(db: sqlite3.Connection) -> None:
            old = db.execute("SELECT first, last FROM packs WHERE touched < ?", (before,)).fetchall()
            db.executemany(_UNCOUNTED, old)
            db.execute("DELETE FROM packs WHERE touched < ?", (before,))

        await self._store.save(change, frees=True)


def _row(session: str, position: int, file: Packed) -> tuple[object, ...]:
    entry, stored = file.entry, file.path is not None
    return (
        file.id,
        session if file.counted else "",
        position,
        file.name,
        entry.path,
        entry.size,
        "completed" if stored else "failed",
        100 if stored else 0,
        file.path,
        file.message or None,
        file.error or None,
        bytes.fromhex(entry.sha256),
        RETRYABLE if file.retryable else EXISTING if file.existing else PLAIN,
    )


def _packed(row: sqlite3.Row) -> Packed:
    return Packed(
        Entry(row["relative_path"], row["size"], row["sha256"].hex(), 0),
        row["id"],
        row["path"],
        existing=row["packed"] == EXISTING,
        error=row["error_code"] or "",
        message=row["error"] or "",
        retryable=row["packed"] == RETRYABLE,
        counted=bool(row["session"]),
    )
