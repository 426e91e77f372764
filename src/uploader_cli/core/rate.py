"""The estimator of speed, and the speed over the time of a run; the time is always an argument.

Every rate and every remaining time that is shown comes from a `Meter`: of the run, of a file, of files per second, of a
worker. All have the same window and restart together, so that a total is the sum of its rows. After a wait (a pause, an
outage, a rate limit, a retry of all that is running, a silence) they measure from its end on: it is no part of a rate.
"""

from __future__ import annotations

import math
from collections import deque

from msgspec import Struct, field

WINDOW = 8.0  # seconds over which a speed is measured
SILENCE = 5.0
"""Seconds without a byte, of a file or of all, after which it does not move: it has no rate and no remaining time."""
TIMELINE_STEPS = 300
"""Maximum steps of a timeline: when a run outlasts them, each two become one that is twice as long."""


class Meter:
    """A moving average over the last `window` seconds. The first total is the start and no speed."""

    def __init__(
        self, window: float = WINDOW, spacing: float = 0.2, burst: float = 0.0, silence: float = math.inf
    ) -> None:
        """Keep one sample per `spacing` seconds, so at most `window / spacing`.

        The first `burst` seconds are not measured: what is sent in them only fills the buffers of the system. After
        `silence` seconds without an update it restarts.
        """
        self._window = window
        self._spacing = spacing
        self._burst = burst
        self._silence = silence
        self._since: float | None = None
        self.samples: deque[tuple[float, int]] = deque()
        self._latest: tuple[float, int] | None = None

    def update(self, now: float, total: int) -> None:
        """Record that `total` bytes were transferred at `now` (seconds, any fixed origin)."""
        if self._latest is not None and now - self._latest[0] >= self._silence:
            self._since = None
        self._latest = (now, total)
        if self._since is None:
            self.samples.clear()
            self._since = now
        if now - self._since < self._burst:
            self.samples.clear()
        if not self.samples or now - self.samples[-1][0] >= self._spacing:
            self.samples.append((now, total))
        while len(self.samples) > 2 and self.samples[1][0] <= now - self._window:
            self.samples.popleft()

    def restart(self, now: float) -> None:
        """Measure from now on: what was transferred before is no speed."""
        self._since = None
        if self._latest is not None:
            self.update(now, self._latest[1])

    @property
    def measured(self) -> int:
        """What came in the time that is measured."""
        return self._latest[1] - self.samples[0][1] if self.samples and self._latest is not None else 0

    def rate(self, now: float) -> float:
        """Return bytes per second over the window before `now`; it falls towards 0 without updates."""
        if not self.samples or self._latest is None:
            return 0.0
        start, base = self.samples[0]
        elapsed = now - start
        if elapsed < self._spacing:
            return 0.0  # too short for an estimate
        return max(0.0, (self._latest[1] - base) / elapsed)

    def idle(self, now: float) -> float:
        """Return the seconds since the last update; 0 before the first one."""
        return max(0.0, now - self._latest[0]) if self._latest is not None else 0.0


class Timeline(Struct):
    """The bytes sent and the files completed in each step of time, in bounded memory. `step` is in seconds."""

    step: float = 0.1
    bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    _total: tuple[int, int] = (0, 0)

    def update(self, seconds: float, sent: int, completed: int) -> None:
        """Record the totals at `seconds` after the start."""
        slot = int(max(0.0, seconds) / self.step)
        while slot >= TIMELINE_STEPS:
            self.step *= 2
            slot //= 2
            self.bytes, self.files = _halved(self.bytes), _halved(self.files)
        missing = [0] * (slot + 1 - len(self.bytes))
        self.bytes += missing
        self.files += missing
        self.bytes[-1] += sent - self._total[0]
        self.files[-1] += completed - self._total[1]
        self._total = (sent, completed)


def _halved(counts: list[int]) -> list[int]:
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]
