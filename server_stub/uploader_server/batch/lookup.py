"""The lookup call (docs/extensions.md): which files are stored, by path."""

from __future__ import annotations

import asyncio
import errno
import stat
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uploader_server.config import Limits
from uploader_server.http.bodies import MOST_TO_FIND, Bodies, schemas
from uploader_server.http.errors import MAX_JSON, ApiError, Json, check_segments, parse_json, read_body
from uploader_server.http.memory import held_by
from uploader_server.shares import holder_of
from uploader_server.storage.categories import NO_FILE, Descent
from uploader_server.storage.paths import UnsafePathError, candidates, safe_parts
from uploader_server.storage.reading import StoredFile
from uploader_server.storage.store import Store
from uploader_server.storage.turns import LOOKING, Turns
from uploader_server.wire import CATEGORIES, LOOKUP, stored_at

_BODIES = Bodies(schemas(Limits()))
_UNREADABLE = NO_FILE | {errno.EACCES}
"""Errors that concern one path: no file can be there, or the server may not read it."""


class Lookup:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = Turns(LOOKING)

    def described(self) -> dict[str, Any]:
        """Return `lookup` of `/health` and of the session response."""
        return {"endpoint": LOOKUP, "maxFiles": MOST_TO_FIND}

    def routes(self) -> list[Route]:
        return [Route(LOOKUP, self.serve, methods=["POST"])]

    async def serve(self, request: Request) -> Response:
        asked = await held_by(request).parse(await read_body(request, MAX_JSON), parse)
        async with self._turns.of(holder_of(request.scope)):
            found = await asyncio.to_thread(self._find_files, asked)
        digests = self._store.digests
        known = {} if asked.read else await digests.known({file for one in found for file in one.files})
        pending: set[StoredFile] = set()
        if asked.compute or asked.read:
            pairs = zip(asked.files, found, strict=True)
            equal = {file for wanted, one in pairs for file in one.files if file.size == wanted["size"]}
            known |= await digests.compute(equal - known.keys(), holder_of(request.scope), anew=asked.read)
            pending = equal - known.keys()
        answers = zip(asked.files, found, strict=True)
        return Json({"files": [_answer(wanted, one, known, pending) for wanted, one in answers]})

    def _find_files(self, asked: Asked) -> list[Found]:
        """Return what was found for each file (runs in a thread). Raises OSError if the disk fails."""
        search = _Search(self._store, asked.category)
        try:
            return [search.find(file["relativePath"], numbered="sha256" in file) for file in asked.files]
        finally:
            search.close()


class Asked(NamedTuple):
    """A request: its files, and whether digests that are not known are computed, or all are read anew."""

    category: str
    files: list[dict[str, Any]]
    compute: bool
    read: bool


class Found(NamedTuple):
    """The stored files that one requested file may be, or why its path is refused."""

    files: list[StoredFile]
    refusal: str = ""


class _Search:
    """Looks for the files of one request, only once for each path; the last directory stays open."""

    def __init__(self, store: Store, category: str) -> None:
        self._store = store
        self._category = category
        self._directory = ""
        self._open: Descent | None = None
        self._known: dict[tuple[str, bool], Found] = {}

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def find(self, path: str, *, numbered: bool) -> Found:
        """Return the stored file with this path and, with `numbered`, also `name (2)` and so on.

        Raises OSError if the disk fails: the server then doesn't know which files it has.
        """
        found = self._known.get((path, numbered))
        if found is None:
            try:
                found = Found(self._files(path, numbered))
            except UnsafePathError as error:
                found = Found([], str(error))
            except OSError as error:
                if error.errno not in _UNREADABLE:
                    raise
                found = Found([])
            self._known[path, numbered] = found
        return found

    def _files(self, path: str, numbered: bool) -> list[StoredFile]:
        safe_parts(path)
        above, _, name = f"{self._category}/{path}".rpartition("/")
        directory = self._enter(above)
        found: list[StoredFile] = []
        for candidate in candidates(name, lambda name: directory.status(name) is not None):
            there = directory.status(candidate)
            if there is None or not stat.S_ISREG(there.st_mode):
                break
            found.append(StoredFile.of(f"{above}/{candidate}", there))
            if not numbered:
                break
        return found

    def _enter(self, path: str) -> Descent:
        if self._open is None or path != self._directory:
            self.close()
            self._open, self._directory = self._store.categories.descend(path), path
        return self._open


def parse(text: bytes) -> Asked:
    """Return a request. Raises ApiError: 400 if it is invalid, 413 if its paths have too many segments."""
    try:
        body = parse_json(text)
    except ValueError as error:
        raise _wrong(f"it is not JSON in UTF-8: {error}") from error
    if isinstance(body, dict) and body.get("category", CATEGORIES[0]) not in CATEGORIES:
        raise ApiError(400, "INVALID_CATEGORY", f'"category" must be one of [{", ".join(CATEGORIES)}]')
    if problems := _BODIES.problems("Lookup", body):
        raise _wrong(problems[0])
    files = body["files"]
    check_segments(file["relativePath"] for file in files)
    digests = body.get("digests")
    return Asked(body["category"], files, compute=digests == "compute", read=digests == "read")


def _answer(
    wanted: dict[str, Any], found: Found, digests: dict[StoredFile, bytes], pending: set[StoredFile]
) -> dict[str, Any]:
    """Return the file with the wanted size and digest, else the one with the wanted path."""
    files = found.files
    if found.refusal:
        return {"exists": False, "error": "INVALID_PATH", "message": found.refusal, "retryable": False}
    if not files:
        return {"exists": False}
    sha256 = {file: digests[file].hex() for file in files if digests.get(file)}
    equal = [file for file in files if file.size == wanted["size"] and sha256.get(file) == wanted.get("sha256", "")]
    file = equal[0] if equal else files[0]
    answer = {"exists": True, "size": file.size, "location": stored_at(file.path)}
    if not equal and not pending.isdisjoint(files):
        return {**answer, "pending": True}
    return {**answer, "sha256": sha256[file]} if file in sha256 else answer


def _wrong(details: str) -> ApiError:
    return ApiError(400, "VALIDATION_ERROR", "The lookup request is invalid", details=details)
