"""Cutting live TCP connections, which no ASGI server offers: by the addresses that the ASGI scope names."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def cut(scope: Any) -> None:
    """Close the connection of this request at once, in both directions, whatever is under way on it."""
    client, server = scope.get("client"), scope.get("server")
    if client and server:
        cut_connections(int(server[1]), int(client[1]))


def cut_connections(server_port: int, client_port: int | None = None) -> None:
    """Close the accepted connections of a listening port, or the one that comes from `client_port`.

    In one process both ends of a connection may be ours: only the server's end is touched.
    """
    for connection in _sockets():
        with connection, contextlib.suppress(OSError):
            if connection.getsockname()[1] == server_port and client_port in {None, connection.getpeername()[1]}:
                connection.getpeername()  # the listening socket has none, and is left alone
                connection.shutdown(socket.SHUT_RDWR)


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
