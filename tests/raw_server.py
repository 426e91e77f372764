"""A server of bare sockets for these tests: each connection is played by a script, byte by byte, in a thread."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

from time_limits import PATIENCE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable


class Peer:
    """One accepted connection."""

    def __init__(self, sock: socket.socket, number: int, over: threading.Event) -> None:
        self.sock, self.number, self.over = sock, number, over
        self.received = 0
        self._ahead = b""

    def head(self) -> tuple[str, dict[str, str]]:
        """The request line and the headers (names in lower case); `EOFError` where no request comes."""
        while b"\r\n\r\n" not in self._ahead:
            piece = self.sock.recv(65536)
            if not piece:
                raise EOFError
            self._ahead += piece
        raw, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        line, *lines = raw.decode("latin-1").split("\r\n")
        headers = {}
        for item in lines:
            name, _, value = item.partition(":")
            assert name.lower() not in headers, f"{name} is sent twice"
            headers[name.lower()] = value.strip()
        return line, headers

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, or fewer where the connection ends."""
        pieces, have = [self._ahead[:count]], len(self._ahead[:count])
        self._ahead = self._ahead[count:]
        while have < count and (piece := self.sock.recv(min(65536, count - have))):
            pieces.append(piece)
            have += len(piece)
        self.received += have
        return b"".join(pieces)

    def request(self) -> tuple[str, dict[str, str], bytes]:
        """Request line, headers and the whole body."""
        line, headers = self.head()
        return line, headers, self.read(int(headers.get("content-length", 0)))

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        """A whole answer; what is no bytes goes as JSON. Underscores in header names are hyphens."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {headers[name]}" for name in headers)]
        self.sock.sendall("\r\n".join([*lines, f"Content-Length: {len(data)}", "", ""]).encode() + data)

    def hold(self) -> None:
        """Neither read nor write, until the test is over."""
        self.over.wait(PATIENCE)

    def reset(self) -> None:
        """End the connection the hard way."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


class RawServer:
    """Plays `script` for each connection. A context manager; failures of a script are raised at the end."""

    def __init__(self, script: Callable[[Peer], Any], *, tls: ssl.SSLContext | None = None, buffer: int = 0) -> None:
        self._script, self._tls = script, tls
        self._listener = socket.socket()
        if buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.over = threading.Event()
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> RawServer:
        self._start(self._accept)
        return self

    def close_door(self) -> None:
        """Take no connection any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __exit__(self, kind: object, *_: object) -> None:
        self.over.set()
        self.close_door()
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self.failures and kind is None:
            raise self.failures[0]

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._play, sock)

    def _play(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with sock:
                peer = Peer(sock, len(self.peers) + 1, self.over)
                self.peers.append(peer)
                self._script(peer)
        except (OSError, EOFError):
            sock.close()
        except BaseException as error:  # noqa: BLE001 - raised at the end
            self.failures.append(error)
            sock.close()
