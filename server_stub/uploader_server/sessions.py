"""The sessions of the bundled server: found, restored after a restart, counted, expired; their events and files."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_server.http.errors import ApiError
from uploader_server.metrics import counted
from uploader_server.session import STATUSES, FileState, Session, file_row
from uploader_server.storage.paths import PERMANENT, UnsafePathError
from uploader_server.wire import is_uuid, timestamp

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from uploader_server.config import ServerConfig
    from uploader_server.faults import Faults
    from uploader_server.storage.store import Change, SavedSession, Store

logger = logging.getLogger(__name__)

MAX_OPEN = 10_000
"""Sessions at a time that have not ended."""
MAX_KNOWN = 100_000
"""Sessions that are kept in memory; the oldest that have ended are forgotten first."""
BURST = 20
"""Events that are sent in one go."""


class Sessions:
    """Every session of one server (docs/protocol.md, section 1), with what its uploads need; on the event loop.

    `emit(id, event)` sends an event to the room of a session.
    """

    def __init__(
        self,
        config: ServerConfig,
        store: Store,
        faults: Faults,
        emit: Callable[[str, dict[str, Any]], Awaitable[None]],
    ) -> None:
        self.config = config
        self.limits = config.limits
        self.store = store
        self.faults = faults
        self.emit = emit
        self.known = {saved.row["id"]: _restored(saved) for saved in store.sessions()}
        """The sessions by their ids, with those of an earlier server on this root."""

    async def create(self, category: str, expected: int) -> tuple[str, str]:
        """Open a session; its id and when it was created. Raises ApiError 503 where too many are open."""
        if len(self.known) >= MAX_OPEN and sum(not s.ended for s in self.known.values()) >= MAX_OPEN:
            message = f"There are {MAX_OPEN} open sessions"
            raise ApiError(503, "TOO_MANY_SESSIONS", message, headers={"retry-after": "60"})
        if len(self.known) >= MAX_KNOWN:
            del self.known[next(known.id for known in self.known.values() if known.ended)]
        session = Session(str(uuid.uuid4()), category, expected)
        await self.keep(session)
        self.known[session.id] = session
        return session.id, session.created

    def find(self, session_id: str) -> Session:
        """The session with this id. Raises ApiError 404."""
        session = self.known.get(session_id.lower()) if is_uuid(session_id) else None
        if session is None:
            raise ApiError(404, "SESSION_NOT_FOUND", "There is no such upload session")
        return session

    def find_open(self, session_id: str) -> Session:
        """The session with this id, to send files into. Raises ApiError: 404, or 409 where it has ended."""
        session = self.find(session_id)
        if session.ended:
            code = "CANCELLED" if session.status == "cancelled" else "SESSION_ENDED"
            raise ApiError(409, code, f"The session is {session.status}: create a new one")
        return session

    def snapshot(self, session_id: str) -> dict[str, Any] | None:
        """What somebody who joins is told at once, or None where there is no such session."""
        try:
            session = self.find(session_id)
        except ApiError:
            return None
        running = [file for file in session.files.values() if file.status == "uploading"]
        return session.event(f"Joined: {session.status}", running[-1] if running else None)

    async def progress(self, session_id: str) -> dict[str, Any]:
        """The answer to `/progress`, from the creation of the session on. Raises ApiError 404."""
        session = self.find(session_id)
        session.touch()
        others = await self.store.unlisted(session.id, ended=session.ended) if session.unlisted else []
        unlisted = [_file(row) for row in others if row["id"] not in session.files]
        percent = session.measure()
        elapsed = time.monotonic() - session.began if session.requests else 0.0
        return {
            "sessionId": session.id,
            "overallStatus": session.status,
            "totalProgress": percent,
            "completedFiles": session.completed,
            "failedFiles": session.failed,
            "totalFiles": session.total,
            "files": [file.in_progress() for file in [*session.files.values(), *unlisted]],
            "estimatedTimeRemaining": round(elapsed * (100 - percent) / percent, 1) if percent and elapsed else 0,
            "lastUpdate": timestamp(),
        }

    async def keep(self, session: Session) -> None:
        """Save a session. Raises sqlite3.Error."""
        await self.store.save(self.store.session_saved(session.row()))

    async def record(self, session: Session | None, files: list[FileState], *more: Change) -> None:
        """Save files that have ended, with what else belongs into this transaction. Raises sqlite3.Error."""
        position = len(session.files) if session is not None else 0
        owner = session.id if session is not None else ""
        paths = [None if file.path is None else self.store.below(Path(file.path)) for file in files]
        rows = [file_row(owner, position + n, file, paths[n]) for n, file in enumerate(files)]
        stored = [(Path(file.path), file.sha256) for file in files if file.path is not None and file.sha256]
        changes = [self.store.files_saved(rows), self.store.digests.saved(stored), *more]
        if session is not None:
            changes.append(self.store.session_saved(session.row()))
        await self.store.save(*changes)

    async def announce(self, session: Session, files: list[FileState]) -> None:
        """Count recorded files, tell the room, and end the session when they were the last. Raises sqlite3.Error."""
        for number, file in enumerate(files):
            session.count(file)
            if number % BURST == BURST - 1:
                await asyncio.sleep(0)  # a thousand ends at once must not hold up everybody else's heartbeat
            await self.emit(session.id, session.event(f"{file.original_name}: {file.status}", file))
        session.touch()
        if session.settle():
            await self.keep(session)
            await self.emit(session.id, session.event(ending(session)))
        session.release()

    def placing(self, category: str, files: list[FileState]) -> AbstractContextManager[None]:
        """Around `place` and `record`: meanwhile no file that these may be answered with is removed."""
        return self.store.placing(category, [_wanted(file) for file in files])

    def place(self, category: str, files: list[FileState]) -> None:
        """Give every file its name (runs in a thread); what can't be stored fails alone.

        The bytes are on the disk already. Raises OSError where the names can't be flushed: the files have them then,
        but nobody may be told.
        """
        finals = []
        for file in files:
            try:
                finals.append((file, self._place(category, file)))
            except OSError as error:
                file.fail("UPLOAD_FAILED", error.strerror or str(error))
        self._placed(category, finals)

    def place_one(self, category: str, file: FileState) -> None:
        """Do what `place` does for one file. Raises OSError also where another try may help: then it has not failed."""
        self._placed(category, [(file, self._place(category, file))])

    def _place(self, category: str, file: FileState) -> Path | None:
        """The new name of a file; None where it has failed for good. Raises OSError."""
        path = _wanted(file)
        if self.faults.fails(file.original_name, path):
            file.fail("UPLOAD_FAILED", "Made to fail by the server's --fail-file")
            return None
        assert file.temporary is not None  # noqa: S101 - for the type checker; the reader gave every file one
        try:
            return self.store.place(file.temporary, category, path)
        except UnsafePathError as error:
            file.fail("INVALID_PATH", str(error))
        except OSError as error:
            if error.errno not in PERMANENT:
                raise
            file.fail("UPLOAD_FAILED", error.strerror or str(error))
        return None

    def _placed(self, category: str, finals: list[tuple[FileState, Path | None]]) -> None:
        """Flush the new names, then say that these files are stored."""
        self.store.disk.names([final for _, final in finals if final is not None])
        for file, final in finals:
            if final is not None:
                file.status, file.progress, file.ended = "completed", 100, timestamp()
                file.path = str(final)
                file.file_name = final.relative_to(self.store.root / category).as_posix()

    def statuses(self) -> dict[str, int]:
        """How many sessions have each status."""
        return counted((session.status for session in self.known.values()), STATUSES)


def _wanted(file: FileState) -> str:
    """The path below its category that a file is to have."""
    return file.relative_path if file.relative_path is not None else file.original_name.rpartition("/")[2]


def _restored(saved: SavedSession) -> Session:
    """A session as its files say how far it is: its own row may be older."""
    row = saved.row
    session = Session(
        id=row["id"],
        category=row["category"],
        expected=row["expected"],
        status=row["status"],
        created=row["created"],
        touched=row["touched"],
        progress=row["progress"],
        given_up=row["given_up"],
        failed=row["given_up"],
    )
    for known in saved.files:
        session.files[known["id"]] = _file(known)
        session.count(session.files[known["id"]])
    session.count_packed(saved.unlisted.get("completed", 0), saved.unlisted.get("failed", 0))
    for known in saved.open_packed:
        session.remember(known["relative_path"], known["sha256"].hex())
    if session.file_count and session.status == "pending":
        session.status = "uploading"
    session.settle()
    session.release()
    return session


def _file(row: sqlite3.Row) -> FileState:
    return FileState(
        original_name=row["original_name"],
        relative_path=row["relative_path"],
        id=row["id"],
        status=row["status"],
        size=row["size"],
        progress=row["progress"],
        speed=row["speed"],
        error=row["error"],
        error_code=row["error_code"],
    )


def ending(session: Session) -> str:
    """Say in an event how a session ended."""
    if session.status == "completed":
        return "All files were uploaded"
    return f"{session.failed} of {session.completed + session.failed} files failed"
