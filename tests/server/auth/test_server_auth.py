"""One bearer token for every call and for the socket's handshake."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests
import socketio
import websockets.sync.client
from server.batches import DEADLINE, UNKNOWN, body_of, connected, eventually, file, socket_client, text
from serving import inside, running_server, server_process
from websockets.exceptions import ConnectionClosed

from uploader_server.auth import issue_token
from uploader_server.realtime.rooms import HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

TOKEN = "the-one-token.for/tests+0="
SECRET = "a secret of the auth tests, which is long enough"
WITH = {"authorization": f"Bearer {TOKEN}"}
CALLS = [
    ("POST", "/api/upload/validate"),
    ("POST", "/api/upload/session"),
    ("POST", f"/api/upload/session/{UNKNOWN}/finish"),
    ("POST", "/api/upload/batch"),
    ("GET", f"/api/upload/progress/{UNKNOWN}"),
    ("GET", "/api/activity"),
    ("POST", f"/api/upload/cancel/{UNKNOWN}"),
    ("DELETE", f"/api/upload/file/{UNKNOWN}"),
    ("OPTIONS", "/api/upload/files/"),
    ("POST", "/api/upload/files/"),
    ("HEAD", "/api/upload/files/00000000000000000000000000000000"),
    ("POST", "/api/ai/analyze/content"),
    ("GET", f"/api/ai/analysis/{UNKNOWN}/status"),
    ("GET", "/uploads/personal/a.mp4"),
    ("GET", "/metrics"),
    ("GET", "/nothing"),
    ("OPTIONS", "/health/"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(auth_token=TOKEN, jwt_secret=SECRET) as server:
        yield server


def send(server: EmbeddedServer, method: str, path: str, **more: Any) -> requests.Response:
    return requests.request(method, server.url + path, timeout=DEADLINE, **more)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_needs_the_token(server: EmbeddedServer, method: str, path: str) -> None:
    missing = send(server, method, path)
    assert missing.status_code == 401
    wrong = send(server, method, path, headers={"authorization": f"Bearer {TOKEN}x"})
    assert wrong.status_code == 401
    if method != "HEAD":
        assert (missing.json()["error"], wrong.json()["error"]) == ("UNAUTHORIZED", "INVALID_TOKEN")
        assert TOKEN not in wrong.text
    assert send(server, method, path, headers=WITH).status_code != 401


def test_health_openapi_and_preflights_need_no_token() -> None:
    with running_server(auth_token=TOKEN, cors_origins=("https://app.example",)) as server:
        assert send(server, "GET", "/health").status_code == 200
        assert send(server, "GET", "/openapi.json").status_code == 200
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        assert send(server, "OPTIONS", "/api/upload/session", headers=asked).status_code == 204
        other = {**asked, "origin": "https://other.example"}
        assert send(server, "OPTIONS", "/api/upload/session", headers=other).status_code == 403


@pytest.mark.parametrize("value", ["", "Basic eA==", "Bearer", TOKEN, f"Token {TOKEN}", "Bearer \xff\xfe"])
def test_malformed_authorization_headers_are_refused(server: EmbeddedServer, value: str) -> None:
    headers = {"authorization": value.encode("latin-1")}
    assert send(server, "GET", f"/api/upload/progress/{UNKNOWN}", headers=headers).status_code == 401


def test_a_body_is_refused_before_it_is_read(server: EmbeddedServer) -> None:
    parts = body_of([text("sessionId", UNKNOWN), text("category", "personal"), file("a", b"x" * 1000)])
    answer = send(
        server,
        "POST",
        "/api/upload/batch",
        data=parts,
        headers={"content-type": "multipart/form-data; boundary=BOUNDARY"},
    )
    assert (answer.status_code, answer.headers["connection"]) == (401, "close")


def test_jwt_is_accepted_only_by_calls_that_need_one(server: EmbeddedServer) -> None:
    jwt = {"authorization": f"Bearer {issue_token(SECRET)}"}
    assert send(server, "DELETE", f"/api/upload/file/{UNKNOWN}", headers=jwt).status_code == 404
    assert send(server, "GET", f"/api/ai/analysis/{UNKNOWN}/status", headers=jwt).status_code == 404
    assert send(server, "GET", f"/api/upload/progress/{UNKNOWN}", headers=jwt).status_code == 401


def session_of(server: EmbeddedServer) -> str:
    body = {"category": "personal", "expectedFiles": 1}
    return str(send(server, "POST", "/api/upload/session", json=body, headers=WITH).json()["sessionId"])


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("how", [{"headers": WITH}, {"auth": {"token": TOKEN}}])
def test_watcher_with_the_token_connects(server: EmbeddedServer, transport: str, how: Any) -> None:
    client = socket_client()
    seen = threading.Event()
    client.on("upload-progress", lambda _: seen.set())
    client.connect(server.url, transports=[transport], wait_timeout=DEADLINE, **how)
    try:
        assert client.call("join-session", session_of(server), timeout=DEADLINE) == {"ok": True}
        assert seen.wait(DEADLINE)
    finally:
        threading.Thread(target=client.disconnect, daemon=True).start()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("how", [{}, {"headers": {"authorization": "Bearer x"}}, {"auth": {"token": "x"}}, {"auth": 7}])
def test_watcher_without_the_token_is_refused(server: EmbeddedServer, transport: str, how: Any) -> None:
    client = socket_client()
    told: list[Any] = []
    client.on("connect_error", told.append)
    with pytest.raises(socketio.exceptions.ConnectionError):
        client.connect(server.url, transports=[transport], wait_timeout=DEADLINE, **how)
    assert told[0]["message"] in {"UNAUTHORIZED", "INVALID_TOKEN"}


@pytest.mark.parametrize("auth", ["\\ud800", "a\\ud800.b.c", "x" * 9000, "é"])
def test_watcher_with_a_malformed_token_is_refused_without_an_error(
    auth: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server() as server:
        address = server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        with websockets.sync.client.connect(address, open_timeout=DEADLINE, proxy=None) as raw:
            raw.recv(timeout=DEADLINE)
            raw.send('40{"token":"' + auth + '"}')
            assert raw.recv(timeout=DEADLINE) == '44{"message":"INVALID_TOKEN"}'
    assert not caplog.records


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedServer]:
    """Run a server that sends no ping while a test runs."""
    monkeypatch.setitem(HEARTBEAT, "bundled", (4 * DEADLINE, DEADLINE))
    with running_server(auth_token=TOKEN) as server:
        yield server


def test_refused_websocket_gets_no_event_and_is_closed(fresh: EmbeddedServer) -> None:
    """With raw packets: a join before and after the refusal."""
    server = fresh
    session = session_of(server)
    address = server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    join = f'42["join-session",{json.dumps(session)}]'
    with websockets.sync.client.connect(address, open_timeout=DEADLINE, proxy=None) as raw:
        raw.recv(timeout=DEADLINE)
        for packet in (join, "40", join):
            raw.send(packet)
        assert str(raw.recv(timeout=DEADLINE)).startswith("44")
        send(server, "POST", f"/api/upload/cancel/{session}", headers=WITH)
        with pytest.raises(ConnectionClosed):
            raw.recv(timeout=DEADLINE)
    eventually(lambda: websockets_of(server) == 0, "the end of the connection")


def test_refused_long_poll_gets_no_event(fresh: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With raw requests: handshake, join without a connection, refusal, join, then an upload."""
    monkeypatch.setattr("uploader_server.realtime.joins.CLOSE_REFUSED", DEADLINE)
    server = fresh
    session = session_of(server)
    polling = f"{server.url}/socket.io/?EIO=4&transport=polling"
    opened = json.loads(requests.get(polling, timeout=DEADLINE).text[1:])
    own = f"{polling}&sid={opened['sid']}"
    join = f'42["join-session",{json.dumps(session)}]'
    for packet in (join, "40", join):
        requests.post(own, data=packet, timeout=DEADLINE)
    told = requests.get(own, timeout=DEADLINE).text
    assert "UNAUTHORIZED" in told
    send(server, "POST", f"/api/upload/cancel/{session}", headers=WITH)
    told += requests.get(own, timeout=DEADLINE).text
    assert session not in told
    assert "upload-progress" not in told
    eventually(lambda: requests.get(own, timeout=DEADLINE).status_code == 400, "the end of the connection")
    rooms = inside(server).realtime.server.manager.rooms.get("/", {})
    assert f"session:{session}" not in rooms


