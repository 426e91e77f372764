"""Availability of Socket.IO, which faults change for both transports or for one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.config import RealtimeMode


class Gate:
    """Availability of one or both Socket.IO transports, as `mode` says."""

    def __init__(self, mode: RealtimeMode, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None  # time of the first connection attempt, from which the timed modes count
        self._timer: asyncio.TimerHandle | None = None
        self.live: set[Callable[[], None]] = set()  # for each live connection a function that closes it
        self.mode = mode
        self.on_cut: Callable[[], None] = lambda: None
        """Called after a cut, to end long-polling connections without a running request."""

    def state(self) -> Literal["up", "off", "refuse", "hang"]:
        """Return how a new connection is handled now."""
        match self.mode.kind:
            case "kick":
                return "up"
            case "freeze":
                return "hang" if self.frozen() else "up"
            case "flap":
                return "refuse" if self._periods() % 2 else "up"
            case "kill-after":
                return "refuse" if self._periods() else "up"
            case untimed:
                return untimed

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

    def change(self, mode: RealtimeMode) -> None:
        """Change the mode; cut live connections unless the new mode permits them."""
        thawed = self.frozen()
        if self._timer is not None:
            self._timer.cancel()
        self.mode, self._first = mode, None
        if thawed or mode.kind in {"off", "refuse", "hang"}:
            self.cut()

    def cut(self) -> None:
        """Close every live connection abruptly."""
        for end in list(self.live):
            end()
        self.live.clear()
        self.on_cut()

    def _schedule(self, periods: int = 1) -> None:
        if self.mode.kind in {"flap", "kill-after", "kick"}:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(periods * self.mode.seconds, self._cut_on_time)

    def _cut_on_time(self) -> None:
        self.cut()
        if self.mode.kind != "kill-after":
            self._schedule(2 if self.mode.kind == "flap" else 1)
