"""TCP connections of this process: closing them, and limits, which the ASGI server lacks.

The ASGI server buffers request heads and websocket messages without a limit until they are complete. So `Watch` checks
the sockets of the process several times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import socket
import stat
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from uploader_server.addresses import network
from uploader_server.http.heads import COPIES, MAX_HEAD
from uploader_server.http.memory import Memory
from uploader_server.http.tracking import RequestTracker, TrackedRequest
from uploader_server.options import StartupError

logger = logging.getLogger(__name__)

Peer = tuple[str, int]  # address and port of the remote end of a connection
MOST_CONNECTIONS = 4096  # maximum concurrent connections; less if the file descriptor limit is lower
SPARE = 32  # further connections, whose requests are refused
RESERVED = 256  # file descriptors for these, the database, the log and so on; at most a quarter of the limit
LEAST_DESCRIPTORS = 64  # with fewer, the ASGI server or the database fails in the middle of a request
PER_CONNECTION = 2  # file descriptors of a connection: its socket, and the file that its request writes or reads
MAX_MESSAGE = 1 << 20  # maximum bytes of an incomplete websocket message
INTERVAL = 0.2  # minimum seconds between two checks
SHARE = 20  # checks use at most 1/SHARE of the time,
HURRY = 2  # or 1/HURRY while incomplete heads need more than 1/MUCH of the memory
MUCH = 16
_RECEIVED = struct.Struct("Q")
_RECEIVED_AT = 128  # offset of `tcpi_bytes_received` in Linux's `struct tcp_info`


def most_connections() -> int:
    """Return the maximum number of concurrent connections."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(16, min(MOST_CONNECTIONS, (soft - min(RESERVED, soft // 4)) // PER_CONNECTION))


def raise_limit() -> None:
    """Raise the file descriptor limit to what MOST_CONNECTIONS needs, or to the hard limit.

    Raises StartupError if that is below LEAST_DESCRIPTORS.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = PER_CONNECTION * MOST_CONNECTIONS + RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    most = most_connections()
    if most < MOST_CONNECTIONS:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < LEAST_DESCRIPTORS:
            hint = f"allow at least {LEAST_DESCRIPTORS}: ulimit -n {LEAST_DESCRIPTORS}"
            raise StartupError(f"the limit of file descriptors is {soft}: too low for a server", hint)
        logger.warning("the limit of file descriptors is %d: at most %d connections (see ulimit -n)", soft, most)


def cut(scope: Any, *, reset: bool = False) -> None:
    """Close the connection of this request at once, in both directions; with `reset` by a TCP reset."""
    client, server = scope.get("peer") or scope.get("client"), scope.get("server")
    if client and server:
        cut_connections(int(server[1]), (str(client[0]), int(client[1])), reset=reset)


def cut_connections(server_port: int, client: Peer | None = None, *, reset: bool = False) -> None:
    """Close all accepted connections of a listening port, or only the one from `client`."""
    for connection, peer in accepted(server_port):
        if client is None or peer == client:
            if reset:
                _reset(connection)
            close(connection)


def close(connection: socket.socket) -> None:
    """Close a connection in both directions, also if a duplicate of its socket is open."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def accepted(server_port: int) -> Iterator[tuple[socket.socket, Peer]]:
    """Yield a duplicate of the server's end of each connection to a listening port, and its remote address."""
    listing = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for name in os.listdir(listing):
        with contextlib.suppress(OSError, ValueError):
            fd = int(name)
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
            with socket.socket(fileno=os.dup(fd)) as connection:
                if connection.family in {socket.AF_INET, socket.AF_INET6}:
                    host, port = connection.getpeername()[:2]  # raises for the listening socket
                    if connection.getsockname()[1] == server_port:
                        yield connection, (host, port)


def _reset(connection: socket.socket) -> None:
    """Send a TCP reset. On Linux `connect` with AF_UNSPEC does that; Python's `connect` has no AF_UNSPEC."""
    libc = ctypes.CDLL(None)
    libc.connect(connection.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)


