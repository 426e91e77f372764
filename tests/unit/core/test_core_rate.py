"""Speed and remaining time by tables of (seconds, bytes): no clock runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.core.rate import Meter
from uploader_cli.core.state import ProgressState


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
