"""Determine what limits a run's speed from the waiting times of its workers."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

BUSY_CPU = 0.85  # CPU seconds per second from which the interpreter is the limit
AT_LIMIT = 0.8  # share of `--limit-rate` from which it is the limit
LEAST_RUN = 2.0  # seconds of a run below which its waits say nothing: start-up and the last answer are most of it
CLEAR = 0.25  # minimum share of the workers' time for a wait to be reported
LOCAL = 0.0005
"""Round trip in seconds below which the server is local, so that a full socket means that it reads slowly."""


class Bottleneck(StrEnum):
    """What limits the speed. A closed enum: scripts depend on it."""

    LIMIT_RATE = "limit_rate"
    CPU = "cpu"
    DISK = "disk"
    NETWORK = "network"
    SERVER = "server"


class Waits(Struct):
    """Seconds that a worker spent in jobs (`busy`), and of these in three kinds of waiting.

    `reading` is disk reads, `sending` a full socket, `answer` the wait for a response after the last byte.
    """

    busy: float = 0.0
    reading: float = 0.0
    sending: float = 0.0
    answer: float = 0.0

    def add(self, other: Waits) -> None:
        self.busy += other.busy
        self.reading += other.reading
        self.sending += other.sending
        self.answer += other.answer


def bottleneck(
    waits: Waits, *, cpu: float, seconds: float, round_trip: float | None, limited: float | None
) -> Bottleneck | None:
    """Return what limits the speed of a run of `seconds`; None if nothing stands out.

    `cpu` is in CPU seconds, `limited` the rate as a share of `--limit-rate`, if that is set.
    """
    if limited is not None and limited >= AT_LIMIT:
        return Bottleneck.LIMIT_RATE
    if seconds < LEAST_RUN or waits.busy <= 0:
        return None
    if cpu / seconds >= BUSY_CPU:
        return Bottleneck.CPU
    sending = Bottleneck.SERVER if round_trip is not None and round_trip < LOCAL else Bottleneck.NETWORK
    shares: dict[Bottleneck, float] = {Bottleneck.DISK: waits.reading, Bottleneck.SERVER: waits.answer}
    shares[sending] = shares.get(sending, 0.0) + waits.sending
    worst = max(shares, key=lambda what: shares[what])
    return worst if shares[worst] / waits.busy >= CLEAR else None
