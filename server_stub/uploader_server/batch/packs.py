"""Packs: many small files in one request (docs/extensions.md)."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uploader_server.batch.packbody import FRAMING, MAX_MANIFEST, Manifest, PackBody, parse_manifest
from uploader_server.batch.packstore import Key, PackRows, Unpacking
from uploader_server.http.bodies import PackLimits
from uploader_server.http.errors import ApiError, Json, retrieve
from uploader_server.session import Session
from uploader_server.sessions import BURST, Sessions
from uploader_server.shares import holder_of
from uploader_server.storage.file_state import FileState
from uploader_server.storage.put import put
from uploader_server.storage.store import Change
from uploader_server.wire import PACKS, stored_at

KEY = re.compile(r"[!-~]{1,200}")


class Packs:
    """The handlers of packs. A pack is buffered in memory; one thread checks, writes and links its files."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.rows = PackRows(sessions.store, sessions.config.upload_ttl)
        self._limits = PackLimits(file_size=min(PackLimits().file_size, sessions.limits.max_size))
        self._running: dict[Key, bytes] = {}  # manifest digests of packs that are being stored, by key

    def described(self) -> dict[str, Any]:
        """Return `packs` of `/health` and of the session response."""
        files, size, file_size = self._limits
        return {"endpoint": PACKS, "maxFiles": files, "maxBytes": size, "maxFileSize": file_size}

    def routes(self) -> list[Route]:
        return [
            Route(PACKS, self.receive, methods=["POST"]),
            Route(PACKS + "/{key:path}", self.recall, methods=["GET"]),
        ]

    async def recall(self, request: Request) -> Response:
        """Serve `GET …/packs/{key}`: the saved response. Raises ApiError: 404, 409 while it is being stored."""
        key = self._key(request, request.path_params["key"])
        if key in self._running:
            raise _in_progress()
        known = await self.rows.find(key)
        if known is None:
            raise ApiError(404, "PACK_NOT_FOUND", "There is no saved response for this key")
        self._sessions.check_writer(known.session, request.headers)
        return Json(await asyncio.to_thread(_answer, known.session, known.files))

    async def receive(self, request: Request) -> Response:
        body = PackBody(request, self._sessions.config.pace)
        key = self._key(request, request.headers.get("idempotency-key", ""))
        body.check(self._limits.bytes + MAX_MANIFEST + FRAMING)
        return Json(await self._answer(key, body, request))

    def _key(self, request: Request, key: str) -> Key:
        if KEY.fullmatch(key) is None:
            raise ApiError(400, "INVALID_HEADER", "Idempotency-Key must be 1 to 200 visible ASCII characters")
        return self._sessions.owner(request.headers), key

    async def _answer(self, key: Key, body: PackBody, request: Request) -> bytes:
        headers = request.headers
        manifest = await body.held.parse(await body.manifest(), functools.partial(parse_manifest, limits=self._limits))
        body.forget_manifest(manifest.kept)
        self._sessions.check_writer(manifest.session, headers)
        self._check_running(key, manifest)
        known = await self._saved_answer(key, manifest)
        if known is not None:
            return known
        await self._sessions.recall(self._sessions.find_open(manifest.session, headers))
        session = self._sessions.find_open(manifest.session, headers)
        self._new(session, manifest)
        await body.begin_data(manifest.total)
        reading = asyncio.ensure_future(body.data(manifest.total))
        reading.add_done_callback(retrieve)
        try:
            session.attach(reading)
            await asyncio.wait({reading})
            if reading.cancelled():
                self._sessions.find_open(session.id, headers)  # raises
            return await self._complete(key, manifest, session, reading.result(), request)
        finally:
            reading.cancel()  # still running only if the session has ended, or the server stops
            session.detach(reading)

    def _new(self, session: Session, manifest: Manifest) -> int:
        """Return how many files of a pack its session does not count yet. Raises ApiError as `Session.check_room`."""
        new = len({*manifest.marks} - (session.counted or set()))
        session.check_room(new, self._sessions.limits.max_files)
        return new

    async def _complete(
        self, key: Key, manifest: Manifest, session: Session, data: bytearray, request: Request
    ) -> bytes:
        """Process a complete body; its key is in use from now on."""
        self._check_running(key, manifest)
        self._running[key] = manifest.digest
        try:
            known = await self._saved_answer(key, manifest)  # a concurrent request may have stored it
            if known is not None:
                return known
            await self._sessions.recall(session)  # attached before: it keeps them until the end
            session = self._sessions.find_open(session.id, request.headers)
            return await self._store(key, manifest, session, data, holder_of(request.scope))
        finally:
            del self._running[key]

    async def _store(self, key: Key, manifest: Manifest, session: Session, data: bytearray, client: str) -> bytes:
        """Store and record the files of a client, and emit events.

        Raises OSError, sqlite3.Error; ApiError 400 if other requests have filled the session.
        """
        sessions, new = self._sessions, self._new(session, manifest)
        unpacking = Unpacking(sessions.store, manifest, data, key[0])
        sessions.fail_chosen(unpacking.files)
        ending = unpacking.refuse(sessions.limits, session.ending)
        for index, reason in manifest.refused.items():
            unpacking.files[index].fail("INVALID_PATH", reason)
        files, counted = unpacking.files, dict[str, int]()

        def changes() -> list[Change]:
            counted.update(_count(session, files, manifest.marks))
            rows = [
                file.row(session.id if file.id in counted else "", position)
                for position, file in enumerate(files, session.unlisted)
            ]
            return [
                sessions.store.files_saved(rows),
                self.rows.saved(key, manifest.digest, session.id, files),
                sessions.store.session_saved(session.row()),
            ]

        async with sessions.storing(session):
            with session.packing(new, ending):
                try:
                    await put(sessions.store, session.category, files, changes, client=client, prepare=unpacking.write)
                except BaseException:
                    if session.counted is not None:
                        session.counted.difference_update(counted.values())
                    raise
                finally:
                    await asyncio.to_thread(unpacking.discard)
            await self._announce(session, files, counted)
        return await asyncio.to_thread(_answer, session.id, files)

    async def _announce(self, session: Session, files: list[FileState], counted: Mapping[str, int]) -> None:
        """Count recorded files and emit events: one per pack, and one per failure."""
        failed = [file for file in files if file.id in counted and file.path is None]
        stored = [file for file in files if file.path is not None]
        new = [file.size for file in stored if file.id in counted]
        session.count_recorded(len(new), len(failed), sum(new))
        notify = self._sessions.notify
        await notify(session, f"Pack: {len(stored)} of {len(files)} files stored", stored[-1] if stored else None)
        for number, file in enumerate(failed):
            if number % BURST == BURST - 1:
                await asyncio.sleep(0)
            await notify(session, f"{file.original_name}: failed", file)

    def _check_running(self, key: Key, manifest: Manifest) -> None:
        running = self._running.get(key)
        if running is not None:
            raise _in_progress() if running == manifest.digest else _other_manifest()

    async def _saved_answer(self, key: Key, manifest: Manifest) -> bytes | None:
        known = await self.rows.find(key)
        if known is None:
            return None
        if known.manifest != manifest.digest:
            raise _other_manifest()
        return await asyncio.to_thread(_answer, known.session, known.files)


def _count(session: Session, files: list[FileState], marks: list[int]) -> dict[str, int]:
    """Return the marks, by id, of the files that ended and were not counted before."""
    counted = {}
    for file, mark in zip(files, marks, strict=True):
        session.fix_ending(file)
        if not file.retryable and session.remember(mark, file.wanted_path):
            counted[file.id] = mark
    return counted


def _answer(session: str, files: list[FileState]) -> bytes:
    answer = {"sessionId": session, "files": [_answered(file) for file in files]}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


def _answered(file: FileState) -> dict[str, Any]:
    if file.path is None:
        code, message = file.error_code or "FILE_DELETED", file.error or "The file was stored, and deleted since then"
        return {"status": "failed", "error": code, "message": message, "retryable": file.retryable}
    answer = {"status": "stored", "id": file.id, "location": stored_at(file.path)}
    return {**answer, "existing": True} if file.existing else answer


def _in_progress() -> ApiError:
    return ApiError(409, "PACK_IN_PROGRESS", "A pack with this key is being stored", retry_after=1)


def _other_manifest() -> ApiError:
    return ApiError(422, "KEY_REUSED", "This Idempotency-Key belongs to a pack with another manifest")
