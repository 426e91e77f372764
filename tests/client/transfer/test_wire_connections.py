"""Connections on real sockets: counted bytes, early answers, stalls, stops, and reuse."""

from __future__ import annotations

import gc
import gzip
import itertools
import json
import os
import socket
import ssl
import threading
import time
import tracemalloc
import weakref
import zlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from fakes import Clock
from proxy import tls_of
from scripted_server import Peer, ScriptedServer
from time_limits import PATIENCE, SLACK

from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import ConnectFailed, ConnectionLost, Interrupted, ProtocolError, TimedOut
from uploader_cli.settings import Header, Settings
from uploader_cli.transfer import connection
from uploader_cli.transfer.bodies import Body, Piece, multipart, upload_form
from uploader_cli.transfer.http_client import HttpClient
from uploader_cli.transfer.pacer import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("kept_connections")

IDLE_LIMIT = connection.IDLE_LIMIT
GIB = 1 << 30
BUFFERS = 64 << 20
"""Bytes that sockets of both sides may hold at most, on any system these tests run on."""


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["http", "TLS 1.2", "TLS 1.3"])
def secured(request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path) -> SimpleNamespace:
    """The same server thrice: without TLS, and with both versions; `settings` trust it."""
    if request.param == "http":
        return SimpleNamespace(tls=None, settings={})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    version = ssl.TLSVersion.TLSv1_2 if request.param == "TLS 1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = version
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    return SimpleNamespace(tls=context, settings={"ca_bundle": bundle})


@pytest.fixture
def client() -> Iterator[Callable[..., HttpClient]]:
    clients: list[HttpClient] = []

    def make(server: ScriptedServer | str, **settings: Any) -> HttpClient:
        url = server if isinstance(server, str) else server.url
        clients.append(HttpClient(Settings(server=url, **settings)))
        return clients[-1]

    yield make
    for http in clients:
        http.close()


class Upload:
    """A body of one sparse file of `size` bytes, with the bytes that were reported as sent."""

    def __init__(self, directory: Path, size: int, checkpoint: Callable[[], None] = lambda: None) -> None:
        path = directory / f"{size}.bin"
        with path.open("wb") as file:
            file.truncate(size)
        info = path.stat()
        self.sent = 0
        self.through = threading.Event()
        self.moving = threading.Event()
        self.file = LocalFile(0, str(path), path.name, size, info.st_mtime_ns)
        form = multipart(upload_form([], [self.file]))
        every_count = itertools.count().__next__  # as a clock: no report comes too soon after the one before
        self.body = Body(
            *form, checkpoint=checkpoint, on_sent=self._count, on_through=self.through.set, clock=every_count
        )

    def _count(self, _file: LocalFile, sent: int) -> None:
        assert sent >= self.sent
        self.sent = sent
        self.moving.set()


def post(http: HttpClient, server: ScriptedServer, upload: Upload, **how: Any) -> Any:
    return http.request("POST", f"{server.url}/batch", body=upload.body, **how)


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:  # noqa: BLE001 - what the call raised is what is asked about
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


# --- framing and counting ---------------------------------------------------------------------------------------------


def test_body_has_its_exact_length_and_no_chunked_framing(tmp_path, client, secured) -> None:
    seen = []

    def script(peer: Peer) -> None:
        seen.append(peer.request())
        peer.answer(200, {"ok": True})

    upload = Upload(tmp_path, 3_000_001)
    with ScriptedServer(script, tls=secured.tls) as server:
        answer = post(client(server, **secured.settings), server, upload)
    ((line, headers, body),) = seen
    assert answer.body == {"ok": True}
    assert line == "POST /batch HTTP/1.1"
    assert int(headers["content-length"]) == len(upload.body) == len(body)
    assert "transfer-encoding" not in headers
    assert upload.sent == upload.file.size
    assert upload.body.through


def test_only_bytes_that_the_kernel_took_are_counted(tmp_path, client, secured, monkeypatch) -> None:
    """A server that reads nothing: the count ends where the socket buffers do, far below the file."""
    monkeypatch.setattr(connection, "WRITE_STALL", 0.5)

    def script(peer: Peer) -> None:
        peer.head()
        peer.hold()

    upload = Upload(tmp_path, 4 * GIB)
    with ScriptedServer(script, tls=secured.tls) as server:
        with pytest.raises(TimedOut, match="stopped taking bytes") as caught:
            post(client(server, **secured.settings), server, upload)
        assert not caught.value.body_sent
    assert upload.sent < BUFFERS


