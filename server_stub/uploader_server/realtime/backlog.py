"""Packets that wait to be sent to realtime clients, with limits for clients that don't read.

python-engineio queues packets without a limit.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import engineio  # type: ignore[import-untyped]
from engineio.packet import Packet  # type: ignore[import-untyped]

MOST_WAITING = 8 << 20  # maximum bytes of the waiting packets of one connection: a burst has one for each file
MOST_IN_TOTAL = 64 << 20  # maximum bytes of all waiting packets
OVERHEAD = 300  # bytes of memory of a packet besides its text
MOST_AT_ONCE = 256 << 10
"""Bytes after which the answer to a poll ends: clients limit its bytes and its packets, which are below 1,000 then."""


class Backlog(asyncio.Queue[Packet | None]):
    """The waiting packets of one connection. None wakes up the writer for the end."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.size = 0  # bytes of the waiting packets
        self._engine = engine
        self._taken = 0  # bytes of the packets that were taken since the last `get`
        self._closed = False

    async def get(self) -> Packet | None:
        self._taken = 0
        return await super().get()

    def get_nowait(self) -> Packet | None:
        """Return the next packet. Raises QueueEmpty also after MOST_AT_ONCE bytes since the last `get`."""
        if self._taken > MOST_AT_ONCE:
            raise asyncio.QueueEmpty
        return super().get_nowait()

    def put_nowait(self, item: Packet | None) -> None:
        """Add a packet, unless the backlog is closed; the engine checks the limits."""
        if item is None or not self._closed:
            super().put_nowait(item)
            self._engine.check(self)

    def clear(self) -> None:
        for _ in range(self.qsize()):
            item = super().get_nowait()
            self.task_done()
            if item is None:
                super().put_nowait(None)

    def close(self, *last: Packet) -> None:
        """Replace all packets by the `last` ones; later ones are dropped."""
        self.clear()
        for packet in last:
            super().put_nowait(packet)
        self._closed = True

    def _put(self, item: Packet | None) -> None:
        super()._put(item)
        self.size += _size(item)
        self._engine.count(item, 1)

    def _get(self) -> Packet | None:
        item = super()._get()
        self._taken += _size(item)
        self.size -= _size(item)
        self._engine.count(item, -1)
        return item


def _size(packet: Packet | None) -> int:
    return 0 if packet is None else OVERHEAD + (len(packet.data) if isinstance(packet.data, str) else 0)


class Engine(engineio.AsyncServer):  # type: ignore[misc]
    """An Engine.IO server that calls `overflow(sid)` for a connection with too many waiting packets.

    That is one over MOST_WAITING, or the one with most bytes if all together are over MOST_IN_TOTAL.
    """

    overflow: Callable[[str], None]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waiting = 0  # bytes of all waiting packets
        self._queued: Counter[Packet] = Counter()  # number of backlogs that have a packet; a room shares its packets

    def create_queue(self, *_: object, **__: object) -> Backlog:
        return Backlog(self)

    def count(self, packet: Packet | None, backlogs: int) -> None:
        """Count a packet that was added to a backlog (1), or removed (-1)."""
        before = self._queued[packet]
        self._queued[packet] += backlogs
        if not before:
            self._waiting += _size(packet)
        elif not self._queued[packet]:
            self._waiting -= _size(packet)
            del self._queued[packet]

    def check(self, backlog: Backlog) -> None:
        if backlog.size <= MOST_WAITING:
            if self._waiting <= MOST_IN_TOTAL:
                return
            backlog = max((connection.queue for connection in self.sockets.values()), key=lambda queue: queue.size)
        for sid, connection in list(self.sockets.items()):
            if connection.queue is backlog:
                self.overflow(sid)
