"""The retry policy: what is repeated, pauses that delay all threads, and outages that one thread probes."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from fakes import Clock
from time_limits import PATIENCE
from unit.transfer.transfer_fakes import fault, lost, refused, session_lost, too_slow
from unit.transfer.tus_model import FakeStop, pauses

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.settings import Settings
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.pacer import FIRST_PROBE, HELD, LAST_PROBE, RETURN_JITTER, Delays, Pacer, Tries

if TYPE_CHECKING:
    from collections.abc import Callable

    Report = Callable[[errors.UploaderError, float], None]

T = TypeVar("T")


class Policy:
    """A `Pacer` with a fake clock, and the events and reports of it."""

    def __init__(self, refresh: Callable[[], bool] = lambda: False, **options: Any) -> None:
        self.clock = Clock()
        self.stop = FakeStop(self.clock)
        self.events: list[ev.Event] = []
        self.reports: list[tuple[str, float]] = []
        how: Any = {"refresh": refresh, "clock": self.clock}
        budget = RateBudget(self.clock)
        budget.answered = True
        self.pacer = Pacer(self.stop, budget, Settings(**options), self.events.append, **how)

    def report(self, error: errors.UploaderError, delay: float) -> None:
        self.reports.append((type(error).__name__, delay))

    def call(self, step: Callable[[], T], retries: int | None = None, report: Report | None = None, **how: Any) -> T:
        """Repeat a call as that of a file."""
        most = self.pacer.retries if retries is None else retries
        return Tries(self.pacer, most, report or self.report, **how).call(step)


def failing(*script: BaseException | None) -> tuple[Callable[[], str], list[int]]:
    """Return a call that raises what the script says, the last of it for ever, and the list of its calls."""
    calls: list[int] = []

    def call() -> str:
        error = script[min(len(calls), len(script) - 1)]
        calls.append(len(calls))
        if error is not None:
            raise error
        return "done"

    return call, calls


def rate_limited(seconds: float | None) -> errors.RateLimited:
    return errors.RateLimited("the rate limit", status=429, retry_after=seconds)


# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (fault(500), 4),
        (lost(body_sent=False), 4),
        (errors.ConnectFailed("refused"), 4),
        (errors.TimedOut("late"), 4),
        (refused(400), 1),
        (errors.Unauthorized("no", status=401), 1),
        (errors.NotFound("no", status=404), 1),
        (too_slow(), 1),
        (session_lost(), 1),
        (errors.RateLimited("later", status=429, retry_after=5000.0), 1),
        (errors.Unreachable("down"), 1),
        (errors.NotAnUploadServer("no"), 1),
        (errors.Interrupted("stop"), 1),
        (ValueError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_class_of_the_error_decides_whether_it_is_retried(error: BaseException, times: int) -> None:
    call, calls = failing(error)
    with pytest.raises(type(error)) as caught:
        Policy(retries=3).pacer.call(call)
    assert caught.value is error
    assert len(calls) == times


@pytest.mark.parametrize(("retries", "at_most", "times"), [(0, None, 1), (5, 2, 3), (1, 2, 2), (5, 0, 1)])
def test_at_most_lowers_the_number_of_retries(retries: int, at_most: int | None, times: int) -> None:
    call, calls = failing(fault(500))
    with pytest.raises(errors.ServerFault):
        Policy(retries=retries).pacer.call(call, at_most=at_most)
    assert len(calls) == times


def test_retry_after_within_max_wait_is_the_delay() -> None:
    policy = Policy(max_wait=10.0)
    call, _ = failing(fault(503, retry_after=10.0), None)
    assert policy.call(call) == "done"
    assert policy.stop.slept == [10.0]
    assert policy.reports == [("ServerFault", 10.0)]


def test_retry_after_beyond_max_wait_is_not_retried() -> None:
    policy = Policy(max_wait=9.0)
    call, calls = failing(fault(503, retry_after=10.0), None)
    with pytest.raises(errors.ServerFault):
        policy.pacer.call(call)
    assert (len(calls), policy.stop.slept) == (1, [])


@pytest.mark.parametrize("seconds", [0.0, 3.0, 886.0])
def test_retry_after_decides_the_delay(seconds: float) -> None:
    """Also 0, and also more than any backoff."""
    policy = Policy()
    call, _ = failing(fault(503, retry_after=seconds), None)
    assert policy.call(call) == "done"
    assert policy.stop.slept == [seconds]


def test_delays_without_retry_after_double_up_to_a_limit_and_are_jittered() -> None:
    policy = Policy(retries=9)
    for _ in range(2):
        call, _ = failing(fault(500))
        with pytest.raises(errors.ServerFault):
            policy.pacer.call(call)
    first, second = policy.stop.slept[:9], policy.stop.slept[9:]
    for least, *delays in zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0], first, second, strict=True):
        assert all(least <= delay <= least + 0.5 for delay in delays)
    assert first != second


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (errors.ConnectFailed("x"), True),
        (errors.ConnectionLost("x", body_sent=True), True),
        (errors.TimedOut("x"), True),
        (errors.ServerFault("x", status=500), True),
        (errors.ServerFault("x", status=503), True),
        (rate_limited(None), True),
        (errors.TooSlow("x", status=408), True),
        (errors.AnswerError("x", status=400), False),
        (errors.AnswerError("x", status=413), False),
        (errors.AnswerError("x", status=423), True),
        (errors.AnswerError("x", status=425), True),
        (errors.Unauthorized("x", status=401), False),
        (errors.NotFound("x", status=404), False),
        (errors.OutcomeUnknown("x"), False),
        (errors.Interrupted("x"), False),
        (errors.ProtocolError("x"), False),
    ],
    ids=repr,
)
def test_retryable_error_classes(error: errors.UploaderError, worth: bool) -> None:
    assert error.retryable is worth


# --- rate limits ------------------------------------------------------------------------------------------------------


def test_repetition_that_no_file_reports_is_told_with_its_delay() -> None:
    policy = Policy()
    busy = errors.ServerFault("busy", status=503, retry_after=7.0)
    call, _ = failing(busy, None)
    assert policy.pacer.call(call) == "done"
    assert policy.events == [ev.CallRepeats(7.0, "busy")]
    call, _ = failing(busy, None)
    policy.call(call)
    assert len(policy.events) == 1


def test_429_within_max_wait_costs_no_retry() -> None:
    policy = Policy(retries=0, max_wait=6.0)
    call, calls = failing(rate_limited(2.0), rate_limited(4.0), None)
    assert policy.call(call) == "done"
    assert policy.stop.slept == [2.0, 4.0]
    assert policy.reports == [("RateLimited", 2.0), ("RateLimited", 4.0)]
    assert len(calls) == 3


@pytest.mark.parametrize("seconds", [6.5, None])
def test_429_beyond_max_wait_is_raised_before_any_sleep(seconds: float | None) -> None:
    policy = Policy(max_wait=6.0)
    call, calls = failing(rate_limited(seconds), None)
    with pytest.raises(errors.RateLimited):
        policy.call(call)
    assert (len(calls), policy.stop.slept, policy.reports) == (1, [], [])
    assert policy.pacer.budget.pause_left() == 0.0
    policy.pacer.wait_out_pause()
    assert policy.stop.slept == []
    assert policy.events == []


def test_pauses_of_one_call_add_up_and_end_with_it() -> None:
    policy = Policy(max_wait=6.0)
    call, _ = failing(rate_limited(4.0), None, rate_limited(4.0))
    assert policy.pacer.call(call) == "done"
    with pytest.raises(errors.RateLimited):
        policy.pacer.call(call)
    assert policy.stop.slept == [4.0, 4.0]


def share_used(seconds: float) -> errors.ShareUsed:
    return errors.ShareUsed("the share", status=429, error="SHARE_USED", retry_after=seconds)


def test_used_share_pauses_creations_alone_and_costs_no_retry() -> None:
    policy = Policy(retries=0, max_wait=6.0)
    call, _ = failing(share_used(2.0), share_used(4.0), None)
    sleep = lambda _seconds: policy.pacer.wait_out_pause()  # noqa: E731
    assert policy.call(call, sleep=sleep) == "done"
    assert policy.stop.slept == [], "other calls do not wait"
    assert policy.reports == [("ShareUsed", 2.0), ("ShareUsed", 4.0)]
    policy.pacer.wait_out_pause(creates=True)
    assert policy.stop.slept == [4.0]
    policy.pacer.wait_out_pause(creates=True)
    assert policy.stop.slept == [4.0]
    assert [event.code for event in policy.events if isinstance(event, ev.RunWarning)] == [ev.WarningCode.RATE_LIMITED]
    assert pauses(policy.events) == []


def test_refused_call_waits_as_long_as_asked_within_max_wait() -> None:
    policy = Policy(max_wait=6.0)
    call, calls = failing(share_used(4.0))
    with pytest.raises(errors.ShareUsed):
        policy.pacer.call(call)
    assert (len(calls), policy.stop.slept) == (2, [4.0])


def test_pause_is_announced_once_for_all_threads() -> None:
    policy = Policy()
    all_sleep = threading.Barrier(4, action=lambda: policy.clock.pass_(30.0), timeout=PATIENCE)
    policy.stop.sleep = lambda _seconds: all_sleep.wait()  # type: ignore[method-assign]
    policy.pacer.budget.pause(30.0)
    assert in_threads(*[policy.pacer.wait_out_pause] * 4) == [None] * 4
    assert pauses(policy.events) == [30.0]
    warnings = [event for event in policy.events if isinstance(event, ev.RunWarning)]
    assert [event.code for event in warnings] == [ev.WarningCode.RATE_LIMITED]
    assert "30 s" in str(warnings[0])


def test_each_new_pause_is_announced() -> None:
    policy = Policy()
    for seconds in (5.0, 2.0, 60.0):
        policy.pacer.budget.pause(seconds)
        policy.pacer.wait_out_pause()
    assert pauses(policy.events) == [5.0, 2.0, 60.0]


def test_pause_that_grows_while_it_is_waited_for_is_announced_again() -> None:
    policy = Policy()
    sleep = policy.stop.sleep

    def longer(seconds: float) -> None:
        if not policy.stop.slept:
            policy.pacer.budget.pause(90.0)
        sleep(seconds)

    policy.stop.sleep = longer  # type: ignore[method-assign]
    policy.pacer.budget.pause(30.0)
    policy.pacer.wait_out_pause()
    assert pauses(policy.events) == [30.0, 60.0]


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (rate_limited(1.0), 1),
        (fault(503), 1),
        (errors.TimedOut("late"), 1),
        (errors.TooSlow("slow", status=408), 1),
        (fault(500), 0),
        (lost(body_sent=False), 0),
    ],
    ids=["429", "503", "timeout", "408", "500", "lost"],
)
def test_overload_is_reported_once_for_each_answer(error: errors.UploaderError, times: int) -> None:
    policy, reports = Policy(), list[int]()
    policy.pacer.overloaded = lambda: reports.append(1)
    call, _ = failing(error, None)
    assert policy.pacer.call(call) == "done"
    assert len(reports) == times


# --- tokens -----------------------------------------------------------------------------------------------------------


def unauthorized(status: int = 401) -> errors.Unauthorized:
    return errors.Unauthorized("no", status=status)


def test_401_with_a_new_token_costs_no_retry() -> None:
    call, calls = failing(unauthorized(), None)
    assert Policy(retries=0, refresh=lambda: True).pacer.call(call) == "done"
    assert len(calls) == 2


def test_403_does_not_refresh_the_token() -> None:
    asked: list[int] = []
    call, _ = failing(unauthorized(403))
    with pytest.raises(errors.Unauthorized):
        Policy(refresh=lambda: not asked.append(1)).pacer.call(call)
    assert asked == []


# --- outages ----------------------------------------------------------------------------------------------------------


def in_threads(*calls: Callable[[], object]) -> list[Any]:
    """Run each call in its own thread; return what each returned or raised."""
    results: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], object]) -> None:
        try:
            results[index] = call()
        except Exception as error:  # noqa: BLE001 - what it raised is what is asked about
            results[index] = error

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return results


class Server:
    """A server that refuses connections for the first `down` probes; `down` is None for ever.

    The first probe waits until all of `threads` but the prober wait for it.
    """

    def __init__(self, policy: Policy, *, threads: int, down: int | None) -> None:
        self.probes: list[int] = []
        """The thread of each probe."""
        self.calls = 0
        self.up = False
        self._down, self._waiting, self._all_wait = down, set[int](), threading.Event()
        self._threads, self._lock = threads, threading.Lock()
        self._check = policy.stop.checkpoint
        policy.stop.checkpoint = self._count_waiting  # type: ignore[method-assign]
        policy.pacer.probe = self.probe
        if threads == 1:
            self._all_wait.set()

    def _count_waiting(self) -> None:
        """Count the threads that wait for the prober: they look at the stop flag meanwhile."""
        self._check()
        self._waiting.add(threading.get_ident())
        if len(self._waiting - set(self.probes)) >= self._threads - 1 and self.probes:
            self._all_wait.set()

    def call(self) -> str:
        with self._lock:
            self.calls += 1
        if not self.up:
            raise errors.ConnectFailed("refused", hint="is the server running there?")
        return "done"

    def probe(self) -> None:
        self.probes.append(threading.get_ident())
        assert self._all_wait.wait(PATIENCE)
        if self._down is None or len(self.probes) <= self._down:
            raise errors.ConnectFailed("refused")
        self.up = True


def test_outage_is_probed_by_one_thread_and_all_threads_resume() -> None:
    policy = Policy(retries=5)
    server = Server(policy, threads=4, down=3)
    results = in_threads(*[lambda: policy.call(server.call, retries=0)] * 4)
    assert results == ["done"] * 4
    assert (len(server.probes), len(set(server.probes))) == (4, 1)
    assert server.calls == 8
    assert policy.stop.slept == [FIRST_PROBE, 2 * FIRST_PROBE, 4 * FIRST_PROBE]
    assert sorted(policy.reports) == [("ConnectFailed", 0.0)] * 3 + [("ConnectFailed", FIRST_PROBE)]


def test_all_threads_report_an_outage_before_it_ends() -> None:
    """What they sent is lost by then: the totals fall when the server goes, and not when it is back."""
    policy = Policy(retries=5)
    server, reported = Server(policy, threads=4, down=2), threading.Event()

    def report(error: errors.UploaderError, delay: float) -> None:
        policy.report(error, delay)
        if len(policy.reports) == 4:
            reported.set()

    def probe() -> None:
        assert len(server.probes) < 2 or reported.wait(PATIENCE)
        server.probe()

    policy.pacer.probe = probe
    results = in_threads(*[lambda: policy.call(server.call, retries=0, report=report)] * 4)
    assert results == ["done"] * 4
    assert len(policy.reports) == 4


def test_next_failure_of_the_prober_changes_nothing_for_those_that_still_wait() -> None:
    """It probes again, and the server answers: the outage that the others have waited for was one all the same."""
    policy = Policy(retries=0)
    Server(policy, threads=4, down=1)

    def fail_twice() -> bool:
        first, _ = (policy.pacer.outlast(errors.ConnectFailed("refused"), policy.report) for _ in range(2))
        return first

    assert in_threads(*[fail_twice] * 4) == [True] * 4


def test_outage_beyond_wait_for_server_raises_unreachable_in_all_threads() -> None:
    policy = Policy(wait_for_server=3.0)
    server = Server(policy, threads=4, down=None)
    results = in_threads(*[lambda: policy.pacer.call(server.call)] * 4)
    assert [type(result) for result in results] == [errors.Unreachable] * 4
    assert (len(server.probes), len(set(server.probes)), server.calls) == (4, 1, 4)
    assert policy.stop.slept == [0.5, 1.0, 1.5]
    assert {result.hint for result in results} == {"is the server running there?"}  # type: ignore[attr-defined]
    assert str(results[0]) == "refused; waited 3 s for it (--wait-for-server)"


def test_call_after_the_end_of_an_outage_raises_unreachable_without_a_probe() -> None:
    policy = Policy(wait_for_server=0.5)
    server = Server(policy, threads=1, down=None)
    for _ in range(2):
        with pytest.raises(errors.Unreachable):
            policy.pacer.call(server.call)
    assert (len(server.probes), server.calls) == (2, 2)


def test_wait_for_server_of_0_ends_the_run_after_one_probe() -> None:
    policy = Policy(wait_for_server=0.0)
    server = Server(policy, threads=1, down=None)
    with pytest.raises(errors.Unreachable):
        policy.pacer.call(server.call)
    assert (len(server.probes), policy.stop.slept, policy.events) == (1, [], [])


def test_outage_uses_up_no_retry_and_is_reported_until_it_ends() -> None:
    policy = Policy(retries=0)
    server = Server(policy, threads=1, down=3)
    assert policy.pacer.call(server.call) == "done"
    paused = [event for event in policy.events if isinstance(event, ev.Paused)]
    assert [(event.seconds, event.waited) for event in paused] == [(0.5, 0.0), (1.0, 0.5), (2.0, 1.5), (0.0, 0.0)]
    warnings = [event.code for event in policy.events if isinstance(event, ev.RunWarning)]
    assert warnings == [ev.WarningCode.UNREACHABLE]


class Held(FakeStop):
    """Ends the user's pause after 100 looks for its end."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy.clock)
        self.looks, self._policy = 0, policy
        policy.stop = policy.pacer.stop = self
        policy.pacer.held = True

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.looks += seconds == HELD
        self._policy.pacer.held = self.looks < 100