@pytest.mark.thorough
def test_server_that_takes_bytes_slowly_is_not_given_up(tmp_path, client, monkeypatch) -> None:
    """The limit is for the time without progress, not for the whole body."""
    clock = Clock()
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=clock))

    def script(peer: Peer) -> None:
        peer.head()
        for _ in range(5):
            clock.pass_(0.6 * connection.WRITE_STALL)
            before = upload.sent
            peer.read(8 << 20)
            while upload.sent == before:
                assert not peer.over.wait(0.01)
        peer.answer(413)
        peer.hold()

    upload = Upload(tmp_path, 4 * GIB)
    with ScriptedServer(script) as server:
        assert post(client(server), server, upload).status == 413


@pytest.mark.thorough
def test_memory_stays_flat_for_a_file_of_gigabytes(tmp_path, client) -> None:
    """One buffer of 1 MiB and a little around it, however large the file."""

    def script(peer: Peer) -> None:
        peer.head()
        buffer = bytearray(1 << 20)
        while peer.received < 100 << 20:
            peer.received += peer.sock.recv_into(buffer)
        peer.answer(413)
        peer.hold()

    upload = Upload(tmp_path, 8 * GIB)
    with ScriptedServer(script) as server:
        http = client(server)
        tracemalloc.start()
        try:
            answer = post(http, server, upload)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.status == 413
    assert server.peers[0].received >= 100 << 20
    assert peak < 5 << 20


# --- answers that come early ------------------------------------------------------------------------------------------


def test_refusal_in_the_middle_of_a_body_is_returned_at_once(tmp_path, client, secured) -> None:
    """The server answers and does not read on; the connection is not used for the next request."""

    def script(peer: Peer) -> None:
        line, _ = peer.head()
        if line.startswith("POST"):
            peer.read(100_000)
            peer.answer(400, {"error": "VALIDATION_ERROR"}, Connection="keep-alive")
            peer.hold()
        peer.answer(200, {"next": True})

    upload = Upload(tmp_path, 4 * GIB)
    with ScriptedServer(script, tls=secured.tls) as server:
        http = client(server, **secured.settings)
        answer = post(http, server, upload)
        after = http.request("GET", f"{server.url}/next")
        assert (answer.status, answer.body) == (400, {"error": "VALIDATION_ERROR"})
        assert after.body == {"next": True}
        assert [peer.number for peer in server.peers] == [1, 2]
    assert upload.sent < BUFFERS


def test_refusal_followed_by_a_reset_is_still_read(tmp_path, client) -> None:
    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(413, {"error": "TOO_LARGE"}, Connection="close")
        answered.set()
        peer.read(1)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.hold()

    upload = Upload(tmp_path, 1 * GIB)
    with ScriptedServer(script) as server:
        assert post(client(server), server, upload).body == {"error": "TOO_LARGE"}