@pytest.mark.parametrize(
    "path",
    [
        *(f"/{word}/api/upload/progress/{{}}" for word in (".", "health/..", "health/../.", "")),
        "/API/upload/progress/{}",
        "/api/upload/progress/{}/",
        "/api/upload/progress/{}?token=" + TOKEN,
        "/health/api/upload/progress/{}",
        "/health;/api/upload/progress/{}",
        "/api%2fupload%2fprogress%2f{}",
        "/socket.io/../api/upload/progress/{}",
        "/socket.io/../metrics",
        "/health/../metrics",
        "/ui/../metrics",
        "/ui/../api/upload/progress/{}",
        "//metrics",
    ],
)
def test_no_spelling_of_a_path_bypasses_the_token(server: EmbeddedServer, path: str) -> None:
    """The path is sent unchanged, by a raw socket."""
    session = session_of(server)
    with connected(server.url) as connection:
        asked = path.format(session)
        connection.sendall(f"GET {asked} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split(b" ", 2)[1]) in {400, 401, 404}
    assert session.encode() not in answer.partition(b"\r\n\r\n")[2]
    assert b"uploader_" not in answer


def websockets_of(server: EmbeddedServer) -> int:
    connections = inside(server).realtime.server.eio.sockets.values()
    return sum(connection.upgraded and not connection.closed for connection in connections)


def test_reference_flavour_needs_the_token() -> None:
    with running_server(flavour="reference", auth_token=TOKEN) as server:
        path = f"/api/upload/progress/{UNKNOWN}"
        refused = send(server, "GET", path)
        assert (refused.status_code, refused.json()["message"]) == (401, "未提供认证令牌，请先登录")  # noqa: RUF001
        assert int(refused.headers["x-ratelimit-remaining"]) == 99
        assert send(server, "GET", path, headers=WITH).status_code == 404


def test_the_token_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    log = tmp_path / "log"
    with server_process("--auth-token-file", str(tmp_path / "token"), "-v", "--access-log", str(log)) as server:
        url = f"{server.url}/api/upload/progress/{UNKNOWN}"
        assert requests.get(url, headers=WITH, timeout=DEADLINE).status_code == 404
        assert requests.get(url, headers={"authorization": f"Bearer {TOKEN}x"}, timeout=DEADLINE).status_code == 401
        assert server.stop() == 0
    assert TOKEN not in server.errors + log.read_text()


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"two\nlines", "schlüssel".encode(), b"\xff"])
def test_invalid_token_file_is_an_error_at_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with (
        pytest.raises(RuntimeError, match="--auth-token-file"),
        server_process("--auth-token-file", str(tmp_path / "token")),
    ):
        pass
