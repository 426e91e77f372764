"""The REST calls: each request, and the meaning of its answers."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from scripted_server import Answer as Reply
from scripted_server import Peer, Request, Rule, ScriptedServer
from unit.transfer.transfer_fakes import Clock, FakeStop

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.masking import remember
from uploader_cli.core.packs import FoundFile
from uploader_cli.core.plan import Limits, LocalFile
from uploader_cli.core.protocol import location_in
from uploader_cli.settings import Settings
from uploader_cli.transfer.answers import Answer, answer_error, not_an_upload_server
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.bodies import Body, multipart, upload_form
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.protocols import batch
from uploader_cli.transfer.protocols.machine import Ask, Begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SERVER = "http://server.test:8005"
GOLDENS = Path(__file__).parents[2] / "wire"


def golden(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDENS / f"{name}.json").read_text())
    return found


class Called:
    """An `Api` with fake time, and the events that it emitted."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.stop = FakeStop(self.clock)
        self.events: list[ev.Event] = []
        self.settings = Settings(**{"server": SERVER, **settings})
        self.api = Api(self.settings, self.events.append, self.stop)
        self.api.budget = self.api.pacer.budget = RateBudget(clock=self.clock, epoch=lambda: 1_000_000.0)


class Wire(ScriptedServer):
    """Answers each request by the first answer for it that is not used up; the last one is for good."""

    def on(
        self, request: str, status: int = 200, body: object = b"", headers: Mapping[str, object] | None = None
    ) -> None:
        """Answer `METHOD PATH`. A body that is no text is JSON."""
        for rule in self.rules:
            if rule.request == request:
                rule.times = 1
        content = body.encode() if isinstance(body, str) else body
        self.rules.append(Rule(Reply(status, content, dict(headers or {})), request))

    def play(self, name: str) -> dict[str, Any]:
        """Answer the call of a capture as the reference backend did."""
        capture = golden(name)
        asked, body = capture["request"], capture.get("body")
        content = body.encode() if isinstance(body, str) else body
        named = {k: v for k, v in capture["headers"].items() if k not in ("content-length", "transfer-encoding")}

        def reply(request: Request) -> Reply:
            assert "json" not in asked or json.loads(request.body) == asked["json"]
            return Reply(capture["status"], content, named)

        self.rules.append(Rule(reply, f"{asked['method']} {asked['path']}"))
        return capture

    @property
    def authorizations(self) -> list[str | None]:
        """The `Authorization` of each request."""
        return [request.headers.get("authorization") for request in self.requests]


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as server:
        yield server


@pytest.fixture
def calling(wire: Wire) -> Iterator[Callable[..., Called]]:
    """Make an `Api` for `wire`."""
    made: list[Called] = []

    def make(**settings: Any) -> Called:
        made.append(Called(**{"server": wire.url, **settings}))
        return made[-1]

    yield make
    for called in made:
        called.api.close()


@pytest.fixture
def called(calling: Callable[..., Called]) -> Called:
    return calling()


# --- each call against what the reference backend answered ------------------------------------------------------------


def test_health_without_limits_is_none(called: Called, wire: Wire) -> None:
    wire.play("health")
    assert called.api.health().limits is None
    assert called.api.budget.answered


@pytest.mark.parametrize("status", [200, 404, 500])
def test_any_answer_to_health_is_an_answer(called: Called, wire: Wire, status: int) -> None:
    wire.on("GET /health", body="<html>", status=status)
    assert called.api.health().limits is None


def test_health_with_limits_returns_them(called: Called, wire: Wire) -> None:
    limits = {"maxFiles": 9, "maxFileSize": 10, "allowedTypes": ["*"], "mixedTypes": True, "relativePaths": True}
    wire.on("GET /health", body={"status": "OK", "limits": limits})
    assert called.api.health().limits == Limits(9, 10, frozenset({"*"}), mixed_types=True, relative_paths=True)


def test_session_answer_has_id_and_limits(called: Called, wire: Wire) -> None:
    capture = wire.play("session-ok")
    session = called.api.create_session("personal", 2)
    assert session.session_id == capture["body"]["sessionId"]
    assert session.limits == Limits(3, 314572800, frozenset({"mp4", "avi"}))
    assert called.api.budget.metered