@pytest.mark.thorough
def test_session_tickets_are_not_taken_for_an_answer(tmp_path, client, authority) -> None:
    """TLS 1.3 servers send tickets while the body travels: bytes to read, but none of HTTP."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 8
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))

    def script(peer: Peer) -> None:
        _, _, body = peer.request()
        peer.answer(200, {"length": len(body)})

    upload = Upload(tmp_path, 20 << 20)
    with ScriptedServer(script, tls=context) as server:
        answer = post(client(server, ca_bundle=bundle), server, upload)
    assert answer.body == {"length": len(upload.body)}


INTERIM = b"".join(
    b"HTTP/1.1 %d Interim\r\nLink: </style.css>; rel=preload\r\n\r\n" % status for status in (100, 102, 103, 104)
)


@pytest.mark.thorough
def test_interim_answers_before_during_and_after_a_body_are_skipped(tmp_path, client, secured) -> None:
    """The one during the body comes in two pieces. The connection is used for the next request."""

    def script(peer: Peer) -> None:
        _, headers = peer.head()
        size = int(headers["content-length"])
        peer.sock.sendall(INTERIM)
        body = peer.read(size // 2)
        peer.sock.sendall(INTERIM[:5])
        body += peer.read(size // 4)
        peer.sock.sendall(INTERIM[5:])
        body += peer.read(size - len(body))
        peer.sock.sendall(INTERIM)
        peer.answer(200, {"length": len(body)})
        peer.head()
        peer.sock.sendall(INTERIM)
        peer.answer(204)

    upload = Upload(tmp_path, 50 << 20)
    with ScriptedServer(script, tls=secured.tls) as server:
        http = client(server, **secured.settings)
        answer = post(http, server, upload)
        after = http.request("GET", server.url)
        assert (answer.status, answer.body) == (200, {"length": len(upload.body)})
        assert after.status == 204
        assert len(server.peers) == 1


def test_refusal_after_interim_answers_in_the_middle_of_a_body_is_returned_at_once(tmp_path, client, secured) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(INTERIM)
        peer.read(100_000)
        peer.answer(413, {"error": "TOO_LARGE"})
        peer.hold()

    upload = Upload(tmp_path, 4 * GIB)
    with ScriptedServer(script, tls=secured.tls) as server:
        assert post(client(server, **secured.settings), server, upload).body == {"error": "TOO_LARGE"}
    assert upload.sent < BUFFERS


def test_interim_answer_of_a_proxy_is_skipped(client, authority, tmp_path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("upload.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))

    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(INTERIM + b"HTTP/1.1 200 Connected\r\n\r\n")
        with context.wrap_socket(peer.sock, server_side=True) as secured:
            secured.recv(65536)
            secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with ScriptedServer(script) as proxy:
        http = client("https://upload.example", proxy=proxy.url, ca_bundle=tmp_path / "authority.pem")
        assert http.request("GET", "https://upload.example/").status == 204


def test_certificate_of_a_proxy_is_verified_also_for_a_server_without_tls(client, authority, tmp_path) -> None:
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(204)

    with ScriptedServer(script, tls=tls_of(authority)) as proxy:
        trusting = client("http://upload.example", proxy=proxy.url, ca_bundle=trusted)
        assert trusting.request("GET", "http://upload.example/").status == 204
        with pytest.raises(ConnectFailed, match="certificate"):
            client("http://upload.example", proxy=proxy.url).request("GET", "http://upload.example/")


def test_begun_answer_of_a_stopped_request_is_not_the_next_answer_of_the_proxy(client, authority, tmp_path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("upload.example").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    begun, checks = threading.Event(), itertools.count()

    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        with context.wrap_socket(peer.sock, server_side=True) as secured:
            secured.recv(65536)
            if peer.number == 1:
                secured.sendall(b"HTTP/1.1 4")
                begun.set()
                peer.hold()
            secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def stop() -> None:
        if begun.is_set() and next(checks) == 3:  # what has arrived is read between two checks
            raise Interrupted("stopped")

    with ScriptedServer(script) as proxy:
        http = client("https://upload.example", proxy=proxy.url, ca_bundle=tmp_path / "authority.pem")
        with pytest.raises(Interrupted):
            http.request("POST", "https://upload.example/", body=Upload(tmp_path, 4 * GIB, stop).body)
        assert http.request("GET", "https://upload.example/").status == 204


def test_sockets_can_be_shut_while_another_thread_connects() -> None:
    sockets, late = connection.Sockets(), socket.socket()
    ours, theirs = zip(*(socket.socketpair() for _ in range(4)), strict=True)

    class Listed(weakref.WeakSet[socket.socket]):
        def __iter__(self) -> Iterator[socket.socket]:
            items = super().__iter__()
            yield next(items)
            connecting.start()
            connecting.join(0.1)
            yield from items

    connecting = threading.Thread(target=sockets.opened, args=[late], daemon=True)
    sockets.open = Listed(ours)
    sockets.shut()
    connecting.join(PATIENCE)
    assert [peer.recv(1, socket.MSG_DONTWAIT) for peer in theirs] == [b""] * 4
    for one in (*ours, *theirs, late):
        one.close()


# --- connections that break -------------------------------------------------------------------------------------------


def test_close_in_the_middle_of_the_body_has_body_sent_false(tmp_path, client, secured) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.read(50_000)

    upload = Upload(tmp_path, GIB)
    with ScriptedServer(script, tls=secured.tls) as server:
        with pytest.raises(ConnectionLost) as caught:
            post(client(server, **secured.settings), server, upload)
        assert str(caught.value).startswith(f"the connection to {server.url} broke: ")
    assert not caught.value.body_sent
    assert not isinstance(caught.value, TimedOut)
    assert not upload.through.is_set()


def test_close_instead_of_an_answer_has_body_sent_true(tmp_path, client, secured) -> None:
    upload = Upload(tmp_path, 1_000_000)
    with ScriptedServer(Peer.request, tls=secured.tls) as server:
        with pytest.raises(ConnectionLost) as caught:
            post(client(server, **secured.settings), server, upload)
        assert str(caught.value).startswith(f"the connection to {server.url} broke: ")
        assert "HTTPConnectionPool" not in str(caught.value)
    assert caught.value.body_sent
    assert upload.through.is_set()


def test_reset_instead_of_an_answer_quotes_the_system(tmp_path, client) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.reset()

    with ScriptedServer(script) as server, pytest.raises(ConnectionLost, match=os.strerror(104)) as caught:
        post(client(server), server, Upload(tmp_path, 1000))
    assert caught.value.body_sent


def test_no_answer_within_the_limit_is_a_timeout_with_body_sent_true(tmp_path, client, secured) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.hold()

    upload = Upload(tmp_path, 1000)
    with (
        ScriptedServer(script, tls=secured.tls) as server,
        pytest.raises(TimedOut, match="not answer in time") as caught,
    ):
        post(client(server, **secured.settings), server, upload, read_timeout=0.3)
    assert caught.value.body_sent


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"Content-Length: 100\r\n\r\n{", "broke off"),
        (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{", "broke off"),
        (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "not HTTP"),
    ],
    ids=["cut", "negative chunk", "two lengths"],
)
def test_answer_that_ends_in_its_middle_is_a_lost_connection(client, said, words) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\n" + said)

    with ScriptedServer(script) as server, pytest.raises(ConnectionLost, match=words) as caught:
        client(server).request("GET", server.url)
    assert caught.value.body_sent


@pytest.mark.parametrize("stalls", [False, True], ids=["cut", "stalling"])
def test_refusal_that_ends_in_its_middle_is_a_refusal(client, stalls) -> None:
    """Its head says enough: a file whose end is refused must not count as one whose answer was lost."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nvirus")
        if stalls:
            peer.hold()

    with ScriptedServer(script) as server:
        answer = client(server).request("GET", server.url, read_timeout=0.3)
    assert answer.status == 403


