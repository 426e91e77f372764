"""The bundled server's calls besides the batch: health, validation, sessions, progress, deletion, the rate limit."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

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
    progress,
    text,
    upload,
)
from server_clock import ServerClock
from serving import inside, running_server

from uploader_server.auth import issue_token
from uploader_server.storage.writing import Appender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def post(server: EmbeddedServer, path: str, body: Any = None, **more: Any) -> requests.Response:
    return requests.post(f"{server.url}/api/upload/{path}", json=body, timeout=DEADLINE, **more)


def test_health_has_the_limits(server: EmbeddedServer) -> None:
    answer = requests.get(f"{server.url}/health", timeout=DEADLINE).json()
    assert answer["status"] == "OK"
    assert answer["uptime"] >= 0
    assert answer["memory"]["rss"] > 1 << 20
    assert answer["limits"] == {
        "maxFiles": 10_000,
        "allowedTypes": ["*"],
        "maxFileSize": 1 << 40,
        "mixedTypes": True,
        "relativePaths": True,
    }


def test_session_answer_has_the_limits_of_health(server: EmbeddedServer) -> None:
    answer = post(server, "session", {"category": "scenic", "expectedFiles": 3})
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    limits = requests.get(f"{server.url}/health", timeout=DEADLINE).json()["limits"]
    shown = answer.json()
    assert shown["category"] == "scenic"
    assert {key: shown[key] for key in limits} == limits
    assert shown["tus"] == requests.get(f"{server.url}/health", timeout=DEADLINE).json()["tus"]


def test_limits_follow_the_configuration() -> None:
    with running_server(max_files=7, max_size=8 << 20, types=(".MP4", "avi")) as server:
        shown = post(server, "session", {"category": "personal", "expectedFiles": 7.0}).json()  # whole
        assert (shown["maxFiles"], shown["maxFileSize"], shown["allowedTypes"]) == (7, 8 << 20, ["mp4", "avi"])
        assert post(server, "session", {"category": "personal", "expectedFiles": 8}).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"category": "personal"},
        {"category": "other", "expectedFiles": 1},
        {"category": "personal", "expectedFiles": 0},
        {"category": "personal", "expectedFiles": "2"},
        {"category": "personal", "expectedFiles": 1.5},
        {"category": "personal", "expectedFiles": True},
        {"category": "personal", "expectedFiles": 10_001},
        {"category": "personal", "expectedFiles": 1, "more": 1},
    ],
)
def test_invalid_session_request_is_invalid_category(server: EmbeddedServer, body: Any) -> None:
    answer = post(server, "session", body)
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_CATEGORY")
    assert isinstance(answer.json()["details"], str)


def test_body_that_is_not_json_is_a_400(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    for broken in (b"{nonsense", b"", b"\xff\xfe", b"[" * 50_000):
        with subtests.test(broken=broken):
            for path, code in (("session", "INVALID_CATEGORY"), ("validate", "VALIDATION_ERROR")):
                answer = requests.post(f"{server.url}/api/upload/{path}", data=broken, timeout=DEADLINE)
                assert (answer.status_code, answer.json()["error"]) == (400, code)


@pytest.mark.parametrize("number", [b"Infinity", b"NaN", b"1e999", b"-1", b"9" * 400, b'{"a":1}'])
def test_expected_files_out_of_range_is_refused(server: EmbeddedServer, number: bytes) -> None:
    body = b'{"category":"personal","expectedFiles":' + number + b"}"
    answer = requests.post(f"{server.url}/api/upload/session", data=body, timeout=DEADLINE)
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_CATEGORY")


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        "files",
        [None],
        [{"name": "a.mp4", "size": 0, "type": "video/mp4"}],
        [{"name": "a.mp4", "size": (1 << 40) + 1, "type": "video/mp4"}],
        [{"name": "a.mp4", "size": 1, "type": None}],
        [{"name": "", "size": 1, "type": "video/mp4"}],
        [{"name": "a.mp4", "type": "video/mp4"}],
        [{"name": "a.mp4", "size": 1, "type": "video/mp4", "path": "x"}],
        [{"name": "a", "size": 1, "type": "x"}] * 10_001,
    ],
)
def test_validation_errors_are_listed(server: EmbeddedServer, files: Any) -> None:
    answer = post(server, "validate", {} if files is None else {"files": files})
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")
    assert isinstance(answer.json()["details"], list)


def test_validation_errors_name_their_places(server: EmbeddedServer) -> None:
    answer = post(server, "validate", {"files": [{"name": "a.mp4", "size": 0, "type": 7}]})
    assert answer.json()["details"] == [
        '"files[0].size" must be greater than or equal to 1',
        '"files[0].type" must be a string',
    ]


def test_validation_checks_each_file() -> None:
    files = [{"name": f"a.{end}", "size": 5, "type": kind} for end, kind in (("mp4", "video/mp4"), ("mov", "video/x"))]
    with running_server(types=("mp4",)) as server:
        answer = post(server, "validate", {"files": files}).json()
    assert answer["valid"] is False
    assert [f["valid"] for f in answer["files"]] == [True, False]
    assert any(".mov" in error for error in answer["files"][1]["errors"])


def test_progress_is_available_before_the_first_file(server: EmbeddedServer) -> None:
    known = progress(server.url, new_session(server.url, 4)).json()
    assert (known["overallStatus"], known["totalProgress"], known["totalFiles"], known["files"]) == (
        "pending",
        0,
        4,
        [],
    )
    assert set(known) == {
        "sessionId",
        "overallStatus",
        "totalProgress",
        "completedFiles",
        "failedFiles",
        "totalFiles",
        "receivedBytes",
        "estimatedTimeRemaining",
        "files",
        "lastUpdate",
    }


@pytest.mark.parametrize("session", [UNKNOWN, "x", "..%2f..%2fetc", "'; DROP TABLE sessions", "9" * 5000])
@pytest.mark.parametrize("call", ["GET progress/{}", "POST cancel/{}", "POST session/{}/finish"])
def test_unknown_sessions_are_404(server: EmbeddedServer, call: str, session: str) -> None:
    method, path = call.split()
    answer = requests.request(method, f"{server.url}/api/upload/{path.format(session)}", timeout=DEADLINE)
    assert answer.status_code == 404
    assert answer.json()["error"] in {"SESSION_NOT_FOUND", "NOT_FOUND"}


@pytest.mark.parametrize(
    "call",
    ["GET /api/nothing", "GET /api/upload/batch", "PUT /api/upload/session", "GET /ui/no", "POST /", "DELETE /health"],
)
def test_unknown_routes_are_a_404(server: EmbeddedServer, call: str) -> None:
    method, path = call.split()
    answer = requests.request(method, server.url + path, timeout=DEADLINE)
    assert (answer.status_code, answer.json()["error"]) == (404, "NOT_FOUND")


def test_finish_ends_a_session_early(server: EmbeddedServer) -> None:
    session = new_session(server.url, 5)
    upload(server.url, file("finished early", b"x"), session=session)
    answer = post(server, f"session/{session}/finish")
    assert answer.status_code == 200
    assert (answer.json()["overallStatus"], answer.json()["completedFiles"]) == ("completed", 1)
    assert progress(server.url, session).json()["totalProgress"] == 100
    assert post(server, f"session/{session}/finish").json()["overallStatus"] == "completed"


def test_finish_with_a_failed_file_is_partial(server: EmbeddedServer) -> None:
    session = new_session(server.url, 5)
    upload(server.url, file("n" * 300, b"x"), session=session)
    assert post(server, f"session/{session}/finish").json()["overallStatus"] == "partial"


def test_finish_waits_for_no_batch_under_way(server: EmbeddedServer) -> None:
    session = new_session(server.url, 2)
    body = body_of([text("sessionId", session), text("category", "personal"), file("a", b"x" * 1000)])
    with HalfSent(server.url, body) as request:
        request.send(500)
        eventually(lambda: progress(server.url, session).json()["files"], "the file in progress")
        assert post(server, f"session/{session}/finish").status_code == 409


def test_an_ended_session_can_not_be_cancelled(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    upload(server.url, file("ended", b"x"), session=session)
    assert post(server, f"cancel/{session}").status_code == 404


def test_second_cancel_has_the_same_answer(server: EmbeddedServer) -> None:
    session = new_session(server.url)
    assert [post(server, f"cancel/{session}").status_code for _ in range(2)] == [200, 200]


def test_delete_needs_a_token(server: EmbeddedServer) -> None:
    (known,) = upload(server.url, file("to delete", b"x"))
    url = f"{server.url}/api/upload/file/{known['id']}"
    token = issue_token(server.config.jwt_secret)

    def delete(header: str | None) -> tuple[int, str]:
        headers = {} if header is None else {"Authorization": header}
        answer = requests.delete(url, headers=headers, timeout=DEADLINE)
        return answer.status_code, answer.json().get("error", "")

    assert delete(None) == (401, "UNAUTHORIZED")
    assert delete("Basic eDp5") == (401, "UNAUTHORIZED")
    assert delete("Bearer nonsense") == (401, "INVALID_TOKEN")
    assert delete(f"Bearer {issue_token('another secret')}") == (401, "INVALID_TOKEN")
    assert delete(f"Bearer {issue_token(server.config.jwt_secret, ttl=-1)}") == (401, "INVALID_TOKEN")
    assert (server.root / "personal" / known["fileName"]).exists()
    assert delete(f"Bearer {token}") == (200, "")
    assert not (server.root / "personal" / known["fileName"]).exists()
    assert delete(f"Bearer {token}") == (404, "FILE_NOT_FOUND")


def test_the_rate_limit_counts_api_calls_alone() -> None:
    with running_server(rate_limit=3) as server:
        for _ in range(5):
            assert "x-ratelimit-limit" not in requests.get(f"{server.url}/health", timeout=DEADLINE).headers
        answers = [progress(server.url, UNKNOWN) for _ in range(4)]
        assert [a.status_code for a in answers] == [404, 404, 404, 429]
        assert [a.headers["x-ratelimit-remaining"] for a in answers] == ["2", "1", "0", "0"]
        assert answers[3].json()["error"] == "TOO_MANY_REQUESTS"
        assert 0 < int(answers[3].headers["retry-after"]) <= 900
        assert abs(int(answers[0].headers["x-ratelimit-reset"]) - time.time() - 900) < 60


def test_there_is_no_rate_limit_by_default(server: EmbeddedServer) -> None:
    assert "x-ratelimit-limit" not in progress(server.url, UNKNOWN).headers


def test_idle_sessions_expire_and_active_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        known = inside(server).backend.sessions.known
        active, idle = new_session(server.url), new_session(server.url)
        body = body_of([text("sessionId", active), text("category", "personal"), file("a", b"x" * 1000)])
        with HalfSent(server.url, body) as request:
            request.send(500)
            eventually(lambda: known[active].requests, "the request")
            clock.ahead += server.config.session_ttl + 1
            eventually(lambda: idle not in known, "the expiry")
            clock.wait_for_sweeps()
            assert progress(server.url, idle).status_code == 404
            assert progress(server.url, active).status_code == 200
            request.send()
            assert request.status() == 200


@pytest.mark.thorough
def test_hashing_and_writing_do_not_block_the_event_loop(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a large body go to other threads, and calls are answered meanwhile."""
    session = new_session(server.url)
    body = body_of([text("sessionId", session), text("category", "personal"), file("large", b"x" * (16 << 20))])
    write, writers = Appender.append, []

    def watched(appender: Appender, pieces: list[bytes]) -> None:
        writers.append(threading.current_thread().name)
        write(appender, pieces)

    monkeypatch.setattr(Appender, "append", watched)
    with HalfSent(server.url, body) as request:
        request.send(8 << 20)
        eventually(lambda: writers, "a block")
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
        request.send()
        assert request.status() == 200
    assert len(writers) > 1
    assert "uploader-server" not in writers
    assert "uploader-server" in {thread.name for thread in threading.enumerate()}


def test_path_with_a_slash_too_many_is_no_redirect(server: EmbeddedServer) -> None:
    """Behind a proxy with TLS its address would begin with http."""
    answer = requests.get(f"{server.url}/health/", allow_redirects=False, timeout=DEADLINE)
    assert answer.status_code == 404