def test_refused_session_raises_the_servers_code(called: Called, wire: Wire) -> None:
    capture = wire.play("session-error")
    asked = capture["request"]["json"]
    with pytest.raises(errors.AnswerError, match="400 INVALID_CATEGORY") as caught:
        called.api.create_session(asked["category"], asked["expectedFiles"])
    assert (caught.value.status, caught.value.error, caught.value.retryable) == (400, "INVALID_CATEGORY", False)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>Welcome</html>"),
        (201, "{}"),
        (204, ""),
        (404, "Not FoundFile"),
        (404, '{"error": "NOT_FOUND"}'),
        (405, ""),
    ],
)
def test_other_answer_to_a_session_call_is_no_upload_server(called: Called, wire: Wire, status: int, body: str) -> None:
    wire.on("POST /api/upload/session", body=body, status=status)
    with pytest.raises(errors.NotAnUploadServer, match=f"answered {status}") as caught:
        called.api.create_session("personal", 1)
    assert "--server" in caught.value.hint
    assert not caught.value.retryable


def test_redirected_session_call_names_the_target(called: Called, wire: Wire) -> None:
    wire.on("POST /api/upload/session", status=301, headers={"Location": "https://other.test/x"})
    with pytest.raises(errors.NotAnUploadServer) as caught:
        called.api.create_session("personal", 1)
    assert "https://other.test/x" in caught.value.hint


def test_progress_of_a_session_is_parsed(called: Called, wire: Wire) -> None:
    capture = wire.play("progress-during")
    seen = called.api.progress(capture["request"]["path"].rsplit("/", 1)[-1])
    assert seen is not None
    assert seen.session == capture["body"]["sessionId"]
    assert seen.source is ev.Transport.HTTP


def test_progress_of_an_unknown_session_is_none(called: Called, wire: Wire) -> None:
    capture = wire.play("progress-unknown")
    session = capture["request"]["path"].rsplit("/", 1)[-1]
    assert called.api.progress(session) is None
    with pytest.raises(errors.NotFound):
        called.api.progress_body(session)


@pytest.mark.parametrize("name", ["cancel-ok", "cancel-unknown"])
def test_cancel_returns_the_answer_or_not_found(called: Called, wire: Wire, name: str) -> None:
    capture = wire.play(name)
    session = capture["request"]["path"].rsplit("/", 1)[-1]
    if capture["status"] == 200:
        assert called.api.cancel(session) == capture["body"]
    else:
        with pytest.raises(errors.NotFound):
            called.api.cancel(session)


@pytest.mark.parametrize("name", ["delete-ok", "delete-unauthorized", "delete-bad-token", "delete-unknown"])
def test_delete_returns_the_answer_or_raises_by_status(calling: Callable[..., Called], wire: Wire, name: str) -> None:
    called = calling(token="sesame")
    capture = wire.play(name)
    file_id = capture["request"]["path"].rsplit("/", 1)[-1]
    kinds = {401: errors.Unauthorized, 404: errors.NotFound}
    if capture["status"] == 200:
        assert called.api.delete(file_id) == capture["body"]
    else:
        with pytest.raises(kinds[capture["status"]]) as caught:
            called.api.delete(file_id)
        assert caught.value.error == capture["body"]["error"]
        assert "sesame" not in str(caught.value)
    assert wire.authorizations == ["Bearer sesame"]


def test_validate_sends_names_as_they_are_on_the_wire(called: Called, wire: Wire) -> None:
    wire.on(
        "POST /api/upload/validate",
        body={"valid": True, "files": []},
    )
    file = LocalFile(0, 'x/a"b.mp4', 'a"b.mp4', 3, 0)
    assert called.api.validate([file], lambda _: "video/mp4") == {"valid": True, "files": []}
    sent = json.loads(wire.requests[0].body)
    assert sent == {"files": [{"name": "a%22b.mp4", "size": 3, "type": "video/mp4"}]}


def test_finish_calls_the_session(called: Called, wire: Wire) -> None:
    wire.on("POST /api/upload/session/s-1/finish", body={})
    called.api.finish("s-1")
    assert [request.path for request in wire.requests] == ["/api/upload/session/s-1/finish"]


def test_finish_is_repeated_while_a_request_of_the_session_has_not_ended(called: Called, wire: Wire) -> None:
    """As after a file that changed while it was sent: the server learns later that its connection was closed."""
    wire.on("POST /api/upload/session/s-1/finish", 409, {"error": "SESSION_BUSY", "message": "busy"})
    wire.on("POST /api/upload/session/s-1/finish", body={})
    called.api.finish("s-1", failed=1, retries=1)
    assert [json.loads(request.body) for request in wire.requests] == [{"failed": 1}] * 2