def test_answer_that_stalls_in_its_middle_is_a_timeout(client) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        peer.hold()

    with ScriptedServer(script) as server, pytest.raises(TimedOut, match="did not answer in time") as caught:
        client(server).request("GET", server.url, read_timeout=0.3)
    assert caught.value.body_sent


def test_answer_that_is_not_http_is_a_lost_connection_on_one_line(client) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\nno\r\n")

    with ScriptedServer(script) as server, pytest.raises(ConnectionLost) as caught:
        client(server).request("GET", server.url)
    assert "\n" not in str(caught.value)


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_stop_ends_a_body_that_the_server_does_not_read(tmp_path, client, secured) -> None:
    """`checkpoint` raising is enough, although the kernel takes nothing."""
    stop = Stop()

    def script(peer: Peer) -> None:
        peer.head()
        peer.hold()

    upload = Upload(tmp_path, 4 * GIB, stop.checkpoint)
    with ScriptedServer(script, tls=secured.tls) as server:
        http = client(server, **secured.settings)
        thread, outcome = in_thread(lambda: post(http, server, upload))
        _until_still(upload)
        before = time.monotonic()
        stop.set()
        thread.join(PATIENCE)
        took = time.monotonic() - before
    assert isinstance(outcome[0], Interrupted)
    assert took < 1.0 * SLACK
    assert not upload.body.through


def _until_still(upload: Upload) -> None:
    """Wait until the socket buffers are full."""
    assert upload.moving.wait(PATIENCE)
    last = -1
    while last != upload.sent:
        last = upload.sent
        time.sleep(0.3)


