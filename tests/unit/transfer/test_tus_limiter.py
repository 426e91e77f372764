"""The limit of `--limit-rate`: exact over seconds, shared by threads, granted in small pieces, ended by a stop."""

from __future__ import annotations

import threading

import pytest
from fakes import Clock
from unit.transfer.tus_model import FakeStop

from uploader_cli.errors import Interrupted
from uploader_cli.transfer.budget import CREDIT, LEAST_GRANT, MOST_GRANT, Limiter
from uploader_cli.transfer.pacer import Stop


def drawn(rate: float, seconds: float, *, wanted: int = 1 << 20, work: float = 0.0) -> float:
    """Return the bytes/s that were granted, where each grant takes `work` seconds to send."""
    clock = Clock()
    limiter = Limiter(rate, FakeStop(clock).sleep, clock)
    began, total = clock(), 0
    while clock() - began < seconds:
        total += limiter(wanted)
        clock.pass_(work)
    return total / (clock() - began)


@pytest.mark.parametrize("rate", [1_000, 10_000, 1e6, 8 << 20, 1e9])
@pytest.mark.parametrize("work", [0.0, 0.001])
def test_rate_over_ten_seconds_is_within_five_percent(rate: float, work: float) -> None:
    assert drawn(rate, 10.0, work=work) == pytest.approx(rate, rel=0.05)


def test_rate_of_small_pieces_is_within_five_percent() -> None:
    assert drawn(100_000, 10.0, wanted=1500) == pytest.approx(100_000, rel=0.05)


def test_idle_time_gives_a_fifth_of_a_second_of_credit() -> None:
    clock = Clock()
    limiter = Limiter(1000.0, FakeStop(clock).sleep, clock)
    clock.pass_(60.0)
    began, total = clock(), 0
    while clock() == began:
        total += limiter(50)
    assert total <= 1000 * CREDIT + 2 * 50


@pytest.mark.parametrize(("rate", "grant"), [(10.0, LEAST_GRANT), (1e6, 50_000), (1e12, MOST_GRANT)])
def test_grant_is_limited_by_the_rate(rate: float, grant: int) -> None:
    clock = Clock()
    assert Limiter(rate, FakeStop(clock).sleep, clock)(1 << 30) == grant


def test_request_for_no_bytes_does_not_wait() -> None:
    clock = Clock()
    stop = FakeStop(clock)
    limiter = Limiter(10.0, stop.sleep, clock)
    limiter(1000)
    assert limiter(0) == 0
    assert stop.slept == []


def test_later_grants_wait_for_the_earlier_ones() -> None:
    clock = Clock()
    waits: list[float] = []
    limiter = Limiter(1000.0, waits.append, clock)
    grants = [limiter(50) for _ in range(4)]
    assert grants == [50] * 4
    assert waits == pytest.approx([0.05, 0.1, 0.15])


def test_stop_ends_the_wait() -> None:
    stop = Stop()
    limiter = Limiter(1.0, stop.sleep)
    limiter(1000)
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Interrupted):
        limiter(1000)


def test_limiter_without_rate_grants_and_counts_everything() -> None:
    clock = Clock()
    limiter = Limiter(None, FakeStop(clock).sleep, clock)
    assert limiter(1 << 30) == 1 << 30
    assert limiter.measure(1.0) is None
    clock.pass_(2.0)
    assert limiter.measure(1.0) == 1 << 29
