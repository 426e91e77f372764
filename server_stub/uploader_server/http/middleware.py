"""Middleware around REST and Socket.IO: request tracking, routing, limits and the auth token."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.responses import Response

from uploader_server.http.accesslog import TrackedRequest, client_address
from uploader_server.http.auth import check_token
from uploader_server.http.errors import ApiError, Json, as_api_error, before, refuse, with_headers
from uploader_server.http.origins import PREFLIGHT, Origins, is_preflight
from uploader_server.http.proxies import prefixed
from uploader_server.http.ratelimit import RateLimit
from uploader_server.ui.page import FILES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from uploader_server.config import ServerConfig
    from uploader_server.http.accesslog import LoggedRequest
    from uploader_server.http.proxies import Proxies
    from uploader_server.realtime.rooms import Realtime

logger = logging.getLogger(__name__)

REALTIME_PATH = "/socket.io/"
TUS_PATH = "/api/upload/files"
STREAMED = ("/api/upload/batch", "/api/upload/packs", TUS_PATH)
"""Paths whose bodies are streamed, with limits of their own."""
MEMORY = 64 << 20  # total bytes of the other bodies over all requests
FREE = frozenset({"/health", "/openapi.json", "/faults", *FILES})  # paths that need no token


def is_realtime(scope: Scope) -> bool:
    """Return whether a request or websocket is for Socket.IO."""
    path: str = scope["path"]
    return path.startswith(REALTIME_PATH) or path == REALTIME_PATH.rstrip("/")


OVERRIDES = frozenset({"GET", "HEAD", "PATCH", "DELETE"})
"""Methods allowed in X-HTTP-Method-Override of a POST to a tus URL."""


def effective_method(scope: Scope) -> str:
    """Return the method, or X-HTTP-Method-Override of a POST to a tus URL (tus 1.0, core)."""
    method: str = scope["method"]
    if method == "POST" and scope["path"].startswith(TUS_PATH):
        wanted = Headers(scope=scope).get("x-http-method-override", "").upper()
        return wanted if wanted in OVERRIDES else method
    return method


class RequestTracker:
    """The outermost middleware: passes each finished request to `keep` and can end all running requests.

    With `echo` responses carry the client's request id. A client address may have `limit` concurrent requests
    (0: no limit); further ones get 429.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, TrackedRequest], Awaitable[None]],
        keep: Callable[[LoggedRequest], None],
        proxies: Proxies,
        *,
        limit: int,
        echo: bool,
    ) -> None:
        self._app = app
        self.proxies = proxies
        self.limit = limit
        self._keep = keep
        self._echo = echo
        self._running: dict[asyncio.Task[Any], TrackedRequest] = {}
        self._addresses: Counter[str] = Counter()  # running requests per address
        self._began: set[tuple[str, int]] = set()
        self._received = 0  # bytes of the bodies of ended requests
        self._stopped: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an ASGI server runs applications in tasks
        scope = self.proxies.client_scope(scope)
        address = client_address(scope)
        if prefix := scope.get("prefix"):
            send = prefixed(send, prefix)
        seen = self._running[task] = TrackedRequest(scope, receive, send, self._keep, echo=self._echo)
        self._addresses[address] += 1
        self._began.add(seen.peer)
        try:
            if self._stopping:
                await seen.give_up()
            elif self.limit and self._addresses[address] > self.limit:
                await refuse(429, scope, seen.receive, seen)
            else:
                await self._app(scope, seen.receive, seen)
            await seen.drain()
        except asyncio.CancelledError:
            await seen.give_up()
        except Exception:
            logger.exception("%s %s failed", seen.method, seen.path)
            await seen.give_up()
        finally:
            del self._running[task]
            self._received += seen.received if seen.http else 0
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
            self._stopped.discard(task)
            seen.note()

    def stop(self) -> None:
        """End running and later requests: those without a response get 503, websockets are closed."""
        self._stopping = True
        for task in self._running.keys() - self._stopped:  # a second cancel would interrupt the cleanup
            self._stopped.add(task)
            task.cancel()

    def busy(self) -> dict[tuple[str, int], TrackedRequest]:
        """Return the running requests by their connections."""
        return {seen.peer: seen for seen in self._running.values()}

    def received(self) -> int:
        """Return the bytes of all bodies since the start, including those that are arriving."""
        return self._received + sum(seen.received for seen in self._running.values() if seen.http)

    def began(self) -> set[tuple[str, int]]:
        """Return the connections on which requests began since the last call."""
        began, self._began = self._began, set()
        return began

    async def ended(self, seconds: float) -> None:
        """Wait until all requests have ended, for at most `seconds`."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)


class Router:
    """Passes a request to Socket.IO or REST after checking the limits and the auth token; answers errors."""

    def __init__(self, config: ServerConfig, rest: ASGIApp, realtime: Realtime) -> None:
        self._config = config
        self._origins = Origins(config)
        self._limit = RateLimit(config.limits.rate, config.rate_window)
        self._rest = rest
        self._realtime = realtime
        self._buffered = 0  # bytes of all bodies that are kept in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        try:
            added = self._origins.check(scope)
        except ApiError as error:
            if scope["type"] == "websocket":
                await refuse(error.status, scope, receive, send)
            else:
                await self._answer(error, scope)(scope, receive, send)
            return
        send = with_headers(send, added)
        if added and is_preflight(scope):
            await Response(status_code=204, headers=PREFLIGHT)(scope, receive, send)
        elif is_realtime(scope):
            if self._realtime.full(scope):
                await refuse(429, scope, receive, send)
            else:
                await self._realtime.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(404, scope, receive, send)
        else:
            await self._serve_rest(scope, receive, send)

    async def _serve_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a REST or tus call; the responses to `/api/*` show the rate limit (docs/protocol.md, section 3.11)."""
        scope = {**scope, "method": effective_method(scope), "app": self}  # authorise the method that is executed
        passes, added = True, dict[str, str]()
        if scope["path"].startswith("/api/"):
            passes, added = self._limit.spend(client_address(scope))
        send, started = with_headers(send, added), False

        async def answer(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if not passes:
                raise ApiError(429, "TOO_MANY_REQUESTS", "Too many requests; wait for Retry-After seconds")
            self._authorise(scope)
            if scope["method"] in {"GET", "HEAD"} or scope["path"].startswith(STREAMED):
                await self._rest(scope, receive, answer)
            else:
                await self._serve_limited(scope, receive, answer)
        except Exception as error:
            if started:
                raise
            await self._answer(error, scope)(scope, receive, answer)

    def _answer(self, error: Exception, scope: Scope) -> Response:
        refusal = as_api_error(error)
        if refusal is not error and refusal.status >= 500:
            trace = error if refusal.code == "INTERNAL_ERROR" else None
            level = logging.WARNING if trace is None else logging.ERROR
            logger.log(level, "%s %s failed: %s", scope["method"], scope["path"], error, exc_info=trace)
        if not refusal.code:  # 408 of the reference backend: no body at all (docs/protocol.md, section 3.10)
            return Response(status_code=refusal.status)
        return Json(refusal.body(chinese=self._config.reference), refusal.status, refusal.headers)

    def _authorise(self, scope: Scope) -> None:
        """Check the auth token before the body is read. Raises ApiError 401.

        `Origins` handles preflights, which carry no token. Calls that require a JWT accept either token.
        """
        token, path = self._config.auth_token, scope["path"]
        if token is None or path in FREE:
            return
        accepts_jwt = scope["method"] == "DELETE" or path.startswith("/api/ai/")
        secret = self._config.jwt_secret if accepts_jwt else None
        check_token(Headers(scope=scope).get("authorization"), secret, token)

    async def _serve_limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Limit the time and the memory of a body that isn't streamed.

        The new `receive` raises ApiError: 408 after `body_timeout` seconds, 503 if MEMORY is exceeded.
        """
        end = asyncio.get_running_loop().time() + self._config.body_timeout
        buffered, complete = 0, False

        async def limited() -> Message:
            nonlocal buffered, complete
            if complete:  # only the disconnect follows
                return await receive()
            message = await before(end, receive)
            complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            if self._buffered + size > MEMORY:
                raise ApiError(503, "SERVER_BUSY", "Too many calls at once", retry_after=1)
            self._buffered += size
            buffered += size
            return message

        try:
            await self._rest(scope, limited, send)
        finally:
            self._buffered -= buffered
