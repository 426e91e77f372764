"""The time by which sessions, uploads and packs expire."""

from __future__ import annotations

import time


class Clock:
    """Counts the seconds for which a root is served, on top of those of earlier servers.

    It is recorded in the database and continues there after a restart. So neither the time in which no server was
    running nor a wrong or changed system clock lets anything expire. In a new root it starts at the system time.
    """

    def __init__(self, start: float) -> None:
        """Continue at `start` (seconds)."""
        self._start = start - time.monotonic()

    def now(self) -> float:
        return self._start + time.monotonic()

    def date(self, moment: float) -> float:
        """Return the system time (seconds since the epoch) at which it will show `moment` if the server goes on."""
        return time.time() + moment - self.now()
