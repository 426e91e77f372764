"""The state of upload sessions and their files."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from uploader_server.config import Limits
from uploader_server.errors import Code, Refusal
from uploader_server.storage.clock import Clock
from uploader_server.storage.file_state import FileState
from uploader_server.storage.store import ENDED, SESSION_COLUMNS
from uploader_server.wire import extension, timestamp

STATUSES = ("pending", "uploading", "completed", "partial", "cancelled")
EVENT_INTERVAL = 0.1  # minimum seconds between two progress events of a session


def batch_answer(session: str, files: list[FileState]) -> dict[str, Any]:
    """Return the 200 of a batch; `success` is true even if files failed (docs/protocol.md, section 3.5)."""
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


@dataclass(slots=True, eq=False)
class Session:
    """One upload session. It remembers running files, and of recorded ones only counts and marks."""

    id: str
    category: str
    expected: int
    clock: Clock
    status: str = "pending"
    created: str = field(default_factory=timestamp)
    finished: str = ""  # when it ended
    expected_bytes: int = 0  # size of all its files, as its creator announced; 0: unknown
    name: str = ""  # path of the file that arrived first
    received: int = 0  # bytes of arriving and stored files
    parts: dict[str, int] = field(default_factory=dict)  # bytes of parts that are not joined yet, by id of their files
    touched: float = 0.0  # when it was used last (seconds of `clock`)
    progress: int = 0
    completed: int = 0
    failed: int = 0
    points: int = 0  # sum of the percentages of unfinished files
    given_up: int = 0  # files that the client won't send, from `finish`; included in `failed`
    owner: str = ""  # subject of the creator's JWT
    secret: bytes = field(default=b"", repr=False)
    """SHA-256 of X-Session-Secret; empty: everyone who may upload may write to the session."""
    files: dict[str, FileState] = field(default_factory=dict)  # arriving files by id
    unlisted: int = 0  # number of files that are only in the database: the recorded ones
    first_ending: str | None = None  # the extension of the first stored file
    counted: set[int] | None = field(default_factory=set)
    """Marks of counted pack files (see `packed_mark`), so that none is counted twice; None: only the database has them
    (see `Sessions.recall`)."""
    requests: set[asyncio.Future[Any]] = field(default_factory=set)
    stores: int = 0  # number of requests that are storing files
    packs: list[tuple[int, str | None]] = field(default_factory=list)
    """Files and extension of each pack that is being stored; its files are counted after that."""
    closing: int = 0  # number of calls of `close` that wait for them
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)
    began: float = 0.0  # start of the first running request (monotonic seconds)
    reported: float = 0.0  # time of the last progress event (monotonic seconds)
    holder: str = ""  # the client whose share it belongs to (see `shares`)

    def __post_init__(self) -> None:
        self.touched = self.touched or self.clock.now()

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def empty(self) -> bool:
        """Whether it has received nothing and no request uses it."""
        return self.status == "pending" and not self.file_count and not self.requests

    @property
    def file_count(self) -> int:
        return len(self.files) + self.unlisted

    @property
    def total(self) -> int:
        """Number of expected files, or of received ones if there are more."""
        return max(self.expected, self.file_count)

    @property
    def ending(self) -> str | None:
        """The extension of the first file, also of one that is arriving or being stored; None without files."""
        if self.first_ending is not None:
            return self.first_ending
        for file in self.files.values():
            return extension(file.original_name)
        return next((ending for _, ending in self.packs if ending is not None), None)

    @property
    def current(self) -> FileState | None:
        """The file that began to arrive last, if it is still arriving."""
        return next((file for file in reversed(self.files.values()) if file.status == "uploading"), None)

    def state(self) -> dict[str, Any]:
        """Update the progress (files have equal weight; 100 only at the end); return it with status and counts."""
        done = (100 * (self.completed + self.failed) + self.points) // self.total
        self.progress = max(self.progress, min(100 if self.ended else 99, done))
        received = self.received + sum(self.parts.values())
        return {
            "overallStatus": self.status,
            "totalProgress": self.progress,
            "completedFiles": self.completed,
            "failedFiles": self.failed,
            "totalFiles": self.total,
            "receivedBytes": received,
            **({"totalBytes": max(self.expected_bytes, received)} if self.expected_bytes else {}),
        }

    # The status. It changes only here: pending → uploading → completed, partial or cancelled, which is final. Each of
    # these calls checks it, because it may have changed in any `await` since an earlier check.

    def check_open(self) -> None:
        """Raise Refusal if the session has ended, or is about to."""
        if self.ended or self.closing:
            over = self.status if self.ended else "cancelled"
            code: Code = "CANCELLED" if over == "cancelled" else "SESSION_ENDED"
            raise Refusal(code, f"The session is {over}: create a new one")

    def check_room(self, more: int, most: int) -> None:
        """Raise Refusal if with `more` files the session had more than `most`, the option --max-files.

        Files that are arriving or being stored count. Who passes this check adds its files before the next `await`.
        """
        if self.file_count + sum(files for files, _ in self.packs) + more > most:
            raise Refusal("TOO_MANY_FILES", f"A session has at most {most} files", number=most)

    def check_file(self, name: str, limits: Limits) -> None:
        """Raise Refusal for a file whose type the session refuses, and as `check_room` for one more file."""
        limits.check(name, self.ending)
        self.check_room(1, limits.max_files)

    @contextmanager
    def packing(self, files: int, ending: str | None) -> Iterator[None]:
        """Count files of a pack, and their `ending`, for checks while they are stored; then the caller counts them."""
        pack = files, ending
        self.packs.append(pack)
        try:
            yield
        finally:
            self.packs.remove(pack)

    def start(self) -> None:
        """Note that a file arrives. Raises Refusal as `check_open`."""
        self.check_open()
        self.status = "uploading"
        self.touch()

    def attach(self, request: asyncio.Future[Any]) -> None:
        """Register a running request, which prevents expiry and is cancelled with the session. Raises as `start`."""
        self.start()
        if not self.requests:
            self.began = time.monotonic()
        self.requests.add(request)

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Keep the session open while files of it are stored and counted. Raises Refusal as `check_open`."""
        self.check_open()
        self.stores += 1
        try:
            yield
        finally:
            self.stores -= 1
            while not self.stores and self._waiters:
                waiter = self._waiters.pop()
                if not waiter.done():  # its `close` was cancelled
                    waiter.set_result(None)

    async def close(self) -> bool:
        """End the session as cancelled, once what is being stored is stored; return False if it has ended before.

        No other file is stored meanwhile.
        """
        self.closing += 1
        try:
            while self.stores:
                self._waiters.append(asyncio.get_running_loop().create_future())
                await self._waiters[-1]
        finally:
            self.closing -= 1
        return self.end("cancelled")

    def detach(self, request: asyncio.Future[Any]) -> None:
        self.requests.discard(request)
        self.touch()

    def add(self, file: FileState) -> None:
        self.files[file.id] = file
        file.points = file.progress
        self.points += file.points
        self.name = self.name or file.wanted_path
        self.measure(file)

    def measure(self, file: FileState) -> None:
        """Update the bytes that were received of an arriving file."""
        if file.id in self.files:
            self.received += file.size - file.measured
            file.measured = file.size

    def advance(self, file: FileState, progress: int) -> None:
        self.points += progress - file.points
        file.points = file.progress = progress

    def drop(self, file: FileState) -> None:
        """Remove a file whose request ended early, or a part; the client may send it again."""
        self.parts.pop(file.id, None)
        if self.files.pop(file.id, None) is not None:
            self.points -= file.points
            self.received -= file.measured
            file.points = file.measured = self.progress = 0

    def count(self, file: FileState) -> None:
        """Count a recorded file as completed or failed by its status; it leaves the memory."""
        self.fix_ending(file)
        self.files.pop(file.id, None)
        self.points -= file.points
        self.received -= file.measured
        file.points = file.measured = 0
        stored = file.status == "completed"
        self.count_recorded(stored, file.status == "failed", file.size if stored else 0)

    def remember(self, mark: int, path: str) -> bool:
        """Mark a pack file as counted; return whether it was not counted before."""
        assert self.counted is not None  # noqa: S101 - for the type checker: `Sessions.recall` comes before
        if mark in self.counted:
            return False
        self.counted.add(mark)
        self.name = self.name or path
        return True

    def fix_ending(self, file: FileState) -> None:
        """Let the first stored file determine the type of the others."""
        if self.first_ending is None and file.path is not None:
            self.first_ending = extension(file.original_name)

    def count_recorded(self, completed: int, failed: int, stored: int) -> None:
        """Count recorded files, and the bytes of the stored ones."""
        self.unlisted += completed + failed
        self.received += stored
        self.completed += completed
        self.failed += failed

    def settle(self) -> bool:
        """End the session if all expected files have ended; return True if this call ended it."""
        if self.ended or self.stores or self.completed + self.failed < self.expected:
            return False
        self.finish()
        return True

    def finish(self, given_up: int = 0) -> None:
        """End the session: completed if no file failed or was given up, else partial."""
        self.given_up += given_up
        self.failed += given_up
        self.progress = 100
        self.end("partial" if self.failed else "completed")

    def end(self, status: str) -> bool:
        """End the session; return False if it has ended before."""
        if self.ended:
            return False
        self.status, self.finished = status, timestamp()
        self.counted = set()
        self.parts.clear()
        return True

    def touch(self) -> None:
        """Restart the time to live of the session."""
        self.touched = self.clock.now()

    def event(self, message: str, current: FileState | None = None) -> dict[str, Any]:
        """Return an `upload-progress` event with the current state."""
        return {
            "sessionId": self.id,
            "timestamp": timestamp(),
            **self.state(),
            **({"currentFile": current.in_event()} if current is not None else {}),
            "message": message,
        }

    def summary(self) -> dict[str, Any]:
        known = {"name": self.name, "endedAt": self.finished}
        return {
            "sessionId": self.id,
            "category": self.category,
            **self.state(),
            "createdAt": self.created,
            **{key: value for key, value in known.items() if value},
        }

    def row(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SESSION_COLUMNS}


def counted(statuses: Iterable[str]) -> dict[str, int]:
    """Return the number of sessions by status; a status without sessions counts 0."""
    return {**dict.fromkeys(STATUSES, 0), **Counter(statuses)}
