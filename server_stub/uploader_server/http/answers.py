"""Sending responses to clients that may not read them."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import Message, Scope, Send

from uploader_server.http.connections import cut
from uploader_server.http.memory import Held
from uploader_server.pace import Pace

logger = logging.getLogger(__name__)

PIECE = 128 << 10  # bytes of a body that are sent at a time; the ASGI server waits until the client has room for them
LARGEST_PIECE = 1 << 20  # the same for a client that reads quickly: passing a piece takes as long as copying 200 KiB
QUICK = 0.05  # maximum seconds in which such a client takes a piece
QUEUED = 7  # maximum pieces of a response in memory: nearly all in the ASGI server


class PacedSend:
    """Sends the response to one request; `started` tells whether it can't be replaced by an error any more.

    A large body is sent in pieces: as a whole, the ASGI server would copy it and keep it until the client has read it.
    It counts as memory of the request meanwhile. Pieces are larger while the client takes them quickly and the budget
    of memory has room for those in the ASGI server. A client that takes less than the minimum rate of `pace` is cut
    off.
    """

    def __init__(self, scope: Scope, held: Held, pace: Pace, send: Send) -> None:
        self.started = False
        self._scope, self._held, self._send, self._pace = scope, held, send, pace
        self.piece = PIECE  # maximum bytes of the next piece
        self._large = 0  # maximum number of large pieces in memory; they count as memory of the request
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
        if len(body) < PIECE:
            await self._send(message)
            return
        at = 0
        while at < len(body):
            # not a slice of all of it: that copies a bytearray
            piece = body if at == 0 and len(body) <= self.piece else body[at : at + self.piece]
            at += len(piece)
            await self._pass({**message, "body": piece, "more_body": at < len(body) or message.get("more_body", False)})
        self._held.drop_answer()

    async def _pass(self, message: Message) -> None:
        if self._is_cut:
            return
        began, rate, idle = time.monotonic(), self._pace.rate, self._pace.idle
        try:
            async with asyncio.timeout(min(idle, self.piece / rate) if rate else idle):
                await self._send(message)
        except TimeoutError:
            self._is_cut = True
            logger.info("a client does not read its answer and is cut off")
            await asyncio.to_thread(cut, self._scope, reset=True)
        else:
            self._adapt(time.monotonic() - began)

    def _adapt(self, seconds: float) -> None:
        """Choose the size of the next piece after one that took this time."""
        if seconds > QUICK:
            self.piece = PIECE
            self._large -= 1
            if self._large == 0:  # the last one has been sent
                self._held.add(-QUEUED * LARGEST_PIECE)
            self._large = max(self._large, 0)
        elif self._large > 0 or self._held.try_add(QUEUED * LARGEST_PIECE):
            self.piece, self._large = LARGEST_PIECE, QUEUED