def test_id_is_quoted_as_one_segment_of_the_path(called: Called, wire: Wire) -> None:
    wire.on("POST /api/upload/cancel/..%2Fx%3Fy", body={"success": True})
    assert called.api.cancel("../x?y") == {"success": True}


def test_path_of_the_server_url_is_kept(calling: Callable[..., Called], wire: Wire) -> None:
    called = calling()
    called.api = Api(Settings(server=f"{wire.url}/base"), called.events.append, called.stop)
    wire.on("GET /base/health", body={"status": "OK"})
    called.api.health()
    assert [request.path for request in wire.requests] == ["/base/health"]


# --- stored files -----------------------------------------------------------------------------------------------------


def test_stored_file_has_size_and_digest(called: Called, wire: Wire) -> None:
    wire.on(
        "HEAD /uploads/personal/dir/a%20b%23%3F.mp4",
        headers={"Content-Length": "12", "Repr-Digest": "sha-512=:eA==:, sha-256=:YWJj:"},
    )
    assert called.api.stored(location_in("personal", "dir/a b#?.mp4")) == FoundFile(12, b"abc".hex(), None)


def test_stored_file_of_the_reference_backend_has_no_digest(called: Called, wire: Wire) -> None:
    capture = golden("stored-head")
    wire.on(f"HEAD {capture['request']['path']}", headers=capture["headers"])
    assert called.api.stored(capture["request"]["path"]) == FoundFile(2097152, None, None)


@pytest.mark.parametrize("status", [404, 410])
def test_file_that_is_not_stored_is_none(called: Called, wire: Wire, status: int) -> None:
    wire.on("HEAD /uploads/personal/a", status=status)
    assert called.api.stored("/uploads/personal/a") is None


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (302, {"Location": "/login"}, errors.AnswerError),
        (403, {}, errors.Unauthorized),
        (405, {}, errors.AnswerError),
        (500, {}, errors.ServerFault),
        (501, {}, errors.ServerFault),
        (503, {}, errors.ServerFault),
        (503, {"Retry-After": "10"}, errors.DigestPending),
    ],
)
def test_refusal_that_says_nothing_about_the_stored_file_is_raised(
    called: Called, wire: Wire, status: int, headers: dict[str, str], kind: type[errors.AnswerError]
) -> None:
    wire.on("HEAD /uploads/personal/a", status=status, headers=headers)
    with pytest.raises(errors.AnswerError) as caught:
        called.api.stored("/uploads/personal/a")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("header", "digest"),
    [
        ("sha-256=:YWJj:", b"abc".hex()),
        ("SHA-256=:YWJjZA==:", b"abcd".hex()),
        ("unixsum=1, sha-256=:YWJj:", b"abc".hex()),
        ("sha-256=:no base64:", ""),
        ("sha-512=:YWJj:", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_digest_of_rfc_9530_is_parsed(called: Called, wire: Wire, header: str, digest: str | None) -> None:
    wire.on("HEAD /uploads/personal/a", headers={"Content-Length": "1", "Repr-Digest": header})
    assert called.api.stored("/uploads/personal/a") == FoundFile(1, digest, None)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b c.mp4", "/uploads/personal/a/b%20c.mp4"),
        ("喂%22.mp4", "/uploads/personal/%E5%96%82%2522.mp4"),
        ("a?b#c;d", "/uploads/personal/a%3Fb%23c%3Bd"),
    ],
)
def test_path_of_a_stored_file_is_quoted(name: str, path: str) -> None:
    assert location_in("personal", name) == path


# --- batch ------------------------------------------------------------------------------------------------------------


class Sent:
    """A batch request, answered by a real socket."""

    def __init__(self, directory: Path, status: int, body: object, files: int = 1) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Answer | None = None
        self.error: errors.UploaderError | None = None

        def script(peer: Peer) -> None:
            self.requests.append(peer.request())
            peer.answer(status, body, Retry_After="3")

        path = directory / "a.mp4"
        path.write_bytes(b"x" * 10)
        file = LocalFile(0, str(path), "a.mp4", 10, path.stat().st_mtime_ns)
        form = Body(*multipart(upload_form([], [file])), checkpoint=lambda: None)
        with ScriptedServer(script) as server:
            self.called = Called(server=server.url, token_command="echo $$")
            _, ask = batch.step(batch.BatchState(server.url, "s", "personal", (file,)), Begin())
            assert isinstance(ask, Ask)
            try:
                self.answer = self.called.api.ask(replace(ask, files=(file,) * files), form)
            except errors.UploaderError as error:
                self.error = error
            self.called.api.close()


