"""TCP connections of this process: their limit, and closing them, which ASGI servers don't support."""

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
"""Maximum concurrent connections; less if the file descriptor limit is lower."""
RESERVED = 256
"""File descriptors reserved for files."""


def most_connections() -> int:
    """Return the maximum number of concurrent connections."""
    if sys.platform == "win32":  # pragma: no cover - no such limit
        return MOST_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(64, min(MOST_CONNECTIONS, soft - RESERVED))


def raise_limit() -> None:
    """Raise the file descriptor limit to what MOST_CONNECTIONS needs, or to the hard limit."""
    if sys.platform == "win32":  # pragma: no cover - no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def cut(scope: Any, *, reset: bool = False) -> None:
    """Close the connection of this request at once, in both directions; with `reset` by a TCP reset."""
    client, server = scope.get("peer") or scope.get("client"), scope.get("server")
    if client and server:
        cut_connections(int(server[1]), (str(client[0]), int(client[1])), reset=reset)


def cut_connections(server_port: int, client: tuple[str, int] | None = None, *, reset: bool = False) -> None:
    """Close all accepted connections of a listening port, or only the one from `client`."""
    for connection in of_port(server_port):
        with contextlib.suppress(OSError):
            peer = connection.getpeername()[:2]  # raises for the listening socket
            if client is None or peer == client:
                if reset:
                    _reset(connection)
                connection.shutdown(socket.SHUT_RDWR)


def of_port(server_port: int) -> Iterator[socket.socket]:
    """Yield a duplicate of each socket bound to `server_port`: the server's ends of its connections."""
    for connection in _sockets():
        with connection:
            if connection.getsockname()[1] == server_port:
                yield connection


def _reset(connection: socket.socket) -> None:
    """Send a TCP reset. On Linux `connect` with AF_UNSPEC does that; Python's `connect` has no AF_UNSPEC."""
    libc = ctypes.CDLL(None)
    libc.connect(connection.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)


def _sockets() -> Iterator[socket.socket]:
    """Yield a duplicate of each open TCP socket of this process."""
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