def test_request_begins_after_the_pause_of_the_user() -> None:
    policy = Policy(retries=0)
    stop = Held(policy)
    call, _ = failing(None)
    assert policy.call(call) == "done"
    assert (stop.looks, policy.reports, policy.events) == (100, [], [])


def test_pause_of_the_user_may_end_at_any_moment() -> None:
    """Another thread ends it between the first look and the second."""
    looks = iter([True, False, False])

    class Looked(Pacer):
        held = property(lambda _self: next(looks), lambda _self, _held: None)  # type: ignore[assignment]

    clock = Clock()
    began = clock.now
    Looked(FakeStop(clock), RateBudget(clock), Settings(), list[Any]().append).wait_out_pause()
    assert clock.now == began + HELD
    assert list(looks) == [False]  # it looked again after the sleep


def test_pause_of_the_user_is_no_part_of_wait_for_server() -> None:
    policy = Policy(wait_for_server=3.0)
    Held(policy)
    server = Server(policy, threads=1, down=3)
    assert policy.pacer.call(server.call) == "done"
    assert policy.clock.now >= 1000 + 100 * HELD


def test_interrupt_ends_the_pause_of_the_user() -> None:
    policy = Policy()
    policy.pacer.held = True
    policy.stop.set()
    with pytest.raises(errors.Interrupted):
        policy.pacer.wait_out_pause()


