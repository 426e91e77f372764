"""The HTTP polls: when they come, when they don't, and what their failures mean. Time is scaled to a tenth."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from patience import PATIENCE

from uploader_cli.core.events import Event, PollFailed, SessionMissing, SessionProgress, Transport
from uploader_cli.realtime.poll import Poller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECOND = 0.1


class Bench:
    """A poller with a scripted server: `answers[session]` is a value, None for a 404, or an exception."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float, float]] = []  # session, begin, end
        self.events: list[Event] = []
        self.answers: dict[str, SessionProgress | Exception | None] = {}
        self.interval = SECOND
        self.takes = 0.0
        self.poller = Poller(self.fetch, self.events.append, lambda: self.interval, minimum=SECOND)

    def fetch(self, session: str) -> SessionProgress | None:
        begun = time.monotonic()
        if self.takes:
            time.sleep(self.takes)
        self.calls.append((session, begun, time.monotonic()))
        answer = self.answers.get(session, progress(session))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait_for(self, calls: int) -> None:
        wait_until(lambda: len(self.calls) >= calls)


def progress(session: str) -> SessionProgress:
    return SessionProgress(session, Transport.HTTP, 1.0, "uploading")


def wait_until(true: Callable[[], bool], within: float = PATIENCE) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


@contextmanager
def polling(*sessions: str) -> Iterator[Bench]:
    bench = Bench()
    for session in sessions:
        bench.poller.follow(session)
    try:
        yield bench
    finally:
        bench.poller.close()


def test_the_first_poll_comes_at_once() -> None:
    """Where a pause would be longer than this test waits."""
    pause = 10 * PATIENCE
    bench = Bench()
    poller = Poller(bench.fetch, bench.events.append, lambda: pause, minimum=pause)
    poller.follow("s")
    poller.start()
    try:
        bench.wait_for(1)
    finally:
        poller.close()


def test_the_other_polls_come_no_sooner_than_the_interval() -> None:
    with polling("s") as bench:
        bench.poller.start()
        bench.wait_for(4)
    assert all(later[1] - earlier[1] >= SECOND for earlier, later in pairwise(bench.calls))
    assert bench.events[:4] == [progress("s")] * 4
    assert bench.poller.polls == len(bench.calls)


def test_polls_never_overlap_and_a_slow_one_is_followed_by_a_whole_pause() -> None:
    with polling("s") as bench:
        bench.takes = 2 * SECOND
        bench.poller.start()
        bench.wait_for(3)
    assert all(later[1] - earlier[2] >= SECOND for earlier, later in pairwise(bench.calls))


def test_each_session_has_a_pace_of_its_own() -> None:
    with polling("a", "b") as bench:
        bench.poller.start()
        bench.wait_for(6)
    for session in ("a", "b"):
        begun = [call[1] for call in bench.calls if call[0] == session]
        assert len(begun) >= 2
        assert all(later - earlier >= SECOND for earlier, later in pairwise(begun))


def test_failed_poll_is_reported_and_repeated_after_a_second() -> None:
    with polling("s") as bench:
        bench.answers["s"] = ConnectionError("the server hung up\nwith a second line")
        bench.poller.start()
        bench.wait_for(2)
        assert bench.events[0] == PollFailed("s", "the server hung up")
        assert isinstance(getattr(bench.events[0], "error", None), ConnectionError)
        bench.answers["s"] = TimeoutError()
        wait_until(lambda: PollFailed("s", "TimeoutError") in bench.events)
        bench.answers.clear()
        wait_until(lambda: progress("s") in bench.events)


def test_a_session_that_answers_404_is_not_polled_again_until_its_body_is_sent() -> None:
    with polling("s") as bench:
        bench.answers["s"] = None
        bench.poller.start()
        bench.wait_for(1)
        time.sleep(4 * SECOND)
        assert len(bench.calls) == 1
        bench.poller.body_sent("s")
        bench.wait_for(3)  # its last bytes may still be on their way: from now on a 404 stops nothing
    assert set(bench.events) == {SessionMissing("s")}


def test_requested_poll_is_made_once_while_polling_is_off() -> None:
    with polling("s", "other") as bench:
        bench.poller.ask("s")
        bench.poller.ask("unheard of")
        bench.wait_for(1)
        time.sleep(4 * SECOND)
        assert [call[0] for call in bench.calls] == ["s"]
        bench.poller.ask("s")
        bench.wait_for(2)
    assert bench.calls[1][1] - bench.calls[0][2] >= SECOND


def test_requested_polls_respect_the_interval() -> None:
    with polling("s") as bench:
        bench.poller.start()
        for asked in range(1, 4):
            bench.poller.ask("s")
            bench.wait_for(asked)
    assert all(later[1] - earlier[2] >= SECOND for earlier, later in pairwise(bench.calls))


