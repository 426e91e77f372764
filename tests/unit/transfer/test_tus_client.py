"""Each call of tus 1.0: the request, the meaning of the answer, and which hosts get credentials."""

from __future__ import annotations

import base64
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from unit.transfer.tus_model import client_of as connected
from unit.transfer.tus_model import file_of

from uploader_cli import errors
from uploader_cli.core.confirmation import Reading
from uploader_cli.core.events import FailureCode
from uploader_cli.sources.unchanged import open_unchanged
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.bodies import Body, Piece
from uploader_cli.transfer.http_client import REDIRECTS
from uploader_cli.transfer.protocols.machine import Append, Create, Position
from uploader_cli.transfer.upload_calls import UploadCalls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDPOINT = "https://up.example/files/"
URL = ENDPOINT + "1"
TUS = {"Tus-Resumable": "1.0.0"}
TOKEN = {"Authorization": "Bearer secret"}


class Scripted:
    """Replaces `HttpClient`: returns answers from a list and records what was sent."""

    def __init__(self, *answers: tuple[int, dict[str, str]], body: Any = None) -> None:
        self.answers, self.body = deque(answers), body
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []

    def request(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Any = None,
        **_how: object,
    ) -> Answer:
        data = b"".join(map(bytes, iter(lambda: body.read(1 << 20), b""))) if body is not None else b""
        self.sent.append((method, url, dict(headers), data))
        status, answered = self.answers.popleft()
        return Answer(status, answered, self.body, url)

    @contextmanager
    def stream(self, url: str, _headers: Any) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        status, answered = self.answers.popleft()
        yield Answer(status, answered, None, url), self.body

    @property
    def headers(self) -> dict[str, str]:
        return self.sent[-1][2]


def client_of(*answers: tuple[int, dict[str, str]], body: object = None) -> tuple[UploadCalls, Scripted]:
    http = Scripted(*answers, body=body)
    return connected(http, ENDPOINT, lambda: TOKEN), http


def send(client: UploadCalls, offset: int, body: Body, checksum: str | None = None) -> Position:
    """Send a chunk at `offset` of the upload at `URL`."""
    return client.ask(Append(URL, offset, len(body), checksum=checksum), body)


@pytest.fixture
def body(tmp_path: Path) -> Iterator[Body]:
    file = file_of(tmp_path / "a", b"0123456789")
    with open_unchanged(file) as source:
        yield Body("application/offset+octet-stream", [Piece(5, None, file, 2, source)], checkpoint=lambda: None)


class TestCreate:
    def test_request_has_length_and_metadata(self) -> None:
        client, http = client_of((201, {**TUS, "Location": "/files/1"}))
        created = client.ask(Create(10, metadata={"filename": "ä"}))
        assert (created.url, created.offset) == (URL, None)
        method, url, headers, data = http.sent[0]
        assert (method, url, data) == ("POST", ENDPOINT, b"")
        assert headers == {**TOKEN, **TUS, "Upload-Length": "10", "Upload-Metadata": "filename w6Q="}

    def test_empty_metadata_is_no_header(self) -> None:
        client, http = client_of((201, {**TUS, "Location": URL}))
        client.ask(Create(0))
        assert "Upload-Metadata" not in http.headers

    def test_body_goes_with_checksum_and_returns_the_offset(self, body: Body) -> None:
        client, http = client_of((201, {**TUS, "Location": URL, "Upload-Offset": "5"}))
        created = client.ask(Create(10, 5, has_body=True, checksum="sha1 AAA=", partial=True), body)
        assert created.offset == 5
        assert http.sent[0][3] == b"23456"
        assert http.headers["Upload-Checksum"] == "sha1 AAA="
        assert http.headers["Upload-Concat"] == "partial"

    def test_answer_without_location_is_a_protocol_error(self) -> None:
        client, _ = client_of((201, TUS))
        with pytest.raises(errors.ProtocolError, match="Location"):
            client.ask(Create(10))

    @pytest.mark.parametrize(("status", "kind"), [(409, errors.OffsetConflict), (423, errors.Locked)])
    def test_conflict_of_a_creation_names_no_offset(self, status: int, kind: type[errors.AnswerError]) -> None:
        """There is none yet: a server answers so where it has a file of this name."""
        client, _ = client_of((status, TUS), body={"error": "EXISTS", "message": "it is there"})
        with pytest.raises(kind, match=rf"does not create the upload.*{status} EXISTS: it is there"):
            client.ask(Create(10))

    @pytest.mark.parametrize(("status", "code"), [(404, "SESSION_NOT_FOUND"), (409, "SESSION_ENDED")])
    def test_unknown_session_is_session_lost(self, status: int, code: str) -> None:
        client, _ = client_of((status, TUS), body={"error": code})
        with pytest.raises(errors.SessionLost) as caught:
            client.ask(Create(10, metadata={"sessionId": "s"}))
        assert caught.value.retryable, "in another session"

    def test_concatenation_names_the_parts_in_order(self) -> None:
        client, http = client_of((201, {**TUS, "Location": "3"}))
        assert client.ask(Create(None, metadata={"filename": "a"}, parts=(URL, ENDPOINT + "2"))).url == ENDPOINT + "3"
        assert http.headers["Upload-Concat"] == f"final;{URL} {ENDPOINT}2"
        assert "Upload-Length" not in http.headers


