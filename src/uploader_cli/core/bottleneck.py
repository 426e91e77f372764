"""What limits a run's speed, from where its workers spent their time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

BUSY_CPU = 0.85
"""CPU seconds of this process per second from which its one interpreter is the limit."""
AT_LIMIT = 0.8
"""Share of `--limit-rate` from which that is the limit."""
CLEAR = 0.25
"""Share of the workers' time that one wait must have to be named."""
LOCAL = 0.0005
"""Seconds of round trip below which no network lies between: a full socket then waits for the server."""


class Bottleneck(StrEnum):
    """What limits the speed. Closed: scripts branch on it."""

    LIMIT_RATE = "limit_rate"
    CPU = "cpu"
    DISK = "disk"
    NETWORK = "network"
    SERVER = "server"


@dataclass(slots=True)
class Waits:
    """Seconds that a worker spent in jobs (`busy`), and the part of them in three kinds of waiting.

    `reading` is for the disk, `sending` for a socket that takes no bytes, `answer` for the answer after the last byte.
    """

    busy: float = 0.0
    reading: float = 0.0
    sending: float = 0.0
    answer: float = 0.0

    def add(self, other: Waits) -> None:
        """Add the seconds of another worker."""
        self.busy += other.busy
        self.reading += other.reading
        self.sending += other.sending
        self.answer += other.answer


def bottleneck(
    waits: Waits, *, cpu: float, seconds: float, round_trip: float | None, limited: float | None
) -> Bottleneck | None:
    """Return what limits the speed of a run of `seconds`; None where nothing stands out.

    `cpu` is in CPU-seconds, `limited` the rate as a share of `--limit-rate`, where that is given.
    """
    if limited is not None and limited >= AT_LIMIT:
        return Bottleneck.LIMIT_RATE
    if seconds <= 0 or waits.busy <= 0:
        return None
    if cpu / seconds >= BUSY_CPU:
        return Bottleneck.CPU
    sending = Bottleneck.SERVER if round_trip is not None and round_trip < LOCAL else Bottleneck.NETWORK
    shares: dict[Bottleneck, float] = {Bottleneck.DISK: waits.reading, Bottleneck.SERVER: waits.answer}
    shares[sending] = shares.get(sending, 0.0) + waits.sending
    worst = max(shares, key=lambda what: shares[what])
    return worst if shares[worst] / waits.busy >= CLEAR else None
