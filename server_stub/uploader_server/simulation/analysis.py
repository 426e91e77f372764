"""The HTTP calls of analyses, whose work and results are simulated (docs/protocol.md, section 4).

Files are named by `filePath` of a batch response, or by `/uploads/{category}/{fileName}`, percent-encoded as in
`Content-Location` of a tus response or not. Paths outside the server's categories are not accessed.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from uploader_server.analyses import TIMEOUT, Analyses, Analysis
from uploader_server.auth import check_token
from uploader_server.config import ServerConfig
from uploader_server.http.bodies import Bodies, schemas
from uploader_server.http.errors import ApiError, Json, read_json
from uploader_server.simulation.stages import KINDS, stage_at
from uploader_server.simulation.state import Faults
from uploader_server.storage.store import Store
from uploader_server.wire import timestamp

MAX_FIELDS = 1 << 20  # maximum bytes of a body; fusion plans are the largest
STEP = 5  # percent between two events; every stage ends at a multiple
_ANY_ID = {"type": ["string", "null"], "minLength": 1, "maxLength": 200}  # the reference backend has no limit


class AnalysisCalls:
    def __init__(self, config: ServerConfig, store: Store, analyses: Analyses, faults: Faults | None) -> None:
        self._config = config
        self._store = store
        self._analyses = analyses
        self._faults = faults or Faults(config)  # without any fault
        known = schemas(config.limits)
        if config.reference:
            for name in ("ContentAnalysis", "FusionAnalysis", "MusicPrompt"):
                known[name]["properties"]["sessionId"] = _ANY_ID
        self._bodies = Bodies(known)

    async def content(self, request: Request) -> Response:
        fields = await self._fields(request, "ContentAnalysis")
        file = await self._file(fields, "videoPath")
        return await self._run(fields, "content", lambda: _content(file, fields["videoPath"], fields.get("category")))

    async def fusion(self, request: Request) -> Response:
        fields = await self._fields(request, "FusionAnalysis")
        first, second = await self._file(fields, "video1Path"), await self._file(fields, "video2Path")
        return await self._run(fields, "fusion", lambda: _fusion(first, second))

    async def music(self, request: Request) -> Response:
        """Serve `POST /api/ai/generate/music-prompt`: write a prompt from a fusion plan."""
        fields = await self._fields(request, "MusicPrompt")
        return await self._run(fields, "music", lambda: _music(fields["fusionPlan"]))

    async def status(self, request: Request) -> Response:
        """Serve `GET /api/ai/analysis/{id}/status`; the id is `sessionId` or `analysisId`."""
        self._authorise(request)
        chosen: str = request.path_params["id"]
        analysis = self._analyses.find(chosen if self._config.reference else chosen.lower())
        if analysis is None:
            raise ApiError(404, "ANALYSIS_NOT_FOUND", "There is no such analysis")
        return Json(analysis.answer())

    async def _run(self, fields: dict[str, Any], kind: str, result: Callable[[], dict[str, Any]]) -> Response:
        chosen = fields.get("sessionId") or str(uuid.uuid4())
        analysis_id = chosen if self._config.reference else chosen.lower()
        analysis = Analysis(analysis_id, kind, [stage.name for stage in KINDS[kind]])

        async def work(analysis: Analysis) -> dict[str, Any]:
            await self._advance(analysis)
            return result()

        return Json({"success": True, "data": await self._analyses.run(analysis, work), "timestamp": timestamp()})

    async def _advance(self, analysis: Analysis) -> None:
        """Advance to 100 percent within `analysis_seconds`. Raises ApiError for a stage with a fault."""
        faults = self._faults
        for percent in range(0, 101, STEP):
            stage = stage_at(analysis.kind, percent)
            if percent:
                await asyncio.sleep(faults.analysis_seconds * STEP / 100)
                if faults.analysis.hang:
                    await asyncio.sleep(2 * TIMEOUT)
                self._check_fault(stage.name)
            analysis.silent = faults.analysis.silent
            analysis.advance(percent, stage.name, stage.message)
            await self._analyses.report(analysis)

    def _check_fault(self, stage: str) -> None:
        is_final = self._faults.analysis.fails.get(stage)
        if is_final is None:
            return
        if is_final:
            message = f"The file can't be analysed (stage {stage})"
            raise ApiError(422, "ANALYSIS_REFUSED", message, stage=stage, retryable=False)
        raise ApiError(503, "ANALYSIS_FAILED", f"The analysis failed (stage {stage})", stage=stage, retryable=True)

    def _authorise(self, request: Request) -> None:
        """Check the token. The bundled server needs none, unless `auth_token` is configured; a bad one is refused."""
        given = request.headers.get("authorization")
        if given or self._config.reference or self._config.auth_token:
            check_token(given, self._config.jwt_secret, self._config.auth_token)

    async def _fields(self, request: Request, schema: str) -> dict[str, Any]:
        """Check the token and return the JSON object of the body. Raises ApiError 400 or 401."""
        self._authorise(request)
        body: dict[str, Any] = await read_json(request, MAX_FIELDS)
        if problems := self._bodies.problems(schema, body):
            raise ApiError(400, "VALIDATION_ERROR", "The request is invalid", details=problems[0])
        return body

    async def _file(self, fields: dict[str, Any], name: str) -> Video:
        """Return the stored file named by a field. Raises ApiError: 400 for an invalid path, 404."""
        named = fields[name]
        root = f"{self._store.root.as_posix()}/"
        starts = (root, "/uploads/") if self._config.reference else ("/uploads/",)
        prefix = next((start for start in starts if named.startswith(start)), None)
        below = "" if prefix is None else named.removeprefix(prefix)
        if prefix is None or any(part in {"", ".", ".."} for part in below.split("/")) or "\0" in below:
            raise ApiError(400, "INVALID_PATH", f"{name} is not the path of an uploaded file")
        spellings = [below] if prefix == root else [below, unquote(below)]
        for spelling in spellings:
            category, _, rest = spelling.partition("/")
            found = await asyncio.to_thread(self._store.find, category, rest)
            if found is not None:
                os.close(found.fd)
                return Video(rest.rpartition("/")[2], found.status.st_size)
        raise ApiError(404, "FILE_NOT_FOUND", "There is no such file", details=name)


class Video(NamedTuple):
    """A stored file that is analysed."""

    name: str
    size: int  # bytes


def _content(file: Video, video: str, category: str | None) -> dict[str, Any]:
    name, size = file
    scenes = [{"scene": n + 1, "share": 25, "summary": f"Quarter {n + 1} of {name}"} for n in range(4)]
    return {
        "videoPath": video,
        "category": category,
        "structuredData": {"name": name, "size": size, "scenes": scenes},
        "finalReport": f"# {name}\n\n{size} bytes in four scenes.\nThis report is simulated.\n",
    }


def _fusion(first: Video, second: Video) -> dict[str, Any]:
    segments = [{"position": n + 1, "video": 1 + n % 2, "name": (first, second)[n % 2].name} for n in range(4)]
    report = f"# {first.name} + {second.name}\n\nFour segments in turn.\nThis report is simulated.\n"
    return {"fusionPlan": {"title": f"{first.name} and {second.name}", "segments": segments}, "finalReport": report}


def _music(plan: dict[str, Any] | str) -> dict[str, Any]:
    title = plan.get("title", "the fusion") if isinstance(plan, dict) else "the fusion"
    prompt = f"A calm beginning that opens up: music for {str(title)[:200]}"
    report = f"# Music\n\n{prompt}.\nThis prompt is simulated.\n"
    return {"musicPrompt": prompt, "instruments": ["piano", "strings"], "finalReport": report}
