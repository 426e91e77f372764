"""The HTTP polls: when they come, when they don't, and what their failures mean."""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock
from time_limits import PATIENCE

from uploader_cli.core.events import Event, PollFailed, SessionMissing, SessionProgress, Transport
from uploader_cli.realtime.poll import Poller, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Bench:
    """A schedule on a fake clock, which begins at 0, with at least a second between two polls of a session.

    `interval` is the one that the budget of calls allows, `takes` the seconds of a poll, `missing` answer 404.
    """

    def __init__(self, *sessions: str) -> None:
        self.clock = Clock(0.0)
        self.interval: Callable[[], float] = lambda: 1.0
        self.takes = 0.0
        self.missing: set[str] = set()
        self.during_a_poll: Callable[[], object] = lambda: None
        self.polls: list[tuple[str, float]] = []  # session, begin
        self.schedule = Schedule(lambda: self.interval(), minimum=1.0)
        for session in sessions:
            self.schedule.follow(0.0, session)

    def run(self, until: float) -> list[Any]:
        """Poll what is due before this time; return the polls so far: times, with the session if there are several."""
        while self.clock.now < until:
            session, wait = self.schedule.next(self.clock.now)
            if session is None:
                self.clock.now = min(until, self.clock.now + wait)
                continue
            self.polls.append((session, self.clock.now))
            self.during_a_poll()
            self.clock.pass_(self.takes)
            self.schedule.polled(self.clock.now, session, missing=session in self.missing)
        several = len({session for session, _ in self.polls}) > 1
        return [poll if several else poll[1] for poll in self.polls]

    def started(self) -> Bench:
        self.schedule.start(self.clock.now)
        return self


def test_first_poll_comes_at_once_and_the_others_after_the_interval() -> None:
    assert Bench("s").started().run(3.5) == [0.0, 1.0, 2.0, 3.0]


def test_a_slow_poll_is_followed_by_a_whole_pause() -> None:
    bench = Bench("s").started()
    bench.takes = 2.0
    assert bench.run(7.0) == [0.0, 3.0, 6.0]


def test_each_session_has_a_pace_of_its_own() -> None:
    bench = Bench("a", "b").started()
    bench.takes = 0.25
    assert bench.run(3.0) == [("a", 0.0), ("b", 0.25), ("a", 1.25), ("b", 1.5), ("a", 2.5), ("b", 2.75)]


def test_a_session_that_answers_404_is_not_polled_again_until_its_body_is_sent() -> None:
    """Its last bytes may still be on their way then: a later 404 stops nothing."""
    bench = Bench("s").started()
    bench.missing = {"s"}
    assert bench.run(5.0) == [0.0]
    bench.schedule.body_sent("s")
    assert bench.run(6.5) == [0.0, 5.0, 6.0]


def test_the_body_may_be_sent_while_the_404_is_on_its_way() -> None:
    bench = Bench("s").started()
    bench.missing, bench.takes = {"s"}, 2.0
    bench.during_a_poll = lambda: bench.schedule.body_sent("s")
    assert bench.run(5.0) == [0.0, 3.0]


def test_requested_poll_is_made_once_while_polling_is_off() -> None:
    bench = Bench("s", "other")
    bench.schedule.ask(0.0, "s")
    bench.schedule.ask(0.0, "unheard of")
    assert bench.run(4.25) == [0.0]
    bench.schedule.ask(4.25, "s")
    bench.schedule.ask(4.25, "s")
    assert bench.run(9.0) == [0.0, 4.25]


def test_requested_polls_respect_the_interval() -> None:
    bench = Bench("s").started()
    bench.during_a_poll = lambda: bench.schedule.ask(bench.clock.now, "s")
    assert bench.run(2.5) == [0.0, 1.0, 2.0]
    bench.schedule.stop()
    bench.during_a_poll = lambda: None
    bench.schedule.ask(2.5, "s")
    assert bench.run(9.0) == [0.0, 1.0, 2.0, 3.0]


def test_polls_that_begin_again_keep_the_pause() -> None:
    bench = Bench("s").started()
    assert bench.run(0.25) == [0.0]
    bench.schedule.stop()
    assert bench.started().run(1.5) == [0.0, 1.0]


def test_interval_is_read_again_each_second_of_the_wait() -> None:
    bench = Bench("s").started()
    bench.interval = lambda: 1.0 if bench.clock.now < 0.5 or bench.clock.now >= 10.5 else 1000.0
    assert bench.run(10.0) == [0.0, 1.0]
    assert bench.run(14.0) == [0.0, 1.0, 12.0, 13.0]


def test_interval_that_shrinks_with_time_polls_at_its_end() -> None:
    """Where no call is left the budget says how long it is until it has some: no poll comes before that."""
    bench = Bench()
    bench.interval = lambda: max(1.0, 5.0 - bench.clock.now)
    bench.schedule.follow(0.0, "s")
    assert bench.started().run(6.5) == [4.0, 5.0, 6.0]


def test_a_stretched_interval_holds_from_poll_to_poll() -> None:
    bench = Bench("s")
    bench.interval = lambda: 4.0
    assert bench.started().run(12.0) == [3.0, 7.0, 11.0]


def test_an_infinite_interval_forbids_even_the_first_poll() -> None:
    bench = Bench("s")
    bench.interval = lambda: math.inf
    assert bench.started().run(20.0) == []
    bench.interval = lambda: 1.0
    assert bench.run(21.5) == [21.0]


def test_no_poll_after_stop() -> None:
    bench = Bench("s").started()
    assert bench.run(1.5) == [0.0, 1.0]
    bench.schedule.stop()
    assert bench.run(9.0) == [0.0, 1.0]
    assert bench.started().run(9.5) == [0.0, 1.0, 9.0]


