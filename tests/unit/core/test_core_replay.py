"""Captured event streams through the parser and the reducer: in their order, and in any other."""

from __future__ import annotations

from collections import Counter

import pytest
from fakes import STREAMS, Captured, captured, golden
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, Phase, Transport
from uploader_cli.core.protocol import parse_batch, parse_progress
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState

ANSWERS = {
    "events-two-files": "batch-ok",
    "events-one-failed": "batch-one-failed-inside-200",
    "events-cancelled": "batch-cancelled-midway",
}
LAST = {"events-two-files": "completed", "events-one-failed": "partial", "events-cancelled": "cancelled"}
ENDS = (ev.FileCompleted, ev.FileFailed)


class Replay:
    """A run or a watched session that receives a captured stream."""

    def __init__(self, stream: str, *, watched: bool) -> None:
        self.answer = golden(ANSWERS[stream])
        self.session = self.answer["body"]["sessionId"]
        self.state = ProgressState()
        self.out: list[ev.Event] = []
        if watched:
            self.put(ev.SessionWatched(self.session))
            return
        parts = self.answer["request"]["multipart"]["files"]
        for number, part in enumerate(parts):
            self.put(ev.FileSelected(number, part["filename"], part["size"]))
        self.put(ev.SelectionEnded(), ev.SessionCreated(self.session, "personal", len(parts)))
        for number, part in enumerate(parts):
            name, size = part["filename"], part["size"]
            self.put(ev.FileStarted(number, name, size, self.session, 0, 1, name), ev.BytesSent(number, 1, size))
        self.put(ev.BodySent(tuple(range(len(parts)))))

    def put(self, *events: ev.Event, now: float = 0.0) -> None:
        for event in events:
            self.out += reduce(self.state, event, now)

    def hear(self, message: Captured) -> None:
        parsed = parse_progress(message.data, Transport.WEBSOCKET)
        assert parsed is not None
        assert parsed.timestamp == pytest.approx(message.stamp)
        self.put(parsed, now=message.at)

    def take_the_answer(self) -> None:
        """What the transfer makes of the batch answer."""
        stored = parse_batch(self.answer["body"])
        assert stored is not None
        for number, item in enumerate(stored):
            if item.status == "completed":
                size = item.size or 0
                self.put(ev.FileCompleted(number, item.name, size, item.server_id, None, False, 1, 1.0))
            else:
                failure = ev.FileFailed(number, item.name, FailureCode.SERVER_FAILED, item.error or "", False)
                self.put(failure)

    def ends(self) -> Counter[int]:
        return Counter(event.file for event in self.out if isinstance(event, ENDS))

    def numbers(self) -> dict[str, float]:
        """Everything of the session that may only rise."""
        session = self.state.sessions[self.session]
        numbers: dict[str, float] = {
            "percent": session.percent,
            "completed": session.completed,
            "failed": session.failed,
            "over": self.state.over,
        }
        return numbers

    def emitted_percentages(self) -> dict[int, list[float]]:
        told: dict[int, list[float]] = {}
        for event in self.out:
            if isinstance(event, ev.FileProgress) and event.server_percent is not None:
                told.setdefault(event.file, []).append(event.server_percent)
        return told


def check_nothing_falls(replay: Replay, messages: list[Captured]) -> None:
    before = replay.numbers()
    for message in messages:
        replay.hear(message)
        after = replay.numbers()
        assert all(after[name] >= value for name, value in before.items()), (before, after)
        before = after
    for told in replay.emitted_percentages().values():
        assert told == sorted(told)
        assert set(told) <= set(range(101))


@pytest.mark.parametrize("watched", [False, True], ids=["ours", "watched"])
@pytest.mark.parametrize("stream", STREAMS)
def test_captured_stream_never_lowers_progress(stream: str, watched: bool) -> None:
    replay = Replay(stream, watched=watched)
    check_nothing_falls(replay, captured(stream))
    assert replay.state.sessions[replay.session].status == LAST[stream]