@dataclass
class Track:
    """State of one connection."""

    since: float  # first check that found it (monotonic seconds)
    base: int = 0  # bytes received before the current head or message
    head: int = 0  # bytes of a head that was incomplete at the last check
    busy: bool = False  # whether a request was running at the last check
    delivered: int = 0  # bytes of messages passed to the application
    over: int = 0  # consecutive checks that found it over a limit


class Watch:
    """Checks connections per address, heads and messages of a port, of which `tracker` knows the running requests.

    Incomplete heads may use half of the memory that requests leave free: beyond that the longest are closed. Checks
    follow each other more quickly while there are many, since the ASGI server takes further bytes between two of them.
    """

    def __init__(self, port: int, tracker: RequestTracker, memory: Memory) -> None:
        self._port = port
        self._tracker = tracker
        self._memory = memory
        self.tracks: dict[Peer, Track] = {}

    async def run(self) -> None:
        """Check repeatedly until cancelled."""
        while True:
            began = time.monotonic()
            try:
                await asyncio.to_thread(self.check, self._tracker.busy(), self._tracker.began())
            except OSError as error:
                logger.warning("can't check the connections: %s", error)
            pending = COPIES * sum(track.head for track in self.tracks.values())
            share = SHARE if pending <= self._memory.most // MUCH else HURRY
            await asyncio.sleep(max(INTERVAL, share * (time.monotonic() - began)))

    def check(self, busy: dict[Peer, TrackedRequest], began: set[Peer]) -> None:
        """Check once and close connections over a limit (takes milliseconds: run in a thread)."""
        now = time.monotonic()
        known, self.tracks = self.tracks, {}
        idle: dict[str, list[Peer]] = {}
        count: Counter[str] = Counter()
        heads: dict[Peer, int] = {}
        for connection, peer in accepted(self._port):
            track = self.tracks[peer] = known.get(peer) or Track(now)
            address = network(peer[0])
            count[address] += not self._tracker.proxies.include(peer[0])
            received = _received(connection)
            if peer in began:
                track.base = received
            within = _within_limits(received, track, busy.get(peer))
            if (size := _head(received, track, is_waiting=peer not in busy and peer not in began)) > 0:
                heads[peer] = size
            track.over = 0 if within else track.over + 1
            if track.over > 1:  # at the first check the application may not have begun the request yet
                close(connection)
            elif peer not in busy and peer in known:  # the request of a new one may be about to be answered
                idle.setdefault(address, []).append(peer)
        excessive = self._too_long(heads)
        left = len(self.tracks)  # connections within the shares of their addresses
        for address, number in count.items():
            over = max(0, number - self._tracker.share.each)
            excessive.update(self._oldest(idle.get(address, ()), over))
            left -= over  # also those that are not idle yet: others don't make room for them
        rest = [peer for peers in idle.values() for peer in peers if peer not in excessive]
        excessive.update(self._oldest(rest, left - self._tracker.share.most))
        for connection, peer in accepted(self._port) if excessive else ():
            if peer in excessive:
                close(connection)

    def _too_long(self, heads: dict[Peer, int]) -> set[Peer]:
        """Return the connections with the longest incomplete heads, which have no room; count the others."""
        total, room = COPIES * sum(heads.values()), (self._memory.most - self._memory.used) // 2
        closed: set[Peer] = set()
        for peer in sorted(heads, key=lambda peer: heads[peer], reverse=True):
            if total <= room:
                break
            closed.add(peer)
            total -= COPIES * heads[peer]
        self._memory.heads = total
        return closed

    def _oldest(self, peers: Iterable[Peer], count: int) -> list[Peer]:
        """Return the `count` connections that were found first; none if it is negative."""
        return sorted(peers, key=lambda peer: self.tracks[peer].since)[: max(0, count)]


def _head(received: int, track: Track, *, is_waiting: bool) -> int:
    """Return the bytes of a head that is incomplete since the check before this one.

    A newer one may be complete: the application may not have begun its request, whose body has arrived too.
    """
    before, track.head = track.head, received - track.base if is_waiting else 0
    return min(before, track.head)


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
