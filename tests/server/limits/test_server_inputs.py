"""Limits on client input: memory, time and connections; and headers of proxies."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import resource
import time
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests
import websockets.sync.client
from fakes import Clock
from server.batches import (
    DEADLINE,
    UNKNOWN,
    FromAddress,
    answered,
    connected,
    eventually,
    file,
    new_session,
    post_parts,
    text,
    upload,
    watching,
)
from server.tus.tus_client import concatenate, create, created, error, offset_of, part, patching
from serving import running_server
from websockets.exceptions import ConnectionClosed

from uploader_server import serving
from uploader_server.config import ServerConfig
from uploader_server.http.errors import ApiError, before, pieces
from uploader_server.pace import Meter, Pace
from uploader_server.shares import MOST

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_early_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """An early answer is lost by a reset where a slow machine sends more after a second."""
    monkeypatch.setattr("uploader_server.http.tracking.DRAIN_SECONDS", DEADLINE)


def post(server: EmbeddedServer, path: str, data: bytes) -> requests.Response:
    return requests.post(server.url + path, data=data, timeout=DEADLINE)


def memory(server: EmbeddedServer) -> int:
    rss: int = requests.get(f"{server.url}/health", timeout=DEADLINE).json()["memory"]["rss"]
    return rss


# Memory


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("/api/upload/session", 64 << 10),
        (f"/api/upload/session/{UNKNOWN}/finish", 64 << 10),
        ("/api/upload/validate", 4 * MIB),
        ("/api/upload/lookup", 4 * MIB),
        ("/socket.io/?EIO=4&transport=polling&sid=x", 64 << 10),
    ],
)
def test_a_body_has_a_limit(server: EmbeddedServer, path: str, size: int) -> None:
    if "sid=x" in path:
        opened = requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE).text
        path = path.replace("sid=x", "sid=" + opened.partition('"sid":"')[2].partition('"')[0])
    assert post(server, path, b" " * (size + 1)).status_code == 413
    assert post(server, path, b" " * size).status_code in {400, 404}


@pytest.mark.parametrize(
    ("name", "most"),
    [("Content-Disposition", 8 << 10), ("Authorization", 8 << 10), ("Upload-Metadata", 32 << 10)],
)
def test_a_header_has_a_limit_before_it_is_parsed(server: EmbeddedServer, name: str, most: int) -> None:
    """A parser that needs the square of the length gets little to read."""
    ietf = {"Upload-Complete": "?1"}

    def sent(size: int) -> requests.Response:
        value = 'inline; filename="' + ";" * (size - 18)
        headers = {**ietf, name: value}
        return requests.post(f"{server.url}/api/upload/files/", b"abc", headers=headers, timeout=DEADLINE)

    assert error(sent(most + 1)) == (431, "HEAD_TOO_LARGE")
    assert sent(most).status_code != 431


def test_a_head_has_a_limit(server: EmbeddedServer) -> None:
    heads = {f"X-{number}": "a" * 8000 for number in range(9)}
    assert requests.get(f"{server.url}/health", headers=heads, timeout=DEADLINE).status_code == 431
    del heads["X-0"]
    assert requests.get(f"{server.url}/health", headers=heads, timeout=DEADLINE).status_code == 200


def test_a_json_text_with_very_many_lists_is_refused_at_once(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    before = memory(server)
    for count, status in ((100_000, 400), (MIB, 413)):
        with subtests.test(count=count, status=status):
            text = b'{"files":[' + b"[]," * count + b"[]]}"
            assert error(post(server, "/api/upload/validate", text))[0] == status
    assert memory(server) - before < 60 * MIB
    many = {"files": [{"name": f"[{n}].mp4", "size": 1, "type": "video/mp4"} for n in range(10_000)]}
    assert post(server, "/api/upload/validate", json.dumps(many).encode()).status_code == 200


def test_problems_of_a_body_are_listed_up_to_a_limit(server: EmbeddedServer) -> None:
    answer = post(server, "/api/upload/validate", json.dumps({"files": [{}] * 9000}).encode())
    assert answer.status_code == 400
    assert len(answer.json()["details"]) == 1000


def test_the_text_of_a_multipart_body_has_a_limit(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    session = new_session(server.url)
    begin = [text("sessionId", session), text("category", "personal")]
    paths = [text("relativePath", "x" * (60 << 10)) for _ in range(160)]
    answer = post_parts(server.url, [*begin, *paths, file("a", b"x")])
    assert answer.status_code == 413
    for repeated in ("sessionId", "category", "other"):
        with subtests.test(repeated=repeated):
            twice = [text(repeated, session if repeated == "sessionId" else "personal")] * 2
            assert error(post_parts(server.url, [*twice, file("a", b"x")])) == (400, "VALIDATION_ERROR")


def test_an_unfinished_message_of_a_websocket_ends_with_the_heartbeat() -> None:
    """The websocket library buffers the message without a limit; earlier messages do not count."""
    with running_server(patient=False) as server, ExitStack() as stack:
        address = server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        connection = stack.enter_context(websockets.sync.client.connect(address, open_timeout=DEADLINE, proxy=None))
        connection.recv(timeout=DEADLINE)
        connection.send("40")
        connection.recv(timeout=DEADLINE)
        connection.send('421["join-session","' + "x" * (60 << 10) + '"]')
        assert "INVALID_SESSION_ID" in str(connection.recv(timeout=DEADLINE))

        def unfinished() -> Iterator[str]:
            for _ in range(5):
                yield "x" * MIB
            while True:
                time.sleep(0.05)
                yield "x"

        began = time.monotonic()
        with pytest.raises(ConnectionClosed):
            connection.send(unfinished())
        assert time.monotonic() - began < DEADLINE / 2


def test_a_whole_message_of_a_websocket_has_a_limit(server: EmbeddedServer) -> None:
    address = server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    with websockets.sync.client.connect(address, open_timeout=DEADLINE, proxy=None) as connection:
        connection.recv(timeout=DEADLINE)
        connection.send("4" * (65 << 10))
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=DEADLINE)


def test_upload_metadata_has_a_limit(server: EmbeddedServer) -> None:
    assert error(create(server.url, 1, filename="a", relativePath="b" * 9000)) == (400, "INVALID_METADATA")
    assert error(create(server.url, 1, **{f"k{number}": "" for number in range(101)})) == (400, "INVALID_METADATA")
    deep = "/".join(["d" * 200] * 18)
    assert create(server.url, 1, filename="a", relativePath=deep).status_code == 201


def test_a_final_upload_names_each_part_once(server: EmbeddedServer) -> None:
    one, two = part(server.url, b"a" * 1000), part(server.url, b"b")
    assert error(concatenate(server.url, one, two, one)) == (400, "INVALID_HEADER")
    assert error(concatenate(server.url, *[one[:-6] + f"{n:06}" for n in range(1001)])) == (400, "INVALID_HEADER")
    assert concatenate(server.url, one, two, filename="whole").status_code == 201


def test_open_uploads_and_sessions_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST, "uploads", 2)
    monkeypatch.setitem(MOST, "sessions", 2)
    with running_server(max_share=100) as server:
        assert [create(server.url, 1, filename="a").status_code for _ in range(3)] == [201, 201, 429]
        first, _ = new_session(server.url), new_session(server.url)
        body = {"category": "personal", "expectedFiles": 1}
        third = requests.post(f"{server.url}/api/upload/session", json=body, timeout=DEADLINE)
        assert error(third) == (429, "SHARE_USED")
        assert int(third.headers["retry-after"]) > 0
        upload(server.url, file("a", b"x"), session=first)  # ends it
        assert new_session(server.url)


# Time and connections


def test_data_after_the_deadline_does_not_extend_it() -> None:
    async def late() -> Any:
        await asyncio.sleep(0.1)
        return {"type": "http.request"}

    async def receive() -> None:
        await before(asyncio.get_running_loop().time() - 2, late)

    with pytest.raises(ApiError, match="too long to arrive"):
        asyncio.run(receive())


@pytest.mark.parametrize("path", ["session", "validate", "lookup", "session/x/finish", "socket.io"])
def test_a_body_has_a_deadline(path: str) -> None:
    """Also where it arrives byte by byte."""
    with running_server(packs=True, body_timeout=0.5) as server, connected(server.url) as connection:
        target = f"/api/upload/{path}"
        if path == "socket.io":
            target = "/socket.io/?EIO=4&transport=polling"
            opened = requests.get(server.url + target, timeout=DEADLINE).text
            target += "&sid=" + opened.partition('"sid":"')[2].partition('"')[0]
        connection.sendall(
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n"
            "Content-Type: application/json\r\n\r\n".encode()
        )
        connection.settimeout(0.1)
        answer, end = b"", time.monotonic() + DEADLINE
        while not answer and time.monotonic() < end:
            connection.sendall(b" ")
            try:
                answer = connection.recv(4096)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")


SLOW = {"min_rate": 1000, "min_rate_window": 1.2}
"""A minimum of 1200 bytes in 1.2 seconds."""


def dripped(connection: socket.socket) -> bytes:
    """Send a byte from time to time until there is an answer, and return its beginning."""
    connection.settimeout(0.02)
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        connection.sendall(b"x")
        with suppress(TimeoutError):
            return connection.recv(4096)
    return b""


@pytest.mark.parametrize("headers", [{}, {"Upload-Checksum": f"sha1 {base64.b64encode(bytes(20)).decode()}"}])
def test_slow_patch_ends_and_keeps_its_bytes_without_a_checksum(headers: dict[str, str]) -> None:
    with running_server(**SLOW) as server:
        upload = created(server.url, 5000)
        with patching(upload, 0, 5000, headers) as request:
            request.send(b"x" * 1900)  # enough for the first window
            assert dripped(request.connection).startswith(b"HTTP/1.1 408 ")
        assert offset_of(upload) == 0 if headers else offset_of(upload) > 1900


@pytest.mark.parametrize("path", ["batch", "packs"])
def test_slow_multipart_body_ends(path: str) -> None:
    """Its client never pauses for long."""
    with running_server(packs=True, **SLOW) as server, connected(server.url) as connection:
        connection.sendall(
            f"POST /api/upload/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\nIdempotency-Key: a\r\n"
            "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
            '--B\r\nContent-Disposition: form-data; name="manifest"\r\n\r\n'.encode()
        )
        assert dripped(connection).startswith(b"HTTP/1.1 408 ")


def test_body_may_be_slow_without_a_minimum() -> None:
    with running_server(min_rate=0, min_rate_window=0.1) as server:
        upload = created(server.url, 30)
        with patching(upload, 0, 30) as request:
            for _ in range(30):
                request.send(b"x")
                time.sleep(0.01)
            assert request.status() == 204


def test_window_counts_only_time_of_waiting_for_data() -> None:
    """Here the server is busy with each piece for longer than the window."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x", "more_body": next(left) > 0}

    async def read() -> bytes:
        data = b""
        async for piece in pieces(receive, Pace(10, 0.1, 9.0)):
            data += piece
            await asyncio.sleep(0.15)
        return data

    left = iter([2, 1, 0])
    assert asyncio.run(read()) == b"xxx"


