"""The server's rate limit: how many calls are left, how many are kept for the upload, how long to wait."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import parse_http_date, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEPT_BACK = 5
"""Calls that polls leave unused, besides two for each session still to come (docs/protocol.md, section 2)."""
POLL_INTERVAL = 1.0
ROOMY = 60
"""With this many calls to spare there is a poll every second; with fewer the interval grows in proportion."""
DEFAULT_WAIT = 60.0
"""Seconds to wait after a 429 that names no time."""


class RateBudget:
    """Calls left, by the `X-RateLimit-*` headers, and pauses after a 429. Thread-safe: uploads and polls share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        """`clock` measures waits; `wall` is for the reset time, which servers give in unix seconds."""
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._remaining: int | None = None
        self._reset: float | None = None
        self._paused_until = self._polls_paused_until = 0.0
        self.sessions_to_come = 0

    @property
    def metered(self) -> bool:
        """True where the server counts calls."""
        return self._remaining is not None

    def note(self, headers: Mapping[str, str]) -> None:
        """Read the headers of an answer."""
        remaining, left = whole(headers.get("X-RateLimit-Remaining")), whole(headers.get("X-RateLimit-Reset"))
        if remaining is None:
            return
        with self._lock:
            self._remaining = remaining
            if left is not None:
                self._reset = self._clock() + max(0.0, left - self._wall() if left > 1e9 else left)

    def pause(self, seconds: float) -> None:
        """Let no call be made for `seconds`: one of the upload's was answered 429."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def pause_polls(self, seconds: float) -> None:
        """Let no poll be made for `seconds`: one was answered 429. The upload is not delayed."""
        with self._lock:
            self._polls_paused_until = max(self._polls_paused_until, self._clock() + seconds)

    def pause_left(self) -> float:
        """Return the seconds until calls of the upload are allowed again."""
        return max(0.0, self._paused_until - self._clock())

    def poll_pause_left(self) -> float:
        """Return the seconds until polls are allowed again, which is never before the upload's calls are."""
        return max(0.0, max(self._paused_until, self._polls_paused_until) - self._clock())

    def poll_interval(self) -> float:
        """Return the seconds between two polls: 1 while calls are left, more as they run out, then until the reset."""
        pause = self.poll_pause_left()
        if self._remaining is None:
            return max(POLL_INTERVAL, pause)
        room = self._remaining - (2 * self.sessions_to_come + KEPT_BACK)
        until_reset = max(POLL_INTERVAL, self._reset - self._clock()) if self._reset is not None else DEFAULT_WAIT
        if room <= 0:
            return max(until_reset, pause)
        return max(POLL_INTERVAL, min(ROOMY / room, until_reset), pause)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return `Retry-After` in seconds, a date counted from now; None where it is missing or can't be read."""
    value = headers.get("Retry-After") or ""
    seconds = whole(value)
    if seconds is not None:
        return float(seconds)
    date = parse_http_date(value)
    return None if date is None else max(0.0, date - time.time())
