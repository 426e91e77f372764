"""Middleware around REST and Socket.IO: access from web pages (CORS), routing, limits and the auth token."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uploader_server.addresses import is_address, network
from uploader_server.auth import check_token
from uploader_server.config import ServerConfig
from uploader_server.errors import Refusal
from uploader_server.feature import provided
from uploader_server.http.answers import PacedSend
from uploader_server.http.errors import ApiError, Json, Words, as_api_error, before, refuse, with_headers
from uploader_server.http.heads import kept_of_head
from uploader_server.http.memory import Held, Memory
from uploader_server.http.tracking import client_address
from uploader_server.logs import printable, without_secrets
from uploader_server.shares import holder_of
from uploader_server.wire import BATCH, PACKS, TUS

logger = logging.getLogger(__name__)

REALTIME_PATH = "/socket.io/"
STREAMED = (BATCH, PACKS, TUS.rstrip("/"))
"""Paths whose bodies are streamed, with limits of their own."""
GUARDED = (REALTIME_PATH.rstrip("/"), "/api/")  # paths that other pages may not embed; stored files may be shown
OVERRIDES = frozenset({"GET", "HEAD", "PATCH", "DELETE"})
"""Methods allowed in X-HTTP-Method-Override of a POST to a tus URL."""
EXPOSED = (
    "Checksum-Compared, Content-Location, Location, Repr-Digest, Retry-After, Tus-Checksum-Algorithm, "
    "Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, Upload-Complete, Upload-Concat, "
    "Upload-Defer-Length, Upload-Expires, Upload-File-Id, Upload-Length, Upload-Limit, Upload-Metadata, "
    "Upload-Offset, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-ID"
)
"""Response headers that web pages may read (Access-Control-Expose-Headers)."""
PREFLIGHT = {
    "access-control-allow-methods": "POST, GET, HEAD, PATCH, DELETE, OPTIONS",
    "access-control-allow-headers": (
        "Authorization, Content-Digest, Content-Disposition, Content-Type, Idempotency-Key, Origin, Range, Repr-Digest,"
        " Tus-Resumable, Upload-Checksum, Upload-Complete, Upload-Concat, Upload-Defer-Length,"
        " Upload-Draft-Interop-Version, Upload-Length, Upload-Metadata, Upload-Offset, Want-Repr-Digest,"
        " X-HTTP-Method-Override, X-Request-ID, X-Requested-With, X-Session-Secret, X-Expected-Bytes"
    ),
    "access-control-max-age": "86400",
}


def free_paths() -> frozenset[str]:
    """Return the paths that need no token."""
    return frozenset({"/health", "/openapi.json"}).union(*provided("free").values())


def is_realtime(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(REALTIME_PATH) or path == REALTIME_PATH.rstrip("/")


def effective_method(scope: Scope) -> str:
    """Return the method, or X-HTTP-Method-Override of a POST to a tus URL (tus 1.0, core)."""
    method: str = scope["method"]
    if method == "POST" and scope["path"].startswith(TUS.rstrip("/")):
        wanted = Headers(scope=scope).get("x-http-method-override", "").upper()
        return wanted if wanted in OVERRIDES else method
    return method


class Gateway:
    """Passes a request to Socket.IO or REST after checking the limits and the auth token; answers errors."""

    def __init__(self, config: ServerConfig, rest: ASGIApp, realtime: ASGIApp, memory: Memory, words: Words) -> None:
        self._config = config
        self._free = free_paths()
        self._origins = Origins(config)
        self._limit = RateLimit(config.limits.rate, config.rate_window)
        self._rest = rest
        self._realtime = realtime
        self._memory = memory
        self._words = words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with Held(self._memory, holder_of(scope)) as held:
            try:
                held.add(kept_of_head(scope))
                added = self._origins.check(scope)
            except ApiError as error:
                if scope["type"] == "websocket":
                    await refuse(error.status, scope, receive, send)
                else:
                    await self._answer(error, scope)(scope, receive, send)
                return
            await self._pass(added, scope, held, receive, send)

    async def _pass(self, added: dict[str, str], scope: Scope, held: Held, receive: Receive, send: Send) -> None:
        send = with_headers(send, added)
        if added and is_preflight(scope):
            await Response(status_code=204, headers=PREFLIGHT)(scope, receive, send)
        elif is_realtime(scope):
            await self._realtime(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(404, scope, receive, send)
        else:
            await self.serve_rest(scope, held, receive, send)

    async def serve_rest(self, scope: Scope, held: Held, receive: Receive, send: Send) -> None:
        """Serve a REST or tus call; the responses to `/api/*` show the rate limit (docs/protocol.md, section 3.11)."""
        method = effective_method(scope)
        scope = {**scope, "method": method, "app": self, "held": held}  # authorise the method that is executed
        passes, added = True, dict[str, str]()
        if scope["path"].startswith("/api/"):
            passes, added = self._limit.spend(network(client_address(scope)))
        answer = PacedSend(scope, held, self._config.pace, with_headers(send, added))
        scope = {**scope, "answer": answer}  # another one: a cycle would keep threads of granian alive
        try:
            if not passes:
                raise ApiError(429, "TOO_MANY_REQUESTS", "Too many requests; wait for Retry-After seconds")
            self._authorise(scope)
            if scope["method"] in {"GET", "HEAD"} or scope["path"].startswith(STREAMED):
                await self._rest(scope, receive, answer)
            else:
                await self._serve_limited(scope, receive, answer)
        except Exception as error:
            if answer.started:
                raise
            await self._answer(error, scope)(scope, receive, answer)

    def _answer(self, error: Exception, scope: Scope) -> Response:
        refusal = as_api_error(error)
        cause = error.__cause__ if isinstance(error, Refusal) else error  # the calls of tus convert errors themselves
        if not isinstance(cause, Refusal | None) and refusal.status >= 500:
            trace = cause if refusal.code == "INTERNAL_ERROR" else None
            level = logging.WARNING if trace is None else logging.ERROR
            path = printable(without_secrets(scope["path"]))
            logger.log(level, "%s %s failed: %s", scope["method"], path, cause, exc_info=trace)
        if not refusal.code:  # 408 of the reference backend: no body at all (docs/protocol.md, section 3.10)
            return Response(status_code=refusal.status)
        return Json(refusal.body(self._words), refusal.status, refusal.headers)

    def _authorise(self, scope: Scope) -> None:
        """Check the auth token before the body is read. Raises ApiError 401.

        Preflights, which carry no token, are answered before. Calls that require a JWT accept either token.
        """
        token, path = self._config.auth_token, scope["path"]
        if token is None or path in self._free:
            return
        accepts_jwt = path.startswith("/api/ai/") or (scope["method"] == "DELETE" and path.startswith("/api/"))
        secret = self._config.jwt_secret if accepts_jwt else None
        check_token(Headers(scope=scope).get("authorization"), secret, token)

    async def _serve_limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Limit the time and the memory of a body that isn't streamed.

        The new `receive` raises ApiError: 408 after `body_timeout` seconds, 503 beyond the budget of memory.
        """
        end = asyncio.get_running_loop().time() + self._config.body_timeout
        complete = False

        async def limited() -> Message:
            nonlocal complete
            if complete:  # only the disconnect follows
                return await receive()
            message = await before(end, receive)
            complete = not message.get("more_body", False)
            scope["held"].add(len(message.get("body", b"")))
            return message

        await self._rest(scope, limited, send)