def test_bytes_that_arrive_while_the_server_is_blocked_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_server.http.errors.LATE", 0.1)

    async def read() -> bytes:
        async def receive() -> dict[str, Any]:
            body: bytes = await arriving
            return {"type": "http.request", "body": body}

        loop, clock = asyncio.get_running_loop(), Clock()
        loop.time = clock  # type: ignore[method-assign]
        arriving = loop.create_future()
        loop.call_soon(clock.pass_, 0.3)
        loop.call_later(0.3, clock.pass_, 0.02)
        loop.call_later(0.32, arriving.set_result, b"late")
        return b"".join([piece async for piece in pieces(receive, Pace(1000, 0.1, 9.0))])

    assert asyncio.run(read()) == b"late"


@pytest.mark.parametrize(
    ("waits", "patience"),
    [
        ([], 60.0),
        ([(59_999, 40.0)], 20.0),
        ([(60_000, 40.0)], 80.0),  # the rest of this window and the whole next one
        ([(59_999, 40.0), (1, 19.0)], 61.0),
        ([(60_000, 40.0), (1, 30.0)], 60.0),  # the first piece of the next window
        ([(60_000, 40.0), (1, 30.0), (1, 59.0)], 1.0),
    ],
)
def test_each_window_needs_its_bytes(waits: list[tuple[int, float]], patience: float) -> None:
    meter = Meter(Pace(1000, 60.0, 300.0))
    for count, seconds in waits:
        meter.arrived(count, seconds)
    assert meter.patience == patience


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_client_that_never_connects_is_disconnected(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as server, watching(server.url, transport) as watcher:
        monkeypatch.setattr("uploader_server.realtime.strict.CONNECT_WITHIN", 0.3)
        path = "/socket.io/?EIO=4&transport="
        if transport == "websocket":
            address = server.url.replace("http", "ws", 1) + path + transport
            with websockets.sync.client.connect(address, open_timeout=DEADLINE, proxy=None) as connection:
                connection.recv(timeout=DEADLINE)
                with pytest.raises(ConnectionClosed):
                    connection.recv(timeout=DEADLINE)
        else:
            opened = requests.get(server.url + path + transport, timeout=DEADLINE).text
            polled = f"{server.url}{path}{transport}&sid=" + opened.partition('"sid":"')[2].partition('"')[0]
            eventually(lambda: requests.get(polled, timeout=DEADLINE).status_code == 400, "the end")
        assert not watcher.lost.is_set()


def stalled(server: EmbeddedServer, count: int, sent: bytes) -> list[socket.socket]:
    """Connections that have sent the beginning of a request."""
    made = []
    for _ in range(count):
        connection = connected(server.url)
        connection.sendall(sent)
        connection.setblocking(False)
        made.append(connection)
    return made


def is_open(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@pytest.mark.thorough
def test_stalled_connections_of_one_address_do_not_block_others() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8000), hard), hard))
    with running_server(max_connections=10) as server, ExitStack() as stack:
        many = stalled(server, 500, b"GET /health HTTP/1.1\r\nHost: ")
        for connection in many:
            stack.enter_context(connection)
        with requests.Session() as elsewhere:
            elsewhere.mount("http://", FromAddress("127.0.0.2"))
            assert elsewhere.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
        limit = 2 * 10 + 256
        left = eventually(lambda: [c for c in many if is_open(c)][: limit + 1][:limit] or None, "the cut")
        eventually(lambda: sum(map(is_open, many)) <= limit, "the cut of what is too much")
        assert left
        newest = many[-1]
        newest.setblocking(True)
        newest.settimeout(DEADLINE)
        newest.sendall(b"localhost\r\n\r\n")
        assert newest.recv(100).startswith(b"HTTP/1.1 200")
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200


