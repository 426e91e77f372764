"""What an attacker tries: methods in disguise, other people's files and connections, forged log lines."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from batches import DEADLINE, HalfSent, Listener, body_of, connected, eventually, file, new_session, text, upload
from functional.tus_server.tus_client import TUS, append, content, create, created, head
from serving import running_server, server_process

from uploader_server.http.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

TOKEN = "the-one-token"
SECRET = "a secret of these tests, which is long enough"
WITH = {"authorization": f"Bearer {TOKEN}"}
JWT = {"authorization": f"Bearer {issue_token(SECRET)}"}


@pytest.fixture
def guarded() -> Iterator[EmbeddedServer]:
    with running_server(auth_token=TOKEN, jwt_secret=SECRET) as server:
        yield server


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server(jwt_secret=SECRET) as server:
        yield server


# Methods in disguise


@pytest.mark.parametrize("override", ["POST", "PATCH", "GET", "HEAD", "DELETE"])
def test_an_override_of_options_changes_nothing(guarded: EmbeddedServer, override: str) -> None:
    location = create(guarded.url, 4, headers=WITH, filename="a").headers["location"]
    headers = {**TUS, "X-HTTP-Method-Override": override, "Upload-Length": "4", "Upload-Offset": "0"}
    for path in ("/api/upload/files/", location):
        answer = requests.options(guarded.url + path, data=b"evil", headers=headers, timeout=DEADLINE)
        assert (answer.status_code, answer.content) == (204, b"")
        assert "location" not in answer.headers
    now = requests.head(guarded.url + location, headers={**TUS, **WITH}, timeout=DEADLINE)
    assert now.headers["upload-offset"] == "0"


def test_a_token_for_deletion_uploads_nothing(guarded: EmbeddedServer) -> None:
    """Neither by a DELETE that is to be a POST, nor by a POST elsewhere that is to be a DELETE."""
    disguised = {**TUS, **JWT, "X-HTTP-Method-Override": "POST", "Upload-Length": "0"}
    answer = requests.delete(f"{guarded.url}/api/upload/files/", headers=disguised, timeout=DEADLINE)
    assert "location" not in answer.headers
    assert answer.status_code == 405
    session = {"category": "personal", "expectedFiles": 1}
    disguised = {**JWT, "X-HTTP-Method-Override": "DELETE"}
    answer = requests.post(f"{guarded.url}/api/upload/session", json=session, headers=disguised, timeout=DEADLINE)
    assert answer.status_code == 401


def test_the_method_that_a_post_overrides_is_what_is_authorised(guarded: EmbeddedServer) -> None:
    location = guarded.url + create(guarded.url, 4, b"data", headers=WITH, filename="a").headers["location"]
    disguised = {**TUS, "X-HTTP-Method-Override": "DELETE"}
    assert requests.post(location, headers=disguised, timeout=DEADLINE).status_code == 401
    assert requests.post(location, headers={**disguised, **JWT}, timeout=DEADLINE).status_code == 204
    assert requests.head(location, headers={**TUS, **WITH}, timeout=DEADLINE).status_code == 410


# Other people's connections


def upgrade(connection: socket.socket) -> bytes:
    """Begin a websocket by hand and give up after Socket.IO's own refusal."""
    connection.sendall(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b" 101 " in connection.recv(4096)
    connection.sendall(b"\x81\x82\0\0\0\x0040")  # a masked frame: "40", connect
    return connection.recv(4096)


def test_a_refused_websocket_closes_nothing_but_itself(guarded: EmbeddedServer) -> None:
    """An upload that comes from the same port a moment later goes on."""
    refused = connected(guarded.url)
    upgrade(refused)
    port = refused.getsockname()[1]
    refused.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its port is free at once
    refused.close()
    with socket.socket() as later:
        later.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        later.bind(("127.0.0.1", port))
        later.settimeout(DEADLINE)
        later.connect(connected_to(guarded))
        later.sendall(
            b"POST /api/upload/files/ HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 4\r\n"
            b"Authorization: Bearer %s\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: 4\r\n\r\nda"
            % TOKEN.encode()
        )
        time.sleep(1.5)  # the refused one is closed a second after its refusal
        later.sendall(b"ta")
        assert later.recv(4096).startswith(b"HTTP/1.1 201")


def connected_to(server: EmbeddedServer) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


# Other people's files


def delete(server: EmbeddedServer, file_id: str) -> int:
    return requests.delete(f"{server.url}/api/upload/file/{file_id}", headers=JWT, timeout=DEADLINE).status_code


def test_a_file_that_two_uploads_were_answered_with_goes_with_the_last_of_them(server: EmbeddedServer) -> None:
    session = new_session(server.url, 9)
    by_tus = created(server.url, 4, b"data", filename="same.mp4", sessionId=session)
    (by_batch,) = upload(server.url, file("same.mp4", b"data"), session=session)
    stored = server.root / "personal/same.mp4"
    assert delete(server, by_tus.rpartition("/")[2]) == 200
    assert stored.read_bytes() == b"data"
    assert head(by_tus).status_code == 410
    assert delete(server, by_tus.rpartition("/")[2]) == 404
    assert stored.read_bytes() == b"data"
    assert delete(server, by_batch["id"]) == 200
    assert not stored.exists()


def test_deleting_twice_leaves_the_next_file_of_that_name(server: EmbeddedServer) -> None:
    (first,) = upload(server.url, file("name.mp4", b"old"))
    assert delete(server, first["id"]) == 200
    (second,) = upload(server.url, file("name.mp4", b"new"))
    assert delete(server, first["id"]) == 404
    assert (server.root / "personal/name.mp4").read_bytes() == b"new"
    (server.root / "personal/name.mp4").unlink()  # behind its back
    (third,) = upload(server.url, file("name.mp4", b"third"))
    assert delete(server, second["id"]) == 200
    assert (server.root / "personal/name.mp4").read_bytes() == b"third"
    assert delete(server, third["id"]) == 200


def test_a_restored_copy_of_a_root_deletes_its_own_files_only(tmp_path: Path) -> None:
    """Also where a server of an earlier version has stored absolute paths."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    with running_server(root=original, jwt_secret=SECRET) as server:
        known = [upload(server.url, file(f"{n}.mp4", b"x"))[0]["id"] for n in range(2)]
    shutil.copytree(original, copy)
    with sqlite3.connect(copy / ".uploader/server.sqlite3") as database:
        database.execute("UPDATE files SET path = ? WHERE id = ?", (str(original / "personal/1.mp4"), known[1]))
    database.close()
    with running_server(root=copy, jwt_secret=SECRET) as server:
        assert [delete(server, file_id) for file_id in known] == [200, 404]
    assert sorted(path.name for path in (original / "personal").iterdir()) == ["0.mp4", "1.mp4"]
