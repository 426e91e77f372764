"""Availability of Socket.IO, which faults change for both transports or for one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.config import RealtimeMode


class Gate:
    """Availability of one or both Socket.IO transports, as `mode` says.

    Connections register a function that ends them; `cut` calls all of them.
    """

    def __init__(self, mode: RealtimeMode, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._live: dict[int, Callable[[], None]] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self.mode = mode
        self.on_cut: Callable[[], None] = lambda: None
        """Called after a cut, to end long-polling connections without a running request."""

    def state(self) -> Literal["up", "off", "refuse", "hang"]:
        """Return how a new connection is handled now."""
        kind = self.mode.kind
        if kind in {"kick", "freeze"}:
            return "hang" if self.frozen() else "up"
        if kind in {"flap", "kill-after"}:
            down = self._periods() > 0 if kind == "kill-after" else self._periods() % 2 == 1
            return "refuse" if down else "up"
        return kind  # type: ignore[return-value] # the timed kinds are handled above

    def frozen(self) -> bool:
        """Return whether messages are dropped while connections stay open."""
        return self.mode.kind == "freeze" and self._periods() > 0

    def _periods(self) -> int:
        return 0 if self._first is None else int((self._clock() - self._first) / self.mode.seconds)

    def arrive(self) -> None:
        """Start the clock of the timed modes at the first connection attempt."""
        if self._first is None:
            self._first = self._clock()
            self._schedule()

    def enter(self, end: Callable[[], None]) -> int:
        """Register a connection that `end` closes; return the key for `leave`."""
        self._live[id(end)] = end
        return id(end)

    def leave(self, key: int) -> None:
        """Unregister a connection."""
        self._live.pop(key, None)

    def change(self, mode: RealtimeMode) -> None:
        """Change the mode; cut live connections unless the new mode permits them."""
        thawed = self.frozen()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.mode, self._first = mode, None
        if thawed or mode.kind in {"off", "refuse", "hang"}:
            self.cut()

    def cut(self) -> None:
        """Close every live connection abruptly."""
        for end in list(self._live.values()):
            end()
        self._live.clear()
        self.on_cut()

    def _schedule(self) -> None:
        if self.mode.kind in {"flap", "kill-after", "kick"}:
            self._timers = [asyncio.get_running_loop().call_later(self.mode.seconds, self._cut_repeatedly)]

    def _cut_repeatedly(self) -> None:
        self.cut()
        pause = {"flap": 2, "kick": 1}.get(self.mode.kind)
        if pause is not None:
            later = asyncio.get_running_loop().call_later(pause * self.mode.seconds, self._cut_repeatedly)
            self._timers = [later]