def test_full_disk_pauses_all_calls_and_uses_up_no_retry() -> None:
    policy = Policy(retries=0)
    call, calls = failing(fault(507), fault(507), fault(507), None)
    assert policy.call(call) == "done"
    assert (len(calls), policy.stop.slept) == (4, [1.0, 1.0, 2.0])
    assert {event.reason for event in policy.events if isinstance(event, ev.Paused)} == {ev.PauseReason.DISK_FULL}
    assert [event.code for event in policy.events if isinstance(event, ev.RunWarning)] == [ev.WarningCode.DISK_FULL]


def test_full_disk_beyond_wait_for_server_is_final_for_all_calls() -> None:
    policy = Policy(retries=5, wait_for_server=3.0)
    for slept in ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]):
        call, _ = failing(fault(507))
        with pytest.raises(errors.DiskFull, match="waited 3 s"):
            policy.pacer.call(call)
        assert policy.stop.slept == slept


def test_digest_that_is_computed_uses_up_no_retry_but_max_wait() -> None:
    policy = Policy(retries=0, max_wait=35.0)
    pending = errors.DigestPending("503", status=503, retry_after=10.0)
    call, _ = failing(pending, pending, None)
    assert policy.pacer.call(call) == "done"
    assert policy.stop.slept == [10.0, 10.0]
    assert policy.events == [], "no other call waits"
    call, calls = failing(pending)
    with pytest.raises(errors.DigestPending):
        policy.pacer.call(call)
    assert len(calls) == 4


