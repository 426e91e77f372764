"""Connections that the ASGI server has, and no request tells of: too many of one address, endless heads and messages.

The ASGI server holds a head, or a message of a websocket, in memory until it is complete; it has no limit for either
that could be set. So the sockets of the process are looked at, several times a second.
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
from typing import TYPE_CHECKING, Protocol

from uploader_server.http.connections import of_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.http.accesslog import Seen
    from uploader_server.http.proxies import Proxies

logger = logging.getLogger(__name__)

MAX_HEAD = 256 << 10
"""Bytes of a request's head."""
MAX_MESSAGE = 1 << 20
"""Bytes of an unfinished message of a websocket."""
INTERVAL = 0.2
"""Seconds between two looks, at least."""
SHARE = 20
"""A look may take one of so many parts of the time."""
_RECEIVED = struct.Struct("Q")
_RECEIVED_AT = 128
"""Where Linux has the bytes that were received in its `struct tcp_info`."""

Peer = tuple[str, int]


@dataclass
class Track:
    """What is known of one connection."""

    since: float
    """When it was first seen (monotonic seconds)."""
    base: int = 0
    """Bytes that had been received when the head or message under way began, at the latest."""
    busy: bool = False
    """Whether a request was under way at the last look."""
    delivered: int = 0
    """Bytes of messages that the application had got."""
    over: int = 0
    """At how many looks in a row it was over a limit."""


class Activity(Protocol):
    """Who knows of the requests on connections."""

    def busy(self) -> dict[Peer, Seen]:
        """The requests that are under way."""

    def began(self) -> set[Peer]:
        """The connections on which requests began since the last call."""


class Watch:
    """Looks at the connections of a port. `limit` is how many one address may have (0: any)."""

    def __init__(self, port: int, limit: int, proxies: Proxies, activity: Activity) -> None:
        self._port = port
        self._limit = limit
        self._proxies = proxies
        self._activity = activity
        self._tracks: dict[Peer, Track] = {}

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await asyncio.to_thread(self.look, self._activity.busy(), self._activity.began())
            except OSError as error:
                logger.warning("the connections can't be looked at: %s", error)
            await asyncio.sleep(max(INTERVAL, SHARE * (time.monotonic() - began)))

    def look(self, busy: dict[Peer, Seen], began: set[Peer]) -> None:
        """Look once, and close what is too much (takes milliseconds: for a thread)."""
        now = time.monotonic()
        known, self._tracks = self._tracks, {}
        idle: dict[str, list[Peer]] = {}
        count: Counter[str] = Counter()
        for connection, peer in _connections(self._port):
            track = self._tracks[peer] = known.get(peer) or Track(now)
            count[peer[0]] += 1
            received = _received(connection)
            if peer in began:
                track.base = received
            within = _within_limits(received, track, busy.get(peer))
            track.over = 0 if within else track.over + 1
            if track.over > 1:  # once is no proof: a request may have arrived that the application begins just now
                _close(connection)
            elif peer not in busy:
                idle.setdefault(peer[0], []).append(peer)
        doomed: set[Peer] = set()
        for address, number in count.items():
            excess = number - self._limit
            if self._limit and excess > 0 and not self._proxies.include(address):
                oldest = sorted(idle.get(address, ()), key=lambda peer: self._tracks[peer].since)
                doomed.update(oldest[:excess])
        for connection, peer in _connections(self._port) if doomed else ():
            if peer in doomed:
                _close(connection)


def _connections(port: int) -> Iterator[tuple[socket.socket, Peer]]:
    for connection in of_port(port):
        with contextlib.suppress(OSError):
            host, number = connection.getpeername()[:2]  # the listening socket has none
            yield connection, (host, number)


def _within_limits(received: int, track: Track, seen: Seen | None) -> bool:
    """Whether what a connection sends stays within the limits, as far as it is not complete."""
    if seen is not None and seen.http:
        track.busy = True
        return True
    if seen is None:
        if track.busy:  # its request has ended: the next one begins
            track.busy, track.base = False, received
        return received - track.base <= MAX_HEAD
    if seen.received != track.delivered and received - track.base <= MAX_MESSAGE:
        track.delivered, track.base = seen.received, received
    return received - track.base <= MAX_MESSAGE


def _received(connection: socket.socket) -> int:
    """Bytes that a connection has received; 0 on systems that do not say."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    with contextlib.suppress(OSError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + _RECEIVED.size)
        if len(info) == _RECEIVED_AT + _RECEIVED.size:
            return int(_RECEIVED.unpack_from(info, _RECEIVED_AT)[0])
    return 0


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
