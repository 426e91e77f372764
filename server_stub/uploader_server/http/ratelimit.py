"""The rate limit of `/api/*`: a fixed window per client address, as captured from the reference backend."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RateLimit:
    """Counts requests per address; `limit` 0 disables it. Times are in seconds."""

    def __init__(self, limit: int, window: float, clock: Callable[[], float] = time.time) -> None:
        self.limit = limit
        self.window = window
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}
        self._pruned = clock()

    @property
    def addresses(self) -> int:
        """Return the number of tracked client addresses."""
        return len(self._counts)

    def spend(self, address: str) -> tuple[bool, dict[str, str]]:
        """Count one request; return whether it is allowed, and the headers of its response."""
        if not self.limit:
            return True, {}
        now = self._clock()
        if now >= self._pruned + self.window:  # drop the entries of ended windows
            self._counts = {key: value for key, value in self._counts.items() if value[0] > now}
            self._pruned = now
        reset, used = self._counts.get(address, (now + self.window, 0))
        if now >= reset:
            reset, used = now + self.window, 0
        used += 1
        self._counts[address] = (reset, used)
        headers = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - used)),
            "x-ratelimit-reset": str(math.ceil(reset)),
        }
        if used <= self.limit:
            return True, headers
        return False, {**headers, "retry-after": str(max(1, math.ceil(reset - now)))}
