"""The bundled flavour: progress during transfer, early errors, relative paths, persistent sessions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from starlette.requests import Request

from uploader_server.backend import Calls
from uploader_server.batch.intake import receive_batch
from uploader_server.batch.lookup import Lookup
from uploader_server.batch.packs import Packs
from uploader_server.errors import Refusal
from uploader_server.http.errors import ENGLISH
from uploader_server.session import Session
from uploader_server.sessions import Sessions, ending
from uploader_server.shares import EMPTY_TTL
from uploader_server.tus.calls import Tus
from uploader_server.tus.finish import settle
from uploader_server.tus.saved import LOST_TTL
from uploader_server.tus.uploads import Uploads
from uploader_server.wire import timestamp

logger = logging.getLogger(__name__)


async def sweep(what: str, ttl: float, action: Callable[[], Awaitable[None]]) -> None:
    """Run an action four times per `ttl` (seconds), at least once a minute, until cancelled; log its errors."""
    while True:
        await asyncio.sleep(min(60.0, ttl / 4))
        with logged(what):
            await action()


@contextlib.contextmanager
def logged(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - no error may end the periodic task
        logger.error("%s failed: %r", what, error)


class Bundled:
    """The backend of the bundled server (docs/protocol.md, section 1): its sessions, uploads and packs."""

    words = ENGLISH

    def __init__(self, sessions: Sessions, watched: Callable[[str], bool]) -> None:
        """`watched` tells whether a connection has joined a session."""
        self.sessions = sessions
        self.config, self.store = sessions.config, sessions.store
        self.create, self.progress = sessions.create, sessions.progress
        self.snapshot, self.statuses, self.newest = sessions.snapshot, sessions.statuses, sessions.newest
        self.tus = Uploads(sessions)
        self.packs = Packs(sessions)
        self._watched = watched
        self._recorded = self.store.clock.now()  # time of the last `record_times`

    def calls(self) -> dict[str, Calls]:
        """Return the enabled calls beside those of sessions, by their names in `/health`."""
        found: dict[str, Calls] = {"tus": Tus(self.tus)} if self.config.tus else {}
        if self.config.packs:
            found |= {"packs": self.packs, "lookup": Lookup(self.store)}
        return found

    async def batch(self, request: Request) -> dict[str, Any]:
        """Receive one batch. Raises Refusal; ClientDisconnect if the connection closed (nothing is stored)."""
        return await receive_batch(self.sessions, request)

    async def cancel(self, session_id: str, headers: Mapping[str, str]) -> None:
        """Cancel a session and its running requests, whose files are not stored. Raises Refusal."""
        session = self.sessions.find(session_id)
        if session.status in {"completed", "partial"}:  # which everyone may know
            raise Refusal("SESSION_NOT_FOUND", "This upload session has already ended")
        self.sessions.check_writer(session_id, headers)
        for task in session.requests:
            task.cancel()
        if not await session.close() and session.status != "cancelled":  # what was being stored has completed it
            raise Refusal("SESSION_NOT_FOUND", "This upload session has already ended")
        session.touch()
        await self.store.save(self.store.session_saved(session.row()), frees=True)
        await self.sessions.notify(session, "The upload was cancelled")
        await self.tus.discard(session.id)

    async def delete(self, file_id: str, headers: Mapping[str, str]) -> bool:
        """Delete a stored file; return False if there is none. Raises Refusal for that of another client."""
        owner = await self.store.owner(file_id)
        if owner is None:
            return False
        self.sessions.check_deleter(owner, headers)
        return await self.tus.delete(file_id) or await self.store.delete(file_id)

    async def finish(self, session_id: str, given_up: int, headers: Mapping[str, str]) -> dict[str, Any]:
        """End a session before all files arrived: `given_up` of them won't be sent. Raises Refusal."""
        session = self.sessions.find_writable(session_id, headers)
        if not session.ended:
            if self._active(session):
                raise Refusal("SESSION_BUSY", "An upload of this session is still running")
            self.tus.release(session)
            session.finish(given_up)
            await self.sessions.notify(session, ending(session))
        await self.sessions.keep(session)
        return {
            "success": True,
            "sessionId": session.id,
            "overallStatus": session.status,
            "completedFiles": session.completed,
            "failedFiles": session.failed,
            "timestamp": timestamp(),
        }

    async def sweep(self) -> None:
        """Remove expired sessions, uploads and packs, and rows of what is gone, regularly, until cancelled."""
        session_ttl, upload_ttl = self.config.session_ttl, self.config.upload_ttl
        await asyncio.gather(
            sweep("The sweep of sessions", session_ttl, self._sweep_sessions),
            sweep("The sweep of rows", min(session_ttl, upload_ttl), self.store.pruner.run),
            self._finish_and_sweep_uploads(),
            sweep("The sweep of packs", upload_ttl, self.packs.rows.forget_old),
            sweep("The sweep of lost files", LOST_TTL, lambda: asyncio.to_thread(self.tus.store.remove_lost)),
            sweep("Recording the time", min(session_ttl, upload_ttl), self.record_times),
        )

    async def record_times(self) -> None:
        """Save the time, and when sessions and uploads were used since the last call. Raises sqlite3.Error, OSError.

        Requests don't save it; without this a restart would forget them, and the time since the last change.
        """
        before, now = self._recorded, self.store.clock.now()
        known = self.sessions.known.values()
        sessions = [(session.touched, session.id) for session in known if session.touched >= before]
        uploads = [(upload.touched, upload.id) for upload in self.tus.known.values() if upload.touched >= before]
        await self.store.save(self.store.times_saved(sessions, uploads), frees=True)
        self._recorded = now

    async def _finish_and_sweep_uploads(self) -> None:
        """Finish uploads that were complete when the server crashed, then remove expired ones."""
        for upload in [upload for upload in self.tus.open.values() if upload.complete or upload.concat.parts]:
            with logged("Finishing an upload"), contextlib.suppress(Refusal):
                async with self.tus.turn(upload):
                    await settle(self.tus, upload)
        await sweep("The sweep of uploads", self.config.upload_ttl, self._sweep_uploads)

    async def _sweep_uploads(self) -> None:
        expired = {upload.id for upload in self.tus.open.values() if self.tus.expires(upload) < self.store.clock.now()}
        for upload_id in expired.union(await self.tus.store.untouched_since(self.store.clock.now() - self.tus.ttl)):
            with logged("Removing an upload"), contextlib.suppress(Refusal):
                await self.tus.expire(upload_id)

    async def _sweep_sessions(self) -> None:
        ttl, now = self.config.session_ttl, self.store.clock.now()
        for session in list(self.sessions.known.values()):
            empty = session.empty and not self._watched(session.id)
            if session.touched < now - (min(ttl, EMPTY_TTL) if empty else ttl) and not self._active(session):
                with logged("Deleting a session"):  # retried after a restart
                    await self.sessions.forget(session)
        self.sessions.share.prune()

    def _active(self, session: Session) -> bool:
        """Return whether a request is receiving or storing files of the session."""
        return bool(session.requests or session.stores) or self.tus.busy(session)
