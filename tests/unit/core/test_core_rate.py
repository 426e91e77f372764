"""Speed and remaining time by tables of (seconds, bytes): no clock runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_runs import START, RecordedRun

from uploader_cli.core import events as ev
from uploader_cli.core.bottleneck import Bottleneck
from uploader_cli.core.rate import Meter
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState
from uploader_cli.render import overview


def steady(seconds: int, per_second: int) -> list[tuple[float, int]]:
    return [(float(second), second * per_second) for second in range(seconds + 1)]


@pytest.mark.parametrize(
    ("samples", "now", "rate"),
    [
        ([], 5.0, 0.0),
        ([(0.0, 0)], 0.0, 0.0),
        ([(0.0, 0)], 5.0, 0.0),
        ([(0.0, 0), (1.0, 100)], 1.0, 100.0),
        ([(0.0, 0), (1.0, 100)], 2.0, 50.0),  # nothing more came
        ([(0.0, 0), (1.0, 100)], 100.0, 1.0),
        ([(10.0, 500), (12.0, 700)], 12.0, 100.0),  # where it began is no speed
        (steady(60, 100), 60.0, 100.0),
        ([*steady(60, 100), (61.0, 6000), (62.0, 6000)], 62.0, 75.0),  # a window of 8 s
        ([(0.0, 0), (1.0, 100), (20.0, 100)], 20.0, 0.0),  # of what is older than the window one sample is kept
        ([(0.0, 0), (1.0, 100)], -1.0, 0.0),
    ],
)
def test_speed_is_that_of_the_window(samples: list[tuple[float, int]], now: float, rate: float) -> None:
    meter = Meter(window=8.0)
    for at, total in samples:
        meter.update(at, total)
    assert meter.rate(now) == pytest.approx(rate)


def test_speed_follows_a_change_after_one_window() -> None:
    meter = Meter(window=4.0)
    for at, total in [*steady(10, 100), *((10 + second, 1000 + 10 * second) for second in range(1, 7))]:
        meter.update(at, total)
    assert meter.rate(16.0) == pytest.approx(10.0)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1000)), max_size=60))
def test_speed_is_never_negative_and_memory_is_bounded(steps: list[tuple[float, int]]) -> None:
    meter, now, total = Meter(window=8.0, spacing=0.2), 0.0, 0
    for seconds, amount in steps:
        now, total = now + seconds, total + amount
        meter.update(now, total)
        assert meter.rate(now) >= 0.0
        assert len(meter.samples) <= 8.0 / 0.2 + 2


def test_bytes_between_two_samples_count() -> None:
    meter = Meter(spacing=1.0)
    for at, total in [(0.0, 0), (1.0, 100), (1.5, 400)]:
        meter.update(at, total)
    assert meter.rate(2.0) == 200.0


def test_idle_counts_from_the_last_change() -> None:
    meter = Meter()
    assert meter.idle(5.0) == 0.0
    meter.update(5.0, 10)
    assert meter.idle(7.5) == 2.5


@pytest.mark.parametrize(
    ("remaining", "rate", "seconds"),
    [(100, 10, 10.0), (0, 10, 0.0), (0, 0, 0.0), (100, 0, None), (1, 4, 0.25)],
)
def test_time_left_follows_from_bytes_and_rate(remaining: int, rate: int, seconds: float | None) -> None:
    state = ProgressState(selected_bytes=remaining, sent_total=rate, started=1.0, stopped=2.0)
    assert state.eta(3.0) == seconds


def test_rate_of_a_paused_run_lasts_as_long_as_bytes_are_sent() -> None:
    """Requests that are being sent are completed."""
    state = ProgressState(held=0.5)
    for second in (0, 1):
        state.meter.update(float(second), 1000 * second)
    assert state.rate(1.5) > 0
    assert state.rate(2.5) == 0


STEADY_FROM = {"steady": 0.0, "small-files": 0.0, "outage": 24.6, "pause": 14.1, "frozen": 22.0}
"""Seconds after the start from which a recorded run is steady: 3 s after the end of its wait."""


@pytest.mark.parametrize(("name", "since"), STEADY_FROM.items())
def test_time_left_of_a_recorded_run_is_right_from_10_percent_on(name: str, since: float) -> None:
    """Within 15 %, or a half second at the end; also 3 s after a pause or an outage."""
    run, compared = RecordedRun(name), 0
    for now in run.play():
        if run.state.fraction < 0.1 or now - START < since or (left := run.ended - now) <= 0:
            continue
        estimate = run.state.eta(now)
        assert estimate == pytest.approx(left, rel=0.15, abs=0.5), f"{now - START:.1f} s"
        compared += 1
    assert compared > 40


@pytest.mark.parametrize("name", ["steady", "outage", "pause", "frozen"])
def test_speed_of_a_recorded_run_is_that_of_its_files_together(name: str) -> None:
    """Also after a wait: all begin to measure at the same time."""
    run, compared = RecordedRun(name), 0
    for now in run.play():
        files = run.state.running.values()
        rates = [file.meter.rate(now) for file in files]
        if len(files) < 4 or not all(rates) or not (total := run.state.rate(now)):
            continue
        if now - run.state.meter.samples[0][0] < 1:  # files send in pieces of 50 ms
            continue
        assert sum(rates) == pytest.approx(total, rel=0.25)
        compared += 1
    assert compared > 40


def test_start_of_a_run_is_no_time_of_its_speed() -> None:
    """A file that took 48 ms is not slow because the command needed 200 ms to begin."""
    state = ProgressState(started=1.0)
    reduce(state, ev.FileSelected(0, "a", 48_000), 1.1)
    reduce(state, ev.FileStarted(0, "a", 48_000, "s", 0, 1), 1.2)
    reduce(state, ev.BytesSent(0, 1, 48_000), 1.24)
    reduce(state, ev.FileCompleted(0, "a", 48_000, None, None, verified=False, attempts=1, seconds=0.048), 1.248)
    reduce(state, ev.EngineStopped(), 1.248)
    assert state.rate(2.0) == pytest.approx(1e6)


@pytest.mark.parametrize(("seconds", "limit"), [(1.9, None), (2.1, Bottleneck.SERVER)])
def test_limit_of_a_transfer_is_said_from_2_seconds_on_however_long_the_command_took(
    seconds: float, limit: Bottleneck | None
) -> None:
    for found, told in [(Bottleneck.SERVER, limit), (Bottleneck.LIMIT_RATE, Bottleneck.LIMIT_RATE)]:
        state = ProgressState(started=1.0)
        reduce(state, ev.FileSelected(0, "a", 48_000), 4.0)
        reduce(state, ev.FileStarted(0, "a", 48_000, "s", 0, 1), 5.0)
        reduce(state, ev.EngineStopped(bottleneck=found), 5.0 + seconds)
        assert state.bottleneck is told


def test_speed_after_a_wait_of_all_files_leaves_out_the_wait() -> None:
    state = ProgressState()
    reduce(state, ev.FileSelected(0, "a", 10_000), 0.0)
    reduce(state, ev.FileStarted(0, "a", 10_000, "s", 0, 1), 0.0)
    for tenth in range(1, 31):
        reduce(state, ev.BytesSent(0, 1, 100 * tenth), tenth / 10)
    reduce(state, ev.FileRetry(0, 2, 4.0, ev.FailureCode.SERVER_ERROR, "500"), 3.0)
    reduce(state, ev.FileStarted(0, "a", 10_000, "s", 0, 2), 7.0)
    for tenth in range(1, 21):
        reduce(state, ev.BytesSent(0, 2, 100 * tenth), 7 + tenth / 10)
    assert state.rate(9.0) == pytest.approx(1000, rel=0.05)


def test_files_per_second_end_soon_after_the_last_file() -> None:
    state = ProgressState()
    for number in range(100):
        reduce(state, ev.FileSelected(number, str(number), 1), 0.0)
        stored = ev.FileCompleted(number, str(number), 1, None, None, verified=False, attempts=1, seconds=0.1)
        reduce(state, stored, number / 50)
    assert overview.pace(state, 2.0).endswith(" files/s")
    assert overview.pace(state, 4.0) == ""


def test_files_per_second_after_a_wait_leave_out_earlier_files() -> None:
    """After a pack of small files, a large one that ends is not one of many."""
    state = ProgressState()
    for number in range(104):
        reduce(state, ev.FileSelected(number, str(number), 1), 0.0)
    for number in range(104):
        now = number / 100 if number < 100 else 3.1 + number / 1000
        stored = ev.FileCompleted(number, str(number), 1, None, None, verified=False, attempts=1, seconds=0.1)
        reduce(state, stored, now)
    assert overview.pace(state, 3.5) == ""
