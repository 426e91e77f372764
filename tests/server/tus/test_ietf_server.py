"""The IETF's resumable uploads (docs/resumable-uploads.md) at the bundled server, on the wire."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import pytest
import requests
from server.tus.tus_client import DEADLINE, ENDPOINT, TUS, ByHand, append, create, error, metadata, taken
from serving import running_server
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

DRAFT = {"Upload-Draft-Interop-Version": "8"}
CHUNK = {**DRAFT, "Content-Type": "application/partial-upload"}
PROBLEM = "https://iana.org/assignments/http-problem-types#"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(max_size=1 << 20, idle_timeout=10 * PATIENCE) as server:
        yield server


def post(
    server: EmbeddedServer, data: bytes | Iterable[bytes] | None = None, complete: str = "?0", **headers: str
) -> requests.Response:
    sent = {**DRAFT, "Upload-Complete": complete, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return requests.post(server.url + ENDPOINT, data=data, headers=sent, timeout=DEADLINE)


def new(server: EmbeddedServer, **headers: Any) -> str:
    answer = post(server, **headers)
    assert answer.status_code == 201, answer.text
    return urljoin(server.url, answer.headers["location"])


def patch(
    url: str, offset: int, data: bytes | Iterable[bytes] = b"", complete: str = "?0", **headers: str
) -> requests.Response:
    sent = {**CHUNK, "Upload-Offset": str(offset), "Upload-Complete": complete}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.patch(url, data=data, headers=sent, timeout=DEADLINE)


def state(url: str) -> tuple[str, str, str | None]:
    """Offset, completeness and length, as HEAD reports them."""
    answer = requests.head(url, headers=DRAFT, timeout=DEADLINE)
    assert answer.status_code == 204, answer.status_code
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["upload-limit"].startswith("max-size=")
    return answer.headers["upload-offset"], answer.headers["upload-complete"], answer.headers.get("upload-length")


def sha256(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_options_announce_the_limits(server: EmbeddedServer) -> None:
    answer = requests.options(server.url + ENDPOINT, timeout=DEADLINE)
    assert (answer.status_code, answer.headers["upload-limit"]) == (204, "max-size=1048576")


@pytest.mark.parametrize("length", [{}, {"Upload-Length": "6"}])
@pytest.mark.parametrize("chunked", [False, True])
def test_upload_in_three_requests_is_complete_after_the_last(
    server: EmbeddedServer, length: dict[str, str], chunked: bool
) -> None:
    """The length is stated at first, by the last request, or not at all."""
    name = "inline; filename=\"x\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.txt"
    url, last = new(server, Content_Disposition=name, **length), (iter([b"ef"]) if chunked else b"ef")
    stated = length.get("Upload-Length")
    assert state(url) == ("0", "?0", stated)
    answer = patch(url, 0, b"abcd")
    assert (answer.status_code, answer.headers["upload-complete"]) == (204, "?0")
    assert state(url) == ("4", "?0", stated)
    answer = patch(url, 4, last, "?1")
    assert (answer.status_code, answer.headers["upload-complete"]) == (201, "?1")
    assert answer.headers["content-location"].startswith("/uploads/tus/Gr%C3%BC%C3%9Fe")
    assert state(url) == ("6", "?1", "6")
    assert requests.get(url, timeout=DEADLINE).content == b"abcdef"
    assert patch(url, 6, b"", "?1").headers["content-location"] == answer.headers["content-location"]


@pytest.mark.parametrize("chunked", [False, True])
def test_creation_with_everything_is_complete(server: EmbeddedServer, chunked: bool) -> None:
    answer = post(server, iter([b"abc"]) if chunked else b"abc", "?1", Repr_Digest=sha256(b"abc"))
    assert (answer.status_code, answer.headers["upload-complete"]) == (201, "?1")
    assert answer.headers["repr-digest"] == sha256(b"abc")
    assert state(urljoin(server.url, answer.headers["location"])) == ("3", "?1", "3")


def test_upload_at_its_length_is_complete_only_once_that_is_declared(server: EmbeddedServer) -> None:
    url = new(server, Upload_Length="3")
    assert patch(url, 0, b"abc").status_code == 204
    assert state(url) == ("3", "?0", "3")
    assert requests.get(url, timeout=DEADLINE).status_code == 409
    assert patch(url, 3, b"", "?1").headers["upload-complete"] == "?1"


def test_wrong_offset_is_a_problem_with_the_right_one(server: EmbeddedServer) -> None:
    url = new(server)
    patch(url, 0, b"abc")
    answer = patch(url, 2, b"x", "?1")
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert (answer.headers["upload-offset"], answer.headers["upload-complete"]) == ("3", "?0")
    told = answer.json()
    assert told["type"] == f"{PROBLEM}mismatching-upload-offset"
    assert (told["expected-offset"], told["provided-offset"]) == (3, 2)
    assert state(url) == ("3", "?0", None)


@pytest.mark.parametrize(
    ("before", "data", "complete", "headers"),
    [
        pytest.param({"Upload_Length": "9"}, b"abc", "?1", {}, id="the end before the length"),
        pytest.param({"Upload_Length": "9"}, b"abc", "?0", {"Upload_Length": "8"}, id="another length"),
        pytest.param({}, b"abc", "?1", {"Upload_Length": "4"}, id="two lengths in a request"),
        pytest.param({"Upload_Length": "9"}, None, "?1", {}, id="a chunked end before the length"),
    ],
)
def test_inconsistent_lengths_are_a_problem(
    server: EmbeddedServer, before: dict[str, str], data: bytes | None, complete: str, headers: dict[str, str]
) -> None:
    url = new(server, **before)
    answer = patch(url, 0, iter([b"abc"]) if data is None else data, complete, **headers)
    assert (answer.status_code, answer.json()["type"]) == (400, f"{PROBLEM}inconsistent-upload-length")
    assert state(url)[1] == "?0"


@pytest.mark.parametrize("chunked", [False, True])
def test_content_beyond_the_length_ends_the_upload(server: EmbeddedServer, chunked: bool) -> None:
    url = new(server, Upload_Length="3")
    answer = patch(url, 0, iter([b"ab", b"cdef"]) if chunked else b"abcdef")
    assert answer.status_code == 413
    assert answer.headers["upload-limit"] == "max-size=1048576"
    assert requests.head(url, headers=DRAFT, timeout=DEADLINE).status_code == 410


@pytest.mark.parametrize("complete", ["?0", "?1"])
def test_cut_content_is_kept_and_completes_nothing(server: EmbeddedServer, complete: str) -> None:
    url = new(server)
    with ByHand("PATCH", url, {"Upload-Offset": "0", "Upload-Complete": complete}, 6, CHUNK) as cut:
        cut.send(b"abcd")
        taken(server, url, 4)
    assert state(url) == ("4", "?0", "6" if complete == "?1" else None)
    assert patch(url, 4, b"ef", "?1").headers["upload-complete"] == "?1"


def test_other_digests_are_refused_and_nothing_is_kept(server: EmbeddedServer) -> None:
    url = new(server, Repr_Digest=sha256(b"abcdef"))
    answer = patch(url, 0, b"abc", Content_Digest=sha256(b"xyz"))
    assert (answer.status_code, answer.json()["type"]) == (400, f"{PROBLEM}digest-mismatching-values")
    assert state(url)[0] == "0"
    assert patch(url, 0, b"abc", Content_Digest=f"sha-512=:YQ==:, {sha256(b'abc')}").status_code == 204
    answer = patch(url, 3, b"xyz", "?1")
    assert (answer.status_code, answer.headers["upload-complete"]) == (400, "?1")
    assert requests.head(url, headers=DRAFT, timeout=DEADLINE).status_code == 410


def test_delete_removes_the_upload(server: EmbeddedServer) -> None:
    url = new(server)
    assert requests.delete(url, headers=DRAFT, timeout=DEADLINE).status_code == 204
    assert requests.head(url, headers=DRAFT, timeout=DEADLINE).status_code == 410


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Offset": "-1"}, 400),
        ({"Upload-Offset": "1.0"}, 400),
        ({"Upload-Complete": "1"}, 400),
        ({"Content-Type": "application/offset+octet-stream"}, 415),
        ({"Content-Digest": "sha-256=:YWJj:"}, 400),
        ({"Upload-Draft-Interop-Version": "5"}, 412),
        ({"Upload-Draft-Interop-Version": "10"}, 412),
    ],
)
def test_malformed_append_changes_nothing(server: EmbeddedServer, headers: dict[str, str], status: int) -> None:
    url = new(server)
    sent = {**CHUNK, "Upload-Offset": "0", "Upload-Complete": "?1", **headers}
    assert requests.patch(url, data=b"abc", headers=sent, timeout=DEADLINE).status_code == status
    assert state(url) == ("0", "?0", None)


def test_clients_of_the_rfc_send_no_version(server: EmbeddedServer) -> None:
    sent = {"Upload-Complete": "?0"}
    answer = requests.post(server.url + ENDPOINT, headers=sent, timeout=DEADLINE)
    url = urljoin(server.url, answer.headers["location"])
    assert requests.head(url, timeout=DEADLINE).headers["upload-complete"] == "?0"
    assert requests.delete(url, timeout=DEADLINE).status_code == 204


def test_malformed_file_name_is_ignored(server: EmbeddedServer) -> None:
    assert state(new(server, Content_Disposition="inline; filename*=x; filename*1=b"))[0] == "0"


ENDS = ("DELETE", "HEAD")


def test_version_6_reads_the_lifetime_as_expires_and_404_for_an_ended_upload(server: EmbeddedServer) -> None:
    version: dict[str, Any] = {"Upload-Draft-Interop-Version": "6"}
    answer = post(server, **version)
    url = urljoin(server.url, answer.headers["location"])
    assert ", expires=" in answer.headers["upload-limit"]
    assert ", max-age=" in post(server).headers["upload-limit"]
    statuses = [requests.request(method, url, headers=version, timeout=DEADLINE).status_code for method in 2 * ENDS]
    assert statuses == [204, 404, 404, 404]


def test_uploads_answer_only_the_protocol_that_created_them(server: EmbeddedServer) -> None:
    """Else a tus client would take an upload at its length for a stored file."""
    url = new(server, Upload_Length="3", Upload_Metadata=metadata(uploadKey="k"))
    assert error(append(url, 0, b"abc")) == (404, "UPLOAD_NOT_FOUND")
    assert requests.head(url, headers=TUS, timeout=DEADLINE).status_code == 404
    of_tus = create(server.url, 3, uploadKey="k")
    assert of_tus.status_code == 201
    other = urljoin(server.url, of_tus.headers["location"])
    assert patch(other, 0, b"abc", "?1").status_code == 404
    assert new(server, Upload_Metadata=metadata(uploadKey="x")) != url


def test_repeated_creation_returns_the_upload_with_its_key(server: EmbeddedServer) -> None:
    sent = {"Upload_Metadata": metadata(uploadKey="repeated", filename="once.txt")}
    url = new(server, **sent)
    patch(url, 0, b"abc")
    again = post(server, b"abcdef", "?1", **sent)
    assert (again.status_code, urljoin(server.url, again.headers["location"])) == (200, url)
    assert (again.headers["upload-offset"], again.headers["upload-complete"]) == ("3", "?0")


def test_upload_continues_after_a_restart(tmp_path: Path) -> None:
    """One that has all bytes is not complete, before the request with the last one, or a later one, declares that."""
    with running_server(root=tmp_path, durability="none") as server:
        whole, part = new(server), new(server, Upload_Length="3")
        with ByHand("PATCH", whole, {"Upload-Offset": "0", "Upload-Complete": "?1"}, 3, CHUNK) as cut:
            cut.send(b"a")
            taken(server, whole, 1)
        assert state(whole) == ("1", "?0", "3")
        patch(whole, 1, b"bc")
        patch(part, 0, b"ab")
        before = server.url
    with running_server(root=tmp_path, durability="none") as server:
        whole, part = whole.replace(before, server.url), part.replace(before, server.url)
        assert state(whole) == ("3", "?0", "3")
        assert patch(whole, 3, b"", "?1").headers["upload-complete"] == "?1"
        assert patch(part, 2, b"c", "?1").headers["upload-complete"] == "?1"
