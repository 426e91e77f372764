"""What limits the bytes and calls of a run: `--limit-rate`, and the server's count of calls."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.errors import AnswerError

DEFAULT_WAIT = 60.0  # seconds to wait after a 429 that names no time
LEAST_WAIT = 1.0  # least seconds to wait after any other 429
CREDIT = 0.2  # seconds of unused time that may be made up for: sleeps overshoot
GRAIN = 0.05  # seconds of the rate per grant: bursts stay short
LEAST_GRANT = 32
MOST_GRANT = 1 << 20
KEPT_BACK = 5  # calls that polls leave, besides two per session to come (docs/protocol.md, section 2)
POLL_INTERVAL = 1.0
PLENTY = 60  # spare calls with which polls come every second; with fewer the interval grows in proportion


def pause_after(error: AnswerError) -> float:
    """Return the seconds to wait after a 429."""
    return DEFAULT_WAIT if error.retry_after is None else max(LEAST_WAIT, error.retry_after)


class Limiter:
    """Grant bytes at `rate` bytes/s in order (`--limit-rate`; None: at once), and count them."""

    def __init__(
        self, rate: float | None, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`sleep` is `Stop.sleep`: an interrupt ends the wait. No thread waits under the lock."""
        self._rate, self._sleep, self._clock = rate, sleep, clock
        self._most = int(min(MOST_GRANT, max(LEAST_GRANT, rate * GRAIN))) if rate else None
        self._lock = threading.Lock()
        self._free_at = self._since = clock()
        self.granted = self._measured = 0

    def __call__(self, wanted: int) -> int:
        """Wait, and return how many of `wanted` bytes may be sent (0 only for 0)."""
        granted = wanted if self._most is None else min(wanted, self._most)
        wait = 0.0
        with self._lock:
            self.granted += granted
            if self._rate and granted:
                now = self._clock()
                self._free_at = max(self._free_at, now - CREDIT)
                wait = self._free_at - now
                self._free_at += granted / self._rate
        if wait > 0:
            self._sleep(wait)
        return granted

    def measure(self, period: float) -> float | None:
        """Return the bytes/s since the last measurement; None before `period` seconds have passed."""
        now, granted = self._clock(), self.granted
        seconds = now - self._since
        if seconds < period:
            return None
        rate = (granted - self._measured) / seconds
        self._since, self._measured = now, granted
        return rate


class RateBudget:
    """Calls left by `X-RateLimit-*` headers, and pauses after a 429, for uploads and polls of a run."""

    sessions_to_come = 0  # planned batch sessions that are not open yet
    answered = False  # true after the first answer

    def __init__(self, clock: Callable[[], float] = time.monotonic, epoch: Callable[[], float] = time.time) -> None:
        """`clock` measures waits; `epoch` is for the reset time, which is in unix seconds."""
        self._clock, self._epoch = clock, epoch
        self._lock = threading.Lock()
        self._remaining: int | None = None
        self._reset: float | None = None
        self._paused_until = self._polls_paused_until = 0.0

    @property
    def metered(self) -> bool:
        return self._remaining is not None

    def note(self, headers: Mapping[str, str]) -> None:
        self.answered = True
        remaining = whole(headers.get("X-RateLimit-Remaining"))
        if remaining is None:
            return
        left = whole(headers.get("X-RateLimit-Reset"))
        with self._lock:
            self._remaining = remaining
            if left is not None:
                self._reset = self._clock() + max(0.0, left - self._epoch() if left > 1e9 else left)

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def pause_polls(self, seconds: float) -> None:
        with self._lock:
            self._polls_paused_until = max(self._polls_paused_until, self._clock() + seconds)

    def pause_left(self) -> float:
        """Return the seconds until uploads may call again."""
        return max(0.0, self._paused_until - self._clock())

    def poll_interval(self) -> float:
        """Return the seconds between two polls: more as calls run out, then until the reset."""
        interval, until_reset = POLL_INTERVAL, DEFAULT_WAIT
        if self._remaining is not None:
            if self._reset is not None:
                until_reset = max(POLL_INTERVAL, self._reset - self._clock())
            spare = self._remaining - (2 * self.sessions_to_come + KEPT_BACK)
            interval = until_reset if spare <= 0 else max(POLL_INTERVAL, min(PLENTY / spare, until_reset))
        return max(interval, max(self._paused_until, self._polls_paused_until) - self._clock())