def test_batch_returns_the_answer(tmp_path: Path) -> None:
    capture = golden("batch-one-failed-inside-200")
    sent = Sent(tmp_path, capture["status"], capture["body"], 2)
    assert sent.answer is not None
    assert sent.answer.body == capture["body"]
    _, headers, body = sent.requests[0]
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, {"error": "UPLOAD_FAILED"}, errors.ServerFault),
        (500, golden("batch-unknown-session")["body"], errors.SessionLost),
        (404, {"error": "SESSION_NOT_FOUND"}, errors.SessionLost),
        (409, {"error": "SESSION_ENDED"}, errors.SessionLost),
        (409, {"error": "CONFLICT"}, errors.AnswerError),
        (500, {"error": "INTERNAL"}, errors.ServerFault),
        (404, {}, errors.NotFound),
        (408, b"", errors.TooSlow),
        (413, {"error": "FILE_TOO_LARGE"}, errors.AnswerError),
        (503, b"", errors.ServerFault),
        (429, b"", errors.RateLimited),
        (401, b"", errors.Unauthorized),
    ],
)
def test_refused_batch_raises_by_status_and_code(
    tmp_path: Path, status: int, body: object, kind: type[errors.UploaderError]
) -> None:
    """Neither a rate limit nor an expired token is excused here: the caller sends a new body."""
    sent = Sent(tmp_path, status, body)
    assert type(sent.error) is kind
    assert getattr(sent.error, "error", "") == (body.get("error", "") if isinstance(body, dict) else "")
    assert sent.error.__cause__ is None
    assert sent.error.retryable is (kind is errors.SessionLost or status in (429, 500, 503))
    assert (len(sent.requests), sent.called.stop.slept, sent.called.api.budget.pause_left()) == (1, [], 0.0)


# --- rate limits ------------------------------------------------------------------------------------------------------


def test_429_is_announced_and_the_call_is_repeated_after_the_pause(called: Called, wire: Wire) -> None:
    wire.on("GET /health", status=429, headers={"Retry-After": "886"})
    wire.on("GET /health", body={})
    called.api.health()
    assert called.stop.slept == [886.0]
    (paused,) = [e for e in called.events if isinstance(e, ev.Paused)]
    assert paused.seconds == 886.0
    assert [str(e.code) for e in called.events if isinstance(e, ev.RunWarning)] == ["rate_limited"]


@pytest.mark.parametrize(
    ("header", "waits"),
    [("7", 7.0), (None, 60.0), ("soon", 60.0), ("0", 1.0), (lambda: formatdate(time.time() + 100, usegmt=True), 100.0)],
    ids=["seconds", "missing", "nonsense", "zero", "date"],
)
def test_retry_after_is_read_in_all_forms(called: Called, wire: Wire, header: Any, waits: float) -> None:
    value = header() if callable(header) else header
    wire.on("GET /health", status=429, headers={"Retry-After": value} if value else {})
    wire.on("GET /health", body={})
    called.api.health()
    assert called.stop.slept == [pytest.approx(waits, abs=3.0 if waits == 100.0 else 0.0)]


def test_429_within_max_wait_is_waited_for_and_the_next_is_raised(calling: Callable[..., Called], wire: Wire) -> None:
    called = calling(max_wait=150.0)
    wire.on("GET /api/upload/progress/s", status=429, headers={"Retry-After": "60"})
    with pytest.raises(errors.RateLimited, match="rate limit") as caught:
        called.api.progress_body("s")
    assert called.stop.slept == [60.0, 60.0]
    assert caught.value.retry_after == 60.0
    assert caught.value.retryable
    assert "--max-wait" in caught.value.hint


def test_429_beyond_max_wait_is_raised_at_once_without_a_pause(calling: Callable[..., Called], wire: Wire) -> None:
    called = calling(max_wait=59.0)
    wire.on("GET /api/upload/progress/s", status=429, headers={"Retry-After": "60"})
    with pytest.raises(errors.RateLimited):
        called.api.progress_body("s")
    assert called.stop.slept == []
    assert called.api.budget.pause_left() == 0.0
    assert not [event for event in called.events if isinstance(event, ev.Paused)]


