"""The state of upload sessions as both flavours keep it: files, counts, percentages, life and expiry."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_server.wire import extension, js_number, timestamp

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path


STATUSES = ("pending", "uploading", "completed", "partial", "cancelled")
EVENT_INTERVAL = 0.1
"""Seconds between two events about progress in one session."""
ENDED = frozenset({"completed", "partial", "cancelled"})


@dataclass(slots=True)
class FileState:
    """One file of a session, from its first byte to its end. Sizes in bytes, speed in bytes a second."""

    original_name: str
    relative_path: str | None = None
    announced: int | None = None
    """Size that the part's own Content-Length promised."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "uploading"
    size: int = 0
    progress: int = 0
    points: int = 0
    """What this file adds to its session's `points`."""
    speed: float = 0.0
    started: str = field(default_factory=timestamp)
    ended: str | None = None
    path: str | None = None
    file_name: str | None = None
    error: str | None = None
    error_code: str | None = None
    temporary: Path | None = None
    sha256: bytes = b""
    """Empty where it is not known."""

    def fail(self, code: str, message: str) -> None:
        """End as failed; nothing of it is stored."""
        self.status, self.progress, self.speed = "failed", 0, 0
        self.error_code, self.error = code, message

    def in_events(self) -> dict[str, Any]:
        """`currentFile` of an event."""
        fields: dict[str, Any] = {
            "id": self.id,
            "originalName": self.original_name,
            "progress": self.progress,
            "status": self.status,
            "uploadSpeed": js_number(round(self.speed, 3 if self.speed < 1e6 else 0)),
        }
        if self.relative_path is not None:
            fields["relativePath"] = self.relative_path
        if self.error is not None:
            fields["error"] = self.error
        return fields

    def in_progress(self) -> dict[str, Any]:
        """One of `files` in the answer to `/progress`."""
        fields: dict[str, Any] = {
            "id": self.id,
            "originalName": self.original_name,
            "progress": self.progress,
            "status": self.status,
        }
        if self.relative_path is not None:  # as in events: whoever hears of a file by both ways must know it again
            fields["relativePath"] = self.relative_path
        if self.error is not None:
            fields["error"] = self.error
        return fields

    def in_answer(self) -> dict[str, Any]:
        """One of `files` in the answer to a batch, as captured from the reference backend."""
        fields: dict[str, Any] = {
            "id": self.id,
            "originalName": self.original_name,
            "fileSize": self.size,
            "fileType": extension(self.original_name),
            "status": self.status,
            "progress": self.progress,
            "uploadSpeed": js_number(round(self.speed, 3 if self.speed < 1e6 else 0)),
            "uploadStartTime": self.started,
        }
        if self.relative_path is not None:
            fields["relativePath"] = self.relative_path
        if self.status == "completed":
            fields["fileName"] = self.file_name
            fields["filePath"] = self.path
            fields["uploadEndTime"] = self.ended
            fields["isValidFormat"] = True
            fields["isValidSize"] = True
        else:
            fields["errorMessage"] = self.error
            fields["errorCode"] = self.error_code
        return fields


def batch_answer(session: str, files: list[FileState]) -> dict[str, Any]:
    """The 200 of a batch: `success` says only that the request was understood (docs/protocol.md, section 3.5)."""
    return {
        "success": True,
        "sessionId": session,
        "files": [file.in_answer() for file in files],
        "summary": {
            "totalFiles": len(files),
            "completedFiles": sum(file.status == "completed" for file in files),
            "failedFiles": sum(file.status == "failed" for file in files),
            "totalSize": sum(file.size for file in files),
        },
        "timestamp": timestamp(),
    }


