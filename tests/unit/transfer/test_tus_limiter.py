"""The rate limit: exact over seconds, shared, in small grants, and ended by an interrupt."""

from __future__ import annotations

import threading

import pytest
from fakes import Clock
from tus_model import FakeStop

from uploader_cli.errors import Interrupted
from uploader_cli.transfer.limiter import CREDIT, LEAST_GRANT, MOST_GRANT, Limiter, unlimited
from uploader_cli.transfer.stop import Stop


def drawn(rate: float, seconds: float, *, wanted: int = 1 << 20, work: float = 0.0) -> float:
    """Bytes/s that came through, `work` seconds passing with each grant."""
    clock = Clock()
    limiter = Limiter(rate, FakeStop(clock).sleep, clock)
    began, total = clock(), 0
    while clock() - began < seconds:
        total += limiter(wanted)
        clock.pass_(work)
    return total / (clock() - began)


@pytest.mark.parametrize("rate", [1_000, 10_000, 1e6, 8 << 20, 1e9])
@pytest.mark.parametrize("work", [0.0, 0.001])
def test_the_rate_holds_within_five_percent_over_ten_seconds(rate: float, work: float) -> None:
    assert drawn(rate, 10.0, work=work) == pytest.approx(rate, rel=0.05)


def test_small_pieces_count_as_what_they_are() -> None:
    assert drawn(100_000, 10.0, wanted=1500) == pytest.approx(100_000, rel=0.05)


def test_a_pause_is_not_made_up_for() -> None:
    """After a minute without a byte there is a fifth of a second to spare, no more."""
    clock = Clock()
    limiter = Limiter(1000.0, FakeStop(clock).sleep, clock)
    clock.pass_(60.0)
    began, total = clock(), 0
    while clock() == began:
        total += limiter(50)
    assert total <= 1000 * CREDIT + 2 * 50


@pytest.mark.parametrize(("rate", "grant"), [(10.0, LEAST_GRANT), (1e6, 50_000), (1e12, MOST_GRANT)])
def test_grants_are_small(rate: float, grant: int) -> None:
    clock = Clock()
    assert Limiter(rate, FakeStop(clock).sleep, clock)(1 << 30) == grant


def test_nothing_costs_nothing() -> None:
    clock = Clock()
    stop = FakeStop(clock)
    limiter = Limiter(10.0, stop.sleep, clock)
    limiter(1000)
    assert limiter(0) == 0
    assert stop.slept == []


def test_workers_share_it() -> None:
    """Whoever comes later waits for what was granted before."""
    clock = Clock()
    waits: list[float] = []
    limiter = Limiter(1000.0, waits.append, clock)
    grants = [limiter(50) for _ in range(4)]
    assert grants == [50] * 4
    assert waits == pytest.approx([0.05, 0.1, 0.15])


def test_an_interrupt_ends_the_wait() -> None:
    stop = Stop()
    limiter = Limiter(1.0, stop.sleep)
    limiter(1000)
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Interrupted):
        limiter(1000)


def test_no_limit() -> None:
    assert unlimited(1 << 30) == 1 << 30
