"""Packs of small files (docs/extensions.md)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import requests
from server.batches import DEADLINE, UNKNOWN, eventually, listening, new_session, progress
from server.packs.packing import (
    ENDPOINT,
    body_of_pack,
    entry,
    half_sent,
    headers_of,
    manifest_of,
    part,
    post_body,
    post_pack,
    recalled,
    send_pack,
)
from server.tus.tus_client import create
from serving import REPOSITORY, inside, running_server, server_process

from uploader_server.auth import issue_token
from uploader_server.batch.packstore import Unpacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

MIB = 1 << 20


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as running:
        yield running


@pytest.fixture
def url(shared: EmbeddedServer) -> str:
    return shared.url


@pytest.fixture
def below() -> str:
    """A directory for one test."""
    return uuid.uuid4().hex


def stored(server: EmbeddedServer, path: str) -> bytes:
    return (server.root / "personal" / path).read_bytes()


def counts(url: str, session: str) -> tuple[int, int, str]:
    known = progress(url, session).json()
    return known["completedFiles"], known["failedFiles"], known["overallStatus"]


# --- what is offered


def test_health_and_session_answer_offer_packs_and_lookup(url: str) -> None:
    health = requests.get(f"{url}/health", timeout=DEADLINE).json()
    session = requests.post(
        f"{url}/api/upload/session", json={"category": "personal", "expectedFiles": 1}, timeout=DEADLINE
    ).json()
    for answer in (health, session):
        assert answer["packs"] == {
            "endpoint": ENDPOINT,
            "maxFiles": 1000,
            "maxBytes": 32 * MIB,
            "maxFileSize": 4 * MIB,
        }
        assert answer["lookup"] == {"endpoint": "/api/upload/lookup", "maxFiles": 1000}


@pytest.mark.parametrize("config", [{"flavour": "reference"}, {"packs": False}])
def test_a_server_without_packs_does_not_show_them(config: dict[str, Any]) -> None:
    with running_server(**{"packs": True, **config}) as server:
        assert not {"packs", "lookup"} & requests.get(f"{server.url}/health", timeout=DEADLINE).json().keys()
        assert post_pack(server.url, UNKNOWN, {"a": b"1"}).status_code == 404
        assert requests.post(f"{server.url}/api/upload/lookup", json={}, timeout=DEADLINE).status_code == 404


def test_a_server_for_smaller_files_offers_smaller_packed_files() -> None:
    with running_server(packs=True, max_size=1000) as server:
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).json()["packs"]["maxFileSize"] == 1000
        answer = post_pack(server.url, new_session(server.url), {"a": b"1" * 1001})
        assert (answer.status_code, answer.json()["error"]) == (413, "PACK_TOO_LARGE")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_pack_of_a_thousand_files_completes_its_session(shared: EmbeddedServer, below: str) -> None:
    files = {f"{below}/{n % 7}/é {n}.bin": b"%d" % n * (n % 5) for n in range(1000)}
    session = new_session(shared.url, 1000)
    answered = send_pack(shared.url, session, files)
    assert {file["status"] for file in answered} == {"stored"}
    assert len({file["id"] for file in answered}) == 1000
    for (path, data), file in zip(files.items(), answered, strict=True):
        assert stored(shared, path) == data
        assert "existing" not in file
    got = requests.get(shared.url + answered[8]["location"], timeout=DEADLINE)
    assert got.content == files[f"{below}/1/é 8.bin"]
    assert counts(shared.url, session) == (1000, 0, "completed")
    assert not any((shared.root / ".uploader" / "incoming").iterdir())


def test_connection_is_kept_after_a_pack(subtests: pytest.Subtests, url: str, below: str) -> None:
    for count in (1, 100):
        with subtests.test(count=count):
            answer = post_pack(
                url, new_session(url, count), {f"{below}/{count}/{n}": b"%d" % n * 5000 for n in range(count)}
            )
            assert (answer.status_code, answer.headers.get("connection")) == (200, None)


def test_pack_entries_are_stored_in_order_without_overwriting(shared: EmbeddedServer, below: str) -> None:
    session = new_session(shared.url, 5)
    name = f"{below}/a.txt"
    answered = send_pack(shared.url, session, [(name, b"one"), (name, b"two"), (name, b"one"), (name, b"two")])
    locations = [file["location"] for file in answered]
    base = f"/uploads/personal/{below}/a"
    assert locations == [f"{base}.txt", f"{base}%20%282%29.txt", f"{base}.txt", f"{base}%20%282%29.txt"]
    assert [file.get("existing", False) for file in answered] == [False, False, True, True]
    assert (stored(shared, name), stored(shared, f"{below}/a (2).txt")) == (b"one", b"two")
    assert counts(shared.url, session) == (2, 0, "uploading")  # each path and digest once


def test_packed_file_stored_by_another_protocol_is_existing(shared: EmbeddedServer, below: str) -> None:
    create(shared.url, 3, b"tus", sessionId=new_session(shared.url), relativePath=f"{below}/t", filename="t")
    (file,) = send_pack(shared.url, new_session(shared.url), {f"{below}/t": b"tus"})
    assert file["existing"] is True


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/../b", "a\0b", "x" * 300])
def test_a_path_that_can_not_be_stored_fails_alone(url: str, below: str, path: str) -> None:
    session = new_session(url, 2)
    bad, good = send_pack(url, session, [(path, b"bad"), (f"{below}/good", b"good")])
    assert (bad["status"], bad["error"], bad["retryable"]) == ("failed", "INVALID_PATH", False)
    assert good["status"] == "stored"
    assert counts(url, session) == (1, 1, "partial")


def test_file_and_directory_of_one_name_conflict(shared: EmbeddedServer, below: str) -> None:
    session = new_session(shared.url, 9)
    files = [(f"{below}/a", b"1"), (f"{below}/a/b", b"2"), (f"{below}/c/d", b"3"), (f"{below}/c", b"4")]
    answered = send_pack(shared.url, session, files)
    assert [file.get("error") for file in answered] == [None, "PATH_CONFLICT", None, "PATH_CONFLICT"]
    assert [file.get("retryable") for file in answered] == [None, False, None, False]
    assert (stored(shared, f"{below}/a"), stored(shared, f"{below}/c/d")) == (b"1", b"3")


def test_corrupted_pack_entry_fails_alone_and_can_be_resent(shared: EmbeddedServer, below: str) -> None:
    files = {f"{below}/{n}": b"data %d" % n for n in range(3)}
    session, damaged = new_session(shared.url, 3), bytearray(b"".join(files.values()))
    damaged[8] ^= 1
    answer = post_body(shared.url, body_of_pack(manifest_of(session, files), damaged), key=f"{below}-1")
    assert answer.status_code == 200
    first, second, third = answer.json()["files"]
    assert (first["status"], third["status"]) == ("stored", "stored")
    assert (second["error"], second["retryable"]) == ("CHECKSUM_MISMATCH", True)
    assert not (shared.root / "personal" / below / "1").exists()
    assert counts(shared.url, session) == (2, 0, "uploading")
    assert recalled(shared.url, f"{below}-1").json() == answer.json()
    (again,) = send_pack(shared.url, session, {f"{below}/1": b"data 1"})
    assert again["status"] == "stored"
    assert counts(shared.url, session) == (3, 0, "completed")


def test_refused_type_in_a_pack_fails_its_file_alone() -> None:
    with running_server(packs=True, types=("mp4", "txt"), mixed_types=False, fail_files=("bad*",)) as server:
        session = new_session(server.url, 9)
        paths = ["a.mp4", "b.avi", "c.txt", "bad.mp4"]
        answered = send_pack(server.url, session, dict.fromkeys(paths, b"1"))
        assert [file.get("error") for file in answered] == [
            None,
            "INVALID_FILE_FORMAT",
            "INVALID_FILE_FORMAT",
            "UPLOAD_FAILED",
        ]
        assert [file["retryable"] for file in answered[1:]] == [False] * 3
        (later,) = send_pack(server.url, session, {"d.txt": b"1"})
        assert later["error"] == "INVALID_FILE_FORMAT"
        assert counts(server.url, session) == (1, 4, "uploading")


def test_a_packed_file_has_a_digest_and_can_be_deleted(shared: EmbeddedServer, below: str) -> None:
    (file,) = send_pack(shared.url, new_session(shared.url), {f"{below}/a": b""})
    head = requests.head(shared.url + file["location"], timeout=DEADLINE)
    assert head.headers["repr-digest"] == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    token = jwt.encode({"sub": "a"}, shared.config.jwt_secret, algorithm="HS256")
    gone = requests.delete(
        f"{shared.url}/api/upload/file/{file['id']}", headers={"Authorization": f"Bearer {token}"}, timeout=DEADLINE
    )
    assert gone.status_code == 200
    assert not (shared.root / "personal" / below / "a").exists()


# --- refusals of the whole --------------------------------------------------------------------------------------------


def refused(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


def test_a_wrong_manifest_is_refused_and_nothing_is_stored(
    subtests: pytest.Subtests, shared: EmbeddedServer, below: str
) -> None:
    session, good = new_session(shared.url), entry(f"{below}/a", b"1")
    for manifest in (
        b"{",
        b"[]",
        manifest_of(session, {}, more=1),
        manifest_of(session, {}),
        manifest_of(session, {}, files=[{**good, "mode": 1}]),
        manifest_of(session, {}, files=[good, {key: good[key] for key in ("relativePath", "size", "sha256")}]),
        manifest_of(session, {}, files=[{**good, "sha256": good["sha256"].upper()}]),
        manifest_of(session, {}, files=[{**good, "size": True}]),
        manifest_of(session, {}, files=[{**good, "relativePath": "\ud800"}]),
        manifest_of(session, {}, sessionId=None),
        manifest_of(session, {}, files=[good], ifExists="maybe"),
    ):
        with subtests.test(manifest=manifest):
            assert refused(post_body(shared.url, body_of_pack(manifest, b"1"))) == (400, "INVALID_MANIFEST")
    assert not (shared.root / "personal" / below).exists()


def test_a_pack_over_a_limit_is_a_413(subtests: pytest.Subtests, url: str) -> None:
    session, one = new_session(url), entry("a", b"1")
    for files in (
        [one] * 1001,
        [{**one, "size": 4 * MIB + 1}],
        [{**one, "size": 4 * MIB}] * 8 + [one],
    ):
        with subtests.test(files=files):
            answer = post_body(url, body_of_pack(manifest_of(session, {}, files=files), b"1"))
            assert refused(answer) == (413, "PACK_TOO_LARGE"), files[0]
    answer = post_body(url, body_of_pack(manifest_of(session, {"a" * (4 * MIB): b"1"}), b"1"))
    assert refused(answer) == (413, "PACK_TOO_LARGE")


def test_a_body_that_is_announced_too_long_is_refused_before_it_is_sent(url: str) -> None:
    with half_sent(url, b"x" * 100_000_000, sent=10) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_malformed_body_is_a_400(url: str, below: str) -> None:
    manifest = manifest_of(new_session(url), {f"{below}/a": b"123"})
    good = body_of_pack(manifest, b"123")
    for body in (
        part("data", b"123") + part("manifest", manifest) + b"--BOUNDARY--\r\n",
        part("manifest", manifest) + b"--BOUNDARY--\r\n",
        body_of_pack(manifest, b"12"),
        body_of_pack(manifest, b"1234"),
        part("manifest", manifest) + part("data", b"123") + part("more", b"1") + b"--BOUNDARY--\r\n",
        good.replace(b"123\r\n--BOUNDARY--", b"123\r\n--BOUNDARX--"),
        b"preamble" + good,
        b"",
    ):
        assert refused(post_body(url, body)) == (400, "VALIDATION_ERROR"), body[-40:]
    plain = {"Content-Type": "application/json"}
    assert refused(post_body(url, good, **plain)) == (400, "VALIDATION_ERROR")
    assert refused(post_body(url, good, key="a b")) == (400, "INVALID_HEADER")
    chunked = requests.post(url + ENDPOINT, data=iter([good]), headers=headers_of(None), timeout=DEADLINE)
    assert refused(chunked) == (411, "LENGTH_REQUIRED")
    assert post_body(url, good.removesuffix(b"\r\n")).status_code == 200


def test_data_that_looks_like_a_boundary_is_data(shared: EmbeddedServer, below: str) -> None:
    data = b"\r\n--BOUNDARY--\r\n" * 3
    send_pack(shared.url, new_session(shared.url), {f"{below}/a": data, f"{below}/b": b"\r\n--BOUNDARY\r\n"})
    assert stored(shared, f"{below}/a") == data


@pytest.mark.parametrize("left", [1, 10, 3000, 5000])
def test_a_body_that_ends_early_stores_nothing(shared: EmbeddedServer, below: str, left: int) -> None:
    session = new_session(shared.url)
    body = body_of_pack(manifest_of(session, {f"{below}/a": b"x" * 4096}), b"x" * 4096)
    half_sent(shared.url, body, sent=len(body) - left, key=below).close()
    eventually(lambda: shared.faults.requests and shared.faults.requests[-1].path == ENDPOINT)
    assert not (shared.root / "personal" / below).exists()
    assert recalled(shared.url, below).status_code == 404
    assert post_pack(shared.url, session, {f"{below}/a": b"y"}, key=below).status_code == 200


def test_a_session_that_is_unknown_or_has_ended_is_refused(url: str, below: str) -> None:
    files, session = {f"{below}/a": b"1"}, new_session(url)
    assert refused(post_pack(url, UNKNOWN, files)) == (404, "SESSION_NOT_FOUND")
    send_pack(url, session, {f"{below}/b": b"1"})
    assert refused(post_pack(url, session, files, key=below)) == (409, "SESSION_ENDED")
    cancelled = new_session(url)
    requests.post(f"{url}/api/upload/cancel/{cancelled}", timeout=DEADLINE)
    assert refused(post_pack(url, cancelled, files, key=below)) == (409, "CANCELLED")
    assert post_pack(url, new_session(url), files, key=below).status_code == 200


def test_cancel_ends_a_pack_under_way(shared: EmbeddedServer, below: str) -> None:
    session = new_session(shared.url)
    body = body_of_pack(manifest_of(session, {f"{below}/a": b"x" * 4096}), b"x" * 4096)
    with half_sent(shared.url, body, sent=len(body) - 100) as connection:
        eventually(lambda: progress(shared.url, session).json()["overallStatus"] == "uploading")
        busy = requests.post(f"{shared.url}/api/upload/session/{session}/finish", timeout=DEADLINE)
        assert refused(busy) == (409, "SESSION_BUSY")
        requests.post(f"{shared.url}/api/upload/cancel/{session}", timeout=DEADLINE)
        assert connection.recv(65536).startswith(b"HTTP/1.1 409 ")
    assert not (shared.root / "personal" / below).exists()


def test_a_session_takes_no_more_files_than_its_limit() -> None:
    with running_server(packs=True, max_files=3) as server:
        session = new_session(server.url, 3)
        send_pack(server.url, session, {"a": b"1", "b": b"1"})
        assert refused(post_pack(server.url, session, {"c": b"1", "d": b"1"})) == (400, "TOO_MANY_FILES")
        send_pack(server.url, session, {"a": b"1", "c": b"1"})
        assert counts(server.url, session) == (3, 0, "completed")


def test_packs_need_the_token_of_the_server() -> None:
    with running_server(packs=True, auth_token="secret") as server:
        assert refused(post_pack(server.url, UNKNOWN, {"a": b"1"})) == (401, "UNAUTHORIZED")
        assert refused(post_pack(server.url, UNKNOWN, {"a": b"1"}, Authorization="Bearer secret"))[0] == 404
        assert recalled(server.url, "key").status_code == 401
        assert requests.post(f"{server.url}/api/upload/lookup", json={}, timeout=DEADLINE).status_code == 401


# --- keys -------------------------------------------------------------------------------------------------------------


def test_repeated_pack_gets_the_first_answer_and_stores_nothing(shared: EmbeddedServer, below: str) -> None:
    url, session = shared.url, new_session(shared.url, 2)
    files = [(f"{below}/a", b"1"), ("../a", b"2")]
    first = post_pack(url, session, files, key=below)
    assert counts(url, session) == (1, 1, "partial")
    assert recalled(url, below).json() == first.json()
    assert post_pack(url, session, files, key=below).json() == first.json()  # its session has ended
    assert post_pack(url, new_session(url), files, key=below).json() == first.json()
    assert post_pack(url, UNKNOWN, files, key=below).json() == first.json()
    assert os.listdir(shared.root / "personal" / below) == ["a"]
    assert counts(url, session) == (1, 1, "partial")
    assert refused(post_pack(url, session, [*files, ("b", b"")], key=below)) == (422, "KEY_REUSED")


def test_pack_key_is_separate_for_each_owner(shared: EmbeddedServer, below: str) -> None:
    url, session = shared.url, new_session(shared.url, 2)

    def owner(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {jwt.encode({'sub': name}, shared.config.jwt_secret, algorithm='HS256')}"}

    assert post_pack(url, session, {f"{below}/a": b"1"}, key=below, **owner("one")).status_code == 200
    assert recalled(url, below).status_code == 404
    assert recalled(url, below, **owner("two")).status_code == 404
    assert recalled(url, below, **owner("one")).status_code == 200
    assert post_pack(url, session, {f"{below}/b": b"2"}, key=below, **owner("two")).status_code == 200


def test_concurrent_repeats_store_once_and_the_others_wait(
    shared: EmbeddedServer, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, session = shared.url, new_session(shared.url, 5)
    storing, free, write = threading.Event(), threading.Event(), Unpacking.write

    def wait(unpacking: Unpacking) -> None:
        storing.set()
        assert free.wait(DEADLINE)
        write(unpacking)

    monkeypatch.setattr(Unpacking, "write", wait)
    files, answers = {f"{below}/a": b"1", f"{below}/b": b"2"}, []
    body = body_of_pack(manifest_of(session, files), b"12")
    with half_sent(url, body, sent=len(body) - 5, key=below) as late:  # it has begun, so its key doesn't count yet
        first = threading.Thread(target=lambda: answers.append(post_pack(url, session, files, key=below)))
        first.start()
        assert storing.wait(DEADLINE)
        for repeat in (post_pack(url, session, files, key=below), recalled(url, below)):
            assert refused(repeat) == (409, "PACK_IN_PROGRESS")
            assert int(repeat.headers["retry-after"]) > 0
        with half_sent(url, body, sent=len(body) - 5, key=below) as early:
            assert early.recv(65536).startswith(b"HTTP/1.1 409 "), "a repeat need not send its data"
        assert refused(post_pack(url, session, {f"{below}/c": b"3"}, key=below)) == (422, "KEY_REUSED")
        free.set()
        first.join(DEADLINE)
        late.sendall(body[-5:])
        head, _, text = late.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert json.loads(text) == answers[0].json() == recalled(url, below).json()
    assert [file.get("existing") for file in answers[0].json()["files"]] == [None, None]
    assert counts(url, session) == (2, 0, "uploading")


def test_refused_pack_can_be_repeated(url: str, below: str) -> None:
    session = new_session(url)
    assert post_pack(url, UNKNOWN, {f"{below}/a": b"1"}, key=below).status_code == 404
    assert recalled(url, below).status_code == 404
    assert post_pack(url, session, {f"{below}/b": b"2"}, key=below).status_code == 200


def test_pack_answer_is_kept_for_the_upload_ttl() -> None:
    with running_server(packs=True, upload_ttl=0.3) as server:
        session = new_session(server.url, 5)
        damaged = body_of_pack(manifest_of(session, {"a": b"1", "b": b"2"}), b"1x")
        assert post_body(server.url, damaged, key="key").status_code == 200
        eventually(lambda: recalled(server.url, "key").status_code == 404)
        rows = "SELECT (SELECT count(*) FROM packs), (SELECT count(*) FROM files)"
        database = inside(server).store.database
        eventually(lambda: tuple(database.wait(lambda db: db.execute(rows).fetchone())) == (0, 1))


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_one_event_for_a_pack_and_one_for_each_failure(url: str, below: str) -> None:
    session = new_session(url, 4)
    with listening(url, session) as listener:
        assert listener.event()["overallStatus"] == "pending"
        files = [(f"{below}/a", b"1"), ("../b", b"2"), (f"{below}/c", b"3"), ("/d", b"4")]
        answered = send_pack(url, session, files)
        pack, first, second, end = (listener.event() for _ in range(4))
    assert pack["currentFile"]["id"] == answered[2]["id"]
    assert (pack["completedFiles"], pack["failedFiles"], pack["totalFiles"]) == (2, 2, 4)
    assert [event["currentFile"]["status"] for event in (pack, first, second)] == ["completed", "failed", "failed"]
    assert (first["currentFile"]["relativePath"], second["currentFile"]["relativePath"]) == ("../b", "/d")
    assert (end["overallStatus"], end["totalProgress"], "currentFile" in end) == ("partial", 100, False)


def test_packs_batches_and_tus_share_a_session(url: str, below: str) -> None:
    session = new_session(url, 3)
    send_pack(url, session, {f"{below}/a": b"1"})
    create(url, 3, b"tus", sessionId=session, relativePath=f"{below}/t", filename="t")
    send_pack(url, session, {f"{below}/b": b"1"})
    assert counts(url, session) == (3, 0, "completed")
    listed = progress(url, session).json()["files"]
    assert [file["relativePath"] for file in listed] == [f"{below}/a", f"{below}/t", f"{below}/b"]
    assert {file["status"] for file in listed} == {"completed"}


def test_restart_keeps_pack_keys_and_counts(tmp_path: Path) -> None:
    files = [("a", b"1"), ("../b", b"2"), ("c", b"3")]
    with running_server(packs=True, root=tmp_path) as server:
        session = new_session(server.url, 4)
        answer = post_pack(server.url, session, files, key="key").json()
        assert counts(server.url, session) == (2, 1, "uploading")
    with running_server(packs=True, root=tmp_path) as server:
        assert counts(server.url, session) == (2, 1, "uploading")
        assert recalled(server.url, "key").json() == answer
        again = send_pack(server.url, session, files, key="again")
        assert [file.get("existing") for file in again] == [True, None, True]
        assert recalled(server.url, "again").json()["files"] == again
        assert counts(server.url, session) == (2, 1, "uploading")
        assert len(progress(server.url, session).json()["files"]) == 3
        send_pack(server.url, session, {"d": b""})
        assert counts(server.url, session) == (3, 1, "partial")


def test_finish_counts_files_abandoned_by_the_client(tmp_path: Path) -> None:
    def finish(url: str, session: str, body: Any) -> requests.Response:
        return requests.post(f"{url}/api/upload/session/{session}/finish", json=body, timeout=DEADLINE)

    with running_server(packs=True, root=tmp_path) as server:
        session = new_session(server.url, 4)
        send_pack(server.url, session, {"a": b"1"})
        wrong: tuple[Any, ...] = ([], {"failed": -1}, {"failed": "1"}, {"failed": True}, {"failed": 1, "more": 1})
        for body in wrong:
            assert refused(finish(server.url, session, body)) == (400, "VALIDATION_ERROR")
        for body in ({"failed": 2}, {"failed": 1}, None):  # the first one ends it
            answer = finish(server.url, session, body).json()
            known = answer["completedFiles"], answer["failedFiles"], answer["overallStatus"]
            assert known == (1, 2, "partial")
        assert finish(server.url, new_session(server.url), {"failed": 0}).json()["overallStatus"] == "completed"
    with running_server(packs=True, root=tmp_path) as server:
        assert counts(server.url, session) == (1, 2, "partial")


# --- crashes ----------------------------------------------------------------------------------------------------------

DIES_BEFORE_THE_COMMIT = """
import os, signal, sys
from uploader_server.__main__ import main
from uploader_server.storage.store import Store

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

