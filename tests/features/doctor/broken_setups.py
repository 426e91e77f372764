"""Set-ups with one fault each, on free ports of this machine."""

from __future__ import annotations

import contextlib
import re
import socket
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from proxy import Onlooker, Proxy, Request, answer
from scripted_server import Answer, Rule, ScriptedServer

from uploader_cli import Settings
from uploader_cli.features.doctor.context import DoctorContext
from uploader_cli.features.doctor.examination import examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uploader_cli.features.checks.check import Checked, CheckReport

UNKNOWN = "11111111-1111-4111-8111-111111111111"


def doctor(server: str, *, context: dict[str, Any] | None = None, **settings: Any) -> CheckReport:
    """Examine a server. The disk is reported as fast, since that of the test machine may be slow."""
    return examine(
        DoctorContext(Settings(server=server, **settings), **{"fsync": lambda _handle: None, **(context or {})})
    )


def step(report: CheckReport, name: str) -> Checked:
    """One step of a report."""
    return next(result for result in report.results if result.id == name)


class Instead(Onlooker):
    """Answers the requests that `when` chooses in the server's place."""

    def __init__(self, when: Callable[[Request], bool], answered: bytes) -> None:
        self._when, self._answered = when, answered

    def head(self, request: Request) -> bytes | None:
        return self._answered if self._when(request) else None


class Answering(Onlooker):
    """Changes a line in the heads of answers."""

    def __init__(self, name: str, by: bytes = b"") -> None:
        self._line, self._by = re.compile(rb"(?im)^%b:[^\r]*\r\n" % name.encode()), by

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        return piece if to_server else self._line.sub(self._by, piece)


def no_websockets(url: str) -> Proxy:
    """A proxy that refuses every upgrade, as many do."""
    refused = answer(403, "Via: 1.1 gate", close=True)
    return Proxy(url, Instead(lambda request: request.headers.get("upgrade", "").lower() == "websocket", refused))


def small_bodies(url: str, most: int = 1 << 20) -> Proxy:
    """A proxy that refuses larger bodies by the request's head, as nginx does."""
    return Proxy(url, Instead(lambda request: request.length > most, answer(413, close=True)))


def wrong_clock(url: str, hours: float) -> Proxy:
    """Shift every time in the answer and keep its length."""
    by = timedelta(hours=hours)

    def stamp(found: re.Match[bytes]) -> bytes:
        told = datetime.fromisoformat(found[1].decode()) + by
        return b'"timestamp":"' + told.astimezone(UTC).isoformat(timespec="milliseconds")[:23].encode() + b'Z"'

    def date(found: re.Match[bytes]) -> bytes:
        return found[1] + format_datetime(parsedate_to_datetime(found[2].decode()) + by, usegmt=True).encode()

    class Shifted(Onlooker):
        def passing(self, piece: bytes, *, to_server: bool) -> bytes:
            if to_server:
                return piece
            piece = re.sub(rb'"timestamp":"([^"]{24})"', stamp, piece)
            return re.sub(rb"(?i)(\r\ndate: )([^\r]+)", date, piece)

    return Proxy(url, Shifted())


def web_site(
    status: int = 200, kind: str = "text/html", body: bytes = b"<h1>Welcome</h1>", **more: object
) -> ScriptedServer:
    """A server with the same answer to every request."""
    return ScriptedServer(Rule(Answer(status, body, {"Content-Type": kind, **more})))


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


def refusing_proxy() -> Proxy:
    """A proxy that refuses every request, after an interim answer."""
    return Proxy("", Instead(lambda _: True, b"HTTP/1.1 102 Processing\r\n\r\n" + answer(403, close=True)))
