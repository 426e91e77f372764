"""Errors of the network, and where requests and the token go: proxies, redirects, certificates."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import ssl
import tempfile
import warnings
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from feature_samples import of
from proxy import Onlooker, Proxy, Request
from proxy import answer as answer_of
from scripted_server import Peer, ScriptedServer
from time_limits import PATIENCE

from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import ConnectFailed, ConnectionLost, Exhausted, UsageError
from uploader_cli.settings import Settings
from uploader_cli.transfer import failures
from uploader_cli.transfer.answers import Answer, redirect_target
from uploader_cli.transfer.bodies import Body, Piece
from uploader_cli.transfer.dialler import Dialler
from uploader_cli.transfer.http_client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_cli import errors

pytestmark = pytest.mark.usefixtures("kept_connections")


@pytest.fixture(autouse=True)
def _no_proxies_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(failures, "HANDSHAKE_LIMIT", 0.3)  # a server of these tests that takes part in none


@pytest.fixture(params=["ours", of("checks", "requests")])
def get(request: pytest.FixtureRequest) -> Iterator[Callable[..., Answer]]:
    """One GET with fresh settings, by our client and by that of checks."""
    clients: list[HttpClient] = []
    kind: type[HttpClient] = HttpClient
    if request.param == "requests":
        kind = import_module("uploader_cli.features.checks.common_client").CommonClient

    def call(url: str, path: str = "/", headers: dict[str, str] | None = None, **settings: Any) -> Answer:
        clients.append(kind(Settings(server=url, **settings)))
        return clients[-1].request("GET", url + path, headers=headers)

    yield call
    for client in clients:
        client.close()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that no other program gets."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


def one_line(error: errors.UploaderError) -> str:
    """Return the message, which must be free of the internals of the libraries."""
    text = str(error)
    for noise in (
        "\n",
        "Pool(",
        "Connection(",
        "Max retries",
        "Caused by",
        "_ssl",
        "[SSL",
        "object at",
        "Traceback",
        "urllib3",
    ):
        assert noise not in text
    return text


def answering(peer: Peer) -> None:
    while True:
        line, headers = peer.head()
        peer.answer(200, {"line": line, "headers": headers})


# --- error classes ----------------------------------------------------------------------------------------------------


def test_refused_connection_is_connect_failed(get, closed_port) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    with pytest.raises(ConnectFailed) as caught:
        get(url)
    assert one_line(caught.value) == f"no connection to {url}: {os.strerror(111)}"
    assert caught.value.retryable
    assert caught.value.hint == "is the server running there?"


def test_lack_of_descriptors_is_not_blamed_on_the_server(get, closed_port, monkeypatch) -> None:
    def refuse(*_what: object, **_options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(Exhausted, match="too many files are open") as caught:
        get(f"http://127.0.0.1:{closed_port}")
    assert caught.value.retryable


def test_earlier_error_that_is_being_handled_is_not_the_cause(get, closed_port) -> None:
    with ScriptedServer(lambda peer: peer.head()) as server:
        try:
            get(f"http://127.0.0.1:{closed_port}")
        except ConnectFailed:
            with pytest.raises(ConnectionLost) as caught:
                get(server.url)
    assert os.strerror(111) not in str(caught.value)


def test_unknown_host_is_connect_failed(get, monkeypatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConnectFailed) as caught:
        get("http://nowhere.invalid:8005")
    assert one_line(caught.value) == "no connection to http://nowhere.invalid:8005: Name or service not known"
    assert caught.value.hint == "check the name in --server"


def test_invalid_host_is_connect_failed(get) -> None:
    with pytest.raises(ConnectFailed, match=r"no connection to http://a\.\.b: a\.\.b is not a host name"):
        get("http://a..b")


def test_connection_timeout_is_connect_failed(get, monkeypatch) -> None:
    """A full queue of connections: the SYN stays without an answer. The message says how long that took."""
    monkeypatch.setattr(Dialler, "connect_timeout", 1.1)
    with socket.socket() as listener, contextlib.ExitStack() as crowd:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = crowd.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConnectFailed) as caught:
            get(url)
    assert re.fullmatch(rf"no connection to {url} after \d+\.\d s: timed out", one_line(caught.value))


def test_refused_address_leads_to_the_next_address_of_the_host(get, monkeypatch, closed_port) -> None:
    with ScriptedServer(answering) as server:
        there = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        refused = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", closed_port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [refused, there])
        assert get(f"http://two.invalid:{server.port}").ok


@pytest.mark.parametrize("get", [HttpClient], indirect=True)
def test_answer_that_ends_within_its_headers_is_a_lost_connection(get) -> None:
    """Part of a `Location` is the URL of another upload."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 201 Created\r\nLocation: /files/1")

    with ScriptedServer(script) as server, pytest.raises(ConnectionLost, match="within the headers") as caught:
        get(server.url)
    assert caught.value.body_sent


