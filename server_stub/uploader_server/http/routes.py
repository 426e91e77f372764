"""The REST calls (docs/protocol.md, section 1): handlers that call the backend of the flavour."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from uploader_server.http.auth import check_token
from uploader_server.http.errors import MAX_JSON, ApiError, Json, read_body, read_json, zipped
from uploader_server.http.files import Download, digest_header
from uploader_server.http.validation import finish_request, session_request, validated
from uploader_server.wire import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from uploader_server.bundled import Bundled
    from uploader_server.config import Limits
    from uploader_server.reference import Reference


class Rest:
    """The handlers. `offers` describes `tus`, `packs` and `lookup` in `/health` and the session response."""

    def __init__(self, backend: Bundled | Reference, offers: Mapping[str, Any]) -> None:
        self.offers = offers
        self.config = backend.config
        self.limits = backend.limits
        self.store = backend.store
        self.backend = backend
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
        """Serve `POST /api/upload/validate`."""
        text = await read_body(request, MAX_JSON)
        judged = await asyncio.to_thread(validated, text, self.limits, chinese=self.config.reference)
        valid = all(file["valid"] for file in judged)
        return Json({"valid": valid, "files": judged, "timestamp": timestamp()})

    async def session(self, request: Request) -> Response:
        """Serve `POST /api/upload/session`."""
        category, expected = session_request(await read_json(request), self.limits.max_files)
        session_id, created = await self.backend.create(category, expected)
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
        """Serve `POST /api/upload/batch`."""
        answer = Json(await self.backend.batch(request))
        return zipped(answer, request) if self.config.reference else answer

    async def progress(self, request: Request) -> Response:
        """Serve `GET /api/upload/progress/{id}`."""
        return Json(await self.backend.progress(request.path_params["id"]))

    async def cancel(self, request: Request) -> Response:
        """Serve `POST /api/upload/cancel/{id}`."""
        await self.backend.cancel(request.path_params["id"])
        message = "上传已取消" if self.config.reference else "The upload was cancelled"
        return Json({"success": True, "message": message, "timestamp": timestamp()})

    async def finish(self, request: Request) -> Response:
        """Serve `POST /api/upload/session/{id}/finish` (bundled)."""
        given_up = finish_request(await read_json(request, empty=b"{}"), self.limits.max_files)
        return Json(await self.backend.finish(request.path_params["id"], given_up))

    async def delete(self, request: Request) -> Response:
        """Serve `DELETE /api/upload/file/{id}`."""
        check_token(request.headers.get("authorization"), self.config.jwt_secret, self.config.auth_token)
        if not await self.backend.delete(request.path_params["id"]):
            raise ApiError(404, "FILE_NOT_FOUND", "There is no such file")
        message = "文件删除成功" if self.config.reference else "The file was deleted"
        return Json({"success": True, "message": message, "timestamp": timestamp()})

    async def stored(self, request: Request) -> Response:
        """Serve `GET` and `HEAD /uploads/{category}/{path}` with ranges; HEAD has `Repr-Digest` (bundled)."""
        path = self.store.find(request.path_params["category"], request.path_params["path"])
        if path is None:
            code = "NOT_FOUND" if self.config.reference else "FILE_NOT_FOUND"
            raise ApiError(404, code, "There is no such file")
        headers: dict[str, str] = {}
        if request.method == "HEAD" and not self.config.reference:
            headers = await digest_header(self.store, path, request)
        return Download(path, headers)

    def routes(self) -> list[Route]:
        """Return the routes of the handlers."""
        upload = "/api/upload"
        return [
            Route("/health", self.health),
            Route(f"{upload}/validate", self.validate, methods=["POST"]),
            Route(f"{upload}/session", self.session, methods=["POST"]),
            Route(f"{upload}/session/{{id}}/finish", self.finish, methods=["POST"]),
            Route(f"{upload}/batch", self.batch, methods=["POST"]),
            Route(f"{upload}/progress/{{id}}", self.progress),
            Route(f"{upload}/cancel/{{id}}", self.cancel, methods=["POST"]),
            Route(f"{upload}/file/{{id}}", self.delete, methods=["DELETE"]),
            Route("/uploads/{category}/{path:path}", self.stored),
        ]


def _shown(limits: Limits, *, reference: bool) -> dict[str, Any]:
    own = {} if reference else {"mixedTypes": limits.mixed_types, "relativePaths": limits.relative_paths}
    return {"maxFiles": limits.max_files, "allowedTypes": list(limits.types), "maxFileSize": limits.max_size, **own}


def _memory(*, reference: bool) -> dict[str, int]:
    """Return the resident bytes; the reference flavour adds the field names of a Node process."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        rss = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    elif sys.platform == "win32":  # pragma: no cover - not available
        rss = 0
    else:  # pragma: no cover - macOS counts bytes here
        import resource

        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if not reference:
        return {"rss": rss}
    return {"rss": rss, "heapTotal": rss // 2, "heapUsed": rss // 4, "external": 0, "arrayBuffers": 0}