@dataclass(slots=True)
class Session:
    """One upload session. `files` holds those of ended requests and of requests under way, as long as it is open."""

    id: str
    category: str
    expected: int
    status: str = "pending"
    created: str = field(default_factory=timestamp)
    touched: float = field(default_factory=time.time)
    progress: int = 0
    completed: int = 0
    failed: int = 0
    points: int = 0
    """Sum of the percentages of all files that have not ended."""
    given_up: int = 0
    """How many files the client gave up, as its `finish` said; part of `failed`."""
    files: dict[str, FileState] = field(default_factory=dict)
    unlisted: int = 0
    """How many files only the database lists: those of packs, and all that have ended in a session that has ended."""
    packed_ending: str | None = None
    """The ending of the first file of a pack."""
    counted: set[str] = field(default_factory=set)
    """Digest and path of each file of a pack, until the session ends: none is counted twice."""
    requests: set[asyncio.Future[Any]] = field(default_factory=set)
    began: float = 0.0
    """When the first of the requests under way began (monotonic seconds)."""
    reported: float = 0.0
    """When the last event about progress left (monotonic seconds)."""

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen in this session."""
        return self.status in ENDED

    @property
    def file_count(self) -> int:
        """How many files came, or are coming."""
        return len(self.files) + self.unlisted

    @property
    def total(self) -> int:
        """How many files were announced, or came all the same."""
        return max(self.expected, self.file_count)

    @property
    def ending(self) -> str | None:
        """The ending of the first file; None where none has come."""
        first = next(iter(self.files.values()), None)
        return self.packed_ending if first is None else extension(first.original_name)

    def measure(self) -> int:
        """Percent of the whole: each expected file weighs the same; 100 only at the end. It falls by `drop` alone."""
        done = (100 * (self.completed + self.failed) + self.points) // self.total
        self.progress = max(self.progress, min(100 if self.ended else 99, done))
        return self.progress

    def attach(self, request: asyncio.Future[Any]) -> None:
        """A request sends files: until `detach` the session is not forgotten, and a cancel cancels the request."""
        if not self.requests:
            self.began = time.monotonic()
        self.requests.add(request)
        self.status = "uploading"
        self.touch()

    def detach(self, request: asyncio.Future[Any]) -> None:
        """The request has ended."""
        self.requests.discard(request)
        self.touch()

    def add(self, file: FileState) -> None:
        """A file has begun to arrive."""
        self.files[file.id] = file
        file.points = file.progress
        self.points += file.points

    def advance(self, file: FileState, progress: int) -> None:
        """Raise the percentage of a file that has not ended."""
        self.points += progress - file.points
        file.points = file.progress = progress

    def drop(self, file: FileState) -> None:
        """Forget a file whose request broke off: nothing of it is stored, and it may come again."""
        if self.files.pop(file.id, None) is not None:
            self.points -= file.points
            file.points = self.progress = 0

    def count(self, file: FileState) -> None:
        """A file has ended, as its status says."""
        self.points -= file.points
        file.points = 0
        self.completed += file.status == "completed"
        self.failed += file.status == "failed"

    def remember(self, path: str, sha256: str) -> str | None:
        """A file of a pack is going to be counted; None where that path and digest were, else the mark to forget it."""
        mark = packed_mark(path, sha256)
        if mark in self.counted:
            return None
        self.counted.add(mark)
        if self.packed_ending is None:
            self.packed_ending = extension(path)
        return mark

    def count_packed(self, completed: int, failed: int) -> None:
        """Files of a pack have ended."""
        self.unlisted += completed + failed
        self.completed += completed
        self.failed += failed

    def settle(self) -> bool:
        """End the session when every expected file has ended; True when this call ended it."""
        if self.ended or self.completed + self.failed < self.expected:
            return False
        self.finish()
        return True

    def finish(self, given_up: int = 0) -> None:
        """End it now: completed if none failed or was given up, else partial."""
        self.given_up += given_up
        self.failed += given_up
        self.status = "partial" if self.failed else "completed"
        self.progress = 100
        self.counted.clear()

    def release(self) -> None:
        """Leave files that have ended to the database, where the session has ended: many are known at a time."""
        if self.ended:
            left = {key: file for key, file in self.files.items() if file.status == "uploading"}
            self.unlisted += len(self.files) - len(left)
            self.files = left

    def touch(self) -> None:
        """Somebody used it: its time to live starts again."""
        self.touched = time.time()

    def event(self, message: str, current: FileState | None = None) -> dict[str, Any]:
        """An `upload-progress` event about now."""
        return {
            "sessionId": self.id,
            "timestamp": timestamp(),
            "overallStatus": self.status,
            "totalProgress": self.measure(),
            "completedFiles": self.completed,
            "failedFiles": self.failed,
            "totalFiles": self.total,
            **({"currentFile": current.in_events()} if current is not None else {}),
            "message": message,
        }

    def row(self) -> dict[str, Any]:
        """This session as the database keeps it."""
        return {
            "id": self.id,
            "category": self.category,
            "expected": self.expected,
            "status": self.status,
            "progress": self.progress,
            "created": self.created,
            "touched": self.touched,
            "given_up": self.given_up,
        }


def packed_mark(path: str, sha256: str) -> str:
    """By which a session knows a file of a pack that it has counted."""
    return f"{sha256} {path}"


def file_row(session: str, position: int, file: FileState, path: str | None) -> dict[str, Any]:
    """A file as the database keeps it; `path` is below the root."""
    return {
        "id": file.id,
        "session": session,
        "position": position,
        "original_name": file.original_name,
        "relative_path": file.relative_path,
        "size": file.size,
        "status": file.status,
        "progress": file.progress,
        "speed": file.speed,
        "path": path,
        "error": file.error,
        "error_code": file.error_code,
    }
