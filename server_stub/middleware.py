"""The outermost ASGI layer: carries out the faults, keeps the log, and can end everything at once for a stop."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from server_stub.accesslog import AccessLog
from server_stub.asgi_senders import Delayed, Interrupted, Seen
from server_stub.connections import cut
from server_stub.faults import LoggedRequest, cutter
from server_stub.tokens import check_access, check_token
from server_stub.wire import ApiError, RefusalResponse, drain

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server_stub.config import ServerConfig
    from server_stub.faults import Answer, Faults
    from server_stub.metrics import Metrics
    from server_stub.ratelimit import RateLimit
    from server_stub.socket import Realtime

logger = logging.getLogger(__name__)

REALTIME_PATH = "/socket.io/"
HANG_LIMIT = 300.0
"""Seconds that a connection hangs at most; no client waits that long."""

_REFUSALS = {"off": 404, "refuse": 403}
_BODIES = {404: b"Not Found", 403: b"Forbidden", 429: b"Too Many Connections"}


class Gatekeeper:
    """Every request passes here first. Raises OSError where the access log can't be written."""

    def __init__(
        self,
        config: ServerConfig,
        faults: Faults,
        limit: RateLimit,
        rest: ASGIApp,
        realtime: Realtime,
        metrics: Metrics,
    ) -> None:
        self.faults = faults
        self._config = config
        self._metrics = metrics
        self._limit = limit
        self._rest = rest
        self._realtime = realtime
        self._running: set[asyncio.Task[Any]] = set()
        self._log = AccessLog(config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of whatever kind."""
        if scope["type"] == "lifespan":
            await self._rest(scope, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an ASGI server runs applications in tasks
        self._running.add(task)
        seen = Seen(scope, receive, send, self._keep, echo=not self._config.reference)
        try:
            await self._serve(scope, seen.receive, seen)
        except asyncio.CancelledError:
            await seen.give_up()
        except Exception:
            logger.exception("%s %s failed", seen.method, seen.path)
            await seen.give_up()
        finally:
            self._running.discard(task)
            seen.note()

    def stop(self) -> None:
        """End whatever runs: unanswered requests get 503, websockets are closed."""
        for task in list(self._running):
            task.cancel()

    def close(self) -> None:
        """Close the access log."""
        self._log.close()

    def _keep(self, entry: LoggedRequest) -> None:
        self.faults.requests.append(entry)
        self._metrics.request(entry)
        self._log.write(entry)

    async def _serve(self, scope: Scope, receive: Receive, seen: Seen) -> None:
        if self.faults.latency:
            await asyncio.sleep(self.faults.latency)
        if scope["path"].startswith(REALTIME_PATH) or scope["path"] == REALTIME_PATH.rstrip("/"):
            await self._serve_realtime(scope, receive, seen)
        elif scope["type"] == "websocket":
            await refuse(404, scope, receive, seen)
        else:
            answer = self.faults.take_answer(scope["method"], scope["path"])
            if answer is None:
                await self._serve_rest(scope, receive, seen)
            else:
                await self._serve_scripted(answer, scope, receive, seen)

    async def _serve_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        """With the rate limit: `/api/*` counts, `/health` and `/uploads` don't (3.11)."""
        if not scope["path"].startswith("/api/"):
            await self._serve_known(scope, receive, send)
            return
        passes, headers = self._limit.spend(scope["client"][0] if scope.get("client") else "")
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *raw]
            await send(message)

        if passes:
            await self._serve_known(scope, receive, with_headers)
            return
        body = ApiError(429, "TOO_MANY_REQUESTS", "Too many requests; wait for Retry-After seconds").body(
            chinese=self._config.reference
        )
        del body["timestamp"]  # as captured
        await RefusalResponse(body, 429)(scope, receive, with_headers)

    async def _serve_known(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Where there is an auth token only with it, before a byte of the body is read."""
        try:
            self._authorise(scope)
        except ApiError as error:
            await RefusalResponse(error.body(chinese=self._config.reference), error.status)(scope, receive, send)
        else:
            await self._rest(scope, receive, send)

    def _authorise(self, scope: Scope) -> None:
        """Raises ApiError 401. `/health` is free, and so are the preflights of browsers, which carry no token.

        The calls that ask for a JWT themselves pass with one as well.
        """
        token, path = self._config.auth_token, scope["path"]
        if token is None or path == "/health" or scope["method"] == "OPTIONS":
            return
        authorization = next(
            (value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"), ""
        )
        if scope["method"] == "DELETE" or path.startswith("/api/ai/"):
            check_token(authorization, self._config.jwt_secret, token)
        else:
            check_access(authorization, token)

    async def _serve_scripted(self, answer: Answer, scope: Scope, receive: Receive, send: Seen) -> None:
        if answer.when == "during_body":
            await self._serve_rest(scope, Interrupted(answer, scope, receive, send), send)
            return
        if answer.when == "after_store":
            await self._serve_rest(scope, receive, _nowhere)
        elif answer.after_bytes is not None:
            received = 0
            while received < answer.after_bytes:
                message = await receive()
                received += len(message.get("body", b""))
                if not message.get("more_body"):
                    break
        elif answer.when == "after_body":
            await drain(receive, 3600)
        if answer.close or answer.after_bytes is not None:
            send.note()
            cut(scope)
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        if answer.when == "before_body":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        if answer.when == "before_body":
            await drain(receive, RefusalResponse.DRAIN_SECONDS)

    async def _serve_realtime(self, scope: Scope, receive: Receive, send: Send) -> None:
        gates = [self.faults.realtime_gate]
        if scope["type"] == "websocket":
            gates.append(self.faults.websocket_gate)
        for gate in gates:
            gate.arrive()
        state = next((gate.state() for gate in gates if gate.state() != "up"), "up")
        if state in _REFUSALS:
            await refuse(_REFUSALS[state], scope, receive, send)
            return
        if state == "up" and self._realtime.full(scope):
            await refuse(429, scope, receive, send)
            return
        ended = asyncio.Event()
        end = cutter(scope, ended.set)
        keys = [gate.enter(end) for gate in gates]
        try:
            if state == "hang":
                await _hang(receive, ended)
            elif scope["type"] == "websocket":
                await self._realtime.app(scope, receive, Delayed(self.faults, send))
            else:
                await self._realtime.app(scope, receive, send)
        finally:
            for gate, key in zip(gates, keys, strict=True):
                gate.leave(key)


async def refuse(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request, or the handshake of a websocket, with an error status."""
    body = _BODIES[status]
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    prefix = "http"
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})
            return
        prefix = "websocket.http"
    await send({"type": f"{prefix}.response.start", "status": status, "headers": headers})
    await send({"type": f"{prefix}.response.body", "body": body})


async def _hang(receive: Receive, ended: asyncio.Event) -> None:
    """Never answer; until the client leaves, or the gate changes.

    granian doesn't tell that the client of an unanswered websocket has left, so there is a limit to it.
    """

    async def gone() -> None:
        while (await receive())["type"] not in {"http.disconnect", "websocket.disconnect"}:
            pass
        ended.set()

    watching = asyncio.ensure_future(gone())
    try:
        async with asyncio.timeout(HANG_LIMIT):
            await ended.wait()
    except TimeoutError:
        logger.debug("a hanging connection was given up")
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _nowhere(_: Message) -> None:
    """Drop an answer."""
