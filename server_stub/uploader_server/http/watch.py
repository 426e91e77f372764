"""Limits that the ASGI server lacks: connections per address, sizes of request heads and websocket messages.

The ASGI server buffers heads and messages without a limit until they are complete. So this module checks the sockets
of the process several times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_server.http.connections import accepted, close

if TYPE_CHECKING:
    from uploader_server.http.accesslog import TrackedRequest
    from uploader_server.http.connections import Peer
    from uploader_server.http.middleware import RequestTracker

logger = logging.getLogger(__name__)

MAX_HEAD = 256 << 10  # maximum bytes of a request head
MAX_MESSAGE = 1 << 20  # maximum bytes of an incomplete websocket message
INTERVAL = 0.2  # minimum seconds between two checks
SHARE = 20  # checks use at most 1/SHARE of the time
_RECEIVED = struct.Struct("Q")
_RECEIVED_AT = 128  # offset of `tcpi_bytes_received` in Linux's `struct tcp_info`


@dataclass
class Track:
    """State of one connection."""

    since: float  # first check that found it (monotonic seconds)
    base: int = 0  # bytes received before the current head or message
    busy: bool = False  # whether a request was running at the last check
    delivered: int = 0  # bytes of messages passed to the application
    over: int = 0  # consecutive checks that found it over a limit


class Watch:
    """Checks the connections of a port, of which `tracker` knows the running requests."""

    def __init__(self, port: int, tracker: RequestTracker) -> None:
        self._port = port
        self._tracker = tracker
        self._tracks: dict[Peer, Track] = {}

    async def run(self) -> None:
        """Check repeatedly until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await asyncio.to_thread(self.check, self._tracker.busy(), self._tracker.began())
            except OSError as error:
                logger.warning("can't check the connections: %s", error)
            await asyncio.sleep(max(INTERVAL, SHARE * (time.monotonic() - began)))

    def check(self, busy: dict[Peer, TrackedRequest], began: set[Peer]) -> None:
        """Check once and close connections over a limit (takes milliseconds: run in a thread)."""
        now = time.monotonic()
        known, self._tracks = self._tracks, {}
        idle: dict[str, list[Peer]] = {}
        count: Counter[str] = Counter()
        for connection, peer in accepted(self._port):
            track = self._tracks[peer] = known.get(peer) or Track(now)
            count[peer[0]] += 1
            received = _received(connection)
            if peer in began:
                track.base = received
            within = _within_limits(received, track, busy.get(peer))
            track.over = 0 if within else track.over + 1
            if track.over > 1:  # at the first check the application may not have begun the request yet
                close(connection)
            elif peer not in busy:
                idle.setdefault(peer[0], []).append(peer)
        excessive: set[Peer] = set()
        for address, number in count.items():
            excess = number - self._tracker.limit
            if self._tracker.limit and excess > 0 and not self._tracker.proxies.include(address):
                oldest = sorted(idle.get(address, ()), key=lambda peer: self._tracks[peer].since)
                excessive.update(oldest[:excess])
        for connection, peer in accepted(self._port) if excessive else ():
            if peer in excessive:
                close(connection)


def _within_limits(received: int, track: Track, seen: TrackedRequest | None) -> bool:
    """Return whether the incomplete head or message of a connection is within its limit."""
    if seen is not None and seen.http:
        track.busy = True
        return True
    if seen is None:
        if track.busy:  # the next head begins
            track.busy, track.base = False, received
        return received - track.base <= MAX_HEAD
    if seen.received != track.delivered and received - track.base <= MAX_MESSAGE:
        track.delivered, track.base = seen.received, received
    return received - track.base <= MAX_MESSAGE


def _received(connection: socket.socket) -> int:
    """Return the bytes received on a connection; 0 if the system doesn't report them."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    with contextlib.suppress(OSError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + _RECEIVED.size)
        if len(info) == _RECEIVED_AT + _RECEIVED.size:
            return int(_RECEIVED.unpack_from(info, _RECEIVED_AT)[0])
    return 0
