"""Receiving a batch request (bundled)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from uploader_server.batch.multipart import BatchReader
from uploader_server.http.errors import ApiError
from uploader_server.session import batch_answer

if TYPE_CHECKING:
    from starlette.requests import Request

    from uploader_server.session import FileState, Session
    from uploader_server.sessions import Sessions


async def receive_batch(sessions: Sessions, request: Request) -> dict[str, Any]:
    """Receive one batch, store its files and return the answer.

    Raises ApiError; ClientDisconnect if the connection closed (nothing is stored).
    """
    intake = Intake(sessions, request)
    receiving = asyncio.ensure_future(intake.receive())
    intake.task = receiving
    try:
        await asyncio.wait({receiving})
        if receiving.cancelled():
            raise _cancelled()
        receiving.result()
        session, files = intake.checked()
        if session.status == "cancelled":
            raise _cancelled()
        with sessions.store.placing(session.category, [file.wanted_path for file in files]):
            await _store(sessions, session, files)
            await sessions.record(session, files)
        await sessions.announce(session, files)
        return batch_answer(session.id, files)
    except BaseException:
        await intake.undo()
        raise
    finally:
        if not receiving.done():  # the server is stopping
            receiving.cancel()
            await asyncio.wait({receiving})
        await intake.reader.discard()
        intake.detach()


async def _store(sessions: Sessions, session: Session, files: list[FileState]) -> None:
    """Flush the files, then link them to their names. Raises OSError."""
    temporaries = [file.temporary for file in files if file.temporary is not None]
    await asyncio.to_thread(sessions.store.disk.files, temporaries)
    await asyncio.to_thread(sessions.place, session.category, files)


def _cancelled() -> ApiError:
    return ApiError(409, "CANCELLED", "The session was cancelled; nothing of this request was stored")


class Intake:
    """Assigns the parts of one batch request to its session while they arrive."""

    def __init__(self, sessions: Sessions, request: Request) -> None:
        self.sessions = sessions
        self.request = request
        self.reader = BatchReader(sessions.limits, sessions.store.incoming, self, eager=True)
        self.session: Session | None = None
        self.category: str | None = None
        self.paths: list[str] = []
        self.task: asyncio.Task[None] | None = None
        self.total = int(request.headers.get("content-length", 0))
        self._file_began = 0
        self._began = 0.0

    async def receive(self) -> None:
        """Read the whole body, then wait for the simulated processing. Raises as `receive_batch`."""
        content_type = self.request.headers.get("content-type", "")
        try:
            await self.reader.read(self.request.receive, content_type, self.sessions.config.idle_timeout)
        except TimeoutError:
            raise ApiError(408, "UPLOAD_FAILED", "The request stopped sending") from None
        self.checked()
        await asyncio.sleep(self.sessions.limits.processing * len(self.reader.files))

    async def undo(self) -> None:
        """Remove the files of this request from the session."""
        if self.session is None:
            return
        for file in self.reader.files:
            self.session.drop(file)
        if not self.session.ended:
            await self.sessions.emit(
                self.session.id, self.session.event("A request ended early; none of its files were stored")
            )

    def checked(self) -> tuple[Session, list[FileState]]:
        """Return session and files of a complete body. Raises ApiError if a part is missing."""
        if self.session is None:
            raise ApiError(400, "NO_SESSION_ID", "The text part sessionId is missing")
        if self.category is None or not self.reader.files:
            missing = "category" if self.category is None else "files"
            raise ApiError(400, "MISSING_PARAMETERS", f"The part {missing} is missing")
        if self.paths and len(self.paths) != len(self.reader.files):
            raise ApiError(
                400,
                "VALIDATION_ERROR",
                "Send relativePath once for each file, or not at all",
                details=f"{len(self.paths)} paths, {len(self.reader.files)} files",
            )
        for file, path in zip(self.reader.files, self.paths, strict=False):
            file.relative_path = path
        return self.session, self.reader.files

    async def text(self, name: str, value: str) -> None:
        """Handle a text part; reject an invalid one at once. Raises ApiError."""
        if name == "relativePath":
            if len(self.paths) >= self.sessions.limits.max_files:  # they stay in memory until the end
                raise ApiError(400, "TOO_MANY_FILES", "More relativePath parts than a batch may have files")
            self.paths.append(value)
        elif name == "sessionId":
            if self.session is not None:
                raise ApiError(400, "VALIDATION_ERROR", "sessionId was sent twice")
            self._attach(self.sessions.find_open(value))
        elif name == "category":
            if self.category is not None:
                raise ApiError(400, "VALIDATION_ERROR", "category was sent twice")
            self.category = value
        if self.session is not None and self.category not in {None, self.session.category}:
            raise ApiError(400, "INVALID_CATEGORY", "The session has another category", details=self.session.category)

    def _attach(self, session: Session) -> None:
        self.session = session
        if self.task is not None:
            session.attach(self.task)
        for file in self.reader.files:
            session.add(file)

    def detach(self) -> None:
        """Detach the request from its session, which may expire again."""
        if self.session is not None and self.task is not None:
            self.session.detach(self.task)

    async def started(self, file: FileState) -> None:
        """Add a file to the session."""
        self._file_began, self._began = self.reader.received, time.monotonic()
        if len(self.paths) >= len(self.reader.files):
            file.relative_path = self.paths[len(self.reader.files) - 1]
        if self.session is not None:
            self.session.add(file)

    async def arriving(self, file: FileState) -> None:
        """Report the progress of a file."""
        # Without Content-Length of the part, estimate it by the rest of the request.
        length = file.announced if file.announced is not None else self.total - self._file_began
        percent = 100 * file.size // length if length > 0 else 0
        if self.session is None:
            file.progress = max(file.progress, min(99, percent))
        else:
            speed = file.size / max(time.monotonic() - self._began, 1e-6)
            await self.sessions.arriving(self.session, file, percent, speed)
