"""Batches on the bundled server: contents, names, paths, errors and interrupted bodies."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING

import pytest
import requests
from server.batches import (
    DEADLINE,
    UNKNOWN,
    HalfSent,
    body_of,
    eventually,
    file,
    new_session,
    post_parts,
    progress,
    text,
    upload,
)
from server.tus.tus_client import digest_of
from serving import running_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    """A server for tests that need no empty root."""
    with running_server() as server:
        yield server


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def stored_below(server: EmbeddedServer) -> list[str]:
    """Return all files below the root that a client sent, complete or not."""
    names = [path.relative_to(server.root).as_posix() for path in server.root.rglob("*") if path.is_file()]
    return sorted(name for name in names if not name.startswith((".uploader/lock", ".uploader/server.")))


def head_of(session: str) -> list[tuple[str, bytes]]:
    return [text("sessionId", session), text("category", "personal")]


def test_files_arrive_byte_for_byte_in_the_order_sent(server: EmbeddedServer) -> None:
    """Contents with sizes around the blocks of parser and writer, and with bytes of the delimiter."""
    contents = [b"", b"x", os.urandom(3 << 20), b"\r\n--BOUNDAR" * 200_000, os.urandom((1 << 20) + 1), b"\r\n--"]
    session = new_session(server.url, len(contents))
    listed = upload(server.url, *(file(f"{n}.bin", data) for n, data in enumerate(contents)), session=session)
    assert [f["originalName"] for f in listed] == [f"{n}.bin" for n in range(len(contents))]
    assert [f["fileSize"] for f in listed] == [len(data) for data in contents]
    for known, data in zip(listed, contents, strict=True):
        assert (server.root / "personal" / known["fileName"]).read_bytes() == data
        answer = requests.get(f"{server.url}/uploads/personal/{known['fileName']}", timeout=DEADLINE)
        assert answer.content == data
        assert answer.headers["content-length"] == str(len(data))
    assert stored_below(server) == [f"personal/{n}.bin" for n in range(len(contents))]


def test_ids_are_the_same_in_answer_and_progress(shared: EmbeddedServer) -> None:
    session = new_session(shared.url, 2)
    listed = upload(shared.url, file("i.mp4", b"1"), file("j.mp4", b"2"), session=session)
    known = progress(shared.url, session).json()
    assert [f["id"] for f in known["files"]] == [f["id"] for f in listed]
    assert (known["overallStatus"], known["totalProgress"], known["completedFiles"]) == ("completed", 100, 2)


@pytest.mark.parametrize(
    "name",
    [
        "景区 b.mp4",
        "emoji 🎬.mp4",
        "brackets [bold]x[red].mp4",
        "quote%22 and %0A.mp4",
        "back\\slash.mp4",
        "ends\\",
        "a;b=c",
    ],
)
def test_names_are_kept_as_sent(shared: EmbeddedServer, name: str) -> None:
    """Plain UTF-8 round-trips and percent-escapes are not decoded (docs/protocol.md, section 3.13)."""
    (known,) = upload(shared.url, file(name, name.encode()))
    assert known["originalName"] == known["fileName"] == name
    assert (shared.root / "personal" / known["fileName"]).read_bytes() == name.encode()


def test_filename_star_is_refused(shared: EmbeddedServer) -> None:
    session = new_session(shared.url)
    part = ("Content-Disposition: form-data; name=\"files\"; filename*=UTF-8''a.mp4", b"x")
    answer = post_parts(shared.url, [*head_of(session), part])
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


def test_relative_paths_place_files_in_directories(shared: EmbeddedServer) -> None:
    paths = ("videos/a/x.mp4", "videos/b/x.mp4", "videos/b/深 y.mp4")
    listed = upload(shared.url, *(file("x.mp4", path.encode()) for path in paths), paths=paths)
    assert [f["fileName"] for f in listed] == list(paths)
    assert [f["relativePath"] for f in listed] == list(paths)
    for path in paths:
        answer = requests.get(f"{shared.url}/uploads/personal/{path}", timeout=DEADLINE)
        assert answer.content == path.encode()


def test_relative_paths_may_follow_their_files(shared: EmbeddedServer) -> None:
    session = new_session(shared.url, 2)
    parts = [file("x", b"1"), text("relativePath", "late/x"), file("y", b"2"), text("relativePath", "late/y")]
    answer = post_parts(shared.url, [*parts, *head_of(session)])
    assert [f["fileName"] for f in answer.json()["files"]] == ["late/x", "late/y"]


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a//b", "a/../../b", "..", ".", "", "a/", "a/./b", "a\0b", "../.uploader/server.sqlite3"]
)
def test_a_path_that_would_leave_the_category_fails_alone(server: EmbeddedServer, path: str) -> None:
    before = {p for p in server.root.parent.iterdir() if p.name.startswith("x")}
    bad, good = upload(server.url, file("bad", b"evil"), file("good", b"fine"), paths=(path, "d/good"))
    assert (bad["status"], bad["errorCode"]) == ("failed", "INVALID_PATH")
    assert good["status"] == "completed"
    assert stored_below(server) == ["personal/d/good"]
    assert {p for p in server.root.parent.iterdir() if p.name.startswith("x")} == before


def test_a_name_that_is_too_long_fails_inside_the_200(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    long = "n" * 300 + ".mp4"
    answer = post_parts(server.url, [*head_of(session), file(long, b"1"), file("ok.mp4", b"2")]).json()
    assert [f["status"] for f in answer["files"]] == ["failed", "completed"]
    assert answer["files"][0]["errorCode"] == "INVALID_PATH"
    assert answer["summary"] == {"totalFiles": 2, "completedFiles": 1, "failedFiles": 1, "totalSize": 2}
    assert progress(server.url, session).json()["overallStatus"] == "partial"
    assert stored_below(server) == ["personal/ok.mp4"]


def test_batch_overwrites_no_file_and_stores_equal_files_once(server: EmbeddedServer) -> None:
    def sent(data: bytes) -> str:
        (known,) = upload(server.url, file("same.tar.gz", data))
        name: str = known["fileName"]
        return name

    assert [sent(b"1"), sent(b"1"), sent(b"2"), sent(b"2"), sent(b"3"), sent(b"1")] == [
        "same.tar.gz",
        "same.tar.gz",
        "same.tar (2).gz",
        "same.tar (2).gz",
        "same.tar (3).gz",
        "same.tar.gz",
    ]
    assert (server.root / "personal/same.tar.gz").read_bytes() == b"1"


def test_path_below_a_file_fails_alone(shared: EmbeddedServer) -> None:
    upload(shared.url, file("leaf", b"1"))
    (known,) = upload(shared.url, file("x", b"2"), paths=("leaf/x",))
    assert (known["status"], known["errorCode"]) == ("failed", "PATH_CONFLICT")


def test_head_of_a_stored_file_has_length_and_digest(shared: EmbeddedServer) -> None:
    data = os.urandom(100_000)
    upload(shared.url, file("digest.bin", data))
    answer = requests.head(f"{shared.url}/uploads/personal/digest.bin", timeout=DEADLINE)
    expected = base64.b64encode(hashlib.sha256(data).digest()).decode()
    assert answer.headers["content-length"] == "100000"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["repr-digest"] == f"sha-256=:{expected}:"


def test_the_digest_follows_a_file_that_changed_on_disk(shared: EmbeddedServer) -> None:
    (known,) = upload(shared.url, file("changed.bin", b"before"))
    (shared.root / "personal" / known["fileName"]).write_bytes(b"after, longer")
    where = f"{shared.url}/uploads/personal/changed.bin"
    assert "repr-digest" not in requests.head(where, timeout=DEADLINE).headers
    assert digest_of(where) == hashlib.sha256(b"after, longer").digest()


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=0-99", 206, b"0123456789"),
        ("bytes=10-", 416, None),
    ],
)
def test_ranges_of_a_stored_file(shared: EmbeddedServer, asked: str, status: int, content: bytes | None) -> None:
    upload(shared.url, file("range.bin", b"0123456789"))
    answer = requests.get(f"{shared.url}/uploads/personal/range.bin", headers={"Range": asked}, timeout=DEADLINE)
    assert answer.status_code == status
    if content is not None:
        assert answer.content == content


@pytest.mark.parametrize(
    "path",
    [
        "personal/..%2f.uploader%2fserver.sqlite3",
        "personal/%2e%2e/scenic",
        ".uploader/server.sqlite3",
        "personal/",
        "o/x",
    ],
)
def test_only_stored_files_are_served(shared: EmbeddedServer, path: str) -> None:
    answer = requests.get(f"{shared.url}/uploads/{path}", timeout=DEADLINE)
    assert answer.status_code == 404
    assert answer.json()["error"] in {"FILE_NOT_FOUND", "NOT_FOUND"}


def test_a_symlink_out_of_the_root_is_not_followed(server: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (server.root / "personal/link").symlink_to(tmp_path / "secret")
    assert requests.get(f"{server.url}/uploads/personal/link", timeout=DEADLINE).status_code == 404


class TestEarlyRefusals:
    """An error in the first bytes is answered before the rest of the body is sent."""

    @staticmethod
    def refused(server: EmbeddedServer, *parts: tuple[str, bytes]) -> tuple[int, bytes]:
        opening = body_of(list(parts)).removesuffix(b"\r\n--BOUNDARY--\r\n")
        with HalfSent(server.url, opening, claimed=1 << 30) as request:
            request.send()
            answer = request.answer()
        assert stored_below(server) == []
        return int(answer.split(b" ", 2)[1]), answer

    def test_batch_of_an_unknown_session_is_a_404(self, server: EmbeddedServer) -> None:
        status, answer = self.refused(server, text("sessionId", UNKNOWN), file("a", b"x" * 1000))
        assert status == 404
        assert b"SESSION_NOT_FOUND" in answer

    def test_a_session_id_that_is_no_uuid(self, server: EmbeddedServer) -> None:
        assert self.refused(server, text("sessionId", "../../etc"), file("a", b"x"))[0] == 404

    def test_file_of_another_type_is_refused(self) -> None:
        with running_server(types=("mp4",)) as server:
            status, answer = self.refused(server, *head_of(new_session(server.url)), file("a.mov", b"x"))
            assert (status, b"INVALID_FILE_FORMAT" in answer, b'[".mp4"]' in answer) == (400, True, True)

    def test_file_announced_above_the_limit_is_refused(self) -> None:
        with running_server(max_size=1000) as server:
            part = file("a", b"x", length=1001)
            status, answer = self.refused(server, *head_of(new_session(server.url)), part)
            assert (status, b"FILE_TOO_LARGE" in answer) == (413, True)

    def test_size_once_it_is_passed(self) -> None:
        with running_server(max_size=1000) as server:
            status, _ = self.refused(server, *head_of(new_session(server.url)), file("a", b"x" * 1001))
            assert status == 413

    def test_too_many_files(self) -> None:
        with running_server(max_files=2) as server:
            files = [file(str(n), b"x") for n in range(3)]
            status, answer = self.refused(server, *head_of(new_session(server.url)), *files)
            assert (status, b"TOO_MANY_FILES" in answer) == (400, True)

    def test_more_files_than_a_session_may_have(self) -> None:
        with running_server(max_files=2) as server:
            head = head_of(new_session(server.url, 2))
            assert post_parts(server.url, [*head, file("a", b"x")]).status_code == 200
            more = post_parts(server.url, [*head, file("b", b"x"), file("c", b"x")])
            assert (more.status_code, more.json()["error"]) == (400, "TOO_MANY_FILES")

    def test_more_paths_than_allowed_files(self) -> None:
        with running_server(max_files=2) as server:
            paths = [text("relativePath", str(n)) for n in range(3)]
            status, answer = self.refused(server, *head_of(new_session(server.url)), *paths, file("a", b"x"))
            assert (status, b"TOO_MANY_FILES" in answer) == (400, True)

    def test_files_of_two_types_are_refused_where_types_may_not_mix(self) -> None:
        with running_server(mixed_types=False) as server:
            files = [file("a.mp4", b"x"), file("b.avi", b"x")]
            assert self.refused(server, *head_of(new_session(server.url)), *files)[0] == 400

    def test_another_category_than_the_sessions(self, server: EmbeddedServer) -> None:
        parts = [text("sessionId", new_session(server.url)), text("category", "scenic")]
        status, answer = self.refused(server, *parts, file("a", b"x"))
        assert (status, b"INVALID_CATEGORY" in answer) == (400, True)

    def test_no_multipart_at_all(self, server: EmbeddedServer) -> None:
        answer = requests.post(f"{server.url}/api/upload/batch", json={}, timeout=DEADLINE)
        assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "part",
    [
        text("relativePath", b"\xff.mp4"),
        file("b", b"x", field="file"),
        text("ifExists", "maybe"),
        text("category", "personal"),
    ],
    ids=["no utf-8", "another name", "unknown word", "sent twice"],
)
def test_invalid_part_is_refused_and_nothing_is_stored(server: EmbeddedServer, part: tuple[str, bytes]) -> None:
    answer = post_parts(server.url, [*head_of(new_session(server.url)), part, file("a", b"x")])
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")
    assert stored_below(server) == []


def test_broken_link_takes_its_name(server: EmbeddedServer) -> None:
    (server.root / "personal" / "a.mp4").symlink_to("nowhere")
    (stored,) = upload(server.url, file("a.mp4", b"x"))
    assert stored["fileName"] == "a (2).mp4"
    assert not (server.root / "personal" / "nowhere").exists()


@pytest.mark.parametrize(
    ("left_out", "code"),
    [("sessionId", "NO_SESSION_ID"), ("category", "MISSING_PARAMETERS"), ("files", "MISSING_PARAMETERS")],
)
def test_batch_without_a_part_is_refused(server: EmbeddedServer, left_out: str, code: str) -> None:
    parts = [*head_of(new_session(server.url)), file("a", b"x")]
    answer = post_parts(server.url, [part for part in parts if f'name="{left_out}"' not in part[0]])
    assert (answer.status_code, answer.json()["error"]) == (400, code)
    assert stored_below(server) == []


@pytest.mark.parametrize("name", ["sessionId", "category"])
def test_a_part_sent_twice_is_refused(shared: EmbeddedServer, name: str) -> None:
    head = head_of(new_session(shared.url))
    twice = [part for part in head if f'"{name}"' in part[0]]
    assert post_parts(shared.url, [*head, *twice, file("a", b"x")]).status_code == 400


def test_fewer_paths_than_files_are_refused(server: EmbeddedServer) -> None:
    parts = [*head_of(new_session(server.url)), text("relativePath", "a"), file("a", b"1"), file("b", b"2")]
    assert post_parts(server.url, parts).status_code == 400
    assert stored_below(server) == []


@pytest.mark.parametrize("broken", [b"", b"--BOUNDARY\r\nfoo", b"nonsense", b"--BOUNDARY\r\n\r\nx\r\n--BOUNDARY--\r\n"])
def test_a_malformed_body_is_a_400(shared: EmbeddedServer, broken: bytes) -> None:
    answer = requests.post(
        f"{shared.url}/api/upload/batch",
        data=broken,
        headers={"content-type": "multipart/form-data; boundary=BOUNDARY"},
        timeout=DEADLINE,
    )
    assert answer.status_code == 400


def test_a_part_shorter_than_its_own_length_is_refused(server: EmbeddedServer) -> None:
    answer = post_parts(server.url, [*head_of(new_session(server.url)), file("a", b"xyz", length=4)])
    assert answer.status_code == 400
    assert stored_below(server) == []


def test_a_connection_closed_mid_body_stores_nothing(server: EmbeddedServer) -> None:
    """A batch is stored completely or not at all, even if its first file has arrived; the session stays usable."""
    session = new_session(server.url, 2)
    body = body_of([*head_of(session), file("one", b"1" * 1000), file("two", b"2" * 3_000_000)])
    with HalfSent(server.url, body) as request:
        request.send(2_000_000)
        eventually(lambda: len(progress(server.url, session).json()["files"]) == 2, "both files in progress")
        assert progress(server.url, session).json()["overallStatus"] == "uploading"
    eventually(lambda: progress(server.url, session).json()["files"] == [], "the end of the request")
    eventually(lambda: stored_below(server) == [], "the removal of the temporary files")
    upload(server.url, file("one", b"1"), file("two", b"2"), session=session)
    assert progress(server.url, session).json()["overallStatus"] == "completed"


def test_stalled_body_ends_at_its_deadline() -> None:
    with running_server(idle_timeout=1.5) as server:
        body = body_of([*head_of(new_session(server.url)), file("a", b"x" * 1000)])
        with HalfSent(server.url, body) as request:
            request.send(500)
            assert request.status() == 408
        eventually(lambda: stored_below(server) == [], "the removal of the temporary file")


def test_cancel_ends_the_request_and_stores_nothing(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    body = body_of([*head_of(session), file("a", b"x" * 3_000_000)])
    with HalfSent(server.url, body) as request:
        request.send(2_000_000)
        eventually(lambda: progress(server.url, session).json()["files"], "the file in progress")
        cancelled = requests.post(f"{server.url}/api/upload/cancel/{session}", timeout=DEADLINE)
        assert cancelled.json()["success"] is True
        answer = request.answer()
        assert b" 409 " in answer
        assert b"CANCELLED" in answer
    assert progress(server.url, session).json()["overallStatus"] == "cancelled"
    eventually(lambda: stored_below(server) == [], "the removal of the temporary file")
    later = post_parts(server.url, [*head_of(session), file("b", b"x")])
    assert (later.status_code, later.json()["error"]) == (409, "CANCELLED")


def test_cancel_during_processing_stores_nothing() -> None:
    with running_server(processing_seconds=60) as server:
        session = new_session(server.url)
        with HalfSent(server.url, body_of([*head_of(session), file("a", b"x")])) as request:
            request.send()
            eventually(lambda: progress(server.url, session).json()["files"], "the file in progress")
            requests.post(f"{server.url}/api/upload/cancel/{session}", timeout=DEADLINE)
            assert request.status() == 409
        eventually(lambda: stored_below(server) == [], "the removal of the temporary file")


def test_batch_for_an_ended_session_is_refused(shared: EmbeddedServer) -> None:
    session = new_session(shared.url)
    upload(shared.url, file("e.mp4", b"1"), session=session)
    answer = post_parts(shared.url, [*head_of(session), file("f.mp4", b"x")])
    assert (answer.status_code, answer.json()["error"]) == (409, "SESSION_ENDED")


def test_several_batches_make_one_session(shared: EmbeddedServer) -> None:
    session = new_session(shared.url, 3)
    seen = []
    for number in range(3):
        upload(shared.url, file(f"part {number}", b"x"), session=session)
        known = progress(shared.url, session).json()
        seen.append((known["totalProgress"], known["completedFiles"], known["overallStatus"]))
    assert seen == [(33, 1, "uploading"), (66, 2, "uploading"), (100, 3, "completed")]


def test_fail_files_makes_a_batch_file_fail(server: EmbeddedServer) -> None:
    server.faults.fail_files.append("*bad*")
    good, bad = upload(server.url, file("good", b"1"), file("a bad one", b"2"))
    assert (good["status"], bad["status"], bad["errorCode"]) == ("completed", "failed", "UPLOAD_FAILED")
    assert {"errorMessage", "errorCode"} < set(bad)
    assert "fileName" not in bad
    assert stored_below(server) == ["personal/good"]


@pytest.mark.parametrize("status", [404, 409])
def test_after_an_early_refusal_the_rest_of_the_body_is_read(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that the connection is reset, and a client that is still sending may not read the answer."""
    monkeypatch.setattr("uploader_server.http.tracking.DRAIN_SECONDS", DEADLINE)
    with running_server() as server:
        session = UNKNOWN if status == 404 else new_session(server.url)
        parts = [text("sessionId", session), text("category", "personal"), file("a", b"x" * 3_000_000)]
        with HalfSent(server.url, body_of(parts)) as request:
            request.send(1000)
            if status == 409:
                eventually(lambda: progress(server.url, session).json()["overallStatus"] == "uploading")
                requests.post(f"{server.url}/api/upload/cancel/{session}", timeout=DEADLINE)
            answer = request.answer()
            assert answer.startswith(b"HTTP/1.1 %d" % status)
            assert b"connection: close" in answer.lower()
            request.send()
            assert request.connection.recv(1) == b""
