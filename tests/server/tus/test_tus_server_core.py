"""tus 1.0, the core protocol: OPTIONS, HEAD, PATCH, versions, method overrides, browsers, and downloads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import requests
from server.batches import UNKNOWN
from server.tus.tus_client import (
    BODY,
    DEADLINE,
    ENDPOINT,
    TUS,
    append,
    checksum,
    content,
    create,
    created,
    data_of,
    error,
    head,
    offset_of,
    patching,
)
from serving import running_server

from uploader_server.tus.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(max_size=1 << 20) as server:
        yield server


@pytest.mark.parametrize("path", [ENDPOINT, ENDPOINT.rstrip("/"), ENDPOINT + UNKNOWN])
def test_options_list_version_and_extensions(server: EmbeddedServer, path: str) -> None:
    answer = requests.options(server.url + path, timeout=DEADLINE)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["tus-extension"] == (
        "creation,creation-with-upload,creation-defer-length,expiration,checksum,termination,concatenation"
    )
    assert answer.headers["tus-max-size"] == str(1 << 20)
    assert answer.headers["tus-checksum-algorithm"].split(",") == ["crc32c", "sha256", "sha1", "md5"]
    assert answer.headers["checksum-compared"] == "1"


def test_tus_offer_of_a_session_matches_the_options(server: EmbeddedServer) -> None:
    shown = requests.get(f"{server.url}/health", timeout=DEADLINE).json()["tus"]
    answer = requests.options(server.url + shown["endpoint"], timeout=DEADLINE)
    assert shown["extensions"] == answer.headers["tus-extension"].split(",")
    assert shown["checksumAlgorithms"] == answer.headers["tus-checksum-algorithm"].split(",")
    assert (shown["version"], shown["maxSize"]) == ("1.0.0", 1 << 20)
    session = requests.post(
        f"{server.url}/api/upload/session", json={"category": "personal", "expectedFiles": 1}, timeout=DEADLINE
    )
    assert session.json()["tus"] == shown


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0"])
@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
def test_another_version_is_refused_before_anything_happens(
    server: EmbeddedServer, method: str, version: str | None
) -> None:
    url = server.url + ENDPOINT if method == "POST" else created(server.url, 3)
    sent = {"Upload-Length": "3", "Upload-Offset": "0", "Content-Type": BODY["Content-Type"]}
    sent |= {} if version is None else {"Tus-Resumable": version}
    answer = requests.request(method, url, headers=sent, data=b"abc" if method == "PATCH" else None, timeout=DEADLINE)
    assert answer.status_code == 412
    assert answer.headers["tus-version"] == "1.0.0"
    if method != "POST":
        assert offset_of(url) == 0


def test_chunks_become_a_file(server: EmbeddedServer) -> None:
    data = os.urandom(700_000)
    upload = created(server.url, len(data))
    for offset in range(0, len(data), 200_000):
        assert offset_of(upload) == offset
        answer = append(upload, offset, data[offset : offset + 200_000])
        assert answer.status_code == 204
        assert answer.headers["upload-offset"] == str(min(offset + 200_000, len(data)))
        assert answer.headers["tus-resumable"] == "1.0.0"
    assert content(upload) == data


def test_head_has_all_headers_and_no_store(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, b"ab", filename="größe.txt", note="")
    answer = head(upload)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == ("2", "5")
    assert answer.headers["upload-metadata"] == "filename Z3LDtsOfZS50eHQ=,note"
    assert "upload-expires" in answer.headers


def test_unknown_upload_is_a_404(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    for name in (UNKNOWN, "nonsense", UNKNOWN.upper(), "%2e%2e"):
        with subtests.test(name=name):
            url = server.url + ENDPOINT + name
            assert head(url).status_code == 404
            assert "upload-offset" not in head(url).headers
            assert append(url, 0, b"x").status_code == 404
            assert requests.delete(url, headers=TUS, timeout=DEADLINE).status_code == 404
            assert requests.get(url, timeout=DEADLINE).status_code == 404


@pytest.mark.parametrize("offset", [0, 1, 3, 99])
def test_a_wrong_offset_changes_nothing(server: EmbeddedServer, offset: int) -> None:
    upload = created(server.url, 5, b"ab")
    answer = append(upload, offset, b"xyz")
    assert error(answer) == (409, "WRONG_OFFSET")
    assert answer.headers["upload-offset"] == "2"
    assert offset_of(upload) == 2
    assert append(upload, 2, b"cde").status_code == 204
    assert content(upload) == b"abcde"


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", ""])
def test_another_content_type_is_refused(server: EmbeddedServer, kind: str) -> None:
    upload = created(server.url, 2)
    assert append(upload, 0, b"ab", {"Content-Type": kind}).status_code == 415
    assert offset_of(upload) == 0


@pytest.mark.parametrize("offset", [None, "", "-1", "1.0", "0x0", "9" * 30, "\u0661"])
def test_an_offset_that_is_no_number_is_refused(server: EmbeddedServer, offset: str | None) -> None:
    upload = created(server.url, 2)
    sent = BODY if offset is None else {**BODY, "Upload-Offset": offset.encode()}
    assert error(requests.patch(upload, data=b"ab", headers=sent, timeout=DEADLINE)) == (400, "INVALID_HEADER")
    assert offset_of(upload) == 0


def test_more_bytes_than_announced_are_refused(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, b"ab")
    assert append(upload, 2, b"cdef").status_code == 413
    assert offset_of(upload) == 2
    with patching(upload, 2, None) as request:  # chunked: the length is unknown
        request.send(b"cdefgh")
        assert request.status() == 413
    assert offset_of(upload) == 2
    assert append(upload, 2, b"cde").status_code == 204
    assert append(upload, 5, b"f").status_code == 413
    assert content(upload) == b"abcde"


def test_a_body_in_chunks_is_taken(server: EmbeddedServer) -> None:
    upload = created(server.url, 5)
    with patching(upload, 0, None) as request:
        request.send(b"abc")
        request.send(b"de")
        request.finish()
        assert request.status() == 204
    assert content(upload) == b"abcde"


def test_an_empty_patch_at_the_end_runs_nothing_again(server: EmbeddedServer) -> None:
    upload = created(server.url, 3, b"abc", filename="empty-patch.txt")
    for _ in range(3):
        answer = append(upload, 3, b"")
        assert answer.status_code == 204
        assert answer.headers["upload-offset"] == "3"
        assert answer.headers["content-location"] == "/uploads/tus/empty-patch.txt"
    assert not (server.root / "tus" / "empty-patch (2).txt").exists()


def test_an_empty_patch_in_the_middle_is_no_error(server: EmbeddedServer) -> None:
    upload = created(server.url, 3, b"a")
    assert append(upload, 1, b"").status_code == 204
    assert offset_of(upload) == 1


def test_post_with_method_override(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, b"ab")

    def disguised(method: str, headers: dict[str, str], data: bytes = b"") -> requests.Response:
        sent = {**headers, "X-HTTP-Method-Override": method}
        return requests.post(upload, headers=sent, data=data, timeout=DEADLINE)

    assert disguised("HEAD", TUS).headers["upload-offset"] == "2"
    assert disguised("PATCH", {**BODY, "Upload-Offset": "2"}, b"cde").status_code == 204
    assert content(upload) == b"abcde"
    assert disguised("DELETE", TUS).status_code == 204
    assert head(upload).status_code == 410


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", ENDPOINT, "OPTIONS, POST"),
        ("GET", ENDPOINT, "OPTIONS, POST"),
        ("POST", ENDPOINT + UNKNOWN, "OPTIONS, HEAD, PATCH, DELETE, GET"),
    ],
)
def test_wrong_method_is_refused(server: EmbeddedServer, method: str, path: str, allowed: str) -> None:
    answer = requests.request(method, server.url + path, headers=TUS, timeout=DEADLINE)
    assert error(answer) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allowed


def test_the_finished_bytes_are_read_back_also_in_ranges(server: EmbeddedServer) -> None:
    data = bytes(range(256)) * 10
    upload = created(server.url, len(data), data, filename="ranges.mp4")
    answer = requests.get(upload, timeout=DEADLINE)
    assert (answer.content, answer.headers["content-type"]) == (data, "video/mp4")
    some = requests.get(upload, headers={"Range": "bytes=100-199"}, timeout=DEADLINE)
    assert (some.status_code, some.content) == (206, data[100:200])


def test_unfinished_bytes_are_not_shown(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, b"ab", filename="unfinished.txt")
    assert error(requests.get(upload, timeout=DEADLINE)) == (409, "UPLOAD_UNFINISHED")
    assert not (server.root / "tus" / "unfinished.txt").exists()


def test_last_answer_has_file_name_id_and_digest(server: EmbeddedServer) -> None:
    upload = created(server.url, 5, filename="a b%ü.txt")
    answer = append(upload, 0, b"abcde", checksum(b"abcde"))
    stored = requests.head(server.url + answer.headers["content-location"], timeout=DEADLINE)
    assert stored.status_code == 200
    assert stored.headers["content-length"] == "5"
    assert answer.headers["repr-digest"] == stored.headers["repr-digest"]
    assert answer.headers["upload-file-id"] not in upload
    for name in ("content-location", "repr-digest", "upload-file-id"):
        assert head(upload).headers[name] == answer.headers[name]
    assert "upload-expires" not in answer.headers


def test_equal_file_is_stored_once_and_another_is_renamed(server: EmbeddedServer) -> None:
    first = created(server.url, 3, b"abc", filename="twice.txt")
    same = created(server.url, 3, b"abc", filename="twice.txt")
    other = created(server.url, 3, b"xyz", filename="twice.txt")
    where = [head(upload).headers["content-location"] for upload in (first, same, other)]
    assert where == ["/uploads/tus/twice.txt", "/uploads/tus/twice.txt", "/uploads/tus/twice%20%282%29.txt"]
    assert [content(upload) for upload in (first, same, other)] == [b"abc", b"abc", b"xyz"]


def test_tus_can_be_disabled() -> None:
    with running_server(tus=False) as server:
        assert create(server.url, 3).status_code == 404
        assert "tus" not in requests.get(f"{server.url}/health", timeout=DEADLINE).json()
    with running_server(flavour="reference") as server:
        assert create(server.url, 3).status_code == 404
        assert "tus" not in requests.get(f"{server.url}/health", timeout=DEADLINE).json()


def test_rate_limit_counts_tus_calls() -> None:
    with running_server(rate_limit=2) as server:
        upload = created(server.url, 3)
        assert head(upload).headers["x-ratelimit-remaining"] == "0"
        refused = append(upload, 0, b"abc")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0


def test_data_file_of_another_size_becomes_no_file(server: EmbeddedServer) -> None:
    upload = created(server.url, 6, b"abc", filename="of another size.bin")
    data_of(server.root, upload).write_bytes(b"abc and more")
    answer = append(upload, 3, b"def")
    assert answer.status_code == 500, answer.text
    assert not (server.root / "tus" / "of another size.bin").exists()


def test_failure_of_the_server_is_answered_and_logged_with_its_cause(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("of the test")

    upload = created(server.url, 3)
    monkeypatch.setattr(Uploads, "find", fails)
    answer = requests.head(upload, headers=TUS, timeout=DEADLINE)
    assert answer.status_code == 500
    (logged,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "of the test" in logged.getMessage()
    assert logged.exc_info is not None
