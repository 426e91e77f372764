"""Analyses of uploaded files (docs/protocol.md, section 4): events, status, results and failures."""

from __future__ import annotations

import json
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import requests
from server.batches import DEADLINE, UNKNOWN, Listener, connected, eventually, file, listening, new_session, upload
from serving import running_server

from uploader_server.auth import issue_token
from uploader_server.config import ServerConfig
from uploader_server.simulation.stages import KINDS
from uploader_server.simulation.state import AnalysisMode, Faults

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

SECRET = "a secret of the analysis tests, long enough"
JWT = {"authorization": f"Bearer {issue_token(SECRET)}"}
CALLS = {"content": "analyze/content", "fusion": "analyze/fusion", "music": "generate/music-prompt"}
ENDS = {
    "content": [10, 40, 70, 90, 100],
    "fusion": [10, 25, 40, 70, 85, 100],
    "music": [20, 40, 60, 85, 100],
}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(jwt_secret=SECRET, analysis_seconds=0.05) as server:
        yield server


@pytest.fixture
def healthy(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """The server of all tests; its faults are removed before each."""
    yield server
    server.faults.set_analysis(None)
    server.faults.analysis_seconds = 0.05


def call(server: EmbeddedServer, kind: str, body: Any, **more: Any) -> requests.Response:
    options = {"headers": JWT, "timeout": DEADLINE, **more}
    return requests.post(f"{server.url}/api/ai/{CALLS[kind]}", json=body, **options)


def calling(server: EmbeddedServer, kind: str, body: Any) -> socket.socket:
    """A connection with a call whose answer is not awaited."""
    connection, text = connected(server.url), json.dumps(body).encode()
    headers = {"Host": "localhost", "Content-Type": "application/json", "Content-Length": len(text), **JWT}
    lines = [f"POST /api/ai/{CALLS[kind]} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + text)
    return connection


def status(server: EmbeddedServer, analysis: str) -> requests.Response:
    return requests.get(f"{server.url}/api/ai/analysis/{analysis}/status", headers=JWT, timeout=DEADLINE)


def stored(server: EmbeddedServer, name: str = "a.mp4") -> str:
    return str(upload(server.url, file(name, b"a video"))[0]["filePath"])


def asked(server: EmbeddedServer, kind: str, **more: Any) -> dict[str, Any]:
    if kind == "music":
        return {"fusionPlan": {"title": "two"}, **more}
    if kind == "fusion":
        return {"video1Path": stored(server), "video2Path": stored(server, "b.mp4"), **more}
    return {"videoPath": stored(server), "category": "personal", **more}


def events_to(listener: Listener, last: str = '"progress":100') -> list[tuple[str, dict[str, Any]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    packet = ""
    while last not in packet:
        packet = listener.packet()
        name, content = json.loads(packet.removeprefix("42"))
        events.append((name, content))
    return events


@pytest.mark.parametrize("kind", list(CALLS))
def test_analysis_reports_every_stage_in_order(server: EmbeddedServer, kind: str) -> None:
    session = str(uuid.uuid4())
    body = asked(server, kind, sessionId=session)
    with listening(server.url, session) as listener:
        answer = call(server, kind, body).json()
        events = events_to(listener)
    assert {name for name, _ in events} == {"analysis:progress"}
    assert all(set(content) == {"stage", "progress", "message", "timestamp"} for _, content in events)
    percents = [content["progress"] for _, content in events]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    stages = [content["stage"] for _, content in events]
    assert list(dict.fromkeys(stages)) == [stage.name for stage in KINDS[kind]]
    assert [max(p for p, s in zip(percents, stages, strict=True) if s == stage.name) for stage in KINDS[kind]] == ENDS[
        kind
    ]
    assert answer["success"] is True
    assert answer["data"]["analysisId"] == session
    assert answer["data"]["finalReport"]


def test_fusion_result_is_the_input_of_the_music_analysis(server: EmbeddedServer) -> None:
    plan = call(server, "fusion", asked(server, "fusion")).json()["data"]["fusionPlan"]
    data = call(server, "music", {"fusionPlan": plan}).json()["data"]
    assert plan["title"] in data["musicPrompt"]


def test_analysis_status_has_progress_and_result(healthy: EmbeddedServer) -> None:
    healthy.faults.analysis_seconds = 10.0  # until all was asked
    session = str(uuid.uuid4())
    body = asked(healthy, "content", sessionId=session.upper())
    answers: list[requests.Response] = []
    calling = threading.Thread(target=lambda: answers.append(call(healthy, "content", body)))
    calling.start()
    eventually(lambda: status(healthy, session).status_code == 200, "the start")
    running = status(healthy, session.upper()).json()
    assert (running["analysisId"], running["status"], running["kind"]) == (session, "running", "content")
    assert running["stage"] in {stage.name for stage in KINDS["content"]}
    assert call(healthy, "content", body).json()["error"] == "ANALYSIS_RUNNING"
    with listening(healthy.url, session) as late:
        assert late.packet().startswith('42["analysis:progress"')
    healthy.faults.analysis_seconds = 0.0
    calling.join()
    ended = status(healthy, session).json()
    assert (ended["status"], ended["progress"]) == ("completed", 100)
    assert ended["result"] == answers[0].json()["data"]


def test_analysis_continues_after_its_client_disconnects(healthy: EmbeddedServer) -> None:
    healthy.faults.analysis_seconds = 0.5
    session = str(uuid.uuid4())
    with calling(healthy, "content", asked(healthy, "content", sessionId=session)):
        eventually(lambda: status(healthy, session).ok, "the start")
    eventually(lambda: status(healthy, session).json().get("status") == "completed", "the end")


@pytest.mark.parametrize(("mode", "expected", "retryable"), [("fail:report", 503, True), ("refuse:report", 422, False)])
def test_a_stage_fails_on_demand(healthy: EmbeddedServer, mode: str, expected: int, retryable: bool) -> None:
    healthy.faults.set_analysis(mode)
    session = str(uuid.uuid4())
    body = asked(healthy, "content", sessionId=session)
    with listening(healthy.url, session) as listener:
        answer = call(healthy, "content", body)
        events = events_to(listener, "analysis:error")
    assert answer.status_code == expected
    assert (answer.json()["stage"], answer.json()["retryable"]) == ("report", retryable)
    name, content = events[-1]
    assert name == "analysis:error"
    assert set(content) == {"message", "timestamp"}
    assert events[-2][1]["progress"] == 70  # the stage before was finished
    failed = status(healthy, session).json()
    assert (failed["status"], failed["progress"], failed["error"]["error"]) == ("failed", 70, answer.json()["error"])
    healthy.faults.set_analysis(None)
    assert call(healthy, "content", body).status_code == 200


def test_a_silent_server_sends_no_event_and_answers(healthy: EmbeddedServer) -> None:
    healthy.faults.set_analysis("silent")
    session = str(uuid.uuid4())
    body = asked(healthy, "content", sessionId=session)
    with listening(healthy.url, session) as listener:
        assert call(healthy, "content", body).status_code == 200
        with pytest.raises(TimeoutError):
            listener.packet(timeout=0.1)
    with listening(healthy.url, session) as late, pytest.raises(TimeoutError):
        late.packet(timeout=0.1)
    assert status(healthy, session).json()["progress"] == 100


def test_a_hanging_server_never_answers_and_still_stops() -> None:
    with running_server(jwt_secret=SECRET, analysis="hang", analysis_seconds=0) as server:
        session = str(uuid.uuid4())
        with calling(server, "music", {"fusionPlan": "x", "sessionId": session}) as connection:
            eventually(lambda: status(server, session).ok, "the start")
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert status(server, session).json()["progress"] == 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("content", None),
        ("content", []),
        ("content", {}),
        ("content", {"videoPath": 7}),
        ("content", {"videoPath": "/uploads/personal/a.mp4", "category": "other"}),
        ("content", {"videoPath": "/uploads/personal/a.mp4", "category": ["personal"]}),
        ("content", {"videoPath": "/uploads/personal/a.mp4", "sessionId": "x"}),
        ("fusion", {"video1Path": "/uploads/personal/a.mp4"}),
        ("music", {"fusionPlan": {}}),
        ("music", {"fusionPlan": 7}),
    ],
)
def test_invalid_analysis_request_is_a_400(server: EmbeddedServer, kind: str, body: Any) -> None:
    stored(server)
    answer = call(server, kind, body)
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "a.mp4",
        "{root}/personal/a.mp4",
        "/uploads/../personal/a.mp4",
        "/uploads/personal/./a.mp4",
        "/uploads//a.mp4",
        "/uploads/personal/a\0.mp4",
        "{root}",
        "{root}x/personal/a.mp4",
    ],
)
def test_a_path_outside_of_the_uploads_is_refused(server: EmbeddedServer, path: str) -> None:
    answer = call(server, "content", {"videoPath": path.format(root=server.root)})
    assert (answer.status_code, answer.json()["error"]) == (400, "INVALID_PATH")


