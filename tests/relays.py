"""Relays between client and server: a TLS front and an HTTP proxy, in threads on free loopback ports."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trustme


class Relay:
    """A relay that forwards connections to one target."""

    def __init__(self, target: tuple[str, int], context: ssl.SSLContext | None = None) -> None:
        self._target, self._context = target, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and cut the open connections."""
        for sock in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            self.connections += 1
            client, upstream = self._connect(client)
            self._sockets += [client, upstream]
            back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
            back.start()
            _pump(client, upstream, self._look)

    def _look(self, piece: bytes) -> None:
        """Look at data that a client sends."""

    def _connect(self, client: socket.socket) -> tuple[socket.socket, socket.socket]:
        return client, socket.create_connection(self._target)


class HttpProxy(Relay):
    """A forward proxy to one target; absolute request lines are forwarded unchanged."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.seen = bytearray()
        """Everything that clients sent."""
        super().__init__(target)

    def _connect(self, client: socket.socket) -> tuple[socket.socket, socket.socket]:
        head = client.recv(65536)
        self.seen += head
        upstream = socket.create_connection(self._target)
        if head.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            upstream.sendall(head)
        return client, upstream

    def _look(self, piece: bytes) -> None:
        self.seen += piece


def _pump(source: socket.socket, sink: socket.socket, look: Callable[[bytes], None] = lambda _piece: None) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            look(piece)
            sink.sendall(piece)
    for sock in (source, sink):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def address(url: str) -> tuple[str, int]:
    """Return host and port of a server's URL."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


@contextlib.contextmanager
def tls_front(url: str, authority: trustme.CA, *, ask_client: bool = False) -> Iterator[str]:
    """Return an https URL in front of `url` with a certificate of `authority`; `ask_client` requires one of clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    relay = Relay(address(url), context)
    try:
        yield f"https://localhost:{relay.port}"
    finally:
        relay.close()


@contextlib.contextmanager
def http_proxy(url: str) -> Iterator[HttpProxy]:
    """Run an HTTP proxy that forwards every request to `url`."""
    proxy = HttpProxy(address(url))
    try:
        yield proxy
    finally:
        proxy.close()
