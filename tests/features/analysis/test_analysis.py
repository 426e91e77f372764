"""Analyses against servers with few, no or wrong answers."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import Answer, Request, Rule, ScriptedServer
from time_limits import PATIENCE

from uploader_cli import errors
from uploader_cli.core.events import CallMade, ServerClock
from uploader_cli.features.analysis import analyst
from uploader_cli.features.analysis.analyst import AnalysisFailed, Analyst
from uploader_cli.features.analysis.events import AnalysisMessage
from uploader_cli.features.analysis.stages import Kind
from uploader_cli.settings import Settings
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.pacer import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DONE = {"success": True, "data": {"analysisId": "1", "finalReport": "well"}}


class JoinLog:
    """Records joins and leaves in order."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.takers: dict[str, Callable[[object], bool]] = {}

    def enter(self, room: str) -> None:
        self.said.append(("enter", room))

    def leave(self, room: str) -> None:
        self.said.append(("leave", room))


class Server:
    """Answers the call when `release` is set, and status questions with `status`."""

    def __init__(self, answer: object, status: object = None, code: int = 200) -> None:
        self.answer, self.status, self.code = answer, status, code
        self.release = threading.Event()
        self.asked: list[dict[str, Any]] = []
        self.questions = 0
        self.called = threading.Event()

    @contextmanager
    def running(self) -> Iterator[str]:
        with ScriptedServer(Rule(self._analyse, "POST *"), Rule(self._question, "GET *")) as http:
            try:
                yield http.url
            finally:
                self.release.set()

    def _analyse(self, request: Request) -> Answer:
        self.asked.append(json.loads(request.body))
        self.called.set()
        self.release.wait(PATIENCE)
        return Answer(self.code, self.answer)

    def _question(self, _: Request) -> Answer:
        self.questions += 1
        return Answer(404 if self.status is None else 200, self.status)


