"""The state of one file of a session, and its row."""

from __future__ import annotations

import operator
import sqlite3
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uploader_server.storage.database import EXISTING
from uploader_server.storage.disk import NO_SPACE
from uploader_server.storage.paths import shortened
from uploader_server.storage.reading import StoredFile
from uploader_server.wire import extension, js_number, stored_at, timestamp


@dataclass(slots=True)
class FileState:
    """The state of one file of a session. Sizes in bytes, speed in bytes per second."""

    original_name: str
    relative_path: str | None = None
    announced: int | None = None  # Content-Length of the file's part
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "uploading"
    size: int = 0
    progress: int = 0
    points: int = 0  # share of this file in its session's `points`
    measured: int = 0  # share of this file in its session's `received`
    speed: float = 0.0
    started: str = field(default_factory=timestamp)
    ended: str | None = None
    path: str | None = None  # path below the root, after it was stored
    owner: str = ""  # subject of the JWT of who sent it: another one can't delete it
    error: str | None = None
    error_code: str | None = None
    data: str | Path = ""
    """A file with the complete bytes, on the file system of the root; who receives the file removes it."""
    may_rename: bool = True  # whether it gets another name if its own is taken; otherwise it fails
    sha256: bytes = b""  # empty if unknown
    packed: bool = False  # whether it came in a pack
    existing: bool = False  # whether an equal file was stored before
    written: bool = False  # whether this request wrote `data` completely: it is not examined again
    linked: bool = False  # whether this request gave `data` its name in the root
    there: StoredFile | None = None  # what was stored, or found equal, as it was then
    retryable: bool = False  # whether a failed file of a pack may be stored if it is sent again
    cause: OSError | None = None  # the error of the disk, if it failed for that

    @property
    def wanted_path(self) -> str:
        return self.original_name.rpartition("/")[2] if self.relative_path is None else self.relative_path

    def fail(self, code: str, message: str, *, retryable: bool = False) -> None:
        """Mark the file as failed; of a refused path only the beginning is kept, except for the answer to a pack."""
        if code == "INVALID_PATH" and not self.packed:
            self.original_name = shortened(self.original_name)
            self.relative_path = None if self.relative_path is None else shortened(self.relative_path)
        self.status, self.progress, self.speed = "failed", 0, 0
        self.error_code, self.error, self.retryable = code, message, retryable

    def fail_by_disk(self, error: OSError) -> None:
        """Mark the file as failed. Raises the error if the disk is full: the request as a whole is refused then."""
        self.fail("UPLOAD_FAILED", error.strerror or str(error), retryable=True)
        self.cause = error
        if error.errno in NO_SPACE:
            raise error

    def complete(self, path: str) -> None:
        """Mark the file as stored at a path below the root."""
        self.status, self.progress, self.path = "completed", 100, path

    def reopen(self) -> None:
        """Undo `complete` and `fail`, since the file could not be recorded."""
        self.status, self.progress, self.ended, self.path = "uploading", min(99, self.progress), None, None
        self.error_code = self.error = self.cause = None
        self.existing, self.linked, self.there, self.retryable = False, False, None, False

    def shown(self) -> dict[str, Any]:
        """Return one entry of `files` in the `/progress` response."""
        known = {
            "id": self.id,
            "originalName": self.original_name,
            "progress": self.progress,
            "status": self.status,
            "fileSize": self.announced if self.status == "uploading" else self.size,
            "receivedBytes": self.size if self.status == "uploading" else None,
            "filePath": None if self.path is None else stored_at(self.path),
            "relativePath": self.relative_path,
            "error": self.error,
        }
        return {key: value for key, value in known.items() if value is not None}

    def unrecorded(self) -> dict[str, Any]:
        """Return `shown` before the file is recorded: it may be linked already, and has not ended until the commit."""
        known = {**self.shown(), "status": "uploading", "progress": min(99, self.progress)}
        return {key: value for key, value in known.items() if key not in {"error", "filePath"}}

    def in_event(self) -> dict[str, Any]:
        return {**self.shown(), "uploadSpeed": js_number(round(self.speed, 3 if self.speed < 1e6 else 0))}

    def in_answer(self) -> dict[str, Any]:
        """Return one entry of `files` in the batch response, as captured from the reference backend."""
        fields: dict[str, Any] = {
            **self.in_event(),
            "fileSize": self.size,
            "fileType": extension(self.original_name),
            "uploadStartTime": self.started,
        }
        fields.pop("error", None)
        if self.path is None:
            return {**fields, "errorMessage": self.error, "errorCode": self.error_code}
        return {
            **fields,
            "fileName": self.path.partition("/")[2],
            "uploadEndTime": self.ended,
            "isValidFormat": True,
            "isValidSize": True,
        }

    @classmethod
    def restored(cls, row: sqlite3.Row) -> FileState:
        packed = row["packed"]
        known = {name: row[name] for name in FILE_COLUMNS}
        return cls(**known, started="", existing=packed == EXISTING, retryable=packed == RETRYABLE)

    def row(self, session: str, position: int) -> FileRow:
        owns = int(self.path is not None and not self.existing)  # sqlite3 takes 0.25 µs longer for a bool
        identity = (None, None) if self.there is None else (self.there.modified, self.there.inode)
        if not self.packed:
            return (session, position, None, None, self.owner, owns, *identity, *_columns_of(self))
        packed = RETRYABLE if self.retryable else EXISTING if self.existing else PLAIN
        return (session, position, self.sha256, packed, self.owner, owns, *identity, *_columns_of(self))


FileRow = tuple[Any, ...]
"""The values of FILE_ROW."""
FILE_COLUMNS = (
    *("id", "original_name", "relative_path", "size", "status", "progress", "speed", "path", "error", "error_code"),
)
"""Fields of FileState that are restored from the database."""
IDENTITY = ("modified", "inode")  # of the stored file
FILE_ROW = (*("session", "position", "sha256", "packed", "owner", "owns"), *IDENTITY, *FILE_COLUMNS)
"""Columns of a row. `owns`: whether this upload gave the file its name, so that its deletion removes it while its size
and `IDENTITY` are these. `sha256` and `packed` are NULL unless the file came in a pack; `session` is empty for a file
that no session counts."""
PLAIN, RETRYABLE = 0, 2  # the other values of `packed`
_columns_of = operator.attrgetter(*FILE_COLUMNS)