Store.files_saved = die
main(["--port", "0", "--root", sys.argv[1]])
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_kill_between_link_and_commit_stores_each_file_once(tmp_path: Path) -> None:
    files = {f"d/{n}": b"%d" % n * 100 for n in range(50)}
    dying = subprocess.Popen(
        [sys.executable, "-c", DIES_BEFORE_THE_COMMIT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "server_stub")},
    )
    with dying:
        assert dying.stdout is not None
        ready = re.search(r"http://\S+", dying.stdout.readline())
        assert ready is not None
        session = new_session(ready[0], 50)
        with pytest.raises(requests.ConnectionError):
            post_pack(ready[0], session, files, key="key")
        assert dying.wait(DEADLINE) == -signal.SIGKILL
    with server_process("--root", str(tmp_path), packs=True) as server:
        assert recalled(server.url, "key").status_code == 404
        assert counts(server.url, session) == (0, 0, "pending")
        answered = send_pack(server.url, session, files, key="key")
        assert [file["existing"] for file in answered] == [True] * 50
        assert counts(server.url, session) == (50, 0, "completed")
    assert {f"d/{path.name}": path.read_bytes() for path in (tmp_path / "personal" / "d").iterdir()} == files
    assert not any((tmp_path / ".uploader" / "incoming").iterdir())


