"""The layers around the REST calls and Socket.IO: the log of requests, the way to either, limits and the auth token."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from uploader_server.http.accesslog import Seen
from uploader_server.http.auth import check_access, check_token
from uploader_server.http.errors import ApiError, RefusalResponse, refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from uploader_server.config import ServerConfig
    from uploader_server.http.accesslog import LoggedRequest
    from uploader_server.http.proxies import Proxies
    from uploader_server.http.ratelimit import RateLimit
    from uploader_server.realtime.rooms import Realtime

logger = logging.getLogger(__name__)

REALTIME_PATH = "/socket.io/"
FREE = ("/health", "/openapi.json")
"""Calls that need no token."""


def is_realtime(scope: Scope) -> bool:
    """Whether a request or websocket is for Socket.IO."""
    path: str = scope["path"]
    return path.startswith(REALTIME_PATH) or path == REALTIME_PATH.rstrip("/")


OVERRIDES = frozenset({"GET", "HEAD", "PATCH", "DELETE"})
"""Methods that a POST to a tus URL may stand for."""


def effective_method(scope: Scope) -> str:
    """The method that a request is to have: what a POST to a tus URL overrides, else its own (tus 1.0, core)."""
    method: str = scope["method"]
    if method == "POST" and scope["path"].startswith("/api/upload/files"):
        overrides = (value for name, value in scope["headers"] if name == b"x-http-method-override")
        wanted = next(overrides, b"").decode("latin-1").upper()
        return wanted if wanted in OVERRIDES else method
    return method


class Gatekeeper:
    """The outermost layer: passes every request to `keep`, and can end all of them at once for a stop.

    With `echo` an answer carries the request id of its client. An address with `limit` requests under way gets 429 for
    further ones (0: no limit).
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Seen], Awaitable[None]],
        keep: Callable[[LoggedRequest], None],
        proxies: Proxies,
        *,
        limit: int,
        echo: bool,
    ) -> None:
        self._app = app
        self._proxies = proxies
        self._limit = limit
        self._keep = keep
        self._echo = echo
        self._running: dict[asyncio.Task[Any], Seen] = {}
        self._addresses: Counter[str] = Counter()
        """How many requests of each address are under way."""
        self._began: set[tuple[str, int]] = set()
        self._stopped: set[asyncio.Task[Any]] = set()
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an ASGI server runs applications in tasks
        scope = self._proxies.seen_through(scope)
        address = str(scope["client"][0]) if scope.get("client") else ""
        seen = self._running[task] = Seen(scope, receive, send, self._keep, echo=self._echo)
        self._addresses[address] += 1
        self._began.add(seen.peer)
        try:
            if self._over:
                await seen.give_up()
            elif self._limit and self._addresses[address] > self._limit:
                await refuse(429, scope, seen.receive, seen)
            else:
                await self._app(scope, seen.receive, seen)
        except asyncio.CancelledError:
            await seen.give_up()
        except Exception:
            logger.exception("%s %s failed", seen.method, seen.path)
            await seen.give_up()
        finally:
            del self._running[task]
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
            self._stopped.discard(task)
            seen.note()

    def stop(self) -> None:
        """End whatever runs, and what comes later: unanswered requests get 503, websockets are closed."""
        self._over = True
        for task in (
            self._running.keys() - self._stopped
        ):  # a second cancel would end what the first one makes it clean up
            self._stopped.add(task)
            task.cancel()

    def busy(self) -> dict[tuple[str, int], Seen]:
        """The connections on which requests are under way."""
        return {seen.peer: seen for seen in self._running.values()}

    def began(self) -> set[tuple[str, int]]:
        """The connections on which requests began since the last call."""
        began, self._began = self._began, set()
        return began

    async def ended(self, seconds: float) -> None:
        """Wait until nothing runs any more, for so many seconds at most."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=seconds)


class Router:
    """Passes a request on to Socket.IO or to the REST calls, if the limits and the auth token permit it."""

    def __init__(self, config: ServerConfig, limit: RateLimit, rest: ASGIApp, realtime: Realtime) -> None:
        self._config = config
        self._limit = limit
        self._rest = rest
        self._realtime = realtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or websocket."""
        if is_realtime(scope):
            if self._realtime.full(scope):
                await refuse(429, scope, receive, send)
            else:
                await self._realtime.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(404, scope, receive, send)
        else:
            await self._serve_rest(scope, receive, send)

    async def _serve_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """With the rate limit: `/api/*` counts, `/health` and `/uploads` don't (3.11)."""
        scope = {**scope, "method": effective_method(scope)}  # what is authorised is what is done
        if not scope["path"].startswith("/api/"):
            await self._serve_authorised(scope, receive, send)
            return
        passes, headers = self._limit.spend(scope["client"][0] if scope.get("client") else "")
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *raw]
            await send(message)

        if passes:
            await self._serve_authorised(scope, receive, with_headers)
            return
        body = ApiError(429, "TOO_MANY_REQUESTS", "Too many requests; wait for Retry-After seconds").body(
            chinese=self._config.reference
        )
        del body["timestamp"]  # as captured
        await RefusalResponse(body, 429)(scope, receive, with_headers)

    async def _serve_authorised(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Where there is an auth token only with it, before a byte of the body is read."""
        try:
            self._authorise(scope)
        except ApiError as error:
            await RefusalResponse(error.body(chinese=self._config.reference), error.status)(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    def _authorise(self, scope: Scope) -> None:
        """Raises ApiError 401. `FREE` calls need no token; preflights, which carry none, do not come here (`Origins`).

        The calls that ask for a JWT themselves pass with one as well.
        """
        token, path = self._config.auth_token, scope["path"]
        if token is None or path in FREE:
            return
        authorization = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), ""
        )
        if scope["method"] == "DELETE" or path.startswith("/api/ai/"):
            check_token(authorization, self._config.jwt_secret, token)
        else:
            check_access(authorization, token)