class Origins:
    """Rejects requests from pages of other origins than the allowed ones, and requests with an unknown Host.

    A browser sends `Origin` with what a page may read or change, and `Sec-Fetch-Site` (to https and loopback addresses)
    with the rest, such as images: those are rejected on GUARDED paths. Host is checked on loopback addresses, against
    DNS rebinding, and if `allow_hosts` is set.
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
        if "origin" not in headers and "*" not in self._allowed and is_embedded(scope):
            raise ApiError(403, "ORIGIN_REFUSED", "Pages of other origins may not embed this; see --cors-origin")
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


def is_embedded(scope: Scope) -> bool:
    """Return whether a page of another origin loads a GUARDED path as an image, script, frame or the like.

    Another port of the same host is another origin (`same-site`), as for the check of `Origin`. Links and the address
    bar pass: they open a page of their own, after the user's action.
    """
    if not scope["path"].startswith(GUARDED):
        return False
    site, mode, kind = (Headers(scope=scope).get(f"sec-fetch-{name}", "") for name in ("site", "mode", "dest"))
    return site in {"cross-site", "same-site"} and not (mode == "navigate" and kind in {"", "document"})


def is_preflight(scope: Scope) -> bool:
    """Return whether a browser asks whether a page may send a request."""
    return bool(scope.get("method") == "OPTIONS" and "access-control-request-method" in Headers(scope=scope))


class RateLimit:
    """The rate limit of `/api/*`: a fixed window per client address, as captured from the reference backend.

    `limit` 0 disables it. Times are in seconds.
    """

    def __init__(self, limit: int, window: float, clock: Callable[[], float] = time.time) -> None:
        self.limit = limit
        self.window = window
        self._clock = clock
        self.counts: dict[str, tuple[float, int]] = {}  # end of the window, and requests in it, by address
        self._pruned = clock()

    def spend(self, address: str) -> tuple[bool, dict[str, str]]:
        """Count one request; return whether it is allowed, and the headers of its response."""
        if not self.limit:
            return True, {}
        now = self._clock()
        if now >= self._pruned + self.window:  # drop the entries of ended windows
            self.counts = {key: value for key, value in self.counts.items() if value[0] > now}
            self._pruned = now
        reset, used = self.counts.get(address, (now + self.window, 0))
        if now >= reset:
            reset, used = now + self.window, 0
        used += 1
        self.counts[address] = (reset, used)
        headers = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - used)),
            "x-ratelimit-reset": str(math.ceil(reset)),
        }
        if used <= self.limit:
            return True, headers
        return False, {**headers, "retry-after": str(max(1, math.ceil(reset - now)))}
