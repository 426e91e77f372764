"""Set-ups with one fault each, on free ports of this machine."""

from __future__ import annotations

import contextlib
import http.server
import re
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from relays import HttpProxy, Relay, address
from time_limits import PATIENCE

from uploader_cli import Settings
from uploader_cli.checks.doctor import examine
from uploader_cli.checks.doctor.context import DoctorContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trustme

    from uploader_cli.checks.check import Checked, CheckReport

UNKNOWN = "11111111-1111-4111-8111-111111111111"


def doctor(server: str, *, context: dict[str, Any] | None = None, **settings: Any) -> CheckReport:
    """Examine a server. The disk is reported as fast, since that of the test machine may be slow."""
    return examine(
        DoctorContext(Settings(server=server, **settings), **{"fsync": lambda _handle: None, **(context or {})})
    )


def step(report: CheckReport, name: str) -> Checked:
    """One step of a report."""
    return next(result for result in report.results if result.id == name)


class Rewriting(Relay):
    """Forwards what `toward` and `back` make of each piece; `toward` may return an answer instead."""

    def __init__(
        self,
        url: str,
        *,
        toward: Callable[[bytes], bytes | None] = lambda piece: piece,
        back: Callable[[bytes], bytes] = lambda piece: piece,
        instead: bytes = b"",
    ) -> None:
        self._toward, self._back, self._instead = toward, back, instead
        super().__init__(address(url))

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            upstream = socket.create_connection(self._target)
            self._sockets += [client, upstream]
            threading.Thread(target=self._carry, args=(upstream, client, self._back), daemon=True).start()
            self._carry(client, upstream, self._toward)

    def _carry(self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes | None]) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                changed = change(piece)
                if changed is None:
                    source.sendall(self._instead)
                    break
                sink.sendall(changed)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(url: str, **how: Any) -> Iterator[str]:
    """The URL of a relay before `url`."""
    made = Rewriting(url, **how)
    try:
        yield f"http://127.0.0.1:{made.port}"
    finally:
        made.close()


def no_websockets(url: str) -> contextlib.AbstractContextManager[str]:
    """A proxy that refuses every upgrade, as many do."""
    return relay(
        url,
        toward=lambda piece: None if b"upgrade: websocket" in piece.lower() else piece,
        instead=b"HTTP/1.1 403 Forbidden\r\nVia: 1.1 gate\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )


def small_bodies(url: str, most: int = 1 << 20) -> contextlib.AbstractContextManager[str]:
    """A proxy that refuses larger bodies by the request's head, as nginx does."""

    def toward(piece: bytes) -> bytes | None:
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", piece)
        return None if found and int(found[1]) > most else piece

    instead = b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return relay(url, toward=toward, instead=instead)


def wrong_clock(url: str, hours: float) -> contextlib.AbstractContextManager[str]:
    """Shift every time in the answer and keep its length."""
    by = timedelta(hours=hours)

    def stamp(found: re.Match[bytes]) -> bytes:
        told = datetime.fromisoformat(found[1].decode()) + by
        return b'"timestamp":"' + told.astimezone(UTC).isoformat(timespec="milliseconds")[:23].encode() + b'Z"'

    def date(found: re.Match[bytes]) -> bytes:
        return found[1] + format_datetime(parsedate_to_datetime(found[2].decode()) + by, usegmt=True).encode()

    def back(piece: bytes) -> bytes:
        piece = re.sub(rb'"timestamp":"([^"]{24})"', stamp, piece)
        return re.sub(rb"(?i)(\r\ndate: )([^\r]+)", date, piece)

    return relay(url, back=back)


@contextmanager
def web_site(
    status: int = 200, kind: str = "text/html", body: bytes = b"<h1>Welcome</h1>", **more: str
) -> Iterator[str]:
    """A server with the same answer to every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = do_GET  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that is reserved and on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full: the kernel drops further SYNs, as a firewall does."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        yield port


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def tls_relay(url: str, authority: trustme.CA, *names: str, **cert: Any) -> Iterator[str]:
    """An https URL (of `localhost`) in front of `url`, with a certificate for `names`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **cert).configure_cert(context)
    made = Relay(address(url), context)
    try:
        yield f"https://localhost:{made.port}"
    finally:
        made.close()


class RefusingProxy(HttpProxy):
    """A proxy that refuses every request, after an interim answer."""

    def _connect(self, client: socket.socket) -> tuple[socket.socket, socket.socket]:
        self.seen += client.recv(65536)
        client.sendall(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        client.close()
        raise OSError
