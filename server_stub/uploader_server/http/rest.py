"""The REST calls (docs/protocol.md, section 1): handlers that call the backend of the flavour."""

from __future__ import annotations

import asyncio
import functools
import mimetypes
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uploader_server.auth import check_token
from uploader_server.backend import Backend
from uploader_server.config import Limits
from uploader_server.http.bodies import Bodies, schemas
from uploader_server.http.errors import MAX_JSON, ApiError, Json, Words, parse_json, read_body, read_json, zipped
from uploader_server.http.files import Download, digest_header
from uploader_server.http.memory import held_by
from uploader_server.shares import holder_of
from uploader_server.storage.paths import UnsafePathError, check_short, is_shallow
from uploader_server.storage.reading import StoredFile
from uploader_server.wire import BATCH, extension, timestamp


class _StoredName(PathConvertor):
    """A path of any characters; Starlette's has no line breaks."""

    regex = r"[\s\S]*"


register_url_convertor("name", _StoredName())

MOST_PROBLEMS = 1000  # maximum problems reported for one body
_MORE_MIMES = {"avi": {"video/avi", "video/x-msvideo", "video/msvideo"}}


class Rest:
    """The handlers. `offers` describes `tus`, `packs` and `lookup` in `/health` and the session response."""

    def __init__(self, backend: Backend, offers: Mapping[str, Any]) -> None:
        self.offers = offers
        self.config = backend.config
        self.limits = backend.config.limits
        self.store = backend.store
        self.backend = backend
        self.bodies = Bodies(schemas(self.limits), whole_floats=True)
        self._started = time.monotonic()

    def _offers(self, request: Request) -> dict[str, Any]:
        """Return the offers with endpoints as the client reaches them."""
        prefix = request.scope.get("prefix", "")
        return {name: {**offer, "endpoint": prefix + offer["endpoint"]} for name, offer in self.offers.items()}

    async def health(self, request: Request) -> Response:
        """Serve `GET /health`: the status and (bundled) the limits."""
        known = {
            "status": "OK",
            "timestamp": timestamp(),
            "uptime": round(time.monotonic() - self._started, 3),
            "memory": _memory(reference=self.config.reference),
        }
        if self.config.reference:
            return Json(known)
        return Json({**known, "limits": _shown(self.limits, reference=False), **self._offers(request)})

    async def validate(self, request: Request) -> Response:
        text = await read_body(request, MAX_JSON)
        judge_all = functools.partial(validated, limits=self.limits, bodies=self.bodies, words=self.backend.words)
        judged = await held_by(request).parse(text, judge_all)
        valid = all(file["valid"] for file in judged)
        return Json({"valid": valid, "files": judged, "timestamp": timestamp()})

    async def session(self, request: Request) -> Response:
        category, expected = session_request(await read_json(request), self.bodies)
        holder = holder_of(request.scope)
        session_id, created = await self.backend.create(category, expected, request.headers, holder)
        answer = {
            "sessionId": session_id,
            "category": category,
            "uploadPath": f"/backend/upload/{category}/" if self.config.reference else f"/uploads/{category}/",
            **_shown(self.limits, reference=self.config.reference),
            **self._offers(request),
            "createdAt": created,
            "timestamp": timestamp(),
        }
        return Json(answer, 201)

    async def batch(self, request: Request) -> Response:
        answer = Json(await self.backend.batch(request))
        return zipped(answer, request) if self.config.reference else answer

    async def progress(self, request: Request) -> Response:
        return Json(await self.backend.progress(request.path_params["id"]))

    async def cancel(self, request: Request) -> Response:
        await self.backend.cancel(request.path_params["id"], request.headers)
        return Json({"success": True, "message": self.backend.words.cancelled, "timestamp": timestamp()})

    async def finish(self, request: Request) -> Response:
        """Serve `POST /api/upload/session/{id}/finish` (bundled)."""
        given_up = finish_request(await read_json(request, empty=b"{}"), self.bodies)
        return Json(await self.backend.finish(request.path_params["id"], given_up, request.headers))

    async def delete(self, request: Request) -> Response:
        check_token(request.headers.get("authorization"), self.config.jwt_secret, self.config.auth_token)
        if not await self.backend.delete(request.path_params["id"], request.headers):
            raise ApiError(404, "FILE_NOT_FOUND", "There is no such file")
        return Json({"success": True, "message": self.backend.words.deleted, "timestamp": timestamp()})

    async def stored(self, request: Request) -> Response:
        """Serve `GET` and `HEAD /uploads/{category}/{path}` with ranges; HEAD has `Repr-Digest` (bundled)."""
        category, name = request.path_params["category"], request.path_params["path"]
        find = functools.partial(self.store.find, category, name)
        found = find() if is_shallow(name) else await asyncio.to_thread(find)
        if found is None:
            code = "NOT_FOUND" if self.config.reference else "FILE_NOT_FOUND"
            raise ApiError(404, code, "There is no such file")
        headers: dict[str, str] = {}
        if request.method == "HEAD" and not self.config.reference:
            try:
                headers = await digest_header(self.store, StoredFile.of(f"{category}/{name}", found.status), request)
            except BaseException:
                os.close(found.fd)
                raise
        return Download(name, found, headers)

    def routes(self) -> list[Route]:
        upload = "/api/upload"
        return [
            Route("/health", self.health),
            Route(f"{upload}/validate", self.validate, methods=["POST"]),
            Route(f"{upload}/session", self.session, methods=["POST"]),
            Route(f"{upload}/session/{{id}}/finish", self.finish, methods=["POST"]),
            Route(BATCH, self.batch, methods=["POST"]),
            Route(f"{upload}/progress/{{id}}", self.progress),
            Route(f"{upload}/cancel/{{id}}", self.cancel, methods=["POST"]),
            Route(f"{upload}/file/{{id}}", self.delete, methods=["DELETE"]),
            Route("/uploads/{category}/{path:name}", self.stored),
        ]


