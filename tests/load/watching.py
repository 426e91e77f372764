"""A watcher: a raw Socket.IO client over a websocket that joins one session after another."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.asyncio.client import ClientConnection

PATIENCE = 60.0
"""Seconds after which an answer, or the end of a session, counts as missing."""
ENDED = {"completed", "partial", "cancelled"}


class Watcher:
    """One connection. `failed(text)` is called for everything that should not happen.

    A broken connection is a failure; it is restored, and its session joined again, as a client does.
    """

    def __init__(self, url: str, failed: Callable[[str], None]) -> None:
        self._url = f"ws{url.removeprefix('http')}/socket.io/?EIO=4&transport=websocket"
        self._failed = failed
        self._connection: ClientConnection | None = None
        self._session = ""
        self._percent = 0
        self._end: asyncio.Future[dict[str, Any]] = asyncio.Future()
        self._joined: asyncio.Future[dict[str, Any]] = asyncio.Future()
        self.events = 0

    async def dial(self) -> None:
        """Connect, including the handshake of Socket.IO."""
        connection = await connect(self._url, compression=None, ping_interval=None, open_timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await connection.recv()
            await connection.send("40")
            while not str(await connection.recv()).startswith("40"):
                pass
        self._connection = connection

    async def listen(self) -> None:
        """Answer pings and receive events until cancelled; then disconnect."""
        try:
            while True:
                assert self._connection is not None
                reason = "the server closed it"
                try:
                    async for message in self._connection:
                        await self._take(str(message))
                except ConnectionClosed as error:
                    reason = str(error)
                self._failed(f"a watcher was disconnected: {reason}")
                await asyncio.sleep(1)
                await self.dial()
                if self._session:
                    await self._send("join-session", self._session, answered=True)
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def _take(self, message: str) -> None:
        if message == "2":
            assert self._connection is not None
            await self._connection.send("3")
        elif message.startswith("42"):
            name, body = json.loads(message[2:])
            if name == "upload-progress" and body["sessionId"] == self._session:
                self._heard(body)
        elif message.startswith("43") and not self._joined.done():
            self._joined.set_result(json.loads(message[message.index("[") :])[0])

    def _heard(self, body: dict[str, Any]) -> None:
        self.events += 1
        if body["totalProgress"] < self._percent:
            self._failed("the percentage of a session fell")
        self._percent = body["totalProgress"]
        if body["overallStatus"] in ENDED and not self._end.done():
            self._end.set_result(body)

    async def join(self, session: str) -> None:
        """Leave the previous session and join this one. Raises TimeoutError."""
        if self._session:
            await self._send("leave-session", self._session)
        self._session, self._percent = session, 0
        self._end, self._joined = asyncio.Future(), asyncio.Future()
        await self._send("join-session", session, answered=True)
        async with asyncio.timeout(PATIENCE):
            answer = await self._joined
        if answer != {"ok": True}:
            self._failed(f"a join was answered with {answer}")

    async def end(self) -> dict[str, Any] | None:
        """Return the event that ends the joined session, or None if it does not arrive."""
        done, _ = await asyncio.wait({self._end}, timeout=PATIENCE)
        return self._end.result() if done else None

    async def _send(self, event: str, session: str, *, answered: bool = False) -> None:
        assert self._connection is not None
        with contextlib.suppress(ConnectionClosed):  # `listen` reports it
            await self._connection.send(f"42{'1' if answered else ''}{json.dumps([event, session])}")
