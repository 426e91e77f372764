"""Access from web pages: only from the server's own origin and from allowed origins (CORS)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from uploader_server.http.errors import ApiError
from uploader_server.http.proxies import is_address

if TYPE_CHECKING:
    from starlette.types import Scope

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
    """Rejects requests from other origins, and requests with an unknown Host.

    Requests without `Origin` pass: pages can't read their responses. Host is checked on loopback addresses, against DNS
    rebinding, and if `allow_hosts` is set.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._allowed = {origin.lower() for origin in config.cors_origins}
        self._hosts = {name.lower() for name in (*config.allow_hosts, config.host)}
        self._check_host = config.loopback or bool(config.allow_hosts)

    def check(self, scope: Scope) -> dict[str, str]:
        """Return the headers for the response to a page of an allowed origin. Raises ApiError 403 or 421."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if self._check_host and "host" in headers and not self._is_ours(host):
            raise ApiError(421, "HOST_REFUSED", "The server has no such name; start it with --allow-host NAME")
        if "origin" not in headers or ("host" in headers and origin in {f"http://{host}", f"https://{host}"}):
            return {}
        if not self._allowed & {origin, "*"}:
            raise ApiError(403, "ORIGIN_REFUSED", "Pages of this origin may not call; see --cors-origin")
        allowed = "*" if "*" in self._allowed else origin
        return {"access-control-allow-origin": allowed, "access-control-expose-headers": EXPOSED, "vary": "Origin"}

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name == "localhost" or name.endswith(".localhost") or name in self._hosts or is_address(name)
        except ValueError:
            return False


def is_preflight(scope: Scope) -> bool:
    """Return whether a browser asks whether a page may send a request."""
    return bool(scope.get("method") == "OPTIONS" and "access-control-request-method" in Headers(scope=scope))