def test_close_without_an_answer_is_a_lost_connection(get) -> None:
    with ScriptedServer(Peer.head) as server, pytest.raises(ConnectionLost) as caught:
        get(server.url)
    assert one_line(caught.value) == (
        f"the connection to {server.url} broke: Remote end closed connection without response"
    )
    assert caught.value.body_sent


@pytest.fixture
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_untrusted_certificate_names_the_ca_bundle_option(get, tls) -> None:
    with ScriptedServer(answering, tls=tls) as server, pytest.raises(ConnectFailed) as caught:
        get(server.url)
    assert one_line(caught.value).startswith(f"no secure connection to {server.url}: ")
    assert "the authority of the server's certificate is unknown" in str(caught.value)
    assert "--ca-bundle" in caught.value.hint
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("name", "since", "until", "cause", "fix"),
    [
        ("127.0.0.1", 2000, 2001, "has expired", "clock"),
        ("127.0.0.1", 2900, 2901, "is not valid yet", "clock"),
        ("files.example", 2000, 2901, "is not for 127.0.0.1", "in --tus-endpoint"),
    ],
)
def test_cause_of_a_refused_certificate_is_in_words(get, tmp_path, name, since, until, cause, fix) -> None:
    authority, context, bundle = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tmp_path / "ca.pem"
    dates: dict[str, Any] = {
        "not_before": datetime(since, 1, 1, tzinfo=UTC),
        "not_after": datetime(until, 1, 1, tzinfo=UTC),
    }
    authority.issue_cert(name, **dates).configure_cert(context)
    authority.cert_pem.write_to_path(str(bundle))
    with ScriptedServer(answering, tls=context) as server, pytest.raises(ConnectFailed) as caught:
        get(server.url, ca_bundle=bundle, tus_endpoint=server.url)
    assert one_line(caught.value) == f"no secure connection to {server.url}: the server's certificate {cause}"
    assert fix in caught.value.hint


@pytest.mark.parametrize("option", ["ca_bundle", "client_cert"])
def test_file_that_is_no_certificate_names_its_option(get, tls, tmp_path, option) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("bad")
    with ScriptedServer(answering, tls=tls) as server, pytest.raises(UsageError) as caught:
        get(server.url, **{option: bad})
    assert one_line(caught.value).startswith(f"--{option.replace('_', '-')}: the file ")
    assert "PEM" in caught.value.hint


