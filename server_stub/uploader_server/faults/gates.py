"""The doors to Socket.IO, which faults shut: for both transports, or for one of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.config import RealtimeMode


class Gate:
    """The door to one side of Socket.IO; `RealtimeMode` says how it behaves.

    Connections enter with the function that ends them; when the door shuts, all of them are called.
    """

    def __init__(self, mode: RealtimeMode, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None
        self._live: dict[int, Callable[[], None]] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self.mode = mode
        self.on_cut: Callable[[], None] = lambda: None
        """Called after a cut: connections that live between two polls have nothing else to be cut by."""

    def state(self) -> Literal["up", "off", "refuse", "hang"]:
        """What a connection meets that comes now."""
        kind = self.mode.kind
        if kind in {"kick", "freeze"}:
            return "hang" if self.frozen() else "up"
        if kind in {"flap", "kill-after"}:
            down = self._periods() > 0 if kind == "kill-after" else self._periods() % 2 == 1
            return "refuse" if down else "up"
        return kind  # type: ignore[return-value] # the timed kinds are dealt with

    def frozen(self) -> bool:
        """Whether nothing gets through, although connections stay open."""
        return self.mode.kind == "freeze" and self._periods() > 0

    def _periods(self) -> int:
        return 0 if self._first is None else int((self._clock() - self._first) / self.mode.seconds)

    def arrive(self) -> None:
        """A connection is attempted: the clock of the timed modes starts with the first."""
        if self._first is None:
            self._first = self._clock()
            self._schedule()

    def enter(self, end: Callable[[], None]) -> int:
        """A connection lives; `end` cuts it. Returns the key for `leave`."""
        self._live[id(end)] = end
        return id(end)

    def leave(self, key: int) -> None:
        """A connection has ended by itself."""
        self._live.pop(key, None)

    def change(self, mode: RealtimeMode) -> None:
        """Behave differently from now on; what lives is cut unless the new mode lets it live."""
        thawed = self.frozen()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.mode, self._first = mode, None
        if thawed or mode.kind in {"off", "refuse", "hang"}:
            self.cut()

    def cut(self) -> None:
        """End every live connection abruptly."""
        for end in list(self._live.values()):
            end()
        self._live.clear()
        self.on_cut()

    def _schedule(self) -> None:
        if self.mode.kind in {"flap", "kill-after", "kick"}:
            self._timers = [asyncio.get_running_loop().call_later(self.mode.seconds, self._shut)]

    def _shut(self) -> None:
        self.cut()
        pause = {"flap": 2, "kick": 1}.get(self.mode.kind)
        if pause is not None:
            later = asyncio.get_running_loop().call_later(pause * self.mode.seconds, self._shut)
            self._timers = [later]
