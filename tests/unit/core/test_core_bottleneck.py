"""What is named as the limit of a run's speed."""

from __future__ import annotations

from typing import Any

import pytest

from uploader_cli.core.bottleneck import Bottleneck, Waits, bottleneck

FAR, NEAR = 0.03, 0.0002


def of(waits: Waits, **facts: Any) -> Bottleneck | None:
    """Judge a run of 10 s with 4 busy workers."""
    return bottleneck(waits, **{"cpu": 1.0, "seconds": 10.0, "round_trip": FAR, "limited": None, **facts})


@pytest.mark.parametrize(
    ("waits", "round_trip", "named"),
    [
        (Waits(40, reading=30, sending=5, answer=5), FAR, Bottleneck.DISK),
        (Waits(40, reading=5, sending=30, answer=5), FAR, Bottleneck.NETWORK),
        (Waits(40, reading=5, sending=30, answer=5), NEAR, Bottleneck.SERVER),
        (Waits(40, reading=5, sending=5, answer=30), FAR, Bottleneck.SERVER),
        (Waits(40, reading=9, sending=9, answer=9), FAR, None),
        (Waits(), FAR, None),
    ],
)
def test_largest_wait_of_the_workers_is_named(waits: Waits, round_trip: float, named: Bottleneck | None) -> None:
    assert of(waits, round_trip=round_trip) is named


def test_cpu_outranks_waits_and_limit_rate_outranks_both() -> None:
    waits = Waits(40, sending=30)
    assert of(waits, cpu=9.0) is Bottleneck.CPU
    assert of(waits, cpu=9.0, limited=0.95) is Bottleneck.LIMIT_RATE
    assert of(waits, limited=0.3) is Bottleneck.NETWORK


def test_waits_of_workers_are_added() -> None:
    waits = Waits(1, 2, 3, 4)
    waits.add(Waits(10, 20, 30, 40))
    waits.add(Waits(100, 200, 300, 400))
    assert waits == Waits(111, 222, 333, 444)


def test_short_run_has_no_bottleneck() -> None:
    """Most of it is start-up and the last answer: that is not the server's fault."""
    waits = Waits(busy=1.9, answer=1.9)
    assert bottleneck(waits, cpu=0.1, seconds=1.9, round_trip=None, limited=None) is None
    assert bottleneck(waits, cpu=0.1, seconds=2.1, round_trip=None, limited=None) is Bottleneck.SERVER