class TestPatch:
    def test_request_has_offset_and_checksum(self, body: Body) -> None:
        client, http = client_of((204, {**TUS, "Upload-Offset": "7"}))
        assert send(client, 2, body, "sha1 AAA=").offset == 7
        method, url, headers, data = http.sent[0]
        assert (method, url, data) == ("PATCH", URL, b"23456")
        assert headers == {**TOKEN, **TUS, "Upload-Offset": "2", "Upload-Checksum": "sha1 AAA="}
        assert body.content_type == "application/offset+octet-stream"

    @pytest.mark.parametrize("offset", [None, "", "x", "-1", "1.5"])
    def test_answer_without_valid_offset_is_a_protocol_error(self, body: Body, offset: str | None) -> None:
        client, _ = client_of((204, TUS if offset is None else {**TUS, "Upload-Offset": offset}))
        with pytest.raises(errors.ProtocolError, match="Upload-Offset"):
            send(client, 2, body)

    @pytest.mark.parametrize("headers", [{}, {"Tus-Resumable": "0.2.2"}])
    def test_answer_of_another_version_is_a_protocol_error(self, body: Body, headers: dict[str, str]) -> None:
        client, _ = client_of((204, {**headers, "Upload-Offset": "7"}))
        with pytest.raises(errors.ProtocolError, match="tus"):
            send(client, 2, body)


@pytest.mark.parametrize("status", [403, 405, 501])
def test_patch_blocked_by_a_proxy_becomes_a_post_from_then_on(body: Body, status: int) -> None:
    done = (204, {**TUS, "Upload-Offset": "5"})
    client, http = client_of((status, {}), done, done)
    for _ in range(2):
        assert send(client, 0, body).offset == 5
        body.rewind()
    assert [(method, headers.get("X-HTTP-Method-Override")) for method, _, headers, _ in http.sent] == [
        ("PATCH", None),
        ("POST", "PATCH"),
        ("POST", "PATCH"),
    ]
    assert all(data == b"23456" for _, _, _, data in http.sent)


def test_patch_and_post_blocked_by_a_proxy_is_no_question_of_the_token(body: Body) -> None:
    client, _ = client_of((403, {}), (403, {}))
    with pytest.raises(errors.PatchBlocked, match="a proxy or firewall blocks PATCH") as caught:
        send(client, 0, body)
    assert "--protocol batch" in caught.value.hint