def test_missing_bundle_of_the_environment_names_its_variable(monkeypatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    with pytest.raises(UsageError, match=r"REQUESTS_CA_BUNDLE: no such file: /nowhere\.pem"):
        HttpClient(Settings(server="https://127.0.0.1"))


def old_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def self_signed() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = trustme.CA()
    with tempfile.NamedTemporaryFile("wb") as file:
        file.write(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
        file.flush()
        context.load_cert_chain(file.name)
    return context


@pytest.mark.parametrize(
    ("make", "cause", "fix"),
    [
        (old_tls, "the server and this machine have no TLS version in common", "TLS 1.2"),
        (self_signed, "the server's certificate is self-signed", "--ca-bundle"),
    ],
)
def test_cause_of_a_failed_handshake_is_in_words(get, make, cause, fix) -> None:
    with ScriptedServer(answering, tls=make()) as server, pytest.raises(ConnectFailed) as caught:
        get(server.url)
    assert one_line(caught.value) == f"no secure connection to {server.url}: {cause}"
    assert fix in caught.value.hint


@pytest.mark.parametrize("said", ["SSH-2.0-OpenSSH_9", "HTTP/1.1 abc OK\r\n", f"HTTP/1.1 200 OK\r\nA: {'x' * 70000}"])
def test_answer_that_is_not_http_is_described_in_words(get, said) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(f"{said}\r\n".encode())

    with ScriptedServer(script) as server, pytest.raises(ConnectionLost) as caught:
        get(server.url)
    assert one_line(caught.value) == f"the answer of {server.url} is not HTTP"
    assert caught.value.hint == "check --server: its port, and whether a server for HTTP is there"


def test_unknown_name_has_a_hint_about_the_name(get) -> None:
    with pytest.raises(ConnectFailed) as caught:
        get("http://a..invalid")
    assert caught.value.hint == "check the name in --server"


def test_insecure_accepts_an_untrusted_certificate(get, tls) -> None:
    with ScriptedServer(answering, tls=tls) as server:
        assert get(server.url, insecure=True).ok


def test_client_certificate_is_sent(get, tmp_path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    bundle, mine = tmp_path / "ca.pem", tmp_path / "mine.pem"
    authority.cert_pem.write_to_path(str(bundle))
    authority.issue_cert("me@example.org").private_key_and_cert_chain_pem.write_to_path(str(mine))
    with ScriptedServer(answering, tls=context) as server:
        assert get(server.url, ca_bundle=bundle, client_cert=mine).ok
        with pytest.raises((ConnectFailed, ConnectionLost)) as caught:
            get(server.url, ca_bundle=bundle)
    one_line(caught.value)
    assert "_" not in str(caught.value)


def test_plain_http_answer_to_tls_is_not_retryable(get) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(10)
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with ScriptedServer(script) as server, pytest.raises(ConnectFailed) as caught:
        get(server.url.replace("http:", "https:"))
    url = f"https://127.0.0.1:{server.port}"
    assert one_line(caught.value) == f"no secure connection to {url}: this port does not speak TLS"
    assert caught.value.hint == "use http:// in --server, or the port with TLS"
    assert not caught.value.retryable


def test_400_of_a_port_that_speaks_tls_says_to_use_https(get, tls, monkeypatch) -> None:
    """A web server answers plain HTTP on its TLS port with a page."""
    monkeypatch.setattr(failures, "HANDSHAKE_LIMIT", PATIENCE)

    def script(peer: Peer) -> None:
        if peer.sock.recv(1, socket.MSG_PEEK) == b"\x16":  # a handshake
            tls.wrap_socket(peer.sock, server_side=True).close()
            return
        peer.head()
        peer.answer(400, b"<html>The plain HTTP request was sent to HTTPS port</html>")

    with ScriptedServer(script) as server, pytest.raises(ConnectFailed) as caught:
        get(server.url)
    assert one_line(caught.value) == f"{server.url}: this port speaks TLS: use https"
    assert caught.value.hint == f"use {server.url.replace('http', 'https')}"
    assert not caught.value.retryable


def test_handshake_that_breaks_is_retryable(get) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(65536)

    with ScriptedServer(script) as server, pytest.raises((ConnectFailed, ConnectionLost)) as caught:
        get(server.url.replace("http:", "https:"))
    one_line(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://["])
def test_invalid_url_is_a_usage_error(url) -> None:
    client = HttpClient(Settings(server="http://127.0.0.1"))
    with pytest.raises(UsageError, match="--server"):
        client.request("GET", url)


@pytest.mark.parametrize("proxy", ["http://[::1", "http://h:99999", "h:99999", "foo://h:9", "http://h ost", "://"])
def test_proxy_of_the_environment_that_is_no_url_is_a_usage_error(get, monkeypatch, proxy) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(UsageError, match="no URL that can be reached"):
        get("http://127.0.0.1")


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed_and_gets_no_token(get, status) -> None:
    elsewhere = ScriptedServer(answering)

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(status, Location=f"{elsewhere.url}/steal")

    with elsewhere, ScriptedServer(script) as server:
        answer = get(server.url, headers={"Authorization": "Bearer secret"})
        assert redirect_target(answer) == f"{elsewhere.url}/steal"
        assert answer.status == status
        assert not elsewhere.peers


@pytest.mark.parametrize("location", ["http://[", "//", "\x01", "http://a:b:c", "é"])
def test_malformed_location_is_accepted(get, location) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(302, Location=location)

    with ScriptedServer(script) as server:
        answer = get(server.url)
    assert answer.status == 302
    redirect_target(answer)


# --- proxies ----------------------------------------------------------------------------------------------------------


class Door(Onlooker):
    """A forward proxy that answers with the URL it was asked for, and tunnels; it may demand a password."""

    def __init__(self, demand: str | None = None) -> None:
        self._demand = demand

    def head(self, request: Request) -> bytes | None:
        if self._demand and request.headers.get("proxy-authorization") != self._demand:
            return answer_of(407)
        asked = json.dumps({"proxied": request.target}).encode()
        return None if request.method == "CONNECT" else answer_of(200, body=asked)


def test_http_request_goes_to_the_proxy(get) -> None:
    with Proxy("", Door()) as proxy:
        answer = get("http://files.invalid:8005", "/health", proxy=proxy.url)
        assert answer.body == {"proxied": "http://files.invalid:8005/health"}


def test_https_request_is_tunnelled_through_the_proxy(get, tmp_path) -> None:
    """The proxy sees a name and a port; the server's certificate is checked end to end."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with Proxy("", Door()) as proxy, ScriptedServer(answering, tls=context) as server:
        answer = get(server.url, headers={"Authorization": "Bearer s"}, proxy=proxy.url, ca_bundle=bundle)
        assert answer.ok
        (asked,) = proxy.requests
        assert asked.line.startswith(f"CONNECT 127.0.0.1:{server.port} ")
        assert "authorization" not in asked.headers


def test_body_through_a_tls_proxy_to_a_tls_server_is_intact(tmp_path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    path = tmp_path / "a.mp4"
    path.write_bytes(os.urandom(3_000_000))
    file = LocalFile(0, str(path), "a.mp4", 3_000_000, path.stat().st_mtime_ns)
    told: list[int] = []

    def take(peer: Peer) -> None:
        peer.answer(200, {"intact": path.read_bytes() in peer.request()[2]})

    with Proxy("", Door(), tls=context) as proxy, ScriptedServer(take, tls=context) as server:
        client = HttpClient(Settings(server=server.url, proxy=proxy.url, ca_bundle=bundle))
        part = Piece(file.size, file=file)
        body = Body("text/plain", [part], checkpoint=lambda: None, on_sent=lambda _, sent: told.append(sent))
        assert client.request("POST", server.url, body=body).body == {"intact": True}
        client.shut()
        client.close()
        assert proxy.requests[0].method == "CONNECT"
    assert told[-1] == 3_000_000
    assert body.through


def test_answer_lost_through_a_proxy_is_a_lost_connection_after_the_body() -> None:
    with ScriptedServer(lambda peer: peer.request()) as proxy:
        client = HttpClient(Settings(server="http://files.invalid:8005", proxy=proxy.url))
        with pytest.raises(ConnectionLost) as caught:
            client.request("POST", "http://files.invalid:8005/", json={"files": 1})
        client.close()
    assert caught.value.body_sent


@pytest.mark.parametrize("status", [403, 407, 502])
def test_proxy_that_refuses_or_is_not_there_is_connect_failed(get, closed_port, status) -> None:
    with ScriptedServer(lambda peer: (peer.head(), peer.answer(status))) as proxy:
        for url in (proxy.url, f"http://127.0.0.1:{closed_port}"):
            with pytest.raises(ConnectFailed) as caught:
                get("https://files.invalid:8005", proxy=url)
            assert "https://files.invalid:8005" in one_line(caught.value)
            asks = status == 407 and url == proxy.url
            assert caught.value.hint == ("put name and password into --proxy" if asks else "check --proxy")


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_proxy_of_the_environment_is_used(get, monkeypatch, name) -> None:
    with Proxy("", Door()) as proxy:
        monkeypatch.setenv(name, proxy.url)
        assert get("http://files.invalid:8005").body == {"proxied": "http://files.invalid:8005/"}


def test_no_proxy_of_the_environment_is_respected(get, monkeypatch) -> None:
    with Proxy("", Door()) as proxy, ScriptedServer(answering) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert get(server.url).ok
        assert not proxy.requests


def test_proxy_password_is_sent_to_the_proxy_and_in_no_message(get) -> None:
    with Proxy("", Door("Basic dTpoaWRkZW4=")) as proxy:
        with_password = proxy.url.replace("//", "//u:hidden@")
        assert get("http://files.invalid", proxy=with_password).ok
        wrong = proxy.url.replace("//", "//u:verysecret@")
        with pytest.raises(ConnectFailed) as caught:
            get("https://files.invalid", proxy=wrong)
    assert one_line(caught.value) == "the proxy asks for a name and password (407) for https://files.invalid"
    assert "verysecret" not in repr(caught.value)
    assert "--proxy" in caught.value.hint


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_refused_proxy_connection_is_connect_failed(get, closed_port, scheme) -> None:
    with pytest.raises(ConnectFailed) as caught:
        get(f"{scheme}://files.invalid", proxy=f"http://u:verysecret@127.0.0.1:{closed_port}")
    assert one_line(caught.value) == f"the proxy did not connect to {scheme}://files.invalid: {os.strerror(111)}"
    assert "verysecret" not in repr(caught.value)


# --- headers ----------------------------------------------------------------------------------------------------------


def test_request_has_extra_headers_and_user_agent(get) -> None:
    from uploader_cli.settings.values import header

    with ScriptedServer(answering) as server:
        sent = get(server.url, header=(header("X-Team: red"),)).body["headers"]  # type: ignore[index]
    assert sent["x-team"] == "red"
    assert sent["user-agent"].startswith("uploader (")


def test_netrc_is_not_used(get, tmp_path: Path, monkeypatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password verysecret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with ScriptedServer(answering) as server:
        assert "authorization" not in get(server.url).body["headers"]  # type: ignore[index]
