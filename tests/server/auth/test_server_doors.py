"""Attacks: method overrides, files and connections of other users, forged log lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin

import jwt
import pytest
import requests
from server.batches import (
    DEADLINE,
    Listener,
    connected,
    eventually,
    file,
    new_session,
    post_parts,
    progress,
    text,
    upload,
)
from server.packs.packing import post_pack, send_pack
from server.tus.tus_client import TUS, create, created, file_id, head
from serving import inside, running_server, server_process
from websockets.exceptions import ConnectionClosed

from uploader_server.auth import issue_token
from uploader_server.storage import put
from uploader_server.storage.categories import Descent
from uploader_server.storage.paths import candidates
from uploader_server.storage.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def test_method_override_of_options_is_ignored(
    subtests: pytest.Subtests, guarded: EmbeddedServer, override: str
) -> None:
    created = create(guarded.url, 4, headers=WITH, filename="a").headers["location"]
    headers = {**TUS, "X-HTTP-Method-Override": override, "Upload-Length": "4", "Upload-Offset": "0"}
    for url in (f"{guarded.url}/api/upload/files/", created):
        with subtests.test(url=url):
            assert requests.options(url, headers=headers, timeout=DEADLINE).status_code == 401
            answer = requests.options(url, data=b"evil", headers={**headers, **WITH}, timeout=DEADLINE)
            assert (answer.status_code, answer.content) == (204, b"")
            assert "location" not in answer.headers
    now = requests.head(created, headers={**TUS, **WITH}, timeout=DEADLINE)
    assert now.headers["upload-offset"] == "0"


def test_deletion_token_can_not_upload(guarded: EmbeddedServer) -> None:
    """Neither by a DELETE that is to be a POST, nor by a POST elsewhere that is to be a DELETE."""
    disguised = {**TUS, **JWT, "X-HTTP-Method-Override": "POST", "Upload-Length": "0"}
    answer = requests.delete(f"{guarded.url}/api/upload/files/", headers=disguised, timeout=DEADLINE)
    assert "location" not in answer.headers
    assert answer.status_code == 405
    session = {"category": "personal", "expectedFiles": 1}
    disguised = {**JWT, "X-HTTP-Method-Override": "DELETE"}
    answer = requests.post(f"{guarded.url}/api/upload/session", json=session, headers=disguised, timeout=DEADLINE)
    assert answer.status_code == 401


def test_authorisation_uses_the_overridden_method(guarded: EmbeddedServer) -> None:
    location = urljoin(guarded.url, create(guarded.url, 4, b"data", headers=WITH, filename="a").headers["location"])
    disguised = {**TUS, "X-HTTP-Method-Override": "DELETE"}
    assert requests.post(location, headers=disguised, timeout=DEADLINE).status_code == 401
    assert requests.post(location, headers={**disguised, **JWT}, timeout=DEADLINE).status_code == 204
    assert requests.head(location, headers={**TUS, **WITH}, timeout=DEADLINE).status_code == 410


def test_a_post_that_overrides_options_needs_the_token(guarded: EmbeddedServer) -> None:
    """Only preflights of browsers, which are not POST requests, need no token. OPTIONS is no override: it creates."""
    disguised = {**TUS, "X-HTTP-Method-Override": "OPTIONS", "Upload-Length": "4"}
    url = f"{guarded.url}/api/upload/files/"
    assert requests.post(url, headers=disguised, timeout=DEADLINE).status_code == 401
    assert requests.post(url, headers={**disguised, **WITH}, timeout=DEADLINE).status_code == 201


# Connections of other users


def upgrade(connection: socket.socket) -> bytes:
    """Start a websocket with raw packets and close it after Socket.IO's refusal."""
    connection.sendall(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert b" 101 " in connection.recv(4096)
    connection.sendall(b"\x81\x82\0\0\0\x0040")  # a masked frame: "40", connect
    return connection.recv(4096)


def test_refused_websocket_closes_no_other_connection(guarded: EmbeddedServer) -> None:
    """A later upload from the same port succeeds."""
    later = eventually(lambda: after_a_refusal(guarded), "a port that is free again")
    with later:
        later.sendall(
            b"POST /api/upload/files/ HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 4\r\n"
            b"Authorization: Bearer %s\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: 4\r\n\r\nda"
            % TOKEN.encode()
        )
        time.sleep(1.5)  # the refused one is closed a second after its refusal
        later.sendall(b"ta")
        assert later.recv(4096).startswith(b"HTTP/1.1 201")


def after_a_refusal(server: EmbeddedServer) -> socket.socket | None:
    """A connection from the port of a refused websocket; None where another program has taken the port."""
    refused = connected(server.url)
    upgrade(refused)
    port = refused.getsockname()[1]
    refused.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its port is free at once
    refused.close()
    later = socket.socket()
    later.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    later.settimeout(DEADLINE)
    try:
        later.bind(("127.0.0.1", port))
        later.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    except OSError:
        later.close()
        return None
    return later


# Files of other users


def delete(server: EmbeddedServer, file_id: str) -> int:
    return requests.delete(f"{server.url}/api/upload/file/{file_id}", headers=JWT, timeout=DEADLINE).status_code


def test_shared_file_is_deleted_with_its_last_upload(server: EmbeddedServer) -> None:
    session = new_session(server.url, 9)
    by_tus = created(server.url, 4, b"data", filename="same.mp4", sessionId=session)
    (by_batch,) = upload(server.url, file("same.mp4", b"data"), session=session)
    stored = server.root / "personal/same.mp4"
    assert delete(server, file_id(server.root, by_tus)) == 200
    assert stored.read_bytes() == b"data"
    assert head(by_tus).status_code == 410
    assert delete(server, file_id(server.root, by_tus)) == 404
    assert stored.read_bytes() == b"data"
    assert delete(server, by_batch["id"]) == 200
    assert not stored.exists()


def test_second_delete_keeps_a_new_file_of_the_same_name(server: EmbeddedServer) -> None:
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


@pytest.mark.parametrize("shared", [False, True])
def test_upload_deletes_its_file_although_an_earlier_one_had_the_name(server: EmbeddedServer, shared: bool) -> None:
    """Another program has removed the earlier file, of which the row is left."""
    there = server.root / "personal/moved.mp4"
    upload(server.url, file("moved.mp4", b"old"))
    there.unlink()
    (stored,) = upload(server.url, file("moved.mp4", b"new"))
    equal = upload(server.url, file("moved.mp4", b"new")) if shared else []
    assert delete(server, stored["id"]) == 200
    assert there.exists() is shared
    assert [delete(server, one["id"]) for one in equal] == [200] * len(equal)
    assert not there.exists()
    there.write_bytes(b"of another program")
    (last,) = upload(server.url, file("moved.mp4", b"of another program"))
    assert delete(server, last["id"]) == 200
    assert there.exists()


@pytest.mark.parametrize("way", ["batch", "tus", "pack"])
@pytest.mark.parametrize("name", ["same.mp4", "same (2).mp4"])
def test_delete_keeps_a_file_that_a_running_upload_found_equal(
    way: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload has found an equal file and has not recorded it yet."""
    found, deleted = threading.Event(), threading.Event()

    def paused(save: Any) -> Any:
        async def pause(*arguments: Any, **options: Any) -> None:
            found.set()
            await asyncio.to_thread(deleted.wait, DEADLINE)
            await save(*arguments, **options)

        return pause

    with running_server(packs=True, jwt_secret=SECRET) as server:
        if name != "same.mp4":
            upload(server.url, file("same.mp4", b"other"))
        (first,) = upload(server.url, file("same.mp4", b"data"))
        assert first["fileName"] == name
        session = new_session(server.url)
        monkeypatch.setattr(Store, "save", paused(Store.save))
        with ThreadPoolExecutor() as threads:
            second = threads.submit(store, server, way, session, "same.mp4")
            assert found.wait(DEADLINE)
            assert delete(server, first["id"]) == 200
            deleted.set()
            assert second.result() == "stored"
        assert (server.root / "personal" / name).read_bytes() == b"data"
        assert list((server.root / ".uploader/incoming").iterdir()) == []
        listed = progress(server.url, session).json()["files"]
        assert [delete(server, known["id"]) for known in listed] == [200]
        assert not (server.root / "personal" / name).exists()


@pytest.mark.parametrize("way", ["batch", "tus", "pack"])
def test_upload_that_found_its_bytes_removes_nothing(way: str, tmp_path: Path) -> None:
    """As with an older database that was restored: it does not know the upload that stored the file."""
    with running_server(root=tmp_path, packs=True, jwt_secret=SECRET) as server:
        there = server.root / "personal/a.mp4"
        there.write_bytes(b"data")
        session = new_session(server.url)
        assert store(server, way, session, "a.mp4") == "stored"
        (listed,) = progress(server.url, session).json()["files"]
        assert delete(server, listed["id"]) == 200
        assert delete(server, listed["id"]) == 404
        assert there.read_bytes() == b"data"


@pytest.mark.parametrize("way", ["batch", "tus", "pack"])
@pytest.mark.parametrize("how", ["replaced", "replaced with its times", "rewritten"])
def test_delete_keeps_what_another_program_put_in_place_of_a_file(way: str, how: str, tmp_path: Path) -> None:
    """Also where an upload has found the other program's bytes: it does not become the owner."""
    there = tmp_path / "personal/a.mp4"
    with running_server(root=tmp_path, packs=True, jwt_secret=SECRET) as server:
        session = new_session(server.url, 2)
        assert store(server, way, session, "a.mp4") == "stored"
        (listed,) = progress(server.url, session).json()["files"]
        before = there.stat()
        if how == "rewritten":
            there.write_bytes(b"atad")
        else:
            (tmp_path / "other").write_bytes(b"atad")
            (tmp_path / "other").replace(there)
        if how == "replaced with its times":
            os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
        (equal,) = upload(server.url, file("a.mp4", b"atad"))
        assert [delete(server, known["id"]) for known in (listed, equal)] == [200, 200]
        assert there.read_bytes() == b"atad"
        assert delete(server, listed["id"]) == 404


def test_terminated_upload_that_found_its_bytes_removes_nothing(server: EmbeddedServer) -> None:
    (server.root / "tus").mkdir(exist_ok=True)
    there = server.root / "tus/found.bin"
    there.write_bytes(b"data")
    url = created(server.url, 4, b"data", filename="found.bin")
    assert requests.delete(url, headers=TUS, timeout=DEADLINE).status_code == 204
    assert there.read_bytes() == b"data"


@pytest.mark.parametrize("now", ["gone", "a file", "a link"])
@pytest.mark.parametrize("way", ["batch", "tus"])
def test_delete_of_a_file_whose_directory_was_replaced_answers_404(
    server: EmbeddedServer, way: str, now: str, tmp_path: Path
) -> None:
    directory, session = server.root / "personal/deep", new_session(server.url)
    if way == "batch":
        upload(server.url, file("a.mp4", b"data"), session=session, paths=("deep/a.mp4",))
    else:
        created(server.url, 4, b"data", filename="a.mp4", relativePath="deep/a.mp4", sessionId=session)
    (stored,) = progress(server.url, session).json()["files"]
    moved = directory.rename(tmp_path / "moved")
    if now == "a file":
        directory.touch()
    elif now == "a link":
        directory.symlink_to(moved)
    assert [delete(server, stored["id"]) for _ in range(2)] == [404, 404]
    assert (moved / "a.mp4").read_bytes() == b"data"


@pytest.mark.parametrize("who", ["one", "shared"])
@pytest.mark.parametrize("way", ["batch", "tus", "pack", "terminate"])
def test_file_is_deleted_by_its_subject_or_the_shared_token(way: str, who: str, tmp_path: Path) -> None:
    tokens = {name: jwt.encode({"sub": name}, SECRET, algorithm="HS256") for name in ("one", "other")} | {"shared": "s"}
    headers = {name: {"Authorization": f"Bearer {token}"} for name, token in tokens.items()}
    there = tmp_path / "personal/a.mp4"
    with running_server(root=tmp_path, packs=True, jwt_secret=SECRET) as server:
        public, url = stored_by(server, way, headers["one"])
        path = (url if way == "terminate" else f"{server.url}/api/upload/file/{public}").removeprefix(server.url)
        refused = requests.delete(server.url + path, headers={**TUS, **headers["other"]}, timeout=DEADLINE)
        assert (refused.status_code, refused.json()["error"]) == (403, "NOT_YOURS")
        assert there.read_bytes() == b"data"
    with running_server(root=tmp_path, jwt_secret=SECRET, auth_token="s" if who == "shared" else None) as server:
        assert requests.delete(server.url + path, headers={**TUS, **headers[who]}, timeout=DEADLINE).ok
        assert not there.exists()


def stored_by(server: EmbeddedServer, way: str, headers: dict[str, str]) -> tuple[str, str]:
    """Store a file with a token; its public id, and the URL of its upload by tus."""
    asked = {"category": "personal", "expectedFiles": 1}
    made = requests.post(f"{server.url}/api/upload/session", json=asked, headers=headers, timeout=DEADLINE)
    session, url = made.json()["sessionId"], ""
    if way == "batch":
        parts = [text("sessionId", session), text("category", "personal"), file("a.mp4", b"data")]
        assert post_parts(server.url, parts, **headers).ok
    elif way == "pack":
        assert post_pack(server.url, session, {"a.mp4": b"data"}, **headers).ok
    else:
        url = created(server.url, 4, b"data", headers=headers, filename="a.mp4", sessionId=session)
    shown = requests.get(f"{server.url}/api/upload/progress/{session}", headers=headers, timeout=DEADLINE)
    return shown.json()["files"][0]["id"], url


def test_a_restored_copy_of_a_root_deletes_its_own_files_only(tmp_path: Path) -> None:
    """Also where the database has absolute paths."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    with running_server(root=original, jwt_secret=SECRET) as server:
        known = [upload(server.url, file(f"{n}.mp4", b"x"))[0]["id"] for n in range(2)]
    shutil.copytree(original, copy)
    with sqlite3.connect(copy / ".uploader/server.sqlite3") as database:
        database.execute("UPDATE files SET path = ? WHERE id = ?", (str(original / "personal/1.mp4"), known[1]))
    database.close()
    with running_server(root=copy, jwt_secret=SECRET) as server:
        assert [delete(server, file_id) for file_id in known] == [200, 404]
        assert [path.name for path in (copy / "personal").iterdir()] == ["1.mp4"]
    assert sorted(path.name for path in (original / "personal").iterdir()) == ["0.mp4", "1.mp4"]


# Logs and symlinks


def test_client_event_named_connect_resets_no_limit() -> None:
    with running_server(max_joins=2) as server:
        listener = Listener(server.url)
        for number in range(2):
            listener.send(f'42{number}["join-session","00000000-0000-4000-8000-00000000000{number}"]')
            assert "SESSION_NOT_FOUND" in listener.packet()
        listener.send('42["connect",{}]')
        with contextlib.suppress(ConnectionClosed):
            listener.send('422["join-session","00000000-0000-4000-8000-000000000002"]')
        eventually(lambda: listener.closed, "the end of the connection")
        with pytest.raises(TimeoutError):
            listener.packet(0)


MALFORMED = [
    "4",
    "42",
    "42{",
    "42[]",
    "42[1]",
    '42["x"',
    "451-[",
    "45",
    "49",
    "4/other,0",
    "43",
    "4999999999999999999[]",
    "z",
]


@pytest.mark.thorough
def test_malformed_packets_and_aborted_bodies_print_no_traceback() -> None:
    with server_process() as server:
        for packet in MALFORMED:
            listener = Listener(server.url)
            listener.send(packet)
            with contextlib.suppress(ConnectionClosed):
                listener.send('421["join-session","x"]')
            eventually(lambda listener=listener: listener.closed or answered(listener), f"the end of {packet}")
            listener.close()
        opened = requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE).text
        sid = opened.partition('"sid":"')[2].partition('"')[0]
        for body in (b"\xff\xfe", b"4\x1e4\x1e", b"b!!!", *[packet.encode() for packet in MALFORMED]):
            polling = f"{server.url}/socket.io/?EIO=4&transport=polling&sid={sid}"
            requests.post(polling, data=body, timeout=DEADLINE)
        for path in ("session", "validate", "lookup", "batch", "files/", "session/x/finish"):
            aborted = connected(server.url)
            aborted.sendall(
                b"POST /api/upload/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
                b"Content-Type: application/json\r\n\r\n{" % path.encode()
            )
            time.sleep(0.05)
            aborted.close()
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
        time.sleep(0.2)
        server.stop()
        assert not server.errors, server.errors


def test_message_of_a_connection_that_has_ended_is_dropped() -> None:
    """It is handled in a task, which the end may overtake."""
    with running_server() as server:
        realtime, loop = inside(server).realtime.server, server.faults.loop
        assert loop is not None
        handled = realtime.eio.handlers["message"]("ended", "0")
        asyncio.run_coroutine_threadsafe(handled, loop).result(DEADLINE)
        assert realtime.manager.sid_from_eio_sid("ended", "/") is None


def answered(listener: Listener) -> bool:
    try:
        return "INVALID_SESSION_ID" in listener.packet(0.01)
    except TimeoutError:
        return False


def test_access_log_escapes_line_breaks_of_a_path(tmp_path: Path) -> None:
    with running_server(access_log=tmp_path / "log") as server:
        requests.get(f"{server.url}/a%20200%201.0ms%0A2026-01-01T00:00:00.000Z%20GET%20/b", timeout=DEADLINE)
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.split(" ")[1:4] == ["GET", "/a%20200%201.0ms%0A2026-01-01T00:00:00.000Z%20GET%20/b", "404"]


@pytest.mark.parametrize("name", ["two\nlines.mp4", "end\n", "\r\x1b[31m\x7f"])
def test_stored_name_with_control_characters_is_served(server: EmbeddedServer, name: str) -> None:
    stored = created(server.url, 4, b"data", filename=name, relativePath=f"sub\n/{name}")
    path = requests.head(stored, headers=TUS, timeout=DEADLINE).headers["content-location"]
    for url in (server.url + path, f"{server.url}/uploads/tus/sub%0A/{quote(name)}"):
        assert requests.get(url, timeout=DEADLINE).content == b"data"


@pytest.mark.parametrize("way", ["batch", "tus", "pack"])
def test_no_write_follows_a_symlink_below_a_category(way: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with running_server(root=tmp_path / "root", packs=True) as server:
        (server.root / "personal/link").symlink_to(outside)
        (server.root / "personal/inner").mkdir()
        (server.root / "personal/near").symlink_to("inner")
        session = new_session(server.url, 9)
        outcomes = [store(server, way, session, f"{name}/deep/a.mp4") for name in ("link", "near")]
        assert outcomes == ["INVALID_PATH", "INVALID_PATH"]
        assert list(outside.iterdir()) == []
        assert list((server.root / "personal/inner").iterdir()) == []


@pytest.mark.parametrize("way", ["batch", "tus", "pack"])
def test_taken_name_of_255_bytes_gets_a_number(way: str, tmp_path: Path) -> None:
    name = "n" * 251 + ".mp4"
    with running_server(root=tmp_path, packs=True) as server:
        (server.root / "personal" / name).write_bytes(b"other")
        assert store(server, way, new_session(server.url, 9), name) == "stored"
        assert (server.root / "personal" / ("n" * 247 + " (2).mp4")).read_bytes() == b"data"


def test_free_name_is_found_among_many_files(tmp_path: Path) -> None:
    """Without a test of each name: after the last one, or in a gap."""
    path = tmp_path / "a.mp4"
    for number in range(2, 3000):
        (tmp_path / f"a ({number}).mp4").touch()
    path.touch()
    tried = 0
    for candidate in candidates("a.mp4", lambda name: (tmp_path / name).exists()):
        tried += 1
        if not (tmp_path / candidate).exists():
            break
    assert candidate == "a (3000).mp4"
    assert tried <= 100


def test_taken_names_get_the_next_number(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_server.storage.paths.ONE_BY_ONE", 3)
    names = [upload(server.url, file("a.mp4", b"%d" % n))[0]["fileName"] for n in range(8)]
    assert names == ["a.mp4", *(f"a ({n}).mp4" for n in range(2, 9))]
    assert upload(server.url, file("a.mp4", b"1"))[0]["fileName"] == "a (2).mp4"


def test_one_request_compares_a_limited_number_of_taken_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack of 1,000 files with one taken name compared 99,000 files. The others get free numbers at once."""
    monkeypatch.setattr(put, "MOST_COMPARED", 20)
    compared, is_equal = list[str](), put.Linking.is_equal

    def counted(linking: put.Linking, one: Any, name: str, directory: Descent) -> bool:
        compared.append(name)
        return is_equal(linking, one, name, directory)

    monkeypatch.setattr(put.Linking, "is_equal", counted)
    files = [("a.mp4", b"%d" % number) for number in range(10, 70)]
    with running_server(packs=True) as server:
        stored = send_pack(server.url, new_session(server.url, 60), files)
        paths = [server.root / unquote(entry["location"]).removeprefix("/uploads/") for entry in stored]
        assert [path.read_bytes() for path in paths] == [data for _, data in files]
    assert len(compared) <= 20 + len(files)


def store(server: EmbeddedServer, way: str, session: str, path: str) -> str:
    """Store a file; the code of the error, or `stored`."""
    if way == "tus":
        answer = create(server.url, 4, b"data", filename="a.mp4", relativePath=path, sessionId=session)
        return "stored" if answer.status_code == 201 else str(answer.json()["error"])
    if way == "batch":
        (stored,) = upload(server.url, file("a.mp4", b"data"), session=session, paths=(path,))
        return str(stored.get("errorCode", "stored"))
    (packed,) = send_pack(server.url, session, {path: b"data"})
    return str(packed.get("error", "stored"))
