"""tus 1.0: creation, creation-with-upload, creation-defer-length, termination, and repeated creations."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin

import pytest
import requests
from server.batches import UNKNOWN, eventually, new_session, progress
from server.tus.tus_client import (
    BODY,
    DEADLINE,
    ENDPOINT,
    TUS,
    ByHand,
    append,
    content,
    create,
    created,
    data_of,
    error,
    file_id,
    head,
    metadata,
    offset_of,
    terminate,
)
from serving import inside, running_server

from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

MAX = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(max_size=MAX) as server:
        yield server


def post(server: EmbeddedServer, headers: dict[str, str]) -> requests.Response:
    return requests.post(server.url + ENDPOINT, headers={**TUS, **headers}, timeout=DEADLINE)


def test_creation_returns_location_and_expiry(server: EmbeddedServer) -> None:
    answer = create(server.url, 5, filename="a.txt")
    assert answer.status_code == 201
    assert answer.headers["location"].startswith(server.url + ENDPOINT)
    assert answer.headers["upload-offset"] == "0"
    assert answer.headers["upload-expires"].endswith("GMT")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Upload-Length": ""},
        {"Upload-Length": "-1"},
        {"Upload-Length": "1e3"},
        {"Upload-Length": "9" * 40},
        {"Upload-Defer-Length": "0"},
        {"Upload-Defer-Length": "true"},
        {"Upload-Length": "5", "Upload-Defer-Length": "1"},
        {"Upload-Length": "5", "Upload-Concat": "whole"},
        {"Upload-Length": "5", "Upload-Concat": "partial;/x"},
    ],
)
def test_creation_with_invalid_headers_is_refused(server: EmbeddedServer, headers: dict[str, str]) -> None:
    assert error(post(server, headers)) == (400, "INVALID_HEADER")


@pytest.mark.parametrize("text", ["", "filename", "a,b", "filename YQ==", "a YQ== , b Yg==", "is_final dHJ1ZQ=="])
def test_metadata_as_clients_send_it_is_accepted(server: EmbeddedServer, text: str) -> None:
    assert post(server, {"Upload-Length": "1", "Upload-Metadata": text}).status_code == 201


@pytest.mark.parametrize(
    "text",
    [
        "filename YQ",
        "filename Y Q==",
        "filename ****",
        "filename /w==",
        ",",
        "a YQ==,,b Yg==",
        "a YQ==,a YQ==",
        "ä YQ==",
    ],
)
def test_metadata_that_cannot_be_read_is_refused(server: EmbeddedServer, text: str) -> None:
    answer = requests.post(
        server.url + ENDPOINT,
        headers={**TUS, "Upload-Length": "1", "Upload-Metadata": text.encode()},
        timeout=DEADLINE,
    )
    assert error(answer) == (400, "INVALID_METADATA")


def test_too_large_upload_is_refused_before_its_body(server: EmbeddedServer) -> None:
    assert error(create(server.url, MAX + 1)) == (413, "FILE_TOO_LARGE")
    assert create(server.url, MAX).status_code == 201
    assert error(create(server.url, 2, b"abc")) == (413, "FILE_TOO_LARGE")


def test_an_empty_file_is_finished_at_once(server: EmbeddedServer) -> None:
    answer = create(server.url, 0, filename="empty.txt")
    assert answer.status_code == 201
    assert answer.headers["content-location"] == "/uploads/tus/empty.txt"
    assert content(urljoin(server.url, answer.headers["location"])) == b""


def test_a_small_file_takes_one_request(server: EmbeddedServer) -> None:
    data = os.urandom(200_000)
    answer = create(server.url, len(data), data, filename="one-request.bin")
    assert answer.status_code == 201
    assert answer.headers["upload-offset"] == str(len(data))
    assert answer.headers["content-location"] == "/uploads/tus/one-request.bin"
    assert content(urljoin(server.url, answer.headers["location"])) == data


def test_the_first_bytes_may_come_with_the_creation(server: EmbeddedServer) -> None:
    answer = create(server.url, 5, b"ab")
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "2")
    upload = urljoin(server.url, answer.headers["location"])
    assert append(upload, 2, b"cde").status_code == 204
    assert content(upload) == b"abcde"


def test_a_body_of_another_type_creates_nothing(server: EmbeddedServer) -> None:
    assert create(server.url, 5, b"ab", headers={"Content-Type": "text/plain"}).status_code == 415


def test_aborted_creation_keeps_the_received_bytes(server: EmbeddedServer) -> None:
    sent = {"Upload-Length": "6", "Upload-Metadata": metadata(uploadKey="broken creation")}
    with ByHand("POST", server.url + ENDPOINT, sent, claimed=6) as request:
        request.send(b"abc")
        key = ("", "broken creation")
        eventually(lambda: inside(server).backend.tus.unfinished(*key), "the upload")
    again = create(server.url, 6, uploadKey="broken creation")
    assert again.status_code == 200
    offset = int(again.headers["upload-offset"])
    upload = urljoin(server.url, again.headers["location"])
    assert append(upload, offset, b"abcdef"[offset:]).status_code == 204
    assert content(upload) == b"abcdef"


# creation-defer-length


def test_length_may_be_deferred(server: EmbeddedServer) -> None:
    upload = created(server.url, None, filename="later.txt")
    assert append(upload, 0, b"ab").status_code == 204
    answer = head(upload)
    assert answer.headers["upload-defer-length"] == "1"
    assert "upload-length" not in answer.headers
    assert append(upload, 2, b"c", {"Upload-Length": "5"}).status_code == 204
    answer = head(upload)
    assert (answer.headers["upload-length"], answer.headers.get("upload-defer-length")) == ("5", None)
    assert append(upload, 3, b"de").status_code == 204
    assert content(upload) == b"abcde"


def test_a_length_may_come_with_nothing_else(server: EmbeddedServer) -> None:
    upload = created(server.url, None, b"abc")
    assert requests.get(upload, timeout=DEADLINE).status_code == 409
    assert append(upload, 3, b"", {"Upload-Length": "3"}).status_code == 204
    assert content(upload) == b"abc"


@pytest.mark.parametrize("length", ["2", "7", "x"])
def test_a_length_that_contradicts_is_refused(server: EmbeddedServer, length: str) -> None:
    upload = created(server.url, None, b"abc")
    if length == "7":
        assert append(upload, 3, b"", {"Upload-Length": "5"}).status_code == 204
    assert append(upload, 3, b"", {"Upload-Length": length}).status_code == 400
    assert offset_of(upload) == 3


def test_a_late_length_is_limited_too(server: EmbeddedServer) -> None:
    upload = created(server.url, None)
    assert append(upload, 0, b"", {"Upload-Length": str(MAX + 1)}).status_code == 413
    assert append(upload, 0, b"x" * (MAX + 1)).status_code == 413
    assert offset_of(upload) == 0


# Names


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({"filename": "plain.txt"}, "plain.txt"),
        ({"name": "as-tus-says.txt"}, "as-tus-says.txt"),
        ({"filename": "dir/base only.txt"}, "base only.txt"),
        ({"filename": "f.txt", "relativePath": "top/sub dir/f.txt"}, "top/sub dir/f.txt"),
        ({"filename": "über 🎬 #1 & 100%.mp4"}, "über 🎬 #1 & 100%.mp4"),
        ({"filename": "..\\..\\x.txt"}, "..\\..\\x.txt"),
    ],
)
def test_metadata_decide_the_stored_path(server: EmbeddedServer, fields: dict[str, str], stored: str) -> None:
    answer = create(server.url, 4, os.urandom(4), **fields)
    assert unquote(answer.headers["content-location"]) == f"/uploads/tus/{stored}"
    assert (server.root / "tus" / stored).is_file()
    assert requests.get(server.url + answer.headers["content-location"], timeout=DEADLINE).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"filename": ".."},
        {"filename": "x/.."},
        {"filename": "x/"},
        {"filename": "a\0b"},
        {"relativePath": "../escaped.txt"},
        {"relativePath": "a/../../escaped.txt"},
        {"relativePath": "/etc/escaped.txt"},
        {"relativePath": "a//b.txt"},
        {"relativePath": "./b.txt"},
    ],
)
def test_no_name_escapes_its_category(server: EmbeddedServer, fields: dict[str, str]) -> None:
    assert error(create(server.url, 1, b"x", **fields)) == (400, "INVALID_PATH")
    assert not list(server.root.parent.glob("escaped.txt"))
    assert not list(server.root.rglob("escaped.txt"))


def test_a_nameless_upload_is_called_by_its_id(server: EmbeddedServer) -> None:
    answer = create(server.url, 1, b"x")
    assert answer.headers["content-location"] == "/uploads/tus/" + answer.headers["upload-file-id"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/".join(["n" * 255] * 16), "INVALID_PATH"),  # with the root before it, it is longer than the system's limit
        ("link/deep/a.bin", "INVALID_PATH"),
        ("taken.bin/a.bin", "PATH_CONFLICT"),
        ("directory", "PATH_CONFLICT"),
        ("taken.bin", "FILE_EXISTS"),
    ],
)
def test_file_that_cannot_be_stored_is_refused_before_its_bytes(server: EmbeddedServer, path: str, code: str) -> None:
    root = server.root / "personal"
    (root / "directory").mkdir(exist_ok=True)
    (root / "taken.bin").write_bytes(b"other")
    (root / "link").unlink(missing_ok=True)
    (root / "link").symlink_to("directory")
    before = set((server.root / ".uploader" / "tus").iterdir())
    fields = {"sessionId": new_session(server.url), "relativePath": path, "filename": "n", "ifExists": "fail"}
    place = {"finalKey": "k", "finalLength": "9", "partOffset": "0"}
    assert error(create(server.url, 9, **fields)) == (400, code)
    partial = {"Upload-Concat": "partial"}
    assert error(create(server.url, 9, headers=partial, **fields, **place)) == (400, code)
    assert set((server.root / ".uploader" / "tus").iterdir()) == before


# Idempotent creation (resumable-uploads.md)


def test_repeated_creation_returns_the_same_upload(server: EmbeddedServer) -> None:
    first = create(server.url, 5, b"ab", uploadKey="again")
    second = create(server.url, 5, uploadKey="again")
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["upload-offset"] == "2"


def test_body_of_a_repeated_creation_is_ignored(server: EmbeddedServer) -> None:
    first = create(server.url, 5, b"ab", uploadKey="dropped")
    second = create(server.url, 5, b"ab", uploadKey="dropped")
    assert (second.status_code, second.headers["upload-offset"]) == (200, "2")
    upload = urljoin(server.url, first.headers["location"])
    assert append(upload, 2, b"cde").status_code == 204
    assert content(upload) == b"abcde"


def test_repeated_creation_of_a_finished_upload_stores_nothing(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    first = create(server.url, 3, b"abc", uploadKey="finished", sessionId=session, filename="once.txt")
    assert progress(server.url, session).json()["overallStatus"] == "completed"
    second = create(server.url, 3, b"abc", uploadKey="finished", sessionId=session, filename="once.txt")
    assert (second.status_code, second.headers["upload-offset"]) == (200, "3")
    for name in ("location", "content-location", "upload-file-id"):
        assert second.headers[name] == first.headers[name]
    assert progress(server.url, session).json()["completedFiles"] == 1


def test_concurrent_creations_with_one_key_make_one_upload(server: EmbeddedServer) -> None:
    data = os.urandom(50_000)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: create(server.url, len(data), data, uploadKey="at once", filename="at-once.bin"), range(8)
            )
        )
    assert {answer.status_code for answer in answers} <= {200, 201, 423}
    assert sum(answer.status_code == 201 for answer in answers) <= 1
    assert len({answer.headers["location"] for answer in answers}) == 1
    upload = answers[0].headers["location"]
    offset = offset_of(upload)
    if offset < len(data):
        assert append(upload, offset, data[offset:]).status_code == 204
    assert content(upload) == data
    assert len(list((server.root / "tus").glob("at-once*"))) == 1


def test_upload_key_is_separate_for_each_owner(server: EmbeddedServer) -> None:
    token = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
    expired = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret, ttl=-60)}"}
    forged = {"Authorization": f"Bearer {issue_token('another secret')}"}
    nobody = create(server.url, 3, uploadKey="shared").headers["location"]
    somebody = create(server.url, 3, headers=token, uploadKey="shared").headers["location"]
    assert somebody != nobody
    assert create(server.url, 3, headers=expired, uploadKey="shared").headers["location"] == somebody
    assert create(server.url, 3, headers=forged, uploadKey="shared").headers["location"] == nobody


def test_upload_of_a_lost_session_continues_in_another(server: EmbeddedServer) -> None:
    lost = new_session(server.url)
    upload = created(server.url, 5, b"ab", uploadKey="lost session", sessionId=lost, filename="lost.txt")
    del inside(server).backend.sessions.known[lost]
    fresh = new_session(server.url, category="scenic")
    again = create(server.url, 5, uploadKey="lost session", sessionId=fresh, filename="lost.txt")
    assert (again.status_code, again.headers["upload-offset"]) == (200, "2")
    assert append(upload, 2, b"cde").headers["content-location"] == "/uploads/scenic/lost.txt"
    assert progress(server.url, fresh).json()["overallStatus"] == "completed"


def test_finished_upload_counts_in_a_new_session_that_names_its_key(server: EmbeddedServer) -> None:
    lost = new_session(server.url)
    first = create(server.url, 3, b"abc", uploadKey="lost but finished", sessionId=lost, filename="counted.txt")
    del inside(server).backend.sessions.known[lost]
    fresh = new_session(server.url)
    again = create(server.url, 3, uploadKey="lost but finished", sessionId=fresh, filename="counted.txt")
    assert again.headers["content-location"] == first.headers["content-location"]
    known = progress(server.url, fresh).json()
    assert (known["overallStatus"], known["completedFiles"]) == ("completed", 1)
    assert [file["id"] for file in known["files"]] == [first.headers["upload-file-id"]]


def test_a_known_key_with_an_unknown_session_is_answered(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, b"ab", uploadKey="unknown session")
    again = create(server.url, 5, uploadKey="unknown session", sessionId=UNKNOWN)
    assert (again.status_code, urljoin(server.url, again.headers["location"])) == (200, upload)


def test_key_of_a_deleted_upload_can_be_reused(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, b"ab", uploadKey="gone")
    assert terminate(upload).status_code == 204
    again = create(server.url, 5, uploadKey="gone")
    assert again.status_code == 201
    assert urljoin(server.url, again.headers["location"]) != upload


# termination


def test_terminated_upload_leaves_no_file(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, b"ab")
    data = data_of(server.root, upload)
    assert data.read_bytes() == b"ab"
    assert terminate(upload).status_code == 204
    assert not data.exists()
    for answer in (head(upload), append(upload, 2, b"c"), terminate(upload), requests.get(upload, timeout=DEADLINE)):
        assert answer.status_code == 410


def test_terminating_ends_a_writer(server: EmbeddedServer) -> None:
    upload = created(server.url, 5)
    with ByHand("PATCH", upload, {"Upload-Offset": "0"}, claimed=5) as request:
        request.send(b"ab")
        assert terminate(upload).status_code == 204
        assert request.status() == 423


def test_a_finished_plain_upload_is_deleted_with_its_file(server: EmbeddedServer) -> None:
    upload = created(server.url, 3, b"abc", filename="deleted.txt")
    assert terminate(upload).status_code == 204
    assert not (server.root / "tus" / "deleted.txt").exists()
    assert head(upload).status_code == 410


def test_delete_keeps_a_file_shared_with_another_upload(server: EmbeddedServer) -> None:
    first = created(server.url, 3, b"abc", filename="kept.txt")
    second = created(server.url, 3, b"abc", filename="kept.txt")
    assert terminate(second).status_code == 204
    assert content(first) == b"abc"
    assert terminate(first).status_code == 204
    assert not (server.root / "tus" / "kept.txt").exists()


def test_delete_of_a_session_file_needs_a_token(server: EmbeddedServer) -> None:
    upload = created(server.url, 3, b"abc", filename="token.txt", sessionId=new_session(server.url))
    assert error(terminate(upload)) == (401, "UNAUTHORIZED")
    assert content(upload) == b"abc"
    token = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
    assert terminate(upload, token).status_code == 204
    assert not (server.root / "personal" / "token.txt").exists()


def test_upload_is_gone_after_its_file_is_deleted_by_id(server: EmbeddedServer) -> None:
    upload = created(server.url, 3, b"abc", filename="by-id.txt", uploadKey="by id")
    token = {"Authorization": f"Bearer {issue_token(server.config.jwt_secret)}"}
    file = f"{server.url}/api/upload/file/{file_id(server.root, upload)}"
    assert requests.delete(file, headers=token, timeout=DEADLINE).status_code == 200
    assert head(upload).status_code == 410
    assert create(server.url, 3, uploadKey="by id").status_code == 201


def test_uploads_without_a_session_can_be_refused() -> None:
    with running_server(anonymous_tus=False) as server:
        assert error(create(server.url, 3)) == (403, "SESSION_REQUIRED")
        assert error(create(server.url, 3, headers={"Upload-Concat": "partial"})) == (403, "SESSION_REQUIRED")
        assert create(server.url, 3, sessionId=new_session(server.url)).status_code == 201


def test_a_creation_needs_the_content_type_only_for_a_body(server: EmbeddedServer) -> None:
    sent = {**TUS, "Upload-Length": "3", "Content-Type": "application/json"}
    assert requests.post(server.url + ENDPOINT, headers=sent, timeout=DEADLINE).status_code == 201
    assert requests.post(server.url + ENDPOINT, headers={**BODY, "Upload-Length": "3"}, timeout=DEADLINE).ok
