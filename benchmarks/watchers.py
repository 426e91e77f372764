"""Follow an upload over Socket.IO from many connections: `python -m benchmarks.watchers URL COUNT EVENTS`.

EVENTS is the file that the uploading client writes its `--json` to: the session's id is taken from there. Prints a line
once all are connected, and at SIGTERM the number of messages that came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

DIALLED_AT_ONCE = 20
LOOK = 0.02
"""Seconds between two looks into EVENTS."""


class Watchers:
    """Connections that join one session, and count the events that they receive."""

    def __init__(self, url: str, count: int) -> None:
        self._url = f"ws{url.removeprefix('http')}/socket.io/?EIO=4&transport=websocket"
        self._count = count
        self._connections: list[ClientConnection] = []
        self.messages = 0

    async def dial(self) -> None:
        """Connect all, up to the end of the Socket.IO handshake."""
        some = asyncio.Semaphore(DIALLED_AT_ONCE)

        async def one() -> None:
            async with some:
                connection = await connect(self._url, compression=None, ping_interval=None)
                await connection.recv()
                await connection.send("40")
                while not str(await connection.recv()).startswith("40"):
                    pass
            self._connections.append(connection)

        await asyncio.gather(*(one() for _ in range(self._count)))

    async def follow(self, events: Path) -> None:
        """Answer pings, join the session as soon as EVENTS names it, and count messages, until cancelled."""
        await asyncio.gather(self._join(events), *map(self._listen, self._connections))

    async def _join(self, events: Path) -> None:
        while (session := _session(events)) is None:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)  # a file can't wake anybody
        for connection in self._connections:
            await connection.send(f"42{json.dumps(['join-session', session])}")

    async def _listen(self, connection: ClientConnection) -> None:
        async for message in connection:
            if message == "2":
                await connection.send("3")
            elif str(message).startswith("42"):
                self.messages += 1


def _session(events: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError), events.open() as lines:
        for line in lines:
            if '"session.created"' in line:
                return str(json.loads(line)["session"])
    return None


async def main() -> None:
    url, count, events = sys.argv[1:]
    watchers = Watchers(url, int(count))
    await watchers.dial()
    following = asyncio.create_task(watchers.follow(Path(events)))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
    print("ready", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await following
    print(watchers.messages, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
