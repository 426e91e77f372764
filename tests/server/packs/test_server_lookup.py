"""The lookup of stored files (docs/extensions.md)."""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import http.client
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import DEADLINE, file, new_session, upload
from server.packs.packing import send_pack
from server.tus.tus_client import TUS, checksum, create
from serving import inside, running_server

from uploader_server.storage.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as running:
        send_pack(running.url, new_session(running.url, 9), [("d/é", b"pack"), ("d/é", b"2nd"), ("d/e.x", b"")])
        create(running.url, 3, b"tus", headers=checksum(b"tus"), sessionId=new_session(running.url), relativePath="t")
        upload(running.url, file("b", b"batch"))
        (running.root / "personal" / "unknown").write_bytes(b"digest")
        yield running


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def look(server: EmbeddedServer, body: Any) -> requests.Response:
    return requests.post(f"{server.url}/api/upload/lookup", json=body, timeout=DEADLINE)


def found(server: EmbeddedServer, *files: dict[str, Any], category: str = "personal") -> list[dict[str, Any]]:
    answer = look(server, {"category": category, "files": files})
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["files"]
    return listed


def test_files_of_each_protocol_are_found_with_their_known_digests(server: EmbeddedServer) -> None:
    names = ["d/é", "t", "b", "d/e.x", "unknown", "missing", "d", "t/t"]
    answered = found(server, *({"relativePath": name, "size": 1} for name in names))
    assert answered[:4] == [
        {"exists": True, "size": 4, "location": "/uploads/personal/d/%C3%A9", "sha256": digest(b"pack")},
        {"exists": True, "size": 3, "location": "/uploads/personal/t", "sha256": digest(b"tus")},
        {"exists": True, "size": 5, "location": "/uploads/personal/b", "sha256": digest(b"batch")},
        {"exists": True, "size": 0, "location": "/uploads/personal/d/e.x", "sha256": digest(b"")},
    ]
    assert answered[4:] == [
        {"exists": True, "size": 6, "location": "/uploads/personal/unknown"},
        {"exists": False},
        {"exists": False},
        {"exists": False},
    ]
    assert found(server, {"relativePath": "t", "size": 3}, category="scenic") == [{"exists": False}]


def test_a_digest_finds_the_file_that_got_another_name(server: EmbeddedServer) -> None:
    second, neither = found(
        server,
        {"relativePath": "d/é", "size": 3, "sha256": digest(b"2nd")},
        {"relativePath": "d/é", "size": 3, "sha256": digest(b"3rd")},
    )
    assert (second["location"], second["sha256"]) == ("/uploads/personal/d/%C3%A9%20%282%29", digest(b"2nd"))
    assert (neither["location"], neither["sha256"]) == ("/uploads/personal/d/%C3%A9", digest(b"pack"))


def test_a_changed_file_has_no_known_digest(server: EmbeddedServer) -> None:
    send_pack(server.url, new_session(server.url), {"changed": b"before"})
    (server.root / "personal" / "changed").write_bytes(b"afterwards")
    (answer,) = found(server, {"relativePath": "changed", "size": 6, "sha256": digest(b"before")})
    assert answer == {"exists": True, "size": 10, "location": "/uploads/personal/changed"}