@pytest.mark.parametrize("status", [201, 400, 404, 405, 409, 410, 411, 412, 415])
def test_reason_of_a_refused_patch_is_kept_where_the_post_is_taken_for_none(body: Body, status: int) -> None:
    """As by @tus/server: a POST to an upload is a creation without a length, or with one a new upload."""
    signed = TUS if status != 405 else {}
    client, _ = client_of((403, {}), (status, {**signed, "Upload-Offset": "5"}))
    with pytest.raises(errors.PatchBlocked if status == 405 else errors.Unauthorized, match="403"):
        send(client, 0, body)


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "code"),
    [
        (400, errors.AnswerError, False, FailureCode.SERVER_REFUSED),
        (401, errors.Unauthorized, False, FailureCode.UNAUTHORIZED),
        (403, errors.Unauthorized, False, FailureCode.UNAUTHORIZED),
        (404, errors.UploadGone, True, FailureCode.SERVER_REFUSED),
        (408, errors.TooSlow, True, FailureCode.TOO_SLOW),
        (409, errors.OffsetConflict, True, FailureCode.SERVER_REFUSED),
        (412, errors.ProtocolError, False, FailureCode.PROTOCOL),
        (413, errors.TooLarge, False, FailureCode.REFUSED_SIZE),
        (415, errors.AnswerError, False, FailureCode.SERVER_REFUSED),
        (423, errors.Locked, True, FailureCode.SERVER_REFUSED),
        (429, errors.RateLimited, True, FailureCode.RATE_LIMITED),
        (460, errors.ChecksumMismatch, True, FailureCode.INTEGRITY),
        (500, errors.ServerFault, True, FailureCode.SERVER_ERROR),
        (503, errors.ServerFault, True, FailureCode.SERVER_ERROR),
    ],
)
def test_each_status_has_its_error_class(
    body: Body, status: int, kind: type[errors.UploaderError], retryable: bool, code: FailureCode
) -> None:
    """docs/resumable-uploads.md, says which of them can be retried."""
    versions = {"Tus-Version": "0.2.2"} if status == 412 else {}
    client, _ = client_of((status, {**TUS, **versions, "Retry-After": "7"}))
    with pytest.raises(kind) as caught:
        send(client, 0, body)
    assert type(caught.value) is kind
    assert (caught.value.retryable, caught.value.code) == (retryable, code)
    if status in (409, 423, 429, 460, 503):
        assert getattr(caught.value, "retry_after", None) == 7.0


def test_413_quotes_the_servers_code_and_message() -> None:
    client, _ = client_of((413, TUS), body={"error": "FILE_TOO_LARGE", "message": "70 bytes at most"})
    with pytest.raises(errors.TooLarge) as caught:
        client.ask(Create(71))
    assert str(caught.value) == "the server does not take a body of this size (413 FILE_TOO_LARGE: 70 bytes at most)"
    assert caught.value.error == "FILE_TOO_LARGE"


class TestHead:
    def test_answer_has_offset_and_length(self) -> None:
        client, http = client_of((200, {**TUS, "Upload-Offset": "3", "Upload-Length": "10"}))
        found = client.head(URL)
        assert (found.offset, found.length, http.sent[0][0]) == (3, 10, "HEAD")

    def test_deferred_length_is_none(self) -> None:
        client, _ = client_of((204, {**TUS, "Upload-Offset": "3"}))
        assert client.head(URL).length is None

    @pytest.mark.parametrize("status", [403, 404, 410])
    def test_refusal_of_a_tus_server_means_that_the_upload_is_gone(self, status: int) -> None:
        client, _ = client_of((status, TUS))
        with pytest.raises(errors.UploadGone) as caught:
            client.head(URL)
        assert not caught.value.retryable

    @pytest.mark.parametrize("status", [403, 404, 410])
    def test_refusal_of_something_else_is_a_retryable_not_found(self, status: int) -> None:
        client, _ = client_of((status, {"Content-Type": "text/html"}))
        with pytest.raises(errors.NotFound, match=f"{status}, but not as a tus server") as caught:
            client.head(URL)
        assert type(caught.value) is errors.NotFound
        assert (caught.value.status, caught.value.retryable) == (status, True)


class TestOptions:
    def test_answer_names_the_extensions(self) -> None:
        client, http = client_of((204, {"Tus-Version": "1.0.0", "Tus-Extension": "creation,checksum"}))
        assert client.options().extensions == {"creation", "checksum"}
        assert "Tus-Resumable" not in http.headers

    @pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 405, 429, 500, 501])
    def test_answer_without_tus_headers_has_no_extensions(self, status: int) -> None:
        client, http = client_of((status, {"Location": "https://login.example/"}))
        assert client.options().extensions == frozenset()
        assert len(http.sent) == 1

    @pytest.mark.parametrize(("status", "is_down"), [(502, True), (404, False)])
    def test_unknown_upload_decides_whether_a_server_is_behind_a_gateway(self, status: int, is_down: bool) -> None:
        client, _ = client_of((502, {}), (status, {}))
        with pytest.raises(errors.ServerFault) if is_down else nullcontext():
            client.options()

    def test_only_an_old_version_is_a_protocol_error(self) -> None:
        client, _ = client_of((204, {"Tus-Version": "0.2.2"}))
        with pytest.raises(errors.ProtocolError, match=r"0\.2\.2"):
            client.options()

    def test_401_is_raised(self) -> None:
        client, _ = client_of((401, {}))
        with pytest.raises(errors.Unauthorized):
            client.options()


