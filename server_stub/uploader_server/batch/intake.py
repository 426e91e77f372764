"""Receiving a batch request (bundled)."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from starlette.requests import Request

from uploader_server.batch.multipart import BatchReader
from uploader_server.http.errors import ApiError, check_segments, retrieve
from uploader_server.http.memory import held_by
from uploader_server.session import Session, batch_answer
from uploader_server.sessions import Sessions
from uploader_server.shares import holder_of
from uploader_server.storage.file_state import FileState
from uploader_server.storage.paths import is_short


async def receive_batch(sessions: Sessions, request: Request) -> dict[str, Any]:
    """Receive and store a batch. Raises ApiError, OSError, sqlite3.Error, ClientDisconnect (nothing is stored)."""
    intake = Intake(sessions, request)
    receiving = intake.task = asyncio.ensure_future(intake.receive(request))
    receiving.add_done_callback(retrieve)
    try:
        await asyncio.wait({receiving})
        if receiving.cancelled():
            raise ApiError(409, "CANCELLED", "The session was cancelled; nothing of this request was stored")
        session, files = receiving.result()
        async with sessions.storing(session):
            await sessions.put(session, session.category, files, client=holder_of(request.scope))
            await sessions.announce(session, files)
        return batch_answer(session.id, files)
    except BaseException:
        await intake.undo()
        raise
    finally:
        if not receiving.done():  # the server is stopping
            receiving.cancel()
            await asyncio.wait({receiving})
        await intake.discard()
        if intake.session is not None:
            intake.session.detach(receiving)
        del receiving, intake.task  # else its exception would keep what was received until a garbage collection


class Intake(BatchReader):
    """Assigns the parts of a batch request to its session while they arrive."""

    def __init__(self, sessions: Sessions, request: Request) -> None:
        super().__init__(sessions.limits, sessions.store.incoming, held_by(request), eager=True)
        self.sessions = sessions
        self.headers = request.headers
        self.total = int(self.headers.get("content-length", 0))  # bytes of the body
        self.session: Session | None = None
        self.paths: list[str] = []
        self.task: asyncio.Future[tuple[Session, list[FileState]]]
        """The task of `receive`, which is cancelled with the session."""
        self._file_began = 0
        self._segments = 0  # of all paths

    async def receive(self, request: Request) -> tuple[Session, list[FileState]]:
        """Read the whole body, then wait for the simulated processing. Raises as `receive_batch`."""
        content_type = request.headers.get("content-type", "")
        await self.read(request.receive, content_type, self.sessions.config.pace)
        received = self._checked()
        await asyncio.sleep(self.sessions.limits.processing * len(self.files))
        return received

    async def undo(self) -> None:
        """Remove the files of this request from the session."""
        if self.session is None:
            return
        for file in self.files:
            self.session.drop(file)
        if not self.session.ended:
            await self.sessions.notify(self.session, "A request ended early; none of its files were stored")

    def _checked(self) -> tuple[Session, list[FileState]]:
        """Return session and files of a complete body. Raises ApiError if a part is missing."""
        if self.session is None:
            raise ApiError(400, "NO_SESSION_ID", "The text part sessionId is missing")
        if "category" not in self.texts or not self.files:
            missing = "files" if "category" in self.texts else "category"
            raise ApiError(400, "MISSING_PARAMETERS", f"The part {missing} is missing")
        if self.paths and len(self.paths) != len(self.files):
            details = f"{len(self.paths)} paths, {len(self.files)} files"
            message = "Send relativePath once for each file, or not at all"
            raise ApiError(400, "VALIDATION_ERROR", message, details=details)
        if_exists = self.texts.get("ifExists", "rename")
        if if_exists not in {"rename", "fail"}:
            raise ApiError(400, "VALIDATION_ERROR", "ifExists must be rename or fail", details=if_exists)
        for file, path in itertools.zip_longest(self.files, self.paths):
            file.relative_path = path if is_short(file.original_name) else file.original_name  # refused when stored
        owner = self.sessions.owner(self.headers)
        for file in self.files:
            file.may_rename, file.owner = if_exists == "rename", owner
        return self.session, self.files

    async def text(self, name: str, value: str) -> None:
        """Handle a text part; reject an invalid one at once. Raises ApiError."""
        if name == "relativePath":
            if len(self.paths) >= self.sessions.limits.max_files:  # they stay in memory until the end
                raise ApiError(400, "TOO_MANY_FILES", "More relativePath parts than a batch may have files")
            self._segments = check_segments([value], before=self._segments)
            self.paths.append(value)
        elif name == "sessionId":
            self.attach(self.sessions.find_open(value, self.headers))
        elif name in {"category", "ifExists"}:
            self.texts[name] = value
        if self.session is not None and self.texts.get("category") not in {None, self.session.category}:
            raise ApiError(400, "INVALID_CATEGORY", "The session has another category", details=self.session.category)

    def attach(self, session: Session) -> None:
        session.check_room(len(self.files), self.sessions.limits.max_files)
        self.session = session
        session.attach(self.task)
        for file in self.files:
            session.check_file(file.original_name, self.sessions.limits)
            session.add(file)

    async def started(self, file: FileState) -> None:
        self._file_began = self.received
        if len(self.paths) >= len(self.files):
            file.relative_path = self.paths[len(self.files) - 1]
        if self.session is not None:
            self.session.check_file(file.original_name, self.sessions.limits)
            self.session.add(file)

    async def arriving(self, file: FileState) -> None:
        # Without Content-Length of the part, estimate it by the rest of the request.
        length = file.announced if file.announced is not None else self.total - self._file_began
        percent = 100 * file.size // length if length > 0 else 0
        if self.session is None:
            file.progress = max(file.progress, min(99, percent))
        else:
            speed = file.size / max(time.monotonic() - self._began, 1e-6)
            await self.sessions.arriving(self.session, file, percent, speed)