def _shown(limits: Limits, *, reference: bool) -> dict[str, Any]:
    own = {} if reference else {"mixedTypes": limits.mixed_types, "relativePaths": limits.relative_paths}
    return {"maxFiles": limits.max_files, "allowedTypes": list(limits.types), "maxFileSize": limits.max_size, **own}


def _memory(*, reference: bool) -> dict[str, int]:
    """Return the resident bytes; the reference flavour adds the field names of a Node process."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        rss = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    else:  # pragma: no cover - macOS counts bytes here
        import resource

        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if not reference:
        return {"rss": rss}
    return {"rss": rss, "heapTotal": rss // 2, "heapUsed": rss // 4, "external": 0, "arrayBuffers": 0}


def session_request(body: Any, bodies: Bodies) -> tuple[str, int]:
    """Return `category` and `expectedFiles` of a new session. Raises ApiError 400 INVALID_CATEGORY."""
    if problems := bodies.problems("NewSession", body):
        raise ApiError(400, "INVALID_CATEGORY", "The session can't be created", details=problems[0])
    return body["category"], int(body["expectedFiles"])


def finish_request(body: Any, bodies: Bodies) -> int:
    """Return `failed` of a `finish` (default 0). Raises ApiError 400 VALIDATION_ERROR."""
    if problems := bodies.problems("Finish", body):
        raise ApiError(400, "VALIDATION_ERROR", "The session can't be ended", details=problems[0])
    return int(body.get("failed", 0))


def validated(text: bytes, limits: Limits, bodies: Bodies, words: Words) -> list[dict[str, Any]]:
    """Parse a body and check its files (slow: run in a thread). Raises ApiError 400 VALIDATION_ERROR."""
    try:
        body = parse_json(text)
    except ValueError:
        body = None
    if problems := bodies.problems("FilesToValidate", body):
        raise ApiError(400, "VALIDATION_ERROR", "The files can't be validated", details=problems[:MOST_PROBLEMS])
    return judge(body["files"], limits, words)


def judge(files: list[dict[str, Any]], limits: Limits, words: Words) -> list[dict[str, Any]]:
    """Check each file against the limits: `{index, valid, errors}`."""
    mixed = not limits.mixed_types and len({extension(file["name"]) for file in files}) > 1
    judged = []
    for index, file in enumerate(files):
        ending, errors = extension(file["name"]), list[str]()
        if (problem := None if words.any_name else _name_problem(file["name"])) is not None:
            judged.append({"index": index, "valid": False, "errors": [problem]})
            continue
        if not limits.allows(ending):
            errors.append(words.wrong_format.format(ending))
        if "*" not in limits.types and file["type"] not in _mimes(limits.types):
            errors.append(words.wrong_type.format(file["type"]))
        if mixed:
            errors.append(words.mixed_types)
        judged.append({"index": index, "valid": not errors, "errors": errors})
    return judged


def _name_problem(name: str) -> str | None:
    try:
        check_short(name)
    except UnsafePathError as error:
        return f"INVALID_PATH: {error}"
    return None


def _mimes(types: tuple[str, ...]) -> set[str]:
    """Return the MIME types of file name extensions; `application/octet-stream` for unknown ones."""
    known = {mimetypes.guess_type(f"x.{ending}")[0] or "application/octet-stream" for ending in types}
    return known.union(*(_MORE_MIMES.get(ending, set()) for ending in types))
