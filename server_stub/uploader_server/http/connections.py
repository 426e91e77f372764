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

Peer = tuple[str, int]  # address and port of the remote end of a connection
MOST_CONNECTIONS = 4096  # maximum concurrent connections; less if the file descriptor limit is lower
RESERVED = 256  # file descriptors reserved for files


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
