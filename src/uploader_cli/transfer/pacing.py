"""Stop and slow down: the two things that every thread of a run asks before it sends."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from uploader_cli.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

CREDIT = 0.2
"""Seconds of unused time that may be made up for: sleeps overshoot, and between two chunks nothing is sent."""
GRAIN = 0.05
"""A grant is what the rate sends in this many seconds: bursts stay short, and early answers are seen soon."""
LEAST_GRANT = 32
MOST_GRANT = 1 << 20


class Stop:
    """A flag that is set once, from any thread or from a signal handler's loop, and never cleared."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Stop at the next resumable point."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Interrupted` once stopped."""
        if self._event.is_set():
            raise Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, or raise `Interrupted` as soon as stopped."""
        if self._event.wait(min(seconds, threading.TIMEOUT_MAX)):  # a server may ask for any number of years
            raise Interrupted("interrupted")


class Limiter:
    """Grant bytes at `rate` bytes/s, first come, first served (`--limit-rate`). No thread waits under the lock."""

    def __init__(
        self, rate: float, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`sleep` is `Stop.sleep`: an interrupt ends the wait with `Interrupted`."""
        self._rate, self._sleep, self._clock = rate, sleep, clock
        self._most = int(min(MOST_GRANT, max(LEAST_GRANT, rate * GRAIN)))
        self._lock = threading.Lock()
        self._free_at = clock()

    def __call__(self, wanted: int) -> int:
        """Wait until bytes may be sent and return how many of `wanted` (0 only for 0): asked before each piece."""
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
    """Grant everything."""
    return wanted