@pytest.mark.parametrize("phase", ["body", "answer"])
def test_shut_ends_a_call_that_waits_on_its_socket(tmp_path, client, secured, phase) -> None:
    def script(peer: Peer) -> None:
        if phase == "answer":
            peer.request()
        else:
            peer.head()
        peer.hold()

    upload = Upload(tmp_path, 1000 if phase == "answer" else 4 * GIB)
    with ScriptedServer(script, tls=secured.tls) as server:
        http = client(server, **secured.settings)
        thread, outcome = in_thread(lambda: post(http, server, upload))
        if phase == "answer":
            assert upload.through.wait(PATIENCE)
        else:
            _until_still(upload)
        before = time.monotonic()
        while thread.is_alive() and time.monotonic() - before < PATIENCE:
            http.shut()
            thread.join(0.05)
        took = time.monotonic() - before
    assert isinstance(outcome[0], ConnectionLost)
    assert outcome[0].body_sent is (phase == "answer")
    assert took < 1.0 * SLACK
    assert len(server.peers) <= 1  # nothing asks now whether the port speaks TLS


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_shut_ends_a_connection_that_is_still_being_made(client, scheme) -> None:
    """A full queue of connections answers no SYN; a server that accepts may still never shake hands."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if scheme == "http" else 8)
        address = listener.getsockname()
        crowd = []
        if scheme == "http":
            for _ in range(4):
                crowd.append(socket.socket())
                crowd[-1].setblocking(False)
                crowd[-1].connect_ex(address)
        http = client(f"{scheme}://127.0.0.1:{address[1]}")
        thread, outcome = in_thread(lambda: http.request("GET", f"{scheme}://127.0.0.1:{address[1]}/"))
        thread.join(0.3)
        assert thread.is_alive()
        before = time.monotonic()
        while thread.is_alive() and time.monotonic() - before < PATIENCE:
            http.shut()
            thread.join(0.05)
        took = time.monotonic() - before
        for sock in crowd:
            sock.close()
    assert isinstance(outcome[0], ConnectFailed | ConnectionLost)
    assert took < 1.0 * SLACK


# --- reuse ------------------------------------------------------------------------------------------------------------


def test_connection_idle_for_four_seconds_is_not_used_again(client, monkeypatch) -> None:
    """The reference backend closes them at five: a request on one that is about to go would be lost."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(connection, "IDLE_LIMIT", IDLE_LIMIT)

    def script(peer: Peer) -> None:
        while True:
            peer.request()
            peer.answer(200, {"connection": peer.number})

    with ScriptedServer(script) as server:
        http = client(server)
        seen = []
        for later in (0.0, 3.9, 3.9, 4.1, 0.5):
            clock.now += later
            seen.append(http.request("GET", server.url).body["connection"])
    assert seen == [1, 1, 1, 2, 2]


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "parsed", "reason"),
    [
        (gzip.compress(json.dumps({"packed": "喂"}).encode()), {"Content_Encoding": "gzip"}, {"packed": "喂"}, ""),
        (b"", {}, None, ""),
        (b"<html><h1>Bad gateway</h1>", {"Content_Type": "text/html"}, None, ""),
        (b"locked\n by a writer", {"Content_Type": "Text/Plain; charset=utf-8"}, None, "locked by a writer"),
        (b"\xff\xfe\x00", {"Content_Type": "application/json"}, None, ""),
        (b"[" * 100_000, {"Content_Type": "application/json"}, None, ""),
    ],
    ids=["gzip", "empty", "html", "plain", "no utf-8", "endless nesting"],
)
def test_answer_body_is_json_or_none(client, body, headers, parsed, reason) -> None:
    """Plain text is quoted as the reason of a refusal, a page is not."""

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(502, body, **headers)

    with ScriptedServer(script) as server:
        answer = client(server).request("GET", server.url)
    assert (answer.status, answer.body, answer.sentence) == (502, parsed, reason)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n4;x=y\r\n, 2]\r\n0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "body", "kept"),
    [
        (CHUNKED, [1, 2], True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nContent-Length: 3\r\n\r\n[1]", [1], True),
        (b"HTTP/1.1 200\nContent-Length:3\n\n[1]", [1], True),
        (b"HTTP/1.1 200 OK\r\nno header\r\nContent-Length: 3\r\n\r\n[1]", [1], True),
        (b"HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 2\r\nContent-Length: 3\r\n\r\n[1]", [1], True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %b3\r\n\r\n[1]" % (b"0" * 5000), [1], False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", None, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", None, True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n[1]", [1], True),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", [1], False),
        (b"HTTP/1.1 200 OK\r\n\r\n[1]", [1], False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n[1]", [1], False),
    ],
)  # fmt: skip
def test_end_of_an_answer_is_where_its_head_says(client, said, body, kept) -> None:
    def script(peer: Peer) -> None:
        while True:
            peer.head()
            peer.sock.sendall(said)
            if not kept:
                return

    with ScriptedServer(script) as server:
        http = client(server)
        assert [http.request("GET", server.url).body for _ in range(2)] == [body] * 2
        assert len(server.peers) == (1 if kept else 2)


def test_header_with_a_line_break_is_not_sent(client) -> None:
    with ScriptedServer(lambda peer: peer.head()) as server, pytest.raises(ValueError, match="line break"):
        client(server).request("GET", server.url, headers={"Upload-Metadata": "name YQ==\r\nX: y"})


def test_broken_gzip_answer_is_a_lost_connection(client) -> None:
    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(200, b"no gzip at all", Content_Encoding="gzip")

    with ScriptedServer(script) as server, pytest.raises(ConnectionLost, match="broke off"):
        client(server).request("GET", server.url)


@pytest.mark.parametrize("packed", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_answer_beyond_the_limit_is_a_protocol_error_after_decompression(client, packed) -> None:
    """64 MiB of zeros are 64 KiB of gzip. A stored file of that size may be read back all the same."""
    zeros, squeeze = bytes(1 << 20), zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [squeeze.compress(zeros) for _ in range(64)] + [squeeze.flush()] if packed else [zeros] * 64
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {sum(map(len, pieces))}\r\n"

    def script(peer: Peer) -> None:
        peer.head()
        peer.sock.sendall(f"{head}Content-Encoding: {'gzip' if packed else 'identity'}\r\n\r\n".encode())
        for piece in pieces:
            peer.sock.sendall(piece)

    with ScriptedServer(script) as server:
        http = client(server)
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError, match="too large: more than 1 MiB") as caught:
                http.request("GET", server.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert not caught.value.retryable
        assert peak < 8 << 20
        with http.stream(server.url, {}) as (_, read):
            assert sum(map(len, read)) == 64 << 20


@pytest.mark.parametrize("files", [0, 1000])
def test_answer_of_many_empty_lists_costs_no_more_than_what_was_asked_for(client, files) -> None:
    """Each is 3 bytes on the way and 64 in memory: 30 MB took 800 MiB. As a refusal it counts without its body."""
    lists = b"[" + b"[]," * 10_000_000 + b"[]]"

    def script(peer: Peer) -> None:
        for status in (200, 500):
            peer.head()
            peer.sock.sendall(f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(lists)}\r\n\r\n".encode() + lists)
            if not files:
                return

    with ScriptedServer(script) as server:
        http = client(server)
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError, match="is too large"):
                http.request("GET", server.url, files=files)
            if files:
                assert http.request("GET", server.url, files=files).body is None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 100 << 20


def test_answer_about_as_many_files_as_asked_for_is_read(client) -> None:
    """With long names that are full of commas and quotes, as JSON escapes them."""
    entry = {"status": "stored", "id": "x" * 36, "location": "/a/" + 'ü,"\\' * 1000, "existing": True, "size": 1}
    many = {"files": [entry] * 100}

    def script(peer: Peer) -> None:
        peer.head()
        peer.answer(200, many)

    with ScriptedServer(script) as server:
        assert client(server).request("GET", server.url, files=100).body == many


@pytest.mark.parametrize("lost", [False, True], ids=["answer too large", "connection lost"])
def test_failed_requests_keep_neither_body_nor_answer(client, lost) -> None:
    """Garbage collections are rare: what a failed request used must be free without one."""

    def script(peer: Peer) -> None:
        peer.head()
        if not lost:
            peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n" + bytes(2 << 20))

    def fail() -> None:
        data = memoryview(bytes(1 << 20))
        with pytest.raises((ConnectionLost, ProtocolError)):
            http.request("POST", server.url, body=Body("x/y", [Piece(len(data), data)], checkpoint=lambda: None))

    with ScriptedServer(script) as server:
        http = client(server)
        http.request_ids.heard = True  # no look for TLS on this port
        fail()
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(8):
                fail()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
    assert kept < 4 << 20


@pytest.mark.parametrize("what", ["100 Continue", "headers", "body"])
def test_answer_that_never_ends_is_given_up(client, monkeypatch, secured, what) -> None:
    """Each read takes less than the read timeout. Bytes that are read back have no deadline."""
    monkeypatch.setattr(connection.Sockets, "answer_time", 0.1)
    endless = {"100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n", "headers": b"HTTP/1.1 200 OK\r\nX: ", "body": b""}

    def script(peer: Peer) -> None:
        line, _ = peer.head()
        if line.startswith("GET /stored"):
            peer.sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 8\r\n\r\n")
            for _ in range(8):
                time.sleep(0.05)
                peer.sock.sendall(b"x")
            return
        peer.sock.sendall(endless[what] or b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while True:
            time.sleep(0.02)
            peer.sock.sendall(endless[what] if what == "100 Continue" else b"x")

    with ScriptedServer(script, tls=secured.tls) as server:
        http = client(server, **secured.settings)
        with pytest.raises(TimedOut, match="did not answer in time") as caught:
            http.request("GET", server.url, read_timeout=0.1)
        assert caught.value.body_sent
        with http.stream(f"{server.url}/stored", {}) as (_, pieces):
            assert b"".join(pieces) == b"x" * 8
        with pytest.raises(TimedOut):
            http.request("GET", server.url, read_timeout=0.1)


@pytest.mark.parametrize(("value", "sent"), [("a7", "a7"), ("a7\rX-Own: 1", "a7 X-Own: 1")], ids=["", "line break"])
def test_cookies_of_an_answer_go_with_the_next_request(client, value, sent) -> None:
    """A balancer that binds a client to one server by a cookie."""
    seen = []

    def script(peer: Peer) -> None:
        while True:
            seen.append(peer.request()[1].get("cookie"))
            peer.answer(200, {}, Set_Cookie=f"route={value}; Path=/")

    with ScriptedServer(script) as server:
        http = client(server)
        for path in ("/one", "/two", "/one"):
            http.request("GET", server.url + path)
        http.close()
    assert seen == [None, f"route={sent}", f"route={sent}"]


def test_fragment_of_a_url_is_not_sent(client) -> None:
    with ScriptedServer(lambda peer: peer.answer(200, {"line": peer.head()[0]})) as server:
        assert client(server).request("GET", f"{server.url}/a?b#c").body == {"line": "GET /a?b HTTP/1.1"}


def test_header_of_a_call_outranks_that_of_the_settings_whatever_its_case(client) -> None:
    def script(peer: Peer) -> None:
        _, headers, _ = peer.request()  # no name comes twice
        peer.answer(200, {"tus": headers.get("tus-resumable"), "own": headers.get("x-own")})

    with ScriptedServer(script) as server:
        http = client(server, header=(Header("tus-resumable", "0"), Header("X-Own", "1")))
        answer = http.request("GET", server.url, headers={"Tus-Resumable": "1.0.0"})
    assert answer.body == {"tus": "1.0.0", "own": "1"}


def test_round_trip_is_that_of_the_fastest_call_without_connecting(client) -> None:
    def script(peer: Peer) -> None:
        for seconds in (0.2, 0.05, 0.2):
            peer.request()
            time.sleep(seconds)
            peer.answer(200)

    took = []
    with ScriptedServer(script) as server:
        http = client(server)
        assert http.request_ids.round_trip is None
        for _ in range(3):
            began = time.monotonic()
            http.request("GET", server.url)
            took.append(time.monotonic() - began)
    assert http.request_ids.round_trip is not None
    assert 0.05 <= http.request_ids.round_trip <= min(took[1:])


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such limit")
def test_dead_peer_is_noticed_within_a_minute(client: Callable[..., HttpClient]) -> None:
    """The wait for a finish of half an hour relies on it: by keepalive, and where sent bytes get no acknowledgement."""

    def answers(peer: Peer) -> None:
        peer.request()
        peer.answer(200)
        peer.hold()

    with ScriptedServer(answers) as server:
        http = client(server)
        http.request("GET", f"{server.url}/health")
        names = ("USER_TIMEOUT", "KEEPIDLE", "KEEPINTVL", "KEEPCNT")
        (limit, idle, interval, count), *_ = [
            [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}")) for name in names]
            for sock in http.sockets.open
            if sock.fileno() >= 0
        ]
    assert limit == 60_000
    assert idle + interval * count <= 60
