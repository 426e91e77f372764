"""Requests of web pages: same origin, allowed origins, and all others."""

from __future__ import annotations

import json
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
import requests
import websockets.sync.client
from server.batches import DEADLINE, UNKNOWN, connected, file, new_session, upload
from server.packs.packing import send_pack
from server.tus.tus_client import ENDPOINT, TUS, create, created
from serving import inside, running_server
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from uploader_server.__main__ import main
from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

APP = "https://app.example"
EVIL = "https://evil.example"
POLLING = "/socket.io/?EIO=4&transport=polling"
CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/health", {}),
    ("POST", "/api/upload/session", {"data": b'{"category":"personal","expectedFiles":1}'}),
    ("POST", ENDPOINT, {"headers": {**TUS, "Upload-Length": "0"}}),
    ("GET", POLLING, {}),
]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as server:
        yield server


def call(server: EmbeddedServer, number: int, **headers: str) -> requests.Response:
    method, path, more = CALLS[number]
    sent = {**more.get("headers", {}), **headers}
    return requests.request(method, server.url + path, **{**more, "headers": sent}, timeout=DEADLINE)


def websocket(url: str, origin: str) -> int:
    address = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    try:
        with websockets.sync.client.connect(address, origin=Origin(origin), open_timeout=DEADLINE, proxy=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


@pytest.mark.parametrize("number", range(len(CALLS)))
@pytest.mark.parametrize("origin", [EVIL, "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example"])
def test_cross_origin_calls_are_refused(server: EmbeddedServer, number: int, origin: str) -> None:
    """Also without a preflight: a session as text/plain."""
    known = len(inside(server).backend.sessions.known)
    answer = call(server, number, Origin=origin, **{"Content-Type": "text/plain"})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert len(inside(server).backend.sessions.known) == known
    assert list((server.root / ".uploader/tus").iterdir()) == []


def test_cross_origin_websocket_is_refused(server: EmbeddedServer) -> None:
    assert websocket(server.url, EVIL) == 403
    assert websocket(server.url, server.url) == 101


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_same_origin_is_accepted(server: EmbeddedServer, number: int) -> None:
    assert call(server, number, Origin=server.url).status_code < 300
    assert call(server, number).status_code < 300


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_allowed_origin_is_accepted_with_cors_headers(number: int) -> None:
    with running_server(cors_origins=(APP,), auth_token="token") as server:
        method, path, _ = CALLS[number]
        asked = {"Origin": APP, "Access-Control-Request-Method": method}
        preflight = requests.options(server.url + path, headers=asked, timeout=DEADLINE)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == APP
        assert method in preflight.headers["access-control-allow-methods"]
        assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
        for headers, status in ({"authorization": "Bearer token"}, 300), ({}, 500):  # an error can be read as well
            answer = call(server, number, Origin=APP, **headers)
            assert answer.status_code < status
            assert answer.headers["access-control-allow-origin"] == APP
            assert "upload-offset" in answer.headers["access-control-expose-headers"].lower()
            assert "origin" in answer.headers["vary"].lower()
        assert call(server, number, Origin=EVIL).status_code == 403
        assert (websocket(server.url, APP), websocket(server.url, EVIL)) == (101, 403)


def test_any_origin_may_be_allowed() -> None:
    with running_server(cors_origins=("*",)) as server:
        assert call(server, 1, Origin=EVIL).headers["access-control-allow-origin"] == "*"


IMAGE = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
FRAME = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
LINK = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
"""What browsers send without `Origin` for an image, a frame and a followed link."""


def embedded(server: EmbeddedServer, path: str, site: str, kind: dict[str, str], **headers: str) -> int:
    sent = {"Sec-Fetch-Site": site, **kind, **headers}
    return requests.get(server.url + path, headers=sent, timeout=DEADLINE).status_code


@pytest.mark.parametrize("path", [POLLING, "/socket.io?EIO=4", "/api/nothing"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("kind", [IMAGE, FRAME])
def test_page_of_another_origin_embeds_no_call(
    server: EmbeddedServer, path: str, site: str, kind: dict[str, str]
) -> None:
    known = set(inside(server).realtime.server.eio.sockets)
    assert embedded(server, path, site, kind) == 403
    assert set(inside(server).realtime.server.eio.sockets) <= known


def test_links_own_pages_and_stored_files_may_be_loaded(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    (known,) = upload(server.url, file("shown.png", b"data"))
    assert embedded(server, known["filePath"], "cross-site", IMAGE) == 200
    called = f"/api/upload/progress/{new_session(server.url)}"
    assert embedded(server, called, "cross-site", LINK) == 200
    for site in ("same-origin", "none"):
        with subtests.test(site=site):
            assert embedded(server, called, site, IMAGE) == 200
            assert embedded(server, POLLING, site, {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}) == 200


def test_page_of_an_allowed_origin_calls_with_its_origin() -> None:
    """An image has no Origin; if all pages may call, so may images."""
    with running_server(cors_origins=(APP,)) as server:
        assert embedded(server, POLLING, "cross-site", {}, Origin=APP) == 200
        assert embedded(server, POLLING, "cross-site", IMAGE) == 403
    with running_server(cors_origins=("*",)) as server:
        assert embedded(server, POLLING, "cross-site", IMAGE) == 200


@pytest.mark.parametrize("index", ["j=0", "j=x", "%6a=7"])
def test_jsonp_is_refused(subtests: pytest.Subtests, server: EmbeddedServer, index: str) -> None:
    opened = requests.get(server.url + POLLING, timeout=DEADLINE)
    sid = json.loads(opened.text.removeprefix("0"))["sid"]
    known = set(inside(server).realtime.server.eio.sockets)
    for path in (f"{POLLING}&{index}", f"{POLLING}&sid={sid}&{index}"):
        with subtests.test(path=path):
            answer = requests.get(server.url + path, timeout=DEADLINE)
            assert (answer.status_code, "___eio" in answer.text) == (400, False)
    assert set(inside(server).realtime.server.eio.sockets) <= known


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/path", "https://", "ftp://a", ""])
def test_invalid_cors_origin_exits_2(origin: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cors-origin", origin]) == 2
    assert "--cors-origin" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8005", 200),
        ("a.localhost:1", 200),
        ("127.0.0.1:99", 200),
        ("[::1]:8005", 200),
        ("192.0.2.7", 200),
        ("files.example:8005", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8005", 421),
        ("files.example.evil", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_the_host_is_checked_on_loopback(host: str, status: int) -> None:
    """With DNS rebinding a page's requests have this server's origin."""
    with running_server(allow_hosts=("files.example",)) as server, connected(server.url) as connection:
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert int(connection.recv(4096).split(b" ", 2)[1]) == status


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "text.txt", "夏 '.xml"])
def test_stored_file_is_never_rendered_as_a_page(server: EmbeddedServer, name: str) -> None:
    by_tus = created(server.url, 4, b"<svg", filename=name)
    upload(server.url, file("x", b"<svg"), paths=(name,))
    stored = f"{server.url}/uploads/personal/{urllib.parse.quote(name)}"
    for answer in (requests.get(url, timeout=DEADLINE) for url in (by_tus, stored)):
        assert answer.content == b"<svg"
        assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox"


def test_no_answer_contains_a_path_of_the_host(server: EmbeddedServer) -> None:
    session = new_session(server.url, 20)
    upload(server.url, file("holiday 1.mp4", b"data"), session=session)
    texts = [json.dumps(upload(server.url, file("holiday 1.mp4", b"other"), session=session))]
    assert json.loads(texts[0])[0]["filePath"] == "/uploads/personal/holiday%201%20%282%29.mp4"
    texts.append(json.dumps(send_pack(server.url, session, {"holiday 1.mp4/a": b"x", "b" * 300: b"x", "../c": b"x"})))
    texts.append(json.dumps(upload(server.url, file("x", b"x"), session=session, paths=("holiday 1.mp4/a",))))
    answers = [create(server.url, 1, b"x", filename="b" * 300), create(server.url, 1, b"x", relativePath="../c")]
    paths = (f"/api/upload/progress/{session}", "/health", "/metrics", f"/uploads/personal/{UNKNOWN}")
    answers += [requests.get(server.url + path, timeout=DEADLINE) for path in paths]
    texts += [answer.text + str(answer.headers) for answer in answers]
    (server.root / ".uploader/incoming").rename(server.root / ".uploader/elsewhere")
    try:
        texts.append(str(requests.post(f"{server.url}/api/upload/packs", timeout=DEADLINE).text))
        with pytest.raises(AssertionError) as caught:
            upload(server.url, file("x", b"x"), session=session)
        texts.append(str(caught.value))
    finally:
        (server.root / ".uploader/elsewhere").rename(server.root / ".uploader/incoming")
    assert [text for text in texts if str(server.root) in text] == []


def test_analysis_refuses_absolute_paths_of_the_host(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    (known,) = upload(server.url, file("夏 1%20.mp4", b"data"))
    token = {"authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
    server.faults.analysis_seconds = 0.01
    for path, status in (known["filePath"], 200), (f"{server.root}/personal/夏 1%20.mp4", 400):
        with subtests.test(path=path, status=status):
            body = {"videoPath": path}
            answer = requests.post(f"{server.url}/api/ai/analyze/content", json=body, headers=token, timeout=DEADLINE)
            assert answer.status_code == status
