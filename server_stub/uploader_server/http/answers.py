"""Sending responses to clients that may not read them."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import Message, Scope, Send

from uploader_server.http.connections import cut
from uploader_server.http.memory import Held
from uploader_server.http.pace import Pace

logger = logging.getLogger(__name__)

PIECE = 128 << 10  # bytes of a body that are sent at a time; the ASGI server waits until the client has room for them


class PacedSend:
    """Sends the response to one request; `started` tells whether it can't be replaced by an error any more.

    A large body is sent in pieces: as a whole, the ASGI server would copy it and keep it until the client has read it.
    It counts as memory of the request meanwhile. A client that takes less than the minimum rate of `pace` is cut off.
    """

    def __init__(self, scope: Scope, held: Held, pace: Pace, send: Send) -> None:
        self.started = False
        self._scope, self._held, self._send = scope, held, send
        self._patience = min(pace.idle, PIECE / pace.rate) if pace.rate else pace.idle
        self._start: Message | None = None
        self._is_cut = False

    async def __call__(self, message: Message) -> None:
        """Send a message. Raises ApiError for a body without room, before the response starts."""
        if message["type"] == "http.response.start":
            self._start = message  # sent with the body
            return
        body = message.get("body", b"")
        if len(body) > PIECE:
            # What changed something is answered in any case: its answer is as large as its request.
            self._held.keep_answer(body, must_fit=self._scope["method"] == "GET" and not self.started)
        self.started = True
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)
        if len(body) <= PIECE:
            await self._send(message)
            return
        for at in range(0, len(body), PIECE):
            more = at + PIECE < len(body) or message.get("more_body", False)
            await self._pass({**message, "body": body[at : at + PIECE], "more_body": more})
        self._held.drop_answer()

    async def _pass(self, message: Message) -> None:
        if self._is_cut:
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            self._is_cut = True
            logger.info("a client does not read its answer and is cut off")
            await asyncio.to_thread(cut, self._scope, reset=True)
