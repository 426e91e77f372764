"""What stands between the application and the ASGI server's `send`: the log's eye, and the delay."""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from typing import TYPE_CHECKING

from server_stub.faults import LoggedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Scope, Send

    from server_stub.faults import Faults

logger = logging.getLogger(__name__)


class Seen:
    """A `send` that notes what was answered, and can still answer when nothing was.

    A request is noted just before its answer is complete: who has read the answer finds it in the log.
    """

    def __init__(self, scope: Scope, send: Send, keep: Callable[[LoggedRequest], None]) -> None:
        self.method = scope.get("method", "WEBSOCKET")
        self.path = scope["path"]
        self._http = scope["type"] == "http"
        self._send = send
        self._keep: Callable[[LoggedRequest], None] | None = keep
        self._began = time.monotonic()
        self._status = 0

    async def __call__(self, message: Message) -> None:
        """Send on."""
        kind = message["type"]
        if not self._status:
            if kind in {"http.response.start", "websocket.http.response.start"}:
                self._status = message["status"]
            elif kind in {"websocket.accept", "websocket.close"}:
                self._status = 101 if kind == "websocket.accept" else 403
        if kind not in {"http.response.start", "websocket.http.response.start"} and not message.get("more_body"):
            self.note()
        await self._send(message)

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
            self._keep(LoggedRequest(self._began, self.method, self.path, self._status, seconds))
            self._keep = None


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