def test_stop_during_an_outage_raises_interrupted_in_all_threads() -> None:
    policy = Policy(retries=3)
    server = Server(policy, threads=3, down=None)
    probe = server.probe

    def stop_then_fail() -> None:
        try:
            probe()
        finally:
            policy.stop.set()

    policy.pacer.probe = stop_then_fail
    results = in_threads(*[lambda: policy.pacer.call(server.call)] * 3)
    assert [type(result) for result in results] == [errors.Interrupted] * 3
    assert len(server.probes) == 1


def test_call_that_the_stop_has_ended_is_followed_by_no_probe() -> None:
    policy, probes = Policy(retries=3), list[None]()
    policy.pacer.probe = lambda: probes.append(None)

    def shut() -> None:
        policy.stop.set()
        raise errors.ConnectionLost("broke")

    with pytest.raises(errors.Interrupted):
        policy.pacer.call(shut)
    assert not probes


def test_second_outage_is_probed_again() -> None:
    policy = Policy(retries=2)
    for _ in range(2):
        server = Server(policy, threads=1, down=1)
        assert policy.pacer.call(server.call, at_most=0) == "done"
        assert len(server.probes) == 2


def test_refused_connection_to_a_server_that_answers_costs_retries() -> None:
    """The first probe succeeds: the failure concerns this call alone, as with a URL on another host."""
    policy = Policy(retries=2)
    policy.pacer.probe = lambda: None
    call, calls = failing(errors.ConnectFailed("refused"))
    with pytest.raises(errors.ConnectFailed) as caught:
        policy.pacer.call(call)
    assert type(caught.value) is errors.ConnectFailed
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("recover", "limit", "times"), [(False, 600.0, {3}), (True, 600.0, {20}), (True, 10.0, {*range(4, 20)})]
)
def test_outage_of_one_of_several_servers_costs_no_retry_while_other_calls_recover(
    recover: bool, limit: float, times: set[int]
) -> None:
    """The probe reaches another server. For at most `--wait-for-server` seconds: then it is this call that fails."""
    policy = Policy(retries=2, wait_for_server=limit)
    policy.pacer.probe = lambda: None
    down = fault(502)
    down.outage = True
    tries: list[int] = []

    def call() -> str:
        tries.append(len(tries))
        if len(tries) == 20:
            return "done"
        other, _ = failing(down, None)
        if recover:
            policy.pacer.call(other)
        raise down

    with nullcontext() if times == {20} else pytest.raises(errors.ServerFault):
        policy.pacer.call(call)
    assert len(tries) in times