def test_a_pack_that_can_not_be_recorded_can_be_repeated(tmp_path: Path) -> None:
    with running_server(packs=True, root=tmp_path) as server:
        session, database = new_session(server.url), inside(server).store.database
        refuse = "CREATE TRIGGER refuse BEFORE INSERT ON packs BEGIN SELECT RAISE(ABORT, 'by the test'); END"
        database.wait(lambda db: db.execute(refuse))
        assert refused(post_pack(server.url, session, {"a": b"1"}, key="key")) == (500, "UPLOAD_FAILED")
        assert counts(server.url, session) == (0, 0, "uploading")
        database.wait(lambda db: db.execute("DROP TRIGGER refuse"))
        (file,) = send_pack(server.url, session, {"a": b"1"}, key="key")
        assert file["existing"] is True
        assert counts(server.url, session) == (1, 0, "completed")


def test_answer_that_is_asked_for_again_names_a_deleted_file(tmp_path: Path) -> None:
    with running_server(packs=True, root=tmp_path) as server:
        session = new_session(server.url, 3)
        (stored,) = send_pack(server.url, session, {"a": b"1"}, key="again")
        token = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
        url = f"{server.url}/api/upload/file/{stored['id']}"
        assert requests.delete(url, headers=token, timeout=DEADLINE).status_code == 200
        (again,) = send_pack(server.url, session, {"a": b"1"}, key="again")
        assert (again["status"], again["error"], again["retryable"]) == ("failed", "FILE_DELETED", False)
        assert again["message"] == "The file was stored, and deleted since then"
