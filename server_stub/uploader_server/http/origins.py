"""Access from web pages: only from the server's own origin and from allowed origins (CORS)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uploader_server.http.errors import ApiError, Json, raw_headers, refuse
from uploader_server.http.proxies import is_address

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from uploader_server.config import ServerConfig

EXPOSED = (
    "Content-Location, Location, Repr-Digest, Retry-After, Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size,"
    " Tus-Resumable, Tus-Version, Upload-Concat, Upload-Defer-Length, Upload-Expires, Upload-File-Id, Upload-Length,"
    " Upload-Metadata, Upload-Offset, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-ID"
)
"""Response headers that web pages may read (Access-Control-Expose-Headers)."""
PREFLIGHT = {
    "access-control-allow-methods": "POST, GET, HEAD, PATCH, DELETE, OPTIONS",
    "access-control-allow-headers": (
        "Authorization, Content-Type, Idempotency-Key, Origin, Range, Tus-Resumable, Upload-Checksum, Upload-Concat,"
        " Upload-Defer-Length, Upload-Length, Upload-Metadata, Upload-Offset, Want-Repr-Digest, X-HTTP-Method-Override,"
        " X-Request-ID, X-Requested-With"
    ),
    "access-control-max-age": "86400",
}


class Origins:
    """Middleware that rejects requests from other origins, and requests with an unknown Host.

    Requests without `Origin` pass: pages can't read their responses. Host is checked on loopback addresses, against DNS
    rebinding, and if `allow_hosts` is set.
    """

    def __init__(self, config: ServerConfig, app: ASGIApp) -> None:
        self._app = app
        self._allowed = {origin.lower() for origin in config.cors_origins}
        self._hosts = {name.lower() for name in (*config.allow_hosts, config.host)}
        self._check_host = config.loopback or bool(config.allow_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        headers = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
        host, origin = headers.get(b"host"), headers.get(b"origin")
        if self._check_host and host is not None and not self._is_ours(host):
            error = ApiError(421, "HOST_REFUSED", "The server has no such name; start it with --allow-host NAME")
            await _refuse(error, scope, receive, send)
        elif origin is None or _names(origin, host):
            await self._app(scope, receive, send)
        elif origin in self._allowed or "*" in self._allowed:
            allowed = "*" if "*" in self._allowed else origin
            await self._serve_page(allowed, b"access-control-request-method" in headers, scope, receive, send)
        else:
            error = ApiError(403, "ORIGIN_REFUSED", "Pages of this origin may not call; see --cors-origin")
            await _refuse(error, scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name == "localhost" or name.endswith(".localhost") or name in self._hosts or is_address(name)
        except ValueError:
            return False

    async def _serve_page(self, origin: str, preflight: bool, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request from an allowed origin; `preflight` if it has Access-Control-Request-Method."""
        added = {"access-control-allow-origin": origin, "access-control-expose-headers": EXPOSED, "vary": "Origin"}

        async def with_headers(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                message = {**message, "headers": [*message.get("headers", ()), *raw_headers(added)]}
            await send(message)

        if preflight and scope["type"] == "http" and scope["method"] == "OPTIONS":
            await with_headers({"type": "http.response.start", "status": 204, "headers": raw_headers(PREFLIGHT)})
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._app(scope, receive, with_headers)


def _names(origin: str, host: str | None) -> bool:
    """Return whether an origin has the host of the request."""
    scheme, found, rest = origin.partition("://")
    return bool(found) and scheme in {"http", "https"} and rest == host


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await refuse(error.status, scope, receive, send)
    else:
        await Json(error.body(), error.status)(scope, receive, send)
