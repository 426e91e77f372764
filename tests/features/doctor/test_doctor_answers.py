"""What the steps of a diagnosis say of answers and errors that a few servers and proxies give."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import nullcontext
from http.client import BadStatusLine, RemoteDisconnected
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from uploader_cli import Settings
from uploader_cli.core.capabilities import capabilities_of
from uploader_cli.core.events import ChannelReason
from uploader_cli.core.protocol import NOBODY
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Finding, Verdict
from uploader_cli.features.doctor import network, server, transports, uploads
from uploader_cli.features.doctor.context import Address, DoctorContext
from uploader_cli.transfer.answers import Answer

if TYPE_CHECKING:
    from uploader_cli.features.checks.check import Check

URL = "http://files.invalid"
TUS = "http://files.invalid/files/"
PAGE = {"Content-Type": "text/html"}
OTHER = "https://other.invalid"


class Answered(DoctorContext):
    """A context whose requests get the given answers, each a status, headers and a body."""

    def __init__(self, *answers: tuple[int, dict[str, str], object], **settings: Any) -> None:
        super().__init__(Settings(**{"server": URL, **settings}))
        self.answers, self.made = [*answers], list[tuple[str, str]]()

    def send(self, method: str, url: str, **_: Any) -> Answer:
        self.made.append((method, url))
        status, headers, body = self.answers.pop(0)
        return Answer(status, headers, body, url, base=URL)


def found(step: Check, context: DoctorContext) -> Finding:
    """Return what a step found; each trouble has a hint."""
    finding = step.look(context)
    assert isinstance(finding, Finding)
    assert finding.hint.endswith(".") is (finding.verdict in (Verdict.FAIL, Verdict.WARNING))
    return finding


def refused(status: int, code: str = "") -> tuple[int, dict[str, str], object]:
    return status, {}, {"error": code} if code else None


@pytest.mark.parametrize(
    ("answer", "verdict", "message", "status", "code"),
    [
        (
            refused(401, "NO_TOKEN"),
            Verdict.FAIL,
            "the server requires a token (401 NO_TOKEN)",
            401,
            Exit.NOT_AUTHORISED,
        ),
        (refused(429), Verdict.SKIPPED, "because the rate limit is used up", None, None),
        (refused(503), Verdict.FAIL, "requests are answered with 503", 503, Exit.RETRY_MAY_HELP),
        (refused(500, "BROKEN"), Verdict.WARNING, "BROKEN", 500, None),
        (
            refused(400, "NO"),
            Verdict.FAIL,
            "no session was created: the server refused: 400 NO",
            None,
            Exit.FAILED_FOR_GOOD,
        ),
    ],
)
def test_refused_session_is_named(
    answer: Any, verdict: Verdict, message: str, status: int | None, code: Exit | None
) -> None:
    context = Answered(answer)
    context.new_session = True
    finding = found(uploads.session, context)
    assert finding.verdict is verdict
    assert message in finding.message
    assert finding.details.get("http_status") == status
    assert code is None or finding.exit is code


def tus_server(*answers: tuple[int, dict[str, str], object]) -> tuple[Finding, Answered]:
    context = Answered(*answers, tus_endpoint=TUS)
    return found(uploads.tus, context), context


@pytest.mark.parametrize(
    ("answers", "verdict", "message"),
    [
        (
            [(301, {"Location": f"{OTHER}/files/"}, None)] * 2,
            Verdict.FAIL,
            f"the tus endpoint redirects to {OTHER}/files",
        ),
        ([refused(405)] * 2, Verdict.WARNING, "does not say that it is a tus server: OPTIONS is answered with 405"),
        ([refused(403)] * 2, Verdict.FAIL, "the server requires a token (403)"),
        ([(405, PAGE, None)] * 2, Verdict.FAIL, "does not answer as a tus server (405)"),
        ([(200, {}, None)] * 2, Verdict.FAIL, "does not answer as a tus server (200)"),
        (
            [(204, {"Tus-Version": "0.2.2"}, None), refused(404)],
            Verdict.FAIL,
            f"{TUS} is of another version: it supports tus 0.2.2, not 1.0.0",
        ),
        (
            [(307, {"Location": f"{OTHER}/f/"}, None), (204, {"Tus-Version": "1.0.0"}, None), refused(404)],
            Verdict.PASS,
            f"{TUS} offers no extensions",
        ),
        ([(308, {"Location": "http://[x"}, None)] * 2, Verdict.WARNING, "OPTIONS is answered with 308"),
    ],
    ids=["moved", "405", "403", "page", "200", "version", "followed", "invalid address"],
)
def test_answers_of_a_tus_endpoint_are_told_apart(answers: list[Any], verdict: Verdict, message: str) -> None:
    finding, context = tus_server(*answers)
    assert finding.verdict is verdict
    assert message in finding.message
    assert not context.answers
    if verdict is Verdict.WARNING:
        assert finding.details == {"endpoint": TUS, "http_status": answers[0][0]}


def test_redirected_api_is_named() -> None:
    context = Answered((302, {"Location": f"{OTHER}/api/upload/progress/{NOBODY}"}, None))
    finding = found(uploads.polling, context)
    assert (finding.verdict, finding.message) == (Verdict.FAIL, f"requests to /api are redirected to {OTHER}")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {"error": "SESSION_NOT_FOUND"}, "upload server, though its /health answers 404"),
        (404, None, "this is not an upload server: /health answers 404 with text/html"),
    ],
)
def test_server_without_health_is_asked_for_a_session(status: int, body: object, message: str) -> None:
    context = Answered((404, PAGE, None), (status, {}, body))
    finding = found(server.health, context)
    assert finding.message == message
    assert context.made[1:] == [("GET", f"{URL}/api/upload/progress/{NOBODY}")]


@pytest.mark.parametrize(
    ("tus", "instead", "verdict", "message"),
    [
        (False, None, Verdict.WARNING, "a proxy refuses requests of 64.0 KiB (413)"),
        (True, 404, Verdict.WARNING, "a proxy or firewall blocks PATCH (405)"),
        (
            True,
            405,
            Verdict.WARNING,
            "a proxy or firewall blocks PATCH (405), and POST with X-HTTP-Method-Override (405)",
        ),
    ],
    ids=["body", "PATCH", "PATCH and POST"],
)
def test_proxies_that_refuse_requests_are_named(tus: bool, instead: int | None, verdict: Verdict, message: str) -> None:
    context = Answered(*([refused(405), refused(instead)] if instead else [refused(413)] * 10))
    context.tus = capabilities_of({"Tus-Version": "1.0.0"}, TUS) if tus else None
    finding = found(uploads.body_limit, context)
    assert (finding.verdict, finding.message) == (verdict, message)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EHOSTUNREACH, "there is no route to files.invalid (No route to host)"),
        (errno.EACCES, "no connection to files.invalid:80: Permission denied"),
    ],
)
def test_failed_connection_is_named(number: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "create_connection", refuse)
    context = Answered()
    context.next_hop, context.addresses = Address("files.invalid", 80), ["127.0.0.1"]
    finding = found(network.tcp, context)
    assert (finding.verdict, finding.message) == (Verdict.FAIL, message)


CHALLENGED = "Tunnel connection failed: 407 Proxy Authentication Required"


@pytest.mark.parametrize(
    ("proxy", "error", "message", "hint"),
    [
        (
            None,
            OSError("it broke"),
            "the TLS handshake with files.invalid:443 failed: it broke",
            "uses TLS on this port",
        ),
        ("http", OSError(CHALLENGED), "it answered '407 Proxy Authentication Required'", "Put name and password into"),
        (
            "http",
            OSError(CHALLENGED.replace("407", "403")),
            "it answered '403 ",
            "Let the proxy allow CONNECT to port 443",
        ),
        ("http", RemoteDisconnected("x"), "it closed the connection", "Let the proxy allow CONNECT to port 443"),
        (
            "http",
            BadStatusLine("SSH-2.0"),
            "its answer is not HTTP: SSH-2.0",
            "Let the proxy allow CONNECT to port 443",
        ),
    ],
)
def test_failed_handshake_is_named(
    proxy: str | None, error: Exception, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Answered(server="https://files.invalid", proxy=proxy and "http://proxy.invalid:3128")
    context.proxy = proxy and "http://proxy.invalid:3128"

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(context.http.dialler, "connection", fail)
    finding = found(network.tls, context)
    assert finding.verdict is Verdict.FAIL
    assert message in finding.message
    assert ("the proxy does not connect to files.invalid:443: " in finding.message) is bool(proxy)
    assert hint in finding.hint


@pytest.mark.parametrize(("token", "message"), [("", "requires a token"), ("t", "refuses the token")])
def test_websocket_that_needs_a_token_is_named(token: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = SimpleNamespace(dial=lambda: ChannelReason.REFUSED)
    monkeypatch.setattr(transports, "Listener", lambda *_: nullcontext(refusing))
    context = Answered(refused(401))
    context.token = token or None
    finding = found(transports.websocket, context)
    assert (finding.verdict, finding.details) == (Verdict.WARNING, {"http_status": 401})
    assert finding.message == f"the websocket is refused (401): the server {message}"
    assert finding.hint == (uploads.OTHER_TOKEN if token else uploads.GIVE_TOKEN)


@pytest.mark.parametrize("reason", [ChannelReason.REFUSED, ChannelReason.TIMEOUT])
def test_failed_long_polling_is_a_warning(reason: ChannelReason, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports, "Listener", lambda *_: nullcontext(SimpleNamespace(dial=lambda: reason)))
    context = Answered((418, {"Via": "1.1 gate"}, None))
    finding = found(transports.long_polling, context)
    assert finding.verdict is Verdict.WARNING
    if reason is ChannelReason.TIMEOUT:
        assert (finding.message, finding.details) == ("no answer within 3.5 s", {})
        assert finding.hint == f"Check that no proxy buffers the responses of {URL}/socket.io/."
    else:
        assert finding.message == "the handshake is answered with 418"
        assert finding.details == {"http_status": 418, "answered_by": "1.1 gate"}
        assert finding.hint == f"Let proxies and firewalls pass {URL}/socket.io/ to the server."