@pytest.mark.parametrize("answer", [fault(503), unauthorized(), rate_limited(5.0)])
def test_refusal_of_the_probe_is_an_answer(answer: errors.AnswerError) -> None:
    policy = Policy(retries=2)
    policy.pacer.probe, probes = failing(errors.ConnectFailed("refused"), answer)
    call, _ = failing(errors.ConnectFailed("refused"), None)
    assert policy.pacer.call(call, at_most=0) == "done"
    assert len(probes) == 2


def test_connect_error_that_no_wait_can_cure_is_not_probed() -> None:
    """A certificate that nobody trusts."""
    policy = Policy(retries=2)
    policy.pacer.probe, probes = failing(None)
    error = errors.ConnectFailed("no secure connection")
    error.retryable = False
    call, calls = failing(error)
    with pytest.raises(errors.ConnectFailed):
        policy.pacer.call(call)
    assert (len(calls), probes) == (1, [])


def test_server_that_never_answered_is_not_probed() -> None:
    policy = Policy(retries=2)
    call, calls = failing(errors.ConnectFailed("refused"))
    with pytest.raises(errors.ConnectFailed) as caught:
        policy.pacer.call(call)
    assert type(caught.value) is errors.ConnectFailed
    assert len(calls) == 3


def test_delay_between_probes_doubles_up_to_10_seconds() -> None:
    policy = Policy(wait_for_server=40.0)
    policy.pacer.probe, _ = failing(errors.ConnectFailed("refused"))
    call, _ = failing(errors.ConnectFailed("refused"))
    with pytest.raises(errors.Unreachable):
        policy.pacer.call(call)
    assert policy.stop.slept == [0.5, 1.0, 2.0, 4.0, 8.0, LAST_PROBE, LAST_PROBE, 4.5]