def test_a_head_that_arrives_slowly_is_cut_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Single bytes do not extend it, on a new connection or after an answer; others are served meanwhile."""
    monkeypatch.setitem(serving.KEEP_ALIVE, "bundled", 0.5)
    with running_server() as server, connected(server.url) as new, answered(server.url) as used:
        for connection in (new, used):
            with suppress(ConnectionError):
                connection.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
            connection.settimeout(0.02)
        end, open_ = time.monotonic() + DEADLINE, {new, used}
        while open_ and time.monotonic() < end:
            open_ = {connection for connection in open_ if drips(connection)}
            assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
        assert not open_


def drips(connection: socket.socket) -> bool:
    """Send one byte; False where the connection is closed."""
    try:
        connection.sendall(b"x")
        return connection.recv(1) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


def test_an_endless_head_is_cut(server: EmbeddedServer) -> None:
    with connected(server.url) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * (400 << 10))
        connection.settimeout(DEADLINE)
        assert connection.recv(4096) == b""


def test_many_small_requests_on_one_connection_are_no_endless_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their heads have 512 KiB in all; the server looks at the connection several times after 384 KiB."""
    monkeypatch.setattr("uploader_server.http.connections.INTERVAL", 0.01)
    with (
        running_server() as server,
        closing(http.client.HTTPConnection(server.url[7:], timeout=DEADLINE)) as connection,
    ):
        connection.connect()
        connection.auto_open = 0  # a closed connection is an error
        for number in range(64):
            connection.request("GET", "/health", headers={"X-Padding": "x" * (8 << 10)})
            with connection.getresponse() as answer:
                assert answer.status == 200
                answer.read()
            if number >= 48:
                time.sleep(0.01)


