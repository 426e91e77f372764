"""What stands between the application and the ASGI server: the log's eye, the delay, and a body that breaks off."""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from typing import TYPE_CHECKING

from server_stub.accesslog import request_id
from server_stub.connections import cut
from server_stub.faults import LoggedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope, Send

    from server_stub.faults import Answer, Faults

logger = logging.getLogger(__name__)


class Seen:
    """A `send` that notes what was answered, and can still answer when nothing was; `receive` counts what came.

    With `echo` the answer carries the request id of the client. A request is noted just before its answer is
    complete: who has read the answer finds it in the log.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, keep: Callable[[LoggedRequest], None], *, echo: bool
    ) -> None:
        self.method = scope.get("method", "WEBSOCKET")
        self.path = scope["path"]
        self._http = scope["type"] == "http"
        self._receive = receive
        self._send = send
        self._received = 0
        self._client = str(scope["client"][0]) if scope.get("client") else ""
        self._request_id = request_id(scope)
        self._echoed = [(b"x-request-id", self._request_id.encode())] if echo and self._request_id else []
        self._keep: Callable[[LoggedRequest], None] | None = keep
        self._began = time.monotonic()
        self._status = 0

    async def __call__(self, message: Message) -> None:
        """Send on."""
        kind = message["type"]
        if not self._status:
            if kind in {"http.response.start", "websocket.http.response.start"}:
                self._status = message["status"]
                if self._echoed:
                    message["headers"] = [*message.get("headers", ()), *self._echoed]
            elif kind in {"websocket.accept", "websocket.close"}:
                self._status = 101 if kind == "websocket.accept" else 403
        if kind not in {"http.response.start", "websocket.http.response.start"} and not message.get("more_body"):
            self.note()
        await self._send(message)

    async def receive(self) -> Message:
        """Receive, and count the bytes of the body."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        return message

    async def give_up(self) -> None:
        """End an unanswered request with 503 and close its connection; close a websocket."""
        try:
            if not self._http:
                await self._send({"type": "websocket.close", "code": 1012})
            elif not self._status:
                self._status = 503
                self.note()
                headers = [(b"connection", b"close"), (b"content-length", b"0")]
                await self._send({"type": "http.response.start", "status": 503, "headers": headers})
                await self._send({"type": "http.response.body", "body": b""})
        except Exception as error:  # noqa: BLE001 - the peer is gone, in whatever words the ASGI server says so
            logger.debug("nobody to answer: %r", error)

    def note(self) -> None:
        """Write the line of the log, once."""
        if self._keep is not None:
            seconds = time.monotonic() - self._began
            keep, self._keep = self._keep, None
            keep(
                LoggedRequest(
                    self._began,
                    self.method,
                    self.path,
                    self._status,
                    seconds,
                    self._received,
                    self._client,
                    self._request_id,
                )
            )


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
