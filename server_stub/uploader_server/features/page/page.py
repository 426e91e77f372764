"""The web page at `/`: static files, which any client may read, and the list of sessions at `GET /api/activity`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from uploader_server.app import UploadApp
from uploader_server.feature import options_of
from uploader_server.http.errors import Json
from uploader_server.wire import timestamp

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
"""Media types by suffix; those of `mimetypes` depend on the system."""
FILES = {
    "/": STATIC / "index.html",
    **{f"/ui/{path.relative_to(STATIC).as_posix()}": path for path in STATIC.rglob("*") if path.suffix in MEDIA_TYPES},
}
"""The files of the page by URL path."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class PageOptions(NamedTuple):
    ui: bool


class Page:
    def __init__(self, app: UploadApp) -> None:
        self._app = app

    def routes(self) -> list[Route]:
        if not options_of(self._app.state.config, PageOptions).ui:
            return []
        files = [Route(path, _serve, include_in_schema=False) for path in FILES]
        return [*files, Route("/api/activity", self._activity)]

    async def _activity(self, _: Request) -> Response:
        """Serve `GET /api/activity`: what the page shows. With an auth token only its holders get here."""
        state = self._app.state
        activity = {
            "sessions": state.backend.newest(),
            "analyses": state.analyses.newest(),
            "receivedBytes": self._app.tracker.received(),
            "timestamp": timestamp(),
        }
        return Json(activity)


async def _serve(request: Request) -> Response:
    path = FILES[request.scope["path"]]
    # Only the directories of libraries have a version in their names.
    caching = "public, max-age=31536000, immutable" if "/vendor/" in request.scope["path"] else "no-cache"
    return FileResponse(path, headers={**HEADERS, "cache-control": caching}, media_type=MEDIA_TYPES[path.suffix])