# Proxies


def test_forwarded_headers_are_trusted_from_the_proxy_alone() -> None:
    def limited(server: EmbeddedServer, forwarded: str) -> int:
        headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Host": "files.example"}
        return requests.get(
            f"{server.url}/api/upload/progress/{UNKNOWN}", headers=headers, timeout=DEADLINE
        ).status_code

    behind = {"behind_proxy": ("127.0.0.0/8",), "allow_hosts": ("files.example",)}
    with running_server(rate_limit=1, **behind) as server:  # type: ignore[arg-type]
        assert [limited(server, f"192.0.2.{n}") for n in (1, 2, 1)] == [404, 404, 429]
        assert limited(server, "192.0.2.9, 192.0.2.2") == 429  # the proxy appends: what it received is not trusted
        assert limited(server, "192.0.2.2, 127.0.0.9") == 429  # a second trusted proxy
        assert server.faults.requests[-1].client == "192.0.2.2"
        assert [limited(server, "nonsense") for _ in range(2)] == [404, 429]
        host = {"X-Forwarded-Host": "evil.example"}
        assert requests.get(f"{server.url}/health", headers=host, timeout=DEADLINE).status_code == 421
    with running_server(rate_limit=1, behind_proxy=("192.0.2.1",)) as server:
        assert [limited(server, f"192.0.2.{n}") for n in (1, 2)] == [404, 429]


