"""The bundled flavour: progress during transfer, early errors, relative paths, persistent sessions."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from uploader_server.batch.intake import receive_batch
from uploader_server.batch.packs import Packs
from uploader_server.http.errors import ApiError
from uploader_server.sessions import Sessions, ending
from uploader_server.sweeping import logged, sweep
from uploader_server.tus import finish
from uploader_server.tus.uploads import Uploads
from uploader_server.wire import timestamp

if TYPE_CHECKING:
    from starlette.requests import Request

    from uploader_server.session import Session

logger = logging.getLogger(__name__)


class Bundled(Sessions):
    """The backend of the bundled server (docs/protocol.md, section 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tus = Uploads(self)
        self.packs = Packs(self)

    async def batch(self, request: Request) -> dict[str, Any]:
        """Receive one batch. Raises ApiError; ClientDisconnect if the connection closed (nothing is stored)."""
        return await receive_batch(self, request)

    async def cancel(self, session_id: str) -> None:
        """Cancel a session and its running requests, whose files are not stored. Raises ApiError 404."""
        session = self.find(session_id)
        if session.status in {"completed", "partial"}:
            raise ApiError(404, "SESSION_NOT_FOUND", "This upload session has already ended")
        session.status = "cancelled"
        session.touch()
        await self.keep(session)
        for task in session.requests:
            task.cancel()
        await self.notify(session, "The upload was cancelled")
        await self.tus.discard(session.id)
        session.release()

    async def delete(self, file_id: str) -> bool:
        """Delete a stored file; return False if there is none with this id."""
        return await self.tus.delete(file_id) or await self.store.delete(file_id)

    async def finish(self, session_id: str, given_up: int) -> dict[str, Any]:
        """End a session before all files arrived: `given_up` of them won't be sent. Raises ApiError 404 or 409."""
        session = self.find(session_id)
        if not session.ended:
            if self._active(session):
                raise ApiError(409, "SESSION_BUSY", "An upload of this session is still running")
            self.tus.release(session)
            session.finish(given_up)
            session.release()
            await self.notify(session, ending(session))
        await self.keep(session)
        return {
            "success": True,
            "sessionId": session.id,
            "overallStatus": session.status,
            "completedFiles": session.completed,
            "failedFiles": session.failed,
            "timestamp": timestamp(),
        }

    async def sweep(self) -> None:
        """Remove expired sessions, uploads, packs and digests regularly, until cancelled."""
        await asyncio.gather(
            sweep("The sweep of sessions", self.config.session_ttl, self._sweep_sessions),
            sweep("The sweep of digests", self.config.session_ttl, self.store.digests.prune),
            finish.sweep_uploads(self.tus),
            self.packs.sweep(),
        )

    async def _sweep_sessions(self) -> None:
        stale = time.time() - self.config.session_ttl
        for session in [s for s in self.known.values() if s.touched < stale and not self._active(s)]:
            logger.info("session %s expired", session.id)
            del self.known[session.id]
            with logged("Deleting a session"):  # retried after a restart
                await self.store.save(self.store.session_forgotten(session.id))

    def _active(self, session: Session) -> bool:
        """Return whether a request is receiving or storing files of the session."""
        return bool(session.requests) or self.tus.busy(session)