def test_429_with_retry_after_0_pauses_for_a_second_each(calling: Callable[..., Called], wire: Wire) -> None:
    called = calling(max_wait=10.0)
    wire.on("GET /health", status=429, headers={"Retry-After": "0"})
    with pytest.raises(errors.RateLimited):
        called.api.health()
    assert called.stop.slept == [1.0] * 10


def test_pause_delays_the_calls_of_another_thread(called: Called, wire: Wire) -> None:
    beside = called.api.another()
    wire.on("GET /health", body={})
    called.api.budget.pause(30.0)
    beside.health()
    assert called.stop.slept == [30.0]
    assert called.api.budget.answered


def test_429_to_a_poll_is_raised_and_slows_polls_alone(called: Called, wire: Wire) -> None:
    wire.play("rate-limited")
    with pytest.raises(errors.RateLimited):
        called.api.progress("x")
    assert called.stop.slept == []
    assert called.api.budget.pause_left() == 0.0
    assert called.api.budget.poll_interval() >= 886.0


def test_429_to_a_poll_beyond_max_wait_pauses_no_call(calling: Callable[..., Called], wire: Wire) -> None:
    called = calling(max_wait=10.0)
    wire.on("GET /api/upload/progress/x", status=429, headers={"Retry-After": "886"})
    wire.on("GET /health", body={})
    with pytest.raises(errors.RateLimited):
        called.api.progress("x")
    called.api.health()
    assert called.stop.slept == []
    assert called.api.budget.poll_interval() == 886.0


def test_429_to_a_patient_poll_is_waited_for(called: Called, wire: Wire) -> None:
    wire.on("GET /api/upload/progress/x", status=429, headers={"Retry-After": "7"})
    wire.on("GET /api/upload/progress/x", status=404, body={"error": "SESSION_NOT_FOUND"})
    assert called.api.progress("x", patient=True) is None
    assert called.stop.slept == [7.0]


def test_poll_is_made_during_a_pause(called: Called, wire: Wire) -> None:
    """Its caller asks the budget when to poll."""
    wire.on("GET /api/upload/progress/x", status=404, body={"error": "SESSION_NOT_FOUND"})
    called.api.budget.pause(30.0)
    assert called.api.progress("x") is None
    assert called.stop.slept == []


def test_stop_ends_the_pause(called: Called, wire: Wire) -> None:
    called.api.budget.pause(30.0)
    called.stop.set()
    with pytest.raises(errors.Interrupted):
        called.api.health()
    assert wire.requests == []