@pytest.mark.parametrize(
    "path",
    [
        "/uploads/personal/none.mp4",
        "/uploads/.uploader/server.sqlite3",
        "/uploads/personal/%2e%2e/.uploader/server.sqlite3",
        "/uploads/personal",
        "/uploads/personal/\ud800.mp4",
    ],
)
def test_analysis_of_a_file_that_is_not_uploaded_is_a_404(server: EmbeddedServer, path: str) -> None:
    answer = call(server, "content", {"videoPath": path.format(root=server.root)})
    assert (answer.status_code, answer.json()["error"]) == (404, "FILE_NOT_FOUND")


def test_analysis_accepts_the_url_of_a_stored_file(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    stored(server, "夏 100%.mp4")
    for path in ("/uploads/personal/夏 100%.mp4", "/uploads/personal/%E5%A4%8F%20100%25.mp4"):
        with subtests.test(path=path):
            assert call(server, "content", {"videoPath": path}).status_code == 200


@pytest.mark.parametrize("asks", [{"flavour": "reference"}, {"auth_token": "a-token"}])
def test_analysis_without_the_required_token_is_refused(asks: dict[str, str]) -> None:
    with running_server(**asks) as server:
        for kind in CALLS:
            assert call(server, kind, {}, headers={}).status_code == 401
        answer = requests.get(f"{server.url}/api/ai/analysis/{UNKNOWN}/status", timeout=DEADLINE)
        assert answer.status_code == 401


def test_analysis_needs_no_token_but_refuses_a_bad_one(server: EmbeddedServer) -> None:
    stored(server, "a.mp4")
    assert call(server, "content", {"videoPath": "/uploads/personal/a.mp4"}, headers={}).status_code == 200
    for kind in CALLS:
        bad = call(server, kind, {}, headers={"authorization": "Bearer x"})
        assert (bad.status_code, bad.json()["error"]) == (401, "INVALID_TOKEN")
    answer = requests.get(f"{server.url}/api/ai/analysis/{UNKNOWN}/status", timeout=DEADLINE)
    assert answer.status_code == 404


def test_an_unknown_analysis_is_not_found(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    for unknown in (UNKNOWN, "x", "%2e%2e"):
        with subtests.test(unknown=unknown):
            assert status(server, unknown).json()["error"] in {"ANALYSIS_NOT_FOUND", "NOT_FOUND"}


def test_the_reference_flavour_analyses_too() -> None:
    with running_server(flavour="reference", jwt_secret=SECRET, processing_seconds=0, analysis_seconds=0) as server:
        session = new_session(server.url)
        (known,) = upload(server.url, file("a.mp4", b"x"), session=session)
        with listening(server.url, "any-id") as listener:
            body = {"videoPath": known["filePath"], "sessionId": "any-id"}
            assert call(server, "content", body).json()["data"]["analysisId"] == "any-id"
            assert len(events_to(listener)) == 21


@pytest.mark.parametrize("text", ["", "loud", "fail", "fail:", "fail:nothing", "silent,"])
def test_bad_modes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not one of silent, hang, fail:STAGE, refuse:STAGE"):
        ServerConfig(analysis=text)


def test_modes_can_be_combined() -> None:
    faults = Faults(ServerConfig(analysis="silent, refuse:plan,fail:report"))
    assert faults.analysis == AnalysisMode(silent=True, fails={"plan": True, "report": False})
    faults.set_analysis("hang")
    assert faults.analysis == AnalysisMode(hang=True)


def test_an_unexpected_error_ends_its_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("stage")

    monkeypatch.setattr("uploader_server.simulation.analysis.stage_at", broken)
    with running_server(jwt_secret=SECRET) as server:
        failed = call(server, "content", asked(server, "content", sessionId=UNKNOWN))
        assert (failed.status_code, failed.json()["error"]) == (500, "INTERNAL_ERROR")
        assert status(server, UNKNOWN).json()["status"] == "failed"