@pytest.mark.parametrize("stream", STREAMS)
def test_own_files_end_once_by_the_http_answer(stream: str) -> None:
    """The stream alone ends none of them and completes nothing; the answer ends each; the stream again changes none."""
    replay = Replay(stream, watched=False)
    for message in captured(stream):
        replay.hear(message)
    assert not replay.ends()
    assert {file.phase for file in replay.state.running.values()} == {Phase.PROCESSING}
    assert replay.state.fraction < 1.0
    replay.take_the_answer()
    assert (replay.state.fraction == 1.0) is (not replay.state.failed)
    for message in captured(stream):
        replay.hear(message)
    replay.take_the_answer()
    summary = replay.answer["body"]["summary"]
    assert set(replay.ends().values()) == {1}
    assert (replay.state.completed, replay.state.failed) == (summary["completedFiles"], summary["failedFiles"])


@pytest.mark.parametrize("stream", STREAMS)
def test_the_answer_may_come_before_the_last_events(stream: str) -> None:
    """Final events that arrive up to 18 ms after the answer change nothing (protocol.md, section 3.8)."""
    replay = Replay(stream, watched=False)
    messages = captured(stream)
    for message in messages[:-4]:
        replay.hear(message)
    replay.take_the_answer()
    told = len([event for event in replay.out if event.type.startswith("file.")])
    for message in messages[-4:]:
        replay.hear(message)
    assert len([event for event in replay.out if event.type.startswith("file.")]) == told


@pytest.mark.parametrize("stream", STREAMS)
def test_a_watcher_learns_files_and_their_ends_from_the_messages(stream: str) -> None:
    replay = Replay(stream, watched=True)
    for message in captured(stream):
        replay.hear(message)
    names = [part["filename"] for part in replay.answer["request"]["multipart"]["files"]]
    started = [event for event in replay.out if isinstance(event, ev.FileStarted)]
    assert [(event.file, event.path) for event in started] == list(enumerate(names))
    assert replay.ends() == dict.fromkeys(range(len(names)), 1)
    summary = replay.answer["body"]["summary"]
    assert (replay.state.completed, replay.state.failed) == (summary["completedFiles"], summary["failedFiles"])


def test_a_watched_file_that_failed_says_why() -> None:
    replay = Replay("events-one-failed", watched=True)
    for message in captured("events-one-failed"):
        replay.hear(message)
    (failure,) = replay.state.failures
    assert failure.code is FailureCode.SERVER_FAILED
    assert failure.message


def test_late_watcher_gets_the_earlier_files_by_a_poll() -> None:
    """`/progress` lists every file: ended ones are reported once, with the running ones."""
    replay = Replay("events-two-files", watched=True)
    for name in ("progress-during", "progress-after", "progress-after"):
        message = parse_progress(golden(name)["body"], Transport.HTTP)
        assert message is not None
        replay.put(message)
    assert replay.ends() == {0: 1, 1: 1}
    session = replay.state.sessions[replay.session]
    assert (session.status, session.completed, session.total) == ("completed", 2, 2)


@pytest.mark.parametrize("watched", [False, True], ids=["ours", "watched"])
@pytest.mark.parametrize("stream", STREAMS)
@given(data=st.data())
def test_events_in_any_order_never_lower_progress(stream: str, watched: bool, data: st.DataObject) -> None:
    """Each event has a thread of its own in the socket library: any order, some twice, some never."""
    messages = captured(stream)
    order = data.draw(st.lists(st.sampled_from(messages), max_size=2 * len(messages)) | st.permutations(messages))
    replay = Replay(stream, watched=watched)
    check_nothing_falls(replay, order)
    assert set(replay.ends().values()) <= {1}
    if not watched:
        assert not replay.ends()
        replay.take_the_answer()
        assert set(replay.ends().values()) == {1}
        assert (replay.state.fraction == 1.0) is (not replay.state.failed)


@pytest.mark.parametrize("stream", STREAMS)
@given(data=st.data())
def test_watcher_counts_are_independent_of_event_order(stream: str, data: st.DataObject) -> None:
    replay = Replay(stream, watched=True)
    for message in data.draw(st.permutations(captured(stream))):
        replay.hear(message)
    summary = replay.answer["body"]["summary"]
    assert set(replay.ends().values()) == {1}
    assert (replay.state.completed, replay.state.failed) == (summary["completedFiles"], summary["failedFiles"])