# --- the return of the channel ----------------------------------------------------------------------------------------


def returning(policy: Policy, *times: float) -> None:
    """Let the realtime channel come back at these times of the clock."""
    policy.pacer.delays.follow_channel()
    sleep, begun = policy.stop.sleep, policy.clock()

    def slept(seconds: float) -> None:
        before = policy.clock()
        sleep(seconds)
        for at in times:
            if before < begun + at <= policy.clock():
                policy.pacer.delays.channel_returned()

    policy.stop.sleep = slept  # type: ignore[method-assign]
    policy.pacer.delays = Delays(slept, policy.clock)
    policy.pacer.delays.follow_channel()


def test_return_of_the_channel_ends_the_wait_for_the_next_probe() -> None:
    """Without it the server would be probed at 7.5 and 15.5 s."""
    policy = Policy()
    returning(policy, 8.0)
    began = policy.clock()

    def probe() -> None:
        if policy.clock() - began < 8.0:
            raise errors.ConnectFailed("refused")

    policy.pacer.probe = probe
    call, _ = failing(errors.ConnectFailed("refused"), None)
    assert policy.pacer.call(call) == "done"
    assert 8.0 <= policy.clock() - began <= 8.0 + RETURN_JITTER + 2 * HELD


def test_return_of_the_channel_ends_no_wait_that_the_server_asked_for() -> None:
    policy = Policy()
    returning(policy, 8.0)
    began = policy.clock()
    call, _ = failing(errors.ServerFault("busy", status=503, retry_after=20.0), None)
    assert policy.pacer.call(call) == "done"
    assert policy.clock() - began >= 20.0