class Bench:
    """An analysis client and its server; `told` has the emitted events."""

    def __init__(self, url: str, limit: float = PATIENCE) -> None:
        self.told: list[AnalysisMessage] = []
        self.rooms = JoinLog()
        self.stop = Stop()
        settings = Settings(server=url)

        def emit(event: Any) -> None:
            if not isinstance(event, CallMade | ServerClock):
                self.told.append(event)

        rooms: Any = self.rooms
        self.analyst = Analyst(
            lambda: Api(settings, emit, self.stop), emit, self.stop, rooms, dict.fromkeys(Kind, limit)
        )

    def analyse(self) -> dict[str, object]:
        return self.analyst.analyse(Kind.CONTENT, {"videoPath": "/uploads/a.mp4"})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed after a moment, and nothing is waited for longer than a test needs."""
    for name, seconds in {"QUIET": 0.05, "TICK": 0.01, "DRAIN": 0.0, "AFTER_AN_ERROR": 0.1}.items():
        monkeypatch.setattr(analyst, name, seconds)
    monkeypatch.setattr(RateBudget, "poll_interval", lambda _: 0.02)


def wait(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_analysis_channel_is_joined_before_the_call_and_left_after() -> None:
    server = Server(DONE)
    server.release.set()
    with server.running() as url:
        bench = Bench(url)
        assert bench.analyse() == DONE["data"]
    session = server.asked[0]["sessionId"]
    assert bench.rooms.said == [("enter", session), ("leave", session)]


def test_stages_are_estimated_where_the_server_has_no_status() -> None:
    """404 for the status: asked three times, then percentages by time, which are marked and rise."""
    server = Server(DONE)
    with server.running() as url:
        bench = Bench(url)
        threading.Thread(target=lambda: (wait(lambda: len(bench.told) > 5), server.release.set()), daemon=True).start()
        bench.analyse()
    assert server.questions == 3
    assert all(message.assumed for message in bench.told)
    percents = [message.percent or 0.0 for message in bench.told]
    assert percents == sorted(percents)
    assert percents[-1] > percents[0]


def test_status_replaces_an_estimate() -> None:
    server = Server(DONE, status={"progress": 45, "message": "busy"})
    with server.running() as url:
        bench = Bench(url)
        threading.Thread(target=lambda: (wait(lambda: bench.told), server.release.set()), daemon=True).start()
        bench.analyse()
    assert set(bench.told) == {AnalysisMessage(45, "busy")}


def test_analysis_has_its_own_time_limit() -> None:
    """However long the server keeps the connection open."""
    with Server(DONE).running() as url, pytest.raises(errors.TimedOut, match=r"did not finish it in 0\.3 s") as caught:
        Bench(url, limit=0.3).analyse()
    assert caught.value.retryable


def test_wait_for_the_rate_limit_is_no_part_of_the_time_limit() -> None:
    refused = Answer(429, {"error": "RATE_LIMIT_EXCEEDED"}, {"Retry-After": 3})
    with ScriptedServer(Rule(refused, "POST *", times=1), Rule(Answer(200, DONE), "POST *")) as server:
        assert Bench(server.url, limit=2.5).analyse()["finalReport"] == "well"


@pytest.mark.parametrize(
    ("code", "answer", "kind", "retryable"),
    [
        (500, {"error": "X"}, errors.ServerFault, True),
        (503, "<html>", errors.ServerFault, True),
        (422, {"error": "X"}, errors.AnswerError, False),
        (401, {"error": "X"}, errors.Unauthorized, False),
        (200, {"success": False, "message": "no video"}, AnalysisFailed, False),
        (200, {"success": True, "data": None}, AnalysisFailed, False),
        (200, [], AnalysisFailed, False),
    ],
)
def test_analysis_answer_without_a_result_is_an_error(
    code: int, answer: object, kind: type[Exception], retryable: bool
) -> None:
    server = Server(answer, code=code)
    server.release.set()
    with server.running() as url, pytest.raises(errors.UploaderError) as caught:
        Bench(url).analyse()
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable


@pytest.mark.parametrize("code", [502, 504])
def test_analysis_is_followed_by_status_after_a_proxy_timeout(code: int) -> None:
    """The server continues behind the proxy: the status is polled until it has the result."""
    server = Server("<html>", status={"status": "running", "progress": 45}, code=code)
    server.release.set()
    with server.running() as url:
        bench = Bench(url)

        def complete() -> None:
            wait(lambda: bench.told)
            server.status = {"status": "completed", "progress": 100, "data": DONE["data"]}

        threading.Thread(target=complete, daemon=True).start()
        assert bench.analyse() == DONE["data"]


def test_lost_analysis_answer_without_a_status_fails() -> None:
    server = Server("<html>", code=502)
    server.release.set()
    with server.running() as url, pytest.raises(errors.ServerFault) as caught:
        Bench(url).analyse()
    assert caught.value.retryable
    assert server.questions == 3


def test_error_event_ends_an_analysis_without_an_answer() -> None:
    server = Server(DONE)
    with server.running() as url:
        bench = Bench(url)
        failed, take = {"message": "overheated"}, bench.rooms.takers["analysis:error"]
        threading.Thread(target=lambda: (server.called.wait(PATIENCE), take(failed)), daemon=True).start()
        with pytest.raises(AnalysisFailed, match="overheated") as caught:
            bench.analyse()
    assert caught.value.retryable


def test_events_after_the_end_of_an_analysis_are_ignored() -> None:
    server = Server(DONE)
    server.release.set()
    with server.running() as url:
        bench = Bench(url)
        bench.analyse()
        bench.told.clear()
        assert bench.rooms.takers["analysis:progress"]({"progress": 50, "message": "late"})
    assert bench.told == []


def test_stop_ends_the_wait_for_an_analysis() -> None:
    server = Server(DONE)
    with server.running() as url:
        bench = Bench(url)
        threading.Thread(target=lambda: (server.called.wait(PATIENCE), bench.stop.set()), daemon=True).start()
        with pytest.raises(errors.Interrupted):
            bench.analyse()
    assert [word for word, _ in bench.rooms.said] == ["enter", "leave"]
