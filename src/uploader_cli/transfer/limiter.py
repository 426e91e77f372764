"""`--limit-rate`: one bucket that all workers draw from."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CREDIT = 0.2
"""Seconds of unused time that may be made up for: sleeps overshoot, and between two chunks nothing is sent."""
GRAIN = 0.05
"""A grant is what the rate sends in this many seconds: bursts stay short, and early answers are seen soon."""
LEAST_GRANT = 32
MOST_GRANT = 1 << 20


class Limiter:
    """Grants bytes at `rate` bytes/s, first come first served. Thread-safe; nobody waits under the lock."""

    def __init__(
        self, rate: float, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`sleep` is `Stop.sleep`: an interrupt ends the wait with `Interrupted`."""
        self._rate, self._sleep, self._clock = rate, sleep, clock
        self._most = int(min(MOST_GRANT, max(LEAST_GRANT, rate * GRAIN)))
        self._lock = threading.Lock()
        self._free_at = clock()

    def __call__(self, wanted: int) -> int:
        """Wait until bytes may be sent, and say how many of `wanted` (0 only for 0): a body asks before each piece."""
        granted = min(wanted, self._most)
        if granted <= 0:
            return 0
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now - CREDIT)
            wait = self._free_at - now
            self._free_at += granted / self._rate
        if wait > 0:
            self._sleep(wait)
        return granted


def unlimited(wanted: int) -> int:
    """No limit."""
    return wanted
