"""The rate limit over `/api/*`: a fixed window for each client address, as captured from the reference backend."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class RateLimit:
    """Counts requests; `limit` 0 counts nothing. Times in seconds."""

    def __init__(self, limit: int, window: float, clock: Callable[[], float] = time.time) -> None:
        self.limit = limit
        self.window = window
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}

    def spend(self, address: str) -> tuple[bool, dict[str, str]]:
        """Count one request: whether it may pass, and the headers that its answer carries."""
        if not self.limit:
            return True, {}
        now = self._clock()
        reset, used = self._counts.get(address, (now + self.window, 0))
        if now >= reset:
            reset, used = now + self.window, 0
            self._counts = {key: value for key, value in self._counts.items() if value[0] > now}
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
