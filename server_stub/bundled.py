"""The bundled flavour: progress while bytes arrive, early refusals, paths kept, sessions that survive a restart."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from server_stub.intake import Intake
from server_stub.metrics import counted
from server_stub.sessions import STATUSES, Session, batch_answer, file_row, restore
from server_stub.stored_paths import UnsafePathError
from server_stub.tus_uploads import Uploads
from server_stub.wire import ApiError, is_uuid, timestamp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from server_stub.config import ServerConfig
    from server_stub.faults import Faults
    from server_stub.sessions import FileState
    from server_stub.store import Store

logger = logging.getLogger(__name__)

BURST = 20
"""Events that are sent in one go."""


class Bundled:
    """Sessions and batches of the bundled server (wire contract 1)."""

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
        self.sessions = restore(store)
        self.tus = Uploads(self) if config.tus else None
        """The resumable uploads, where they are offered."""

    def create(self, category: str, expected: int) -> tuple[str, str]:
        """Open a session; its id and when it was created."""
        session = Session(str(uuid.uuid4()), category, expected)
        self.sessions[session.id] = session
        self.store.save_session(session.row())
        return session.id, session.created

    def find(self, session_id: str) -> Session:
        """The session with this id. Raises ApiError 404."""
        session = self.sessions.get(session_id.lower()) if is_uuid(session_id) else None
        if session is None:
            raise ApiError(404, "SESSION_NOT_FOUND", "There is no such upload session")
        return session

    def find_open(self, session_id: str) -> Session:
        """The session with this id, to send files into. Raises ApiError: 404, or 409 where it has ended."""
        session = self.find(session_id)
        if session.ended:
            code = "CANCELLED" if session.status == "cancelled" else "SESSION_ENDED"
            raise ApiError(409, code, f"The session is {session.status}: make a new one")
        return session

    def snapshot(self, session_id: str) -> dict[str, Any] | None:
        """What somebody who joins is told at once, or None where there is no such session."""
        try:
            session = self.find(session_id)
        except ApiError:
            return None
        running = [file for file in session.files.values() if file.status == "uploading"]
        return session.event(f"Joined: {session.status}", running[-1] if running else None)

    def progress(self, session_id: str) -> dict[str, Any]:
        """The answer to `/progress`, from the creation of the session on. Raises ApiError 404."""
        session = self.find(session_id)
        session.touch()
        percent = session.measure()
        elapsed = time.monotonic() - session.began if session.requests else 0.0
        return {
            "sessionId": session.id,
            "overallStatus": session.status,
            "totalProgress": percent,
            "completedFiles": session.completed,
            "failedFiles": session.failed,
            "totalFiles": session.total,
            "files": [file.in_progress() for file in session.files.values()],
            "estimatedTimeRemaining": round(elapsed * (100 - percent) / percent, 1) if percent and elapsed else 0,
            "lastUpdate": timestamp(),
        }

    async def batch(self, request: Request) -> dict[str, Any]:
        """Receive one batch. Raises ApiError; ClientGoneError where the connection broke off (nothing is stored)."""
        intake = Intake(self, request)
        receiving = asyncio.ensure_future(intake.receive())
        intake.task = receiving
        try:
            await asyncio.wait({receiving})
            if receiving.cancelled():
                raise _cancelled(intake)
            receiving.result()
            return await self._store(intake)
        except BaseException:
            await intake.undo()
            raise
        finally:
            if not receiving.done():  # the server stops
                receiving.cancel()
                await asyncio.wait({receiving})
            await intake.reader.discard()
            intake.detach()

    async def _store(self, intake: Intake) -> dict[str, Any]:
        session, files = intake.checked()
        if session.status == "cancelled":
            raise _cancelled(intake)
        await asyncio.to_thread(self.place, session.category, files)
        await self.account(session, files)
        return batch_answer(session.id, files)

    async def account(self, session: Session, files: list[FileState]) -> None:
        """Record files that have ended, tell the room, and end the session when they were the last."""
        position = len(session.files)
        rows = [file_row(session.id, position + place, file) for place, file in enumerate(files)]
        await asyncio.to_thread(self.store.save_files, rows)
        for number, file in enumerate(files):
            session.count(file)
            if number % BURST == BURST - 1:
                await asyncio.sleep(0)  # a thousand ends at once must not hold up everybody else's heartbeat
            await self.emit(session.id, session.event(f"{file.original_name}: {file.status}", file))
        ended = session.settle()
        session.touch()
        self.store.save_session(session.row())
        if ended:
            await self.emit(session.id, session.event(_ending(session)))

    def place(self, category: str, files: list[FileState]) -> None:
        """Give every file its name (runs in a thread); what can't be stored fails alone."""
        for file in files:
            path = file.relative_path if file.relative_path is not None else file.original_name.rpartition("/")[2]
            if self.faults.fails(file.original_name, path):
                file.fail("UPLOAD_FAILED", "Made to fail by the server's --fail-file")
                continue
            assert file.temporary is not None  # noqa: S101 - for the type checker; the reader gave every file one
            try:
                final = self.store.place(file.temporary, category, path, file.sha256)
            except UnsafePathError as error:
                file.fail("INVALID_PATH", str(error))
            except OSError as error:
                file.fail("UPLOAD_FAILED", error.strerror or str(error))
            else:
                file.temporary = None
                file.status, file.progress, file.ended = "completed", 100, timestamp()
                file.path = str(final)
                file.file_name = final.relative_to(self.store.root / category).as_posix()

    async def cancel(self, session_id: str) -> None:
        """Cancel a session and end its requests under way; nothing of those is stored. Raises ApiError 404."""
        session = self.find(session_id)
        if session.status in {"completed", "partial"}:
            raise ApiError(404, "SESSION_NOT_FOUND", "This upload session has already ended")
        session.status = "cancelled"
        session.touch()
        self.store.save_session(session.row())
        for task in session.requests:
            task.cancel()
        await self.emit(session.id, session.event("The upload was cancelled"))
        if self.tus is not None:
            await self.tus.discard(session.id)

    async def finish(self, session_id: str) -> dict[str, Any]:
        """End a session although fewer files came than were expected. Raises ApiError 404 or 409."""
        session = self.find(session_id)
        if not session.ended:
            if session.requests or (self.tus is not None and self.tus.busy(session)):
                raise ApiError(409, "SESSION_BUSY", "An upload of this session is still under way")
            if self.tus is not None:
                self.tus.release(session)
            session.finish()
            self.store.save_session(session.row())
            await self.emit(session.id, session.event(_ending(session)))
        return {
            "success": True,
            "sessionId": session.id,
            "overallStatus": session.status,
            "completedFiles": session.completed,
            "failedFiles": session.failed,
            "timestamp": timestamp(),
        }

    def statuses(self) -> dict[str, int]:
        """How many sessions have each status."""
        return counted((session.status for session in self.sessions.values()), STATUSES)

    async def sweep(self) -> None:
        """Forget sessions and uploads that nobody used for their time to live; runs until it is cancelled."""
        await asyncio.gather(self._sweep_sessions(), *(() if self.tus is None else (self.tus.sweep(),)))

    async def _sweep_sessions(self) -> None:
        ttl = self.config.session_ttl
        while True:
            await asyncio.sleep(min(60.0, ttl / 4))
            stale = time.time() - ttl
            for session in [s for s in self.sessions.values() if s.touched < stale and not self._active(s)]:
                logger.info("session %s expired", session.id)
                del self.sessions[session.id]
                self.store.forget_session(session.id)

    def _active(self, session: Session) -> bool:
        """Whether a request works at it: receiving, or storing what it received."""
        return bool(session.requests) or (self.tus is not None and self.tus.busy(session))


def _cancelled(intake: Intake) -> ApiError:
    error = ApiError(409, "CANCELLED", "The session was cancelled; nothing of this request was stored")
    error.drain = not intake.reader.complete
    return error


def _ending(session: Session) -> str:
    if session.status == "completed":
        return "All files were uploaded"
    return f"{session.failed} of {session.completed + session.failed} files failed"
