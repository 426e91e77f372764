"""Waits after errors of the network, and what ends them early."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

RETURN_JITTER = 1.0  # most seconds from the channel's return to the next try: not all clients at the same moment
HELD = 0.1  # seconds between two checks for the end of a pause, or of a wait for a lock or for the channel


class Delays:
    """The waits of a run after errors of the network, which the return of the realtime channel ends.

    A channel that connects again, or a poll that is answered again, shows that the server is back. It ends the waits of
    all threads, and the next return ends none before these would have ended by themselves: a channel that flaps would
    use up all retries in seconds. What a server asks for by `Retry-After` is no such wait: it is waited out.
    """

    def __init__(self, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._sleep, self._clock = sleep, clock
        self._returns: int | None = None  # how often the channel's return has ended waits; None before it has begun
        self._spent_until = 0.0  # until then no return counts

    def follow_channel(self) -> None:
        """Let the channel end waits from now on."""
        self._returns = 0

    def channel_returned(self) -> None:
        """End the waits within `RETURN_JITTER`. Called from any thread."""
        if self._returns is not None and self._clock() >= self._spent_until:
            self._returns += 1

    def wait(self, seconds: float, sleep: Callable[[float], None] | None = None) -> None:
        """Wait `seconds`, or until shortly after the channel's return. Raise what `sleep` raises."""
        sleep, seen, until = sleep or self._sleep, self._returns, self._clock() + seconds
        if seen is None:
            sleep(seconds)
            return
        while (left := until - self._clock()) > 0:
            sleep(min(left, HELD))
            if self._returns != seen:
                seen, self._spent_until = self._returns, max(self._spent_until, until)
                until = min(until, self._clock() + random.uniform(0.0, RETURN_JITTER))


@contextmanager
def holding(lock: threading.Lock, check: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, for which this thread waits; `check` raises to stop."""
    while not lock.acquire(timeout=HELD):
        check()
    try:
        yield
    finally:
        lock.release()