@pytest.mark.parametrize("how", ["pack", "equal", "tus", "batch", "early row"])
def test_a_recorded_digest_counts_only_for_the_recorded_file(server: EmbeddedServer, how: str) -> None:
    """A byte is changed, and the mtime kept: only the ctime says so. Early versions recorded no ctime."""
    name, own = f"kept {how}", {"relativePath": f"kept {how}", "size": 5}
    where, urls = server.root / "personal" / name, [f"{server.url}/uploads/personal/{name}"]
    if how == "tus":
        answer = create(
            server.url, 5, b"bytes", headers=checksum(b"bytes"), sessionId=new_session(server.url), relativePath=name
        )
        urls.append(server.url + answer.headers["location"].removeprefix(server.url))
    elif how == "batch":
        upload(server.url, file(name, b"bytes"))
    else:
        for _ in range(2 if how == "equal" else 1):
            send_pack(server.url, new_session(server.url), {name: b"bytes"})
    assert found(server, own)[0]["sha256"] == digest(b"bytes")
    assert all("repr-digest" in requests.head(url, headers=TUS, timeout=DEADLINE).headers for url in urls)
    if how == "early row":
        database = inside(server).store.database
        database.wait(
            lambda db: db.execute("UPDATE digests SET changed = NULL, inode = NULL WHERE path LIKE '%early%'")
        )
    else:
        before = where.stat()
        where.write_bytes(b"bytez")
        os.utime(where, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "sha256" not in found(server, own)[0]
    assert not any("repr-digest" in requests.head(url, headers=TUS, timeout=DEADLINE).headers for url in urls)
    (computed,) = look(server, {"category": "personal", "files": [own], "digests": "compute"}).json()["files"]
    assert computed["sha256"] == digest(where.read_bytes())
    assert found(server, own)[0]["sha256"] == computed["sha256"]


def test_digests_that_are_asked_to_be_read_are_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What took too long for one request is the answer to the next one of this client, and to no other."""
    go, reads, read = threading.Event(), list[object](), Reading.sha256

    def counted(*args: Any) -> bytes:
        reads.append(args)
        assert go.wait(DEADLINE)
        return read(*args)

    monkeypatch.setattr(Reading, "sha256", counted)
    body = {"category": "personal", "files": [{"relativePath": "a", "size": 5}], "digests": "read"}
    answer = {"exists": True, "size": 5, "location": "/uploads/personal/a"}
    with running_server(packs=True) as server:
        send_pack(server.url, new_session(server.url), {"a": b"bytes"})
        digests = inside(server).store.digests
        digests.patience = 0.05
        assert look(server, body).json()["files"] == [{**answer, "pending": True}]
        go.set()
        digests.patience = DEADLINE
        for expected in (1, 2, 3):
            assert look(server, body).json()["files"] == [{**answer, "sha256": digest(b"bytes")}]
            assert len(reads) == expected
        assert look(server, {**body, "digests": "compute"}).json()["files"][0]["sha256"] == digest(b"bytes")
        assert len(reads) == 3


@pytest.mark.parametrize("path", ["", "../t", "/t", "\0", "\ud800", "x" * 5000])
def test_lookup_of_an_invalid_path_fails_alone(server: EmbeddedServer, path: str) -> None:
    refused, other = found(server, {"relativePath": path, "size": 1, "sha256": ""}, {"relativePath": "t", "size": 3})
    message = refused.pop("message")
    assert refused == {"exists": False, "error": "INVALID_PATH", "retryable": False}
    assert len(message) < 100
    assert other["exists"]


def test_symlink_out_of_the_category_reveals_no_file(server: EmbeddedServer, tmp_path: Path) -> None:
    """Neither in a lookup, nor by the name that an equal upload gets; one to a file of the category neither."""
    (tmp_path / "secret").write_bytes(b"secret")
    personal = server.root / "personal"
    (personal / "out").symlink_to(tmp_path)
    (personal / "secret").symlink_to(tmp_path / "secret")
    (personal / "near").symlink_to("t")
    names = ["out/secret", "secret", "near"]
    answers = found(server, *({"relativePath": name, "size": 6, "sha256": digest(b"secret")} for name in names))
    assert [answer["exists"] for answer in answers] == [False, False, False]
    (by_batch,) = upload(server.url, file("secret", b"secret"))
    (by_pack,) = send_pack(server.url, new_session(server.url), {"secret": b"secret"})
    assert by_batch["fileName"] == "secret (2)"
    assert by_pack["location"] == "/uploads/personal/secret%20%282%29"


def test_invalid_lookup_is_refused(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    one = {"relativePath": "t", "size": 3}
    body: Any
    for body in (
        [],
        {"files": []},
        {"category": "personal", "files": [one], "more": 1},
        {"category": "personal", "files": [{**one, "more": 1}]},
        {"category": "personal", "files": [{"relativePath": "t"}]},
        {"category": "personal", "files": [{**one, "size": "3"}]},
        {"category": "personal", "files": [{**one, "sha256": 3}]},
        {"category": "personal", "files": [one] * 1001},
    ):
        with subtests.test(body=body):
            answer = look(server, body)
            assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")
    answer = look(server, {"category": "tus", "files": []})
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_CATEGORY")
    assert found(server) == []
    text = requests.post(f"{server.url}/api/upload/lookup", data=b"{", timeout=DEADLINE)
    assert text.status_code == 400


@pytest.mark.thorough
def test_one_read_of_the_database_serves_a_thousand_files(server: EmbeddedServer) -> None:
    files = {f"many/{n}": b"%d" % n for n in range(1000)}
    send_pack(server.url, new_session(server.url, 1000), files)
    statements: list[str] = []
    database = inside(server).store.database
    database.wait(lambda db: db.set_trace_callback(statements.append))
    answered = found(server, *({"relativePath": path, "size": len(data)} for path, data in files.items()))
    database.wait(lambda db: db.set_trace_callback(None))
    assert [file["sha256"] for file in answered] == [digest(data) for data in files.values()]
    assert sum(statement.startswith("SELECT") for statement in statements) == 1


def test_digests_are_computed_one_file_at_a_time_for_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two at a time for all: a client that asks for many files leaves one place to the others."""
    running, most, read, two = set[str](), [0], Reading.sha256, threading.Event()

    def slowly(reading: Reading, fd: int) -> bytes:
        address = Path(f"/dev/fd/{fd}").resolve().name[0]
        assert address not in running
        running.add(address)
        most[0] = max(most[0], len(running))
        if most == [2]:
            two.set()
        assert two.wait(DEADLINE)
        time.sleep(0.05)  # for a third one
        running.discard(address)
        return read(reading, fd)

    def ask(address: str) -> list[dict[str, Any]]:
        files = [{"relativePath": f"{address[-1]}{number}", "size": 1} for number in range(3)]
        body = json.dumps({"category": "personal", "files": files, "digests": "compute"})
        connection = http.client.HTTPConnection("127.0.0.1", port, DEADLINE, source_address=(address, 0))
        with contextlib.closing(connection):
            connection.request("POST", "/api/upload/lookup", body)
            listed: list[dict[str, Any]] = json.load(connection.getresponse())["files"]
            return listed

    monkeypatch.setattr(Reading, "sha256", slowly)
    with running_server(packs=True) as server, ThreadPoolExecutor() as threads:
        port = int(server.url.rpartition(":")[2])
        for name in (f"{address}{number}" for address in "123" for number in range(3)):
            (server.root / "personal" / name).write_bytes(b"x")
        asked = [threads.submit(ask, f"127.0.0.{address}") for address in "112233"]
        answers = [entry for answer in asked for entry in answer.result()]
    assert {entry["sha256"] for entry in answers} == {digest(b"x")}
    assert most == [2]


def test_only_files_of_the_requested_size_are_read(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reading, "sha256", lambda *_: pytest.fail("was read"))
    body = {"category": "personal", "files": [{"relativePath": "unknown", "size": 5}], "digests": "compute"}
    assert look(server, body).json()["files"] == [{"exists": True, "size": 6, "location": "/uploads/personal/unknown"}]
    assert look(server, {**body, "digests": "all"}).status_code == 400


def test_lookup_on_a_failing_disk_reports_no_file_as_missing(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstat = os.lstat

    def failing(path: Any, **how: Any) -> os.stat_result:
        if str(path) == "unknown":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return lstat(path, **how)

    monkeypatch.setattr("os.lstat", failing)
    body = {"category": "personal", "files": [{"relativePath": "unknown", "size": 6}]}
    assert look(server, body).status_code == 500


def test_failure_to_save_digests_after_the_answer_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next request, which comes after it, gets the error."""
    go, read = threading.Event(), Reading.sha256
    monkeypatch.setattr(Reading, "sha256", lambda *args: read(*args) if go.wait(DEADLINE) else b"")
    refuse = "CREATE TRIGGER refuse BEFORE INSERT ON digests BEGIN SELECT RAISE(ABORT, 'refused'); END"
    body = {"category": "personal", "files": [{"relativePath": "unknown", "size": 5}], "digests": "compute"}
    with running_server(packs=True) as server:
        (server.root / "personal" / "unknown").write_bytes(b"bytes")
        store = inside(server).store
        store.database.wait(lambda db: db.execute(refuse))
        store.digests.patience = 0.05
        assert look(server, body).json()["files"][0]["pending"] is True
        store.digests.patience = DEADLINE
        go.set()
        assert look(server, body).status_code == 500
        gc.collect()
    assert "never retrieved" not in caplog.text