@pytest.mark.parametrize(
    ("proxy", "forwarded", "prefix"),
    [
        ("127.0.0.1", "/files", "/files"),
        ("127.0.0.1", "/a/b/", "/a/b"),
        ("127.0.0.1", "//evil.example", ""),
        ("127.0.0.1", "/a?b", ""),
        ("192.0.2.1", "/files", ""),
    ],
)
def test_forwarded_prefix_begins_each_url_behind_a_trusted_proxy(proxy: str, forwarded: str, prefix: str) -> None:
    with running_server(behind_proxy=(proxy,)) as server:
        headers = {"X-Forwarded-Prefix": forwarded, "Tus-Resumable": "1.0.0", "Upload-Length": "0"}
        made = requests.post(f"{server.url}/api/upload/files/", headers=headers, timeout=DEADLINE)
        health = requests.get(f"{server.url}/health", headers=headers, timeout=DEADLINE).json()
    assert made.headers["Location"].startswith(f"{prefix}/api/upload/files/")
    assert health["tus"]["endpoint"] == f"{prefix}/api/upload/files/"


@pytest.mark.parametrize(
    ("proxy", "headers", "begins"),
    [
        ((), {}, "http://{host}"),
        ((), {"Origin": "https://{host}"}, "https://{host}"),
        ((), {"Origin": "https://elsewhere.example"}, "http://{host}"),
        ((), {"X-Forwarded-For": "198.51.100.1"}, ""),
        ((), {"Via": "1.1 proxy"}, ""),
        (("127.0.0.1",), {"X-Forwarded-For": "198.51.100.1"}, ""),
        (("127.0.0.1",), {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/up"}, "https://{host}/up"),
        (("127.0.0.1",), {"X-Forwarded-Proto": "gopher"}, ""),
        (("192.0.2.1",), {"X-Forwarded-Proto": "https"}, ""),
    ],
)
def test_location_of_an_upload_is_absolute_where_the_scheme_is_known(
    proxy: tuple[str, ...], headers: dict[str, str], begins: str
) -> None:
    """Some clients join it to the endpoint themselves, as aiotus does."""
    with running_server(behind_proxy=proxy, cors_origins=("https://elsewhere.example",)) as server:
        host = server.url.removeprefix("http://")
        sent = {name: value.format(host=host) for name, value in headers.items()}
        sent |= {"Tus-Resumable": "1.0.0", "Upload-Length": "0"}
        made = requests.post(f"{server.url}/api/upload/files/", headers=sent, timeout=DEADLINE)
    assert made.headers["Location"].startswith(begins.format(host=host) + "/api/upload/files/")


def test_a_client_behind_a_proxy_has_a_limit_of_requests_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerConfig, "max_per_address", 2)

    def status(server: EmbeddedServer, client: str) -> int:
        headers = {"X-Forwarded-For": client}
        return requests.get(f"{server.url}/health", headers=headers, timeout=DEADLINE).status_code

    headers = b"Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: 9\r\n\r\n"
    head = b"POST /api/upload/session HTTP/1.1\r\n" + headers
    with running_server(behind_proxy=("127.0.0.1",)) as server, ExitStack() as stack:
        for connection in stalled(server, 2, head):
            stack.enter_context(connection)
        eventually(lambda: status(server, "192.0.2.1") == 429, "the refusal of a third request")
        assert status(server, "192.0.2.2") == 200
        stack.close()
        eventually(lambda: status(server, "192.0.2.1") == 200, "the end of the refusals")


def test_a_cut_behind_a_proxy_finds_its_connection() -> None:
    with (
        running_server(behind_proxy=("127.0.0.1",), faults=("cut:health",)) as server,
        pytest.raises(requests.ConnectionError),
    ):
        requests.get(f"{server.url}/health", headers={"X-Forwarded-For": "192.0.2.1"}, timeout=DEADLINE)


def test_unknown_namespace_is_refused_and_the_connection_stays(server: EmbeddedServer) -> None:
    """As a server of Socket.IO answers it; the handshake names the limit of messages that holds."""
    polling = f"{server.url}/socket.io/?EIO=4&transport=polling"
    opened = json.loads(requests.get(polling, timeout=DEADLINE).text.removeprefix("0"))
    polling += f"&sid={opened['sid']}"
    for packet, answer in (("40/admin,", '44/admin,{"message":"Invalid namespace"}'), ("40", "40{")):
        assert requests.post(polling, packet, timeout=DEADLINE).status_code == 200
        assert requests.get(polling, timeout=DEADLINE).text.startswith(answer)
    event = json.dumps(["join-session", "00000000-0000-4000-8000-000000000000"])
    most = opened["maxPayload"] - len(f"42{event}")
    assert requests.post(polling, f"42{event}{' ' * most}", timeout=DEADLINE).status_code == 200
    assert requests.post(polling, f"42{event}{' ' * (most + 1)}", timeout=DEADLINE).status_code != 200
