"""Move the clock by which a bundled server in this process decides what has expired."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from time_limits import PATIENCE

from uploader_server import bundled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import pytest

MANY_SWEEPS = 0.1
"""Seconds of which a quarter passes between two sweeps."""


class ServerClock:
    """The clocks of the server, `ahead` of the real ones by some seconds; its sweeps follow each other quickly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replace the clock and the sweep in all modules of the server."""
        self.ahead = 0.0
        self._sweeps: Counter[str] = Counter()
        self._real_sweep = bundled.sweep
        for module in [module for name, module in sys.modules.items() if name.startswith("uploader_server.")]:
            if getattr(module, "time", None) is time:
                monkeypatch.setattr(module, "time", self)
            if getattr(module, "sweep", None) is self._real_sweep:
                monkeypatch.setattr(module, "sweep", self._sweep)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        """Return the seconds since the epoch, as `time.time`."""
        return time.time() + self.ahead

    def monotonic(self) -> float:
        """Return seconds as `time.monotonic`."""
        return time.monotonic() + self.ahead

    def wait_for_sweeps(self) -> None:
        """Return after each kind of sweep has begun and ended."""
        before, end = self._sweeps.copy(), time.monotonic() + PATIENCE
        while not before or any(self._sweeps[what] < count + 2 for what, count in before.items()):
            assert time.monotonic() < end, f"no sweep: {before} → {self._sweeps}"
            before = before or self._sweeps.copy()
            time.sleep(0.005)

    async def _sweep(self, what: str, _ttl: float, action: Callable[[], Awaitable[None]]) -> None:
        self._sweeps[what] += 0  # `wait_for_sweeps` waits for this kind, too

        async def counted() -> None:
            await action()
            self._sweeps[what] += 1

        await self._real_sweep(what, MANY_SWEEPS, counted)
