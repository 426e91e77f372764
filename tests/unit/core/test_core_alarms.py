"""Thresholds warn once when they are crossed and once when that ends."""

from __future__ import annotations

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.core.events import ChannelReason, ChannelState, Transport, WarningCode
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState


class Watched:
    """A run under alarms: `told` has the warnings that observers get."""

    def __init__(self, alarms: Alarms) -> None:
        self.state, self.alarms, self.now = ProgressState(), alarms, 0.0
        self.told: list[tuple[WarningCode, str]] = []
        self.put(ev.RunStarted("http://x", 1, 1, 1, "tus"))

    def put(self, *events: ev.Event) -> None:
        for event in events:
            for out in reduce(self.state, event, self.now):
                if isinstance(out, ev.RunWarning):
                    self.told.append((out.code, out.text))

    def look(self, seconds: float = 0.1) -> None:
        self.now += seconds
        self.put(*self.alarms.look(self.state, self.now))

    def answer(self, seconds: float, status: int = 200) -> None:
        self.put(ev.CallMade("GET", "http://x/health", None, status, seconds, None))
        self.look()


def test_latency_alarm_and_its_end_are_reported_once() -> None:
    run = Watched(Alarms(latency_ms=500))
    run.answer(2.0)
    assert not run.told  # one slow answer is no latency
    for _ in range(4):
        run.answer(2.0)
    assert run.told == [(WarningCode.LATENCY, "latency of 2000 ms, more than 500 ms: the server responds slowly")]
    for _ in range(9):
        run.answer(0.01)
    assert [code for code, _ in run.told] == [WarningCode.LATENCY, WarningCode.RECOVERED]
    assert run.told[1][1].startswith("latency is normal again, ")
    for _ in range(9):
        run.answer(2.0)
    assert [code for code, _ in run.told] == [WarningCode.LATENCY, WarningCode.RECOVERED, WarningCode.LATENCY]


def test_alarm_has_hysteresis_at_its_threshold() -> None:
    run = Watched(Alarms(latency_ms=500))
    for seconds in (0.6, 0.6, 0.45, 0.45, 0.45, 0.45, 0.6, 0.6, 0.6, 0.6):
        run.answer(seconds)
    assert [code for code, _ in run.told] == [WarningCode.LATENCY]


def test_late_messages_and_a_slow_connection_are_latency_too() -> None:
    run = Watched(Alarms(latency_ms=500))
    run.put(ev.ServerClock(0.0, 0.001))
    for _ in range(2):
        run.put(ev.SessionProgress("s", Transport.WEBSOCKET, 10.0, None, received=11.0))
    run.look()
    assert run.told[0][1] == "latency of 1000 ms, more than 500 ms: the server's messages arrive late"
    run = Watched(Alarms(latency_ms=500))
    live = ev.ChannelChanged(
        ChannelState.CONNECTING, ChannelState.LIVE, Transport.WEBSOCKET, ChannelReason.CONNECTED, latency_ms=900.0
    )
    run.put(live)
    run.look()
    assert run.told[0][1] == "latency of 900 ms, more than 500 ms: connecting was slow"


def test_error_rate_alarm_and_its_end_are_reported_once() -> None:
    run = Watched(Alarms(error_percent=20))
    for _ in range(9):
        run.answer(0.1, status=500)
    assert not run.told  # too few to speak of a rate
    run.answer(0.1, status=500)
    run.answer(0.1, status=500)
    words = "error rate of 100 %, more than 20 %: 10 of the last 10 calls, dials and files failed"
    assert run.told == [(WarningCode.ERROR_RATE, words)]
    for _ in range(60):
        run.answer(0.1)
    assert [code for code, _ in run.told] == [WarningCode.ERROR_RATE, WarningCode.RECOVERED]


def test_stall_alarm_and_its_end_are_reported_once() -> None:
    run = Watched(Alarms(stall=30))
    run.put(ev.FileSelected(0, "a", 10), ev.FileStarted(0, "a", 10, "s", 0, 1))
    for _ in range(40):
        run.look(1.0)
    assert run.told == [(WarningCode.STALLED, "no progress for 30 s: the server accepts no bytes")]
    run.put(ev.BytesSent(0, 1, 5))
    run.look()
    assert run.told[1] == (WarningCode.RECOVERED, "progress again, 10.1 s after the warning")
    assert len(run.told) == 2


def test_retry_that_ends_a_stall_is_no_progress() -> None:
    run = Watched(Alarms(stall=30))
    run.put(ev.FileSelected(0, "a", 10), ev.FileStarted(0, "a", 10, "s", 0, 1))
    run.look(31.0)
    run.put(ev.FileRetry(0, 2, 0.5, ev.FailureCode.TIMEOUT, "late"), ev.FileStarted(0, "a", 10, "s", 0, 2))
    run.look(1.0)
    assert [code for code, _ in run.told] == [WarningCode.STALLED]


@pytest.mark.parametrize("pause", [ev.Paused(100.0, ev.PauseReason.RATE_LIMIT), ev.RunPaused()])
def test_a_pause_is_no_stall(pause: ev.Event) -> None:
    run = Watched(Alarms(stall=30))
    run.put(pause)
    run.look(50.0)
    run.put(ev.RunResumed())
    run.look(1.0)
    assert not run.told


@pytest.mark.parametrize(
    ("phase", "why"),
    [
        (ev.BytesSent(0, 1, 10), "everything is sent, waiting for the server's response"),
        (ev.FileRetry(0, 2, 60.0, ev.FailureCode.NETWORK, "gone"), "waiting to retry"),
        (ev.FilesCancelled((0,)), "no message from the server"),
    ],
    ids=["sent", "waiting", "nothing"],
)
def test_a_stall_names_its_reason(phase: ev.Event, why: str) -> None:
    run = Watched(Alarms(stall=30))
    run.put(ev.FileSelected(0, "a", 10), ev.FileStarted(0, "a", 10, "s", 0, 1), phase)
    run.look(31.0)
    assert run.told[0][1].endswith(why)


def test_stall_while_checking_contents_names_no_server() -> None:
    """Before anything is sent a large file of a list may take minutes."""
    run = Watched(Alarms(stall=30))
    run.put(ev.FileSelected(0, "a", 10), ev.ContentChecked("a"))
    run.look(31.0)
    assert run.told[0][1].endswith("a is being compared with the list")


def test_no_alarm_without_thresholds() -> None:
    run = Watched(Alarms())
    for _ in range(20):
        run.answer(9.0, status=500)
    assert not run.told
