"""The one account of the server's rate limit: what is left, what is kept for the upload, when to wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import parse_http_date, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT_BACK = 5
"""Calls that polls leave alone, beside two for each session still to come (wire contract 2)."""
POLL_INTERVAL = 1.0
ROOMY = 60
"""With this many calls to spare polls come every second; below it the interval stretches in proportion."""
DEFAULT_WAIT = 60.0
"""Seconds to wait after a 429 that names no time."""


class RateBudget:
    """Calls left, by the `X-RateLimit-*` headers. Thread-safe: the upload and the polls share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """`clock` for waits, `wall` for the reset time, which servers give in unix seconds."""
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._remaining: int | None = None
        self._reset: float | None = None
        self._paused_until = 0.0
        self.sessions_to_come = 0

    @property
    def metered(self) -> bool:
        """True where the server counts calls."""
        return self._remaining is not None

    def note(self, headers: Mapping[str, str]) -> None:
        """Read an answer's headers."""
        remaining, left = whole(headers.get("X-RateLimit-Remaining")), whole(headers.get("X-RateLimit-Reset"))
        if remaining is None:
            return
        with self._lock:
            self._remaining = remaining
            if left is not None:
                self._reset = self._clock() + max(0.0, left - self._wall() if left > 1e9 else left)

    def pause(self, seconds: float) -> None:
        """The server said 429: nobody calls before `seconds` have passed."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def pause_left(self) -> float:
        """Seconds until calls are allowed again."""
        return max(0.0, self._paused_until - self._clock())

    def poll_interval(self) -> float:
        """Seconds between two polls: 1 while there is room, more as it runs out, until the reset when there is none."""
        pause = self.pause_left()
        if self._remaining is None:
            return max(POLL_INTERVAL, pause)
        room = self._remaining - (2 * self.sessions_to_come + KEPT_BACK)
        until_reset = max(POLL_INTERVAL, self._reset - self._clock()) if self._reset is not None else DEFAULT_WAIT
        if room <= 0:
            return max(until_reset, pause)
        return max(POLL_INTERVAL, min(ROOMY / room, until_reset), pause)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds; None where it is missing or can't be read. A date counts from now."""
    value = headers.get("Retry-After") or ""
    seconds = whole(value)
    if seconds is not None:
        return float(seconds)
    date = parse_http_date(value)
    return None if date is None else max(0.0, date - time.time())
