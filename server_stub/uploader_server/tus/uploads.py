"""The registry of tus uploads: lookup, locking, removal, expiry, and their sessions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence

from uploader_server.auth import check_token
from uploader_server.errors import Refusal
from uploader_server.http.errors import ApiError, as_api_error
from uploader_server.session import Session
from uploader_server.sessions import Sessions
from uploader_server.shares import EMPTY_TTL, Share
from uploader_server.storage.turns import JOINING, Turns
from uploader_server.storage.writing import SMALL
from uploader_server.tus.headers import check_length
from uploader_server.tus.saved import SavedUploads
from uploader_server.tus.upload import FINISHED, JOINED, OPEN, SharedFile, SharedFiles, Upload

logger = logging.getLogger(__name__)


class Uploads:
    """All uploads of one server. Not thread-safe: used on the event loop."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.limits = sessions.limits
        self.ttl = sessions.config.upload_ttl
        self.clock = sessions.store.clock
        self.store = SavedUploads(sessions.store)
        self.open: dict[str, Upload] = {}  # unfinished uploads by id
        self.known: weakref.WeakValueDictionary[str, Upload] = weakref.WeakValueDictionary()
        """Unfinished uploads and those in use by requests, by id, so that all requests share one object."""
        self._keys: dict[tuple[str, str], Upload] = {}  # unfinished uploads by owner and `uploadKey`
        self.shared = SharedFiles()
        self.joining = Turns(JOINING)
        self.share: Share[Upload] = Share("uploads", sessions.config.max_share, now=self.clock.now)
        for upload in self.store.unfinished():
            self.keep(upload)
            if upload.status == FINISHED:  # a part written in place
                self._drop(upload)
            session = self.session_of(upload)
            if session is not None and upload.is_part:
                session.parts[upload.file_id] = upload.offset
            elif session is not None:
                upload.file.size = upload.offset
                session.add(upload.file)

    # Lookup

    async def find(self, upload_id: str) -> Upload:
        """Return the upload with this id. Raises ApiError: 404 if unknown, 410 if gone."""
        upload = self.known.get(upload_id) or await self.store.find(upload_id)
        if upload is None:
            raise ApiError(404, "UPLOAD_NOT_FOUND", "There is no such upload")
        upload = self.known.setdefault(upload_id, upload)  # a concurrent request may have loaded it
        await self.check(upload)
        return upload

    async def find_key(self, owner: str, key: str) -> Upload | None:
        """Return the upload that was created with this `uploadKey`, unless it is gone."""
        found = self.unfinished(owner, key) or (await self.store.find_key(owner, key) if key else None)
        with contextlib.suppress(Refusal):
            return None if found is None else await self.find(found.id)
        return None

    def unfinished(self, owner: str, key: str) -> Upload | None:
        """Return the unfinished upload that was created with this `uploadKey`."""
        return self._keys.get((owner, key))

    async def check(self, upload: Upload) -> None:
        """Raise ApiError 410 if the upload is gone, has expired, or its file is missing.

        A missing file is not recorded: it may come back, as from a backup. Raises OSError if the disk of its category
        is not mounted.
        """
        if upload.has_data and not upload.lock.locked() and self.clock.now() > self.expires(upload):
            await self.retire(upload, "expired")
        elif upload.path is not None and not upload.gone and not self.sessions.store.categories.is_file(upload.path):
            if not self.sessions.store.categories.is_there(upload.path):
                raise FileNotFoundError(errno.ENOENT, "The disk of its category is not mounted")
            raise _gone("deleted")
        if upload.gone:
            raise _gone(upload.status)

    def expires(self, upload: Upload) -> float:
        """Return when an upload expires if no request uses it (seconds of `Store.clock`)."""
        return upload.touched + (min(self.ttl, EMPTY_TTL) if upload.empty else self.ttl)

    def session_of(self, upload: Upload) -> Session | None:
        """Return the session of an upload if it is known and open."""
        session = self.sessions.known.get(upload.session)
        return None if session is None or session.ended else session

    def check_session(self, upload: Upload) -> None:
        """Raise ApiError 409 if the session of an upload has ended: a repeated creation can move it to another one."""
        session = self.sessions.known.get(upload.session)
        if session is not None:
            session.check_open()

    # Locking

    @contextlib.asynccontextmanager
    async def turn(self, upload: Upload) -> AsyncIterator[None]:
        """Lock an upload; a request that is sending bytes is cancelled and its bytes are kept.

        Raises ApiError 410 if the upload is gone.
        """
        upload.waiting += 1
        try:
            if upload.writer is not None:
                upload.writer.cancel()
            await upload.lock.acquire()
        finally:
            upload.waiting -= 1
        try:
            await self.check(upload)
            upload.touched = self.clock.now()
            session = self.session_of(upload)
            if session is not None:
                session.touch()
            yield
        finally:
            upload.lock.release()

    # Changes

    def keep(self, upload: Upload) -> None:
        self.shared.enter(upload)
        if not self.share.holds(upload.holder, upload):
            self.share.add(upload.holder, upload)
        self.known[upload.id] = self.open[upload.id] = upload
        if upload.key:
            self._keys[upload.owner, upload.key] = upload

    def _drop(self, upload: Upload) -> None:
        """Forget an ended upload. A finished part in a shared file stays in memory, and counts until it is joined."""
        self.open.pop(upload.id, None)
        if upload.status != FINISHED or upload.place is None:
            self.share.remove(upload.holder, upload)
        if self.unfinished(upload.owner, upload.key) is upload:
            del self._keys[upload.owner, upload.key]

    async def add(self, upload: Upload, *, save: bool) -> None:
        """Create the data file and row of a registered upload. Raises OSError, sqlite3.Error."""
        try:
            await self._gather(upload)
            if save:
                if not upload.concat.parts:
                    await self.store.make(upload)
                await self.store.save(upload)
        except BaseException:
            upload.status = "failed"
            self._drop(upload)
            self.shared.leave(upload)
            raise
        session = self.sessions.known.get(upload.session)
        if session is None:
            return
        try:
            self._enter(upload, session)
        except Refusal as error:  # it has ended meanwhile, or got other files
            await self.retire(upload, "failed" if as_api_error(error).status == 400 else "cancelled")
            raise

    def most(self, upload: Upload) -> int:
        if upload.length is not None:
            return upload.length
        shared = self.shared.of(upload)
        return self.limits.max_size if shared is None else shared.space(upload)

    async def set_length(self, upload: Upload, length: int) -> None:
        """Set a deferred length. Raises ApiError 400 if it contradicts the upload's state."""
        if upload.length is None and upload.offset <= length and (upload.place is None or length <= self.most(upload)):
            check_length(length, self.limits.max_size)
            await self.store.save(upload, length=length)
            upload.length = upload.file.announced = length
        elif upload.length != length:
            raise ApiError(400, "INVALID_HEADER", "Upload-Length contradicts the state of the upload")

    async def finished(self, upload: Upload, parts: Sequence[Upload] = ()) -> None:
        """Mark an upload as finished after its rows were saved; `parts` are the uploads it was joined from.

        Data without another name are removed in a thread: freeing many bytes, or many files, takes long.
        """
        upload.status, upload.path, upload.touched = FINISHED, upload.file.path, self.clock.now()
        freed = list(parts)
        if upload.path is not None and not upload.file.linked and upload.offset > SMALL:
            freed.append(upload)  # its bytes were stored already
        elif upload.path is not None:
            self.store.remove(upload)
        self._drop(upload)
        for part in parts:
            part.status = JOINED
            self._leave_session(part)
            self.shared.leave(part)
            self.share.remove(part.holder, part)
        if freed:
            await asyncio.to_thread(self.store.remove, *freed)

    def _leave_session(self, upload: Upload) -> None:
        if (session := self.sessions.known.get(upload.session)) is not None:
            session.drop(upload.file)

    async def retire(self, upload: Upload, reason: str) -> None:
        """End an upload: remove its data, free its key, respond 410 from now on. A stored file stays."""
        if upload.is_part or (upload.status == OPEN and upload.file.status == "uploading"):
            self._leave_session(upload)
        upload.status, upload.touched = reason, self.clock.now()
        self._drop(upload)
        try:
            await self.store.save(upload, frees=True)
        finally:  # its space is free even if that can't be recorded
            if self.shared.leave(upload):
                await asyncio.to_thread(self.store.remove, upload)

    async def terminate(self, upload: Upload, headers: Mapping[str, str]) -> None:
        """Remove an upload (tus 1.0, termination), and its stored file if it linked that.

        Deleting the file of a session, or of a subject, needs a token and the right as for
        `DELETE /api/upload/file/{id}`. Raises ApiError: 401, 403.
        """
        async with self.turn(upload):
            if upload.path is not None:
                if upload.session or upload.owner:
                    config = self.sessions.config
                    check_token(headers.get("authorization"), config.jwt_secret, config.auth_token)
                    self.sessions.check_deleter(upload.owner, headers)
                await self.sessions.store.delete(upload.file_id)
            session = self.session_of(upload) if upload.status == OPEN else None
            await self.retire(upload, "terminated")
            if session is not None:
                await self.sessions.notify(session, f"{upload.file.original_name} was terminated")

    async def delete(self, file_id: str) -> bool:
        """Delete the file of a finished upload and end the upload; return False if there is none."""
        with contextlib.suppress(Refusal):
            upload = await self.find(await self.store.find_file(file_id) or "")
            if upload.path is not None:
                async with self.turn(upload):
                    deleted = await self.sessions.store.delete(upload.file_id)
                    await self.retire(upload, "deleted")
                    return deleted
        return False

    # Sessions

    async def _gather(self, part: Upload) -> None:
        """Move the parts in the same file as a new part, whose range was checked, to its session."""
        shared = self.shared.of(part)
        if shared is not None and part.session and shared.session != part.session:
            await self._move(shared, part.session, part.category)

    async def _move(self, shared: SharedFile, session: str, category: str) -> None:
        entered = self.sessions.known.get(session)
        for part in shared.parts:
            self._leave_session(part)
            part.session, part.category = session, category
            if entered is not None:
                entered.parts[part.file_id] = part.offset
        await self.sessions.store.save(*map(self.store.saved, shared.parts))

    async def adopt(self, upload: Upload, session_id: str) -> None:
        """Move an upload to the session of a repeated creation, if that session is open.

        So a client can resume after its session was lost. A finished upload is counted in the new session.
        """
        session = self.sessions.known.get(session_id.lower())
        if session is None or session.ended or session.id == upload.session:
            return
        shared = self.shared.of(upload)
        if shared is not None:
            await self._move(shared, session.id, session.category)
            self._enter(upload, session)
            return
        if upload.status == OPEN or upload.path is not None:
            self._check_file(upload, session)
        before = self.session_of(upload)
        if before is not None and upload.status == OPEN:
            before.drop(upload.file)
        upload.session = session.id
        if upload.path is not None:
            file = upload.file
            file.status, file.progress, file.size, file.path = "completed", 100, upload.offset, upload.path
            async with self.sessions.storing(session):
                self._enter(upload, session)
                await self.sessions.record(session, [file], self.store.saved(upload))
                await self.sessions.announce(session, [file])
            return
        if upload.status == OPEN:
            upload.category = session.category
            self._enter(upload, session)
        await self.store.save(upload)

    async def discard(self, session_id: str) -> None:
        """End the requests and remove the unfinished data of a cancelled session."""
        for upload_id in await self.store.with_data(session_id):
            with contextlib.suppress(Refusal):
                upload = await self.find(upload_id)
                async with self.turn(upload):
                    if upload.has_data:
                        await self.retire(upload, "cancelled")

    def release(self, session: Session) -> None:
        """Detach unfinished uploads from a session that ends; they can be finished in another session."""
        for upload in self.open.values():
            if upload.session == session.id:
                session.drop(upload.file)

    def busy(self, session: Session) -> bool:
        """Return whether a request uses an unfinished upload of this session."""
        return any(upload.session == session.id and upload.lock.locked() for upload in self.open.values())

    async def expire(self, upload_id: str) -> None:
        """Expire an unfinished upload (raises ApiError 410), or delete the row of a finished or gone one."""
        upload = self.known.get(upload_id) or await self.store.find(upload_id)
        if upload is None:
            return
        if upload.has_data:
            await self.find(upload_id)
        elif not upload.lock.locked():
            values = (upload_id, self.clock.now() - self.ttl)
            delete = "DELETE FROM tus_uploads WHERE id = ? AND touched < ?"  # unless a request saves it before
            await self.sessions.store.save(lambda db: db.execute(delete, values), frees=True)
            self.known.pop(upload_id, None)  # a request may have left a reference
            logger.info("deleted the record of the upload of file %s", upload.file_id)

    def _enter(self, upload: Upload, session: Session) -> None:
        """Add an upload to its session. Raises ApiError: 409 if that has ended, 400 as `Session.check_file`."""
        self._check_file(upload, session)
        session.start()
        if not upload.is_part:
            session.add(upload.file)

    def _check_file(self, upload: Upload, session: Session) -> None:
        if not upload.is_part:
            session.check_file(upload.file.original_name, self.limits)


def _gone(reason: str) -> ApiError:
    code = "CANCELLED" if reason == "cancelled" else "UPLOAD_GONE"
    return ApiError(410, code, f"This upload is gone ({reason}): create a new one")
