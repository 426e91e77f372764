"""Live TCP connections: how many there may be, and cutting them, which no ASGI server offers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from collections.abc import Iterator


MOST_CONNECTIONS = 4096
"""Connections at a time, as far as the system's limit of descriptors permits."""
RESERVED = 256
"""Descriptors that are left for files."""


def most_connections() -> int:
    """How many connections this process may have at a time."""
    if sys.platform == "win32":  # pragma: no cover - no such limit
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(64, min(MOST_CONNECTIONS, soft - RESERVED))


def raise_limit() -> None:
    """Let this process have as many descriptors as it needs and may."""
    if sys.platform == "win32":  # pragma: no cover - no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def cut(scope: Any, *, reset: bool = False) -> None:
    """Close the connection of this request at once, in both directions, whatever is under way on it.

    With `reset` the client gets a TCP reset instead of an orderly end.
    """
    client, server = scope.get("peer") or scope.get("client"), scope.get("server")
    if client and server:
        cut_connections(int(server[1]), (str(client[0]), int(client[1])), reset=reset)


def cut_connections(server_port: int, client: tuple[str, int] | None = None, *, reset: bool = False) -> None:
    """Close the accepted connections of a listening port, or the one of a client's address and port."""
    for connection in of_port(server_port):
        with contextlib.suppress(OSError):
            peer = connection.getpeername()[:2]  # the listening socket has none, and is left alone
            if client is None or peer == client:
                if reset:
                    _reset(connection)
                connection.shutdown(socket.SHUT_RDWR)


def of_port(server_port: int) -> Iterator[socket.socket]:
    """A duplicate of each socket of a listening port.

    In one process both ends of a connection may be ours: these are the server's ends.
    """
    for connection in _sockets():
        with connection:
            if connection.getsockname()[1] == server_port:
                yield connection


def _reset(connection: socket.socket) -> None:
    """Send a TCP reset. Connecting to no address does that on Linux; Python's own `connect` can't ask for it."""
    libc = ctypes.CDLL(None)
    libc.connect(connection.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)


def _sockets() -> Iterator[socket.socket]:
    """A duplicate of each TCP socket that this process has open."""
    listing = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    for name in os.listdir(listing):
        with contextlib.suppress(OSError, ValueError):
            fd = int(name)
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                duplicate = socket.socket(fileno=os.dup(fd))
                if duplicate.family in {socket.AF_INET, socket.AF_INET6}:
                    yield duplicate
                else:
                    duplicate.close()