@pytest.mark.parametrize("status", [204, 403, 404, 410])
def test_upload_that_can_not_be_discarded_is_no_error(status: int) -> None:
    client, http = client_of((status, TUS))
    client.discard(URL)
    assert http.sent[0][:2] == ("DELETE", URL)


class TestRedirects:
    @pytest.mark.parametrize("status", [307, 308])
    def test_redirected_patch_sends_the_body_again_from_its_start(self, body: Body, status: int) -> None:
        client, http = client_of((status, {"Location": "/other/1"}), (204, {**TUS, "Upload-Offset": "7"}))
        send(client, 2, body)
        assert [(method, url, data) for method, url, _, data in http.sent] == [
            ("PATCH", URL, b"23456"),
            ("PATCH", "https://up.example/other/1", b"23456"),
        ]
        assert http.headers["Upload-Offset"] == "2"
        assert http.headers["Authorization"] == TOKEN["Authorization"]

    @pytest.mark.parametrize("status", [301, 302, 303])
    def test_redirect_that_changes_the_method_is_not_followed(self, body: Body, status: int) -> None:
        """They would turn a PATCH into a GET."""
        client, http = client_of((status, {"Location": "/other/1"}))
        with pytest.raises(errors.AnswerError, match="/other/1"):
            send(client, 2, body)
        assert len(http.sent) == 1

    def test_endless_redirects_are_a_protocol_error(self) -> None:
        client, http = client_of(*[(307, {"Location": "/files/"})] * 9)
        with pytest.raises(errors.ProtocolError, match="redirects too often"):
            client.head(URL)
        assert len(http.sent) == REDIRECTS + 1

    def test_location_is_relative_to_the_redirected_url(self) -> None:
        client, _ = client_of((308, {"Location": "/v2/files/"}), (201, {**TUS, "Location": "1"}))
        assert client.ask(Create(1)).url == "https://up.example/v2/files/1"

    def test_redirect_to_another_host_is_followed(self) -> None:
        client, http = client_of((307, {"Location": "https://cdn.example/1"}), (200, {**TUS, "Upload-Offset": "0"}))
        client.head(URL)
        assert http.sent[1][1] == "https://cdn.example/1"
        assert http.headers["Tus-Resumable"] == "1.0.0"

    def test_redirect_from_https_to_http_is_not_followed(self) -> None:
        client, http = client_of((307, {"Location": "http://cdn.example/1"}))
        with pytest.raises(errors.ProtocolError, match="changes from https") as caught:
            client.head(URL)
        assert caught.value.hint
        assert len(http.sent) == 1


class TestUploadsElsewhere:
    """Upload URLs on another host are used. `HttpClient` sends no credentials there: see test_credentials.py."""

    def test_location_on_another_host_is_used(self) -> None:
        client, http = client_of(
            (201, {**TUS, "Location": "https://upload.example/1"}), (200, {**TUS, "Upload-Offset": "0"})
        )
        client.head(client.ask(Create(1)).url)
        assert http.sent[1][1] == "https://upload.example/1"

    def test_http_location_on_the_same_host_is_called_by_https(self) -> None:
        client, http = client_of(
            (201, {**TUS, "Location": "http://up.example/files/1"}), (200, {**TUS, "Upload-Offset": "0"})
        )
        client.head(client.ask(Create(1)).url)
        assert http.sent[1][1] == URL
        assert http.headers["Authorization"] == TOKEN["Authorization"]


@pytest.mark.parametrize(("size", "left"), [(1000, 0), (10 << 20, 2)])
def test_only_a_short_file_is_read_to_its_end_for_its_length(size: int, left: int) -> None:
    pieces = iter([b"first", b"last"])
    client, _ = client_of((200, {"Content-Length": str(size)}), body=pieces)
    assert client.read_last(URL, size) is Reading.STORED
    assert len(list(pieces)) == left


def test_note_is_called_with_every_answer() -> None:
    http = Scripted((307, {"Location": "/b"}), (503, {"X-RateLimit-Remaining": "5"}))
    noted: list[dict[str, str]] = []
    client = connected(http, ENDPOINT, note=noted.append)
    with pytest.raises(errors.ServerFault):
        client.head(URL)
    assert noted == [{"Location": "/b"}, {"X-RateLimit-Remaining": "5"}]


def test_session_id_is_encoded_in_metadata() -> None:
    client, http = client_of((201, {**TUS, "Location": URL}))
    client.ask(Create(1, metadata={"sessionId": "a b,c"}))
    assert base64.b64decode(http.headers["Upload-Metadata"].split(" ")[1]).decode() == "a b,c"
