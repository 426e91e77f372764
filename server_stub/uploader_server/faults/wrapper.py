"""The ASGI layer that carries out faults. It is installed only where faults were asked for, or may be at run time."""

from __future__ import annotations

import asyncio
import collections
import logging
from typing import TYPE_CHECKING

from uploader_server.http.connections import cut
from uploader_server.http.errors import RefusalResponse, drain, refuse
from uploader_server.http.middleware import is_realtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from uploader_server.faults.state import Answer, Faults
    from uploader_server.http.accesslog import Seen

logger = logging.getLogger(__name__)

HANG_LIMIT = 300.0
"""Seconds that a connection hangs at most; no client waits that long."""
_REFUSALS = {"off": 404, "refuse": 403}


class FaultyApp:
    """An application with faults: latency, scripted answers, and Socket.IO behind its gates."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Seen) -> None:
        """Serve one request or websocket."""
        if self._faults.latency:
            await asyncio.sleep(self._faults.latency)
        if is_realtime(scope):
            await self._serve_realtime(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            answer = self._faults.take_answer(scope["method"], scope["path"])
            if answer is None:
                await self._app(scope, receive, send)
            else:
                await self._serve_scripted(answer, scope, receive, send)

    async def _serve_scripted(self, answer: Answer, scope: Scope, receive: Receive, send: Seen) -> None:
        if answer.when == "during_body":
            await self._app(scope, Interrupted(answer, scope, receive, send), send)
            return
        if answer.when == "after_store":
            await self._app(scope, receive, _nowhere)
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
        gates = [self._faults.realtime_gate]
        if scope["type"] == "websocket":
            gates.append(self._faults.websocket_gate)
        for gate in gates:
            gate.arrive()
        state = next((gate.state() for gate in gates if gate.state() != "up"), "up")
        if state in _REFUSALS:
            await refuse(_REFUSALS[state], scope, receive, send)
            return
        ended = asyncio.Event()
        end = _cutter(scope, ended.set)
        keys = [gate.enter(end) for gate in gates]
        try:
            if state == "hang":
                await _hang(receive, ended)
            elif scope["type"] == "websocket":
                await self._app(scope, receive, Delayed(self._faults, send))
            else:
                await self._app(scope, receive, send)
        finally:
            for gate, key in zip(gates, keys, strict=True):
                gate.leave(key)


class Delayed:
    """A `send` that delivers each message one latency later, in order, without holding up who sends."""

    def __init__(self, faults: Faults, send: Send) -> None:
        self._faults = faults
        self._send = send
        self._waiting: collections.deque[tuple[float, Message]] = collections.deque()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, message: Message) -> None:
        """Send now, or line up."""
        if not self._faults.latency and not self._waiting:
            await self._send(message)
            return
        due = asyncio.get_running_loop().time() + self._faults.latency
        self._waiting.append((due, message))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._deliver())

    async def _deliver(self) -> None:
        while self._waiting:
            due, message = self._waiting[0]
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            try:
                await self._send(message)
            except Exception as error:  # noqa: BLE001 - the peer is gone
                logger.debug("a delayed message found nobody: %r", error)
                self._waiting.clear()
                return
            self._waiting.popleft()


class Interrupted:
    """A `receive` that lets `after_bytes` bytes of a body pass; then the connection is cut, or stalls for a while."""

    def __init__(self, answer: Answer, scope: Scope, receive: Receive, seen: Seen) -> None:
        self._answer = answer
        self._scope = scope
        self._receive = receive
        self._seen = seen
        self._left = answer.after_bytes or 0
        self._rest: Message | None = None
        self._over = False

    async def __call__(self) -> Message:
        """The next message of the body."""
        if self._left == 0 and not self._over:
            self._over = True
            if self._answer.close:
                self._seen.note()
                cut(self._scope)
                return {"type": "http.disconnect"}
            await asyncio.sleep(self._answer.stall)
        message, self._rest = self._rest or await self._receive(), None
        body = message.get("body", b"")
        if self._over:
            return message
        if len(body) > self._left:
            self._rest = {**message, "body": body[self._left :]}
            message = {"type": "http.request", "body": body[: self._left], "more_body": True}
        self._left -= len(message.get("body", b""))
        return message


def _cutter(scope: Scope, then: Callable[[], None]) -> Callable[[], None]:
    """A function that cuts the connection of this scope, then calls `then`."""

    def end() -> None:
        cut(scope)
        then()

    return end


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