def test_once_is_one_poll_for_each_session_that_the_server_knows() -> None:
    bench = Bench("a", "b", "unknown").started()
    bench.missing = {"unknown"}
    bench.run(0.5)
    bench.schedule.stop()
    bench.run(3.0)
    bench.polls.clear()
    bench.schedule.once(3.0)
    assert sorted(bench.run(9.0)) == [("a", 3.0), ("b", 3.0)]


def test_left_session_is_not_polled() -> None:
    bench = Bench("a", "b").started()
    bench.run(0.5)
    bench.schedule.leave("a")
    assert bench.run(2.5)[2:] == [("b", 1.0), ("b", 2.0)]


def test_poll_of_a_session_that_was_left_meanwhile_changes_nothing() -> None:
    bench = Bench("a").started()
    bench.during_a_poll = lambda: bench.schedule.leave("a")
    assert bench.run(5.0) == [0.0]
    assert not bench.schedule.polled(5.0, "a", missing=False)


def test_a_session_followed_later_is_polled_at_once() -> None:
    bench = Bench().started()
    bench.run(2.25)
    bench.schedule.follow(2.25, "late")
    assert bench.run(4.0) == [2.25, 3.25]


@pytest.mark.parametrize("ask", ["start", "once"])
def test_without_a_session_nothing_is_polled(ask: str) -> None:
    bench = Bench()
    getattr(bench.schedule, ask)(0.0)
    assert bench.schedule.next(0.0) == (None, math.inf)


# The thread that polls


class Answers:
    """A poller of one session with a scripted server: `answer` is a value, None for a 404, or an exception."""

    def __init__(self, minimum: float) -> None:
        self.events: list[Event] = []
        self.answer: SessionProgress | Exception | None = progress("s")
        self.poller = Poller(self.fetch, self.events.append, lambda: minimum, minimum)
        self.poller.tell(lambda schedule, now: schedule.follow(now, "s"))

    def fetch(self, session: str) -> SessionProgress | None:
        assert session == "s"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def progress(session: str) -> SessionProgress:
    return SessionProgress(session, Transport.HTTP, 1.0, "uploading")


def wait_until(true: Callable[[], bool], within: float = PATIENCE) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def pollers(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the threads of pollers that began since."""
    return [one for one in threading.enumerate() if one.name == "uploader-poll" and one not in before]


@contextmanager
def polling(minimum: float = 0.001) -> Iterator[Answers]:
    answers = Answers(minimum)
    try:
        yield answers
    finally:
        answers.poller.close()


@pytest.mark.parametrize("begin", ["start", "once", "ask"])
def test_poll_is_made_as_soon_as_it_is_asked_for(begin: str) -> None:
    """Where a pause would be longer than this test waits; later ones wake the thread."""
    with polling(10 * PATIENCE) as answers:
        if begin == "ask":
            answers.poller.tell(lambda schedule, now: schedule.ask(now, "s"))
        else:
            answers.poller.tell(getattr(Schedule, begin))
        wait_until(lambda: answers.events == [progress("s")])
        answers.answer = progress("t")
        answers.poller.tell(lambda schedule, _now: schedule.leave("s"))
        answers.poller.tell(lambda schedule, now: schedule.follow(now, "s"))
        if begin != "start":
            answers.poller.tell(lambda schedule, now: schedule.ask(now, "s"))
        wait_until(lambda: answers.events == [progress("s"), progress("t")])
        assert answers.poller.polls == 2


def test_failed_poll_is_reported_and_repeated() -> None:
    with polling() as answers:
        answers.answer = ConnectionError("the server hung up\nwith a second line")
        answers.poller.tell(Schedule.start)
        wait_until(lambda: len(answers.events) >= 2)
        assert answers.events[0] == PollFailed("s", "the server hung up")
        assert isinstance(getattr(answers.events[0], "error", None), ConnectionError)
        answers.answer = TimeoutError()
        wait_until(lambda: PollFailed("s", "TimeoutError") in answers.events)
        answers.answer = progress("s")
        wait_until(lambda: progress("s") in answers.events)


def test_missing_session_is_reported_once_until_its_body_is_sent() -> None:
    with polling() as answers:
        answers.answer = None
        answers.poller.tell(Schedule.start)
        wait_until(lambda: answers.events == [SessionMissing("s")])
        answers.poller.tell(lambda schedule, _now: schedule.body_sent("s"))
        wait_until(lambda: len(answers.events) >= 3)
        answers.poller.tell(lambda schedule, _now: schedule.stop())
    assert set(answers.events) == {SessionMissing("s")}


def test_close_ends_the_thread_without_further_events() -> None:
    before = set(threading.enumerate())
    with polling() as answers:
        answers.poller.tell(Schedule.start)
        wait_until(lambda: bool(answers.events))
        answers.poller.close(PATIENCE)
        events = len(answers.events)
        assert not pollers(before)
        answers.poller.tell(Schedule.start)
        assert not pollers(before)
        assert len(answers.events) == events


def test_closing_does_not_wait_for_a_poll_that_hangs() -> None:
    over, before = threading.Event(), set(threading.enumerate())
    events: list[Event] = []

    def hang(session: str) -> SessionProgress:
        over.wait()
        return progress(session)

    poller = Poller(hang, events.append, lambda: 1.0, 1.0)
    poller.tell(lambda schedule, now: schedule.follow(now, "s"))
    poller.tell(Schedule.start)
    wait_until(lambda: poller.polls == 1)
    (thread,) = pollers(before)
    poller.close(timeout=0.1)
    assert thread.is_alive()
    over.set()
    thread.join()
    assert events == []