def test_channel_that_flaps_ends_one_wait_within_its_time() -> None:
    """The waits are 0.5, 1, 2, 4, 8 and 16 s without jitter: of two in a row, the time of the first is kept."""
    policy = Policy(retries=6)
    returning(policy, *(number * 2 * HELD for number in range(1, 1000)))
    began = policy.clock()
    call, calls = failing(errors.ConnectFailed("refused"))
    policy.pacer.probe = lambda: None  # another of several servers answers
    with pytest.raises(errors.ConnectFailed):
        policy.pacer.call(call)
    assert len(calls) == 7
    assert policy.clock() - began >= 0.5 + 2 + 8


def test_server_that_was_silent_from_the_start_is_waited_for_where_a_run_outlasts_that() -> None:
    """As a watch does: its probe is there before the first answer. Else a wrong address is told soon."""
    policy = Policy(retries=0, wait_for_server=100.0)
    policy.pacer.budget.answered = False
    policy.pacer.probe, probes = failing(*[errors.TimedOut("late")] * 3, None)
    call, _ = failing(errors.TimedOut("late"), None)
    assert policy.pacer.call(call, at_most=2) == "done"
    assert len(probes) == 4


def test_server_that_never_answered_gets_one_request() -> None:
    """A refused connection is tried again, and so is a server that has answered before."""
    policy = Policy()
    policy.pacer.budget.answered = False
    call, calls = failing(errors.TimedOut("late"))
    with pytest.raises(errors.TimedOut):
        policy.pacer.call(call, at_most=2)
    assert len(calls) == 1
    call, calls = failing(errors.ConnectFailed("refused"))
    with pytest.raises(errors.ConnectFailed):
        policy.pacer.call(call, at_most=2)
    assert len(calls) == 3
