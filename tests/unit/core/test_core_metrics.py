"""The metrics of a run, and their memory."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict, replace

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import Metrics, Spread, Transport
from uploader_cli.core.metrics import Measures, Sketch
from uploader_cli.core.protocol import server_time
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState

URL = "http://files.example/api/upload/session"


def call(url: str = URL, status: int | None = 200, seconds: float = 0.1, *, carries: bool = False) -> ev.CallMade:
    error = "refused" if status is None or (url.startswith("ws") and status != 101) else None
    return ev.CallMade("GET", url, "id", status, seconds, error, carries)


def result(*events: ev.Event) -> Metrics:
    state = ProgressState()
    reduce(state, ev.RunStarted("http://files.example", 1, 1, 1, "tus"), 0.0)
    for event in events:
        reduce(state, event, 1.0)
    return state.measures.result(seconds=2.0, events=3, retries=state.retries)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentiles_are_right_to_one_percent(share: float) -> None:
    dice = random.Random(5)
    values = [dice.lognormvariate(3, 2) for _ in range(20_000)]
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    exact = statistics.quantiles(values, n=1000, method="inclusive")[int(share * 1000) - 1]
    assert sketch.quantile(share) == pytest.approx(exact, rel=0.015)


def test_sketch_of_very_many_values_has_few_buckets() -> None:
    sketch = Sketch()
    for number in range(100_000):
        sketch.add(number * 1e7)
    assert len(sketch.buckets) < 2500
    for odd in (-1.0, 0.0, 1e-9, 1e30):
        sketch.add(odd)
    assert sketch.quantile(0.0) == 0.0
    assert sketch.spread() is not None


def test_sketch_without_values_has_no_spread() -> None:
    assert Sketch().spread() is None
    only = Sketch()
    only.add(7.0)
    assert only.spread() == Spread(7.0, 7.0, 7.0, 7.0)


def test_calls_and_dials_are_counted_apart() -> None:
    dial = "wss://files.example/socket.io/"
    metrics = result(call(), call(status=503), call(status=429), call(status=404), call(status=None), call(dial, 101))
    assert (metrics.calls, metrics.failed_calls, metrics.dials, metrics.failed_dials) == (5, 3, 1, 0)
    metrics = result(call(dial, 502), call(dial, None), call())
    assert (metrics.calls, metrics.failed_calls, metrics.dials, metrics.failed_dials) == (1, 0, 2, 2)
    assert metrics.error_percent == pytest.approx(66.67)


def test_latency_excludes_bodies_and_long_polls() -> None:
    """A body on its way, an analysis, a long poll that waits, and a call without an answer say nothing of it."""
    metrics = result(
        call(seconds=0.2),
        call(seconds=60.0, carries=True),
        call("http://files.example/api/ai/analyze/content", seconds=60.0),
        call("http://files.example/socket.io/", seconds=25.0),
        call(status=None, seconds=10.0),
    )
    assert metrics.latency_ms == Spread(200.0, 200.0, 200.0, 200.0)
    assert metrics.calls == 4


def message(timestamp: float | None, received: float | None) -> ev.SessionProgress:
    return ev.SessionProgress("s", Transport.WEBSOCKET, timestamp, "uploading", received=received)


def test_event_lag_uses_the_clock_offset_of_the_server() -> None:
    """The server is 60 s ahead: a message of its 1060.0 that came at our 1000.25 was under way for 0.25 s."""
    metrics = result(ev.ServerClock(60.0, 0.01), message(1060.0, 1000.25))
    assert metrics.clock_offset == 60.0
    assert metrics.event_lag_ms is not None
    assert metrics.event_lag_ms.max == pytest.approx(250.0)


def test_event_lag_is_none_without_a_clock_or_pushed_events() -> None:
    assert result(message(1060.0, 1000.25)).event_lag_ms is None
    assert result(ev.ServerClock(0.0, 0.1), message(None, 1000.0), message(1000.0, None)).event_lag_ms is None


def test_clock_offset_is_the_one_of_least_uncertainty() -> None:
    answers = [
        ev.ServerClock(1.0, 0.5),
        ev.ServerClock(0.7, 0.01),
        ev.ServerClock(3.0, 30.0),
        ev.ServerClock(0.6, 0.01),
    ]
    assert result(*answers).clock_offset == 0.6


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({}, {"timestamp": "1970-01-01T00:00:10.250Z"}, (10.25, 0.001)),
        ({"Date": "Thu, 01 Jan 1970 00:00:10 GMT"}, None, (10.5, 0.5)),
        ({"Date": "yesterday"}, "<html>", None),
        ({}, [], None),
    ],
    ids=["a time stamp", "a date", "no date", "nothing"],
)
def test_clock_offset_is_read_from_an_answer(
    headers: dict[str, str], body: object, told: tuple[float, float] | None
) -> None:
    assert server_time(headers, body) == told


def test_rates_are_sampled_each_second() -> None:
    measures = Measures()
    for now, sent in ((0.0, 0), (0.5, 400), (1.0, 1000), (1.4, 1500), (2.0, 3000), (3.0, 3000)):
        measures.sample(now, sent)
    spread = measures.result(seconds=3.0, events=0, retries=0).rate
    assert spread is not None
    assert (spread.p50, spread.max) == (pytest.approx(1000, rel=0.01), 2000.0)


def test_a_short_run_has_a_rate_too() -> None:
    state = ProgressState()
    reduce(state, ev.RunStarted("http://x", 1, 100, 1, "batch"), 10.0)
    reduce(state, ev.FileSelected(0, "a", 100), 10.0)
    reduce(state, ev.FileStarted(0, "a", 100, "s", 0, 1), 10.0)
    reduce(state, ev.BytesSent(0, 1, 100), 10.2)
    reduce(state, ev.EngineStopped(), 10.5)
    spread = state.measures.result(seconds=0.5, events=0, retries=0).rate
    assert spread is not None
    assert spread.max == pytest.approx(200.0)


def test_error_rate_counts_files_and_retries() -> None:
    metrics = result(
        ev.FileStarted(0, "a", 1, "s", 0, 1),
        ev.FileRetry(0, 2, 0.1, ev.FailureCode.NETWORK, "gone"),
        ev.FileFailed(0, "a", ev.FailureCode.NETWORK, "gone", retryable=True),
        ev.FileFailed(1, "b", ev.FailureCode.NETWORK, "gone", retryable=True),
        ev.FileCompleted(2, "c", 1, None, None, verified=False, attempts=1, seconds=1.0),
        ev.PollFailed("s", "timeout"),
        ev.ChannelChanged(
            ev.ChannelState.CONNECTING, ev.ChannelState.LIVE, Transport.WEBSOCKET, ev.ChannelReason.CONNECTED,
            latency_ms=12.5,
        ),
    )  # fmt: skip
    assert (metrics.retries, metrics.failed_polls, metrics.events_per_second) == (1, 1, 1.5)
    assert metrics.error_percent == pytest.approx(66.67)
    assert metrics.connect_ms == Spread(12.5, 12.5, 12.5, 12.5)


def test_the_stream_has_them_as_plain_numbers() -> None:
    finished = ev.RunFinished(True, 1, 0, 0, 0, 1, 1.0, 1.0, 0, ev.ChannelStats(), 1)
    finished = replace(finished, metrics=Metrics(calls=3, rate=Spread(1.0, 2.0, 3.0, 4.0)))
    assert ev.as_fields(finished)["metrics"] == {
        **asdict(Metrics(calls=3)),
        "rate": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "max": 4.0},
    }
