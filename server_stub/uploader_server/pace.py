"""How fast the body of an upload must arrive."""

from __future__ import annotations

from typing import NamedTuple


class Pace(NamedTuple):
    """The minimum speed of a body: `rate` bytes per second over each `window` (seconds), and no pause above `idle`.

    Only the time in which the server waits for data counts: not the time in which it writes to disk. Rate 0 disables
    the minimum, not the limit of a pause.
    """

    rate: int
    window: float
    idle: float


class Meter:
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waited = 0.0  # seconds of the current window
        self._arrived = 0  # bytes in it

    @property
    def patience(self) -> float:
        """Seconds without data after which the body is too slow, whatever follows."""
        rate, window, idle = self._pace
        if not rate:
            return idle
        left = window - self._waited
        return min(idle, left if self._arrived < rate * window else left + window)

    def arrived(self, count: int, waited: float) -> None:
        """Count bytes that arrived within `patience`, after `waited` seconds."""
        self._waited += waited
        if self._waited >= self._pace.window:
            self._waited, self._arrived = 0.0, 0
        self._arrived += count