def test_the_body_may_be_sent_while_the_404_is_on_its_way() -> None:
    with polling("s") as bench:
        bench.answers["s"], bench.takes = None, 2 * SECOND
        bench.poller.start()
        wait_until(lambda: bench.poller.polls == 1)
        bench.poller.body_sent("s")
        bench.wait_for(2)


def test_interval_is_read_again_during_the_wait() -> None:
    with polling("s") as bench:
        bench.poller.start()
        bench.wait_for(1)
        bench.interval = 1000 * SECOND
        polls = len(bench.calls)
        time.sleep(4 * SECOND)
        assert len(bench.calls) <= polls + 1  # one was due already
        polls = len(bench.calls)
        bench.interval = SECOND
        bench.wait_for(polls + 2)


def test_interval_that_shrinks_with_time_polls_at_its_end() -> None:
    """Where no call is left the budget says how long it is until it has some: no poll comes before that."""
    bench = Bench()
    moment = time.monotonic() + 5 * SECOND
    poller = Poller(bench.fetch, bench.events.append, lambda: max(SECOND, moment - time.monotonic()), minimum=SECOND)
    poller.follow("s")
    poller.start()
    try:
        bench.wait_for(1)
    finally:
        poller.close()
    assert bench.calls[0][1] >= moment - SECOND


def test_a_stretched_interval_holds_from_poll_to_poll() -> None:
    with polling("s") as bench:
        bench.interval = 4 * SECOND
        bench.poller.start()
        bench.wait_for(3)
    assert all(later[1] - earlier[2] >= 4 * SECOND for earlier, later in pairwise(bench.calls))


def test_an_infinite_interval_forbids_even_the_first_poll() -> None:
    with polling("s") as bench:
        bench.interval = float("inf")
        bench.poller.start()
        time.sleep(4 * SECOND)
        assert bench.calls == []
        bench.interval = SECOND
        bench.wait_for(1)


def test_no_poll_after_stop() -> None:
    with polling("s") as bench:
        bench.poller.start()
        bench.wait_for(2)
        bench.poller.stop()
        polls = bench.poller.polls
        time.sleep(4 * SECOND)
        assert bench.poller.polls <= polls + 1  # one was about to begin
        polls = bench.poller.polls
        bench.poller.start()
        bench.wait_for(polls + 1)


def test_once_is_one_poll_for_each_session_that_the_server_knows() -> None:
    with polling("a", "b", "unknown") as bench:
        bench.answers["unknown"] = None
        bench.poller.start()
        bench.wait_for(3)
        bench.poller.stop()
        time.sleep(SECOND)
        before = len(bench.calls)
        bench.poller.once()
        bench.wait_for(before + 2)
        time.sleep(4 * SECOND)
    assert sorted(call[0] for call in bench.calls[before:]) == ["a", "b"]


def test_left_session_is_not_polled() -> None:
    with polling("a", "b") as bench:
        bench.poller.start()
        bench.wait_for(2)
        bench.poller.leave("a")
        time.sleep(SECOND)
        before = len(bench.calls)
        bench.wait_for(before + 3)
    assert {call[0] for call in bench.calls[before:]} == {"b"}


def test_a_session_followed_later_is_polled_at_once() -> None:
    with polling() as bench:
        bench.poller.start()
        time.sleep(SECOND)
        bench.poller.follow("late")
        bench.wait_for(1)


def test_close_ends_the_thread_without_further_events() -> None:
    with polling("s") as bench:
        bench.poller.start()
        bench.wait_for(1)
        bench.poller.close()
        events = len(bench.events)
        assert not [thread for thread in threading.enumerate() if thread.name == "uploader-poll"]
        bench.poller.start()
        time.sleep(3 * SECOND)
        assert len(bench.events) == events


def test_closing_does_not_wait_for_a_poll_that_hangs() -> None:
    over = threading.Event()
    events: list[Event] = []

    def hang(session: str) -> SessionProgress:
        over.wait()
        return progress(session)

    poller = Poller(hang, events.append, lambda: SECOND, minimum=SECOND)
    poller.follow("s")
    poller.start()
    wait_until(lambda: poller.polls == 1)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "uploader-poll")
    poller.close(timeout=0.1)
    assert thread.is_alive()
    over.set()
    thread.join()
    assert events == []


@pytest.mark.parametrize("ask", ["start", "once"])
def test_without_a_session_nothing_is_polled(ask: str) -> None:
    with polling() as bench:
        getattr(bench.poller, ask)()
        time.sleep(3 * SECOND)
    assert bench.calls == []
