"""Upload servers with one defect each: the bundled one behind a layer that changes calls and answers."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving import running_server

from uploader_cli import Settings
from uploader_cli.features.checks.check import BROKEN, CheckReport
from uploader_cli.features.smoke.runner import CHECKS, OF_ENDPOINTS, chosen, run_checks
from uploader_cli.features.smoke.site import Site
from uploader_server.http.middleware import Gateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pytest

    from uploader_cli.features.checks.check import Checked
    from uploader_server.serving import EmbeddedServer


@dataclass
class Call:
    """A request, before the server sees it; its headers may be changed."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Reply:
    """An answer of the server before the caller gets it; everything may be changed."""

    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")

    def say(self, body: object, status: int | None = None) -> None:
        self.body = json.dumps(body).encode()
        self.status = status or self.status
        self.headers.update({"content-length": str(len(self.body)), "content-type": "application/json"})


@dataclass
class Broken:
    """The defect of a server: options, changes of calls, answers and state; and the checks that must fail."""

    noticed_by: set[str]
    config: dict[str, Any] = field(default_factory=dict)
    asked: Callable[[Call], Reply | None] = lambda _call: None
    """May change a call, or answer it in the server's place."""
    said: Callable[[Call, Reply], None] = lambda _call, _reply: None
    """May change an answer."""
    patches: Callable[[pytest.MonkeyPatch], None] = lambda _patch: None
    exit_code: int = 4
    only: tuple[str, ...] = ()
    patience: float = 30.0

    @contextlib.contextmanager
    def running(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedServer]:
        """Run the server with this defect."""
        original, asked, said = Gateway.serve_rest, self.asked, self.said

        async def serve(gate: Gateway, scope: Any, held: Any, receive: Any, send: Any) -> None:
            named = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
            call = Call(scope["method"], scope["path"], named)
            reply = asked(call)
            if reply is None:
                scope["headers"] = [(name.encode(), value.encode("latin-1")) for name, value in call.headers.items()]
                heard = _Heard()
                await original(gate, scope, held, receive, heard)
                reply = heard.reply
            said(call, reply)
            if call.method != "HEAD" and "content-length" in reply.headers:
                reply.headers["content-length"] = str(len(reply.body))
            headers = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else reply.body})

        monkeypatch.setattr(Gateway, "serve_rest", serve)
        self.patches(monkeypatch)
        with running_server(described=False, **self.config) as server:
            yield server


class _Heard:
    """An answer as an ASGI application sends it, as a whole."""

    def __init__(self) -> None:
        self.reply = Reply(500, {})

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            named = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            self.reply = Reply(message["status"], named)
        elif message["type"] == "http.response.pathsend":
            self.reply.body = Path(message["path"]).read_bytes()  # noqa: ASYNC240 - a few KiB
        else:
            self.reply.body += message.get("body", b"")


def smoke(
    url: str,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    *,
    strict: bool = False,
    budget: int = 250,
    patience: float = 30.0,
    **settings: Any,
) -> CheckReport:
    """All checks of a server, or the chosen ones."""
    site = Site(Settings(server=url, **settings), budget=budget, patience=patience)
    among = OF_ENDPOINTS if site.settings.tus_endpoint else CHECKS
    return run_checks(site, chosen(only, skip, among), strict=strict)


def failed(report: CheckReport) -> set[str]:
    """Return the checks that failed or did not end."""
    return {result.id for result in report.results if result.verdict in BROKEN}


def result(report: CheckReport, check: str) -> Checked:
    """One check of a report."""
    return next(result for result in report.results if result.id == check)