def test_budget_is_read_from_each_answer(called: Called, wire: Wire) -> None:
    wire.on("GET /health", body={}, headers={"X-RateLimit-Remaining": "6", "X-RateLimit-Reset": "900"})
    called.api.health()
    assert called.api.budget.metered
    assert called.api.budget.poll_interval() == 60.0


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_refused_token_is_asked_for_again_once(calling: Callable[..., Called], wire: Wire, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.write_text("")
    called = calling(token_command=f"echo x >> '{counter}'; wc -l < '{counter}' | tr -d ' '")
    wire.on("DELETE /api/upload/file/f", status=401, body={"error": "INVALID_TOKEN"})
    with pytest.raises(errors.Unauthorized, match="401 INVALID_TOKEN") as caught:
        called.api.delete("f")
    assert wire.authorizations == ["Bearer 1", "Bearer 2"]
    assert caught.value.hint == "the server refuses this token: it may have expired or be for another server"


def test_missing_token_is_named_by_the_ways_to_give_one(calling: Callable[..., Called], wire: Wire) -> None:
    wire.on("DELETE /api/upload/file/f", status=401)
    with pytest.raises(errors.Unauthorized) as caught:
        calling().api.delete("f")
    assert caught.value.hint == "give a token with UPLOADER_TOKEN, --token-file or --token-command"


def test_new_token_is_used_for_later_calls(calling: Callable[..., Called], wire: Wire, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    called = calling(token_file=token)
    assert called.api.authorization() == {"Authorization": "Bearer old"}
    token.write_text("new")
    wire.on("DELETE /api/upload/file/f", status=401)
    wire.on("DELETE /api/upload/file/f", body={"success": True})
    called.api.delete("f")
    called.api.delete("f")
    assert wire.authorizations == ["Bearer old", "Bearer new", "Bearer new"]


def test_401_uses_the_token_that_another_thread_refreshed(tmp_path: Path) -> None:
    """Asking again would return the same token, which counts as none."""
    token = tmp_path / "token"
    token.write_text("old")
    api = Called(token_file=token).api
    api.authorization()
    with ThreadPoolExecutor(1) as other:
        other.submit(api.authorization).result()
        token.write_text("new")
        assert other.submit(api.pacer.refresh_token).result()
    assert api.pacer.refresh_token()
    assert api.authorization() == {"Authorization": "Bearer new"}
    assert not api.pacer.refresh_token()


def test_token_that_stays_the_same_is_not_sent_twice(calling: Callable[..., Called], wire: Wire) -> None:
    called = calling(token="sesame")
    wire.on("DELETE /api/upload/file/f", status=401)
    with pytest.raises(errors.Unauthorized):
        called.api.delete("f")
    assert len(wire.requests) == 1


def test_missing_token_is_neither_sent_nor_refreshed(called: Called, wire: Wire) -> None:
    wire.on("DELETE /api/upload/file/f", status=401)
    with pytest.raises(errors.Unauthorized):
        called.api.delete("f")
    assert wire.authorizations == [None]


def test_withheld_token_is_not_sent(calling: Callable[..., Called], wire: Wire) -> None:
    called = calling(token="sesame", distrust="nobody named it")
    wire.on("GET /health", body={"status": "OK"})
    called.api.health()
    assert wire.authorizations == [None]


# --- errors by status -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, errors.AnswerError, False),
        (401, errors.Unauthorized, False),
        (403, errors.Unauthorized, False),
        (404, errors.NotFound, False),
        (408, errors.TooSlow, True),
        (409, errors.AnswerError, False),
        (410, errors.NotFound, False),
        (423, errors.AnswerError, True),
        (429, errors.RateLimited, True),
        (500, errors.ServerFault, True),
        (503, errors.ServerFault, True),
    ],
)
def test_each_status_has_its_error_class(status: int, kind: type[errors.AnswerError], retryable: bool) -> None:
    error = answer_error(Answer(status, {"Retry-After": "5"}, {"error": "CODE", "message": "words"}, f"{SERVER}/x"))
    assert type(error) is kind
    assert (error.status, error.error, error.retryable) == (status, "CODE", retryable)


@pytest.mark.parametrize("body", [None, [], {"error": 5, "message": ["x"]}, {"error": None}])
def test_error_body_of_any_shape_is_accepted(body: object) -> None:
    error = answer_error(Answer(502, {}, body, SERVER))
    assert str(error) == "the server failed: 502"
    assert error.error == ""


NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("base", "call", "location", "address"),
    [
        ("http://h", "/api/upload/session", "https://h/api/upload/session", "https://h"),
        ("http://h", "/health", "/v2/health/", "http://h/v2"),
        ("http://h/up", "/health", "https://h/up/health", "https://h/up"),
        ("http://h/files/", "", "https://h/files/", "https://h/files/"),
        ("http://h/files/", NOBODY, f"https://h/files/{NOBODY}", "https://h/files/"),
        ("http://h/files", f"/{NOBODY}", f"https://h/files/{NOBODY}", "https://h/files"),
        (
            "http://h",
            "/api/upload/session",
            "https://login.example/in?next=/api/upload/session",
            "https://login.example/in",
        ),
    ],
)
def test_redirect_names_the_address_to_use(base: str, call: str, location: str, address: str) -> None:
    """Never the path of a call, or of the upload that nobody has."""
    error = answer_error(Answer(301, {"Location": location}, None, base + call, base=base))
    assert (str(error), error.hint) == (f"the server redirects to {address}", f"use {address} instead")


def test_redirect_of_any_other_call_names_the_target() -> None:
    error = answer_error(Answer(308, {"Location": "/elsewhere"}, None, f"{SERVER}/api/x"))
    assert f"{SERVER}/elsewhere" in str(error)
    assert not error.retryable


def test_redirect_that_echoes_a_secret_is_masked_in_error_and_hint() -> None:
    remember("sesame-0815")
    answer = Answer(302, {"Location": "https://other.test/sesame-0815/in"}, None, f"{SERVER}/api/x")
    assert "https://other.test/***/in" in str(answer_error(answer))
    assert "https://other.test/***/in" in not_an_upload_server(answer, "--server").hint
