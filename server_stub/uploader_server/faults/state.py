"""Faults on demand: what is broken, decided at the start by options and at run time by tests.

`Faults` is the one object that tests hold (`app.state.faults`, `EmbeddedServer.faults`); its methods may be called
from any thread. `wrapper.FaultyApp` carries out what it says.
"""

from __future__ import annotations

import asyncio
import collections
import fnmatch
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from uploader_server.analysis.stages import AnalysisMode
from uploader_server.config import RealtimeMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from uploader_server.config import ServerConfig
    from uploader_server.http.accesslog import LoggedRequest


@dataclass(frozen=True)
class Answer:
    """A scripted answer to one HTTP request.

    `when`: `before_body` answers without reading the body, `after_body` reads and drops it first, `after_store`
    lets the server do its work and then gives this answer in place of its own. With `close` the connection is cut
    instead of answered. `after_bytes` cuts the connection once so many bytes of the body were read.

    `during_body` lets the server work on a body that misbehaves: after `after_bytes` bytes of it the connection is cut
    (with `close`), or nothing more comes for `stall` seconds.
    """

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    when: Literal["before_body", "after_body", "after_store", "during_body"] = "before_body"
    close: bool = False
    after_bytes: int | None = None
    stall: float = 0.0


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
        if kind in {"flap", "kill-after"}:
            if self._first is None:
                return "up"
            periods = int((self._clock() - self._first) / self.mode.seconds)
            down = periods > 0 if kind == "kill-after" else periods % 2 == 1
            return "refuse" if down else "up"
        return kind  # type: ignore[return-value] # the timed kinds are dealt with

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
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.mode, self._first = mode, None
        if mode.kind in {"off", "refuse", "hang"}:
            self.cut()

    def cut(self) -> None:
        """End every live connection abruptly."""
        for end in list(self._live.values()):
            end()
        self._live.clear()
        self.on_cut()

    def _schedule(self) -> None:
        if self.mode.kind in {"flap", "kill-after"}:
            self._timers = [asyncio.get_running_loop().call_later(self.mode.seconds, self._shut)]

    def _shut(self) -> None:
        self.cut()
        if self.mode.kind == "flap":
            later = asyncio.get_running_loop().call_later(2 * self.mode.seconds, self._shut)
            self._timers = [later]


class Faults:
    """What is broken at the moment."""

    def __init__(self, config: ServerConfig) -> None:
        self.latency = config.latency_ms / 1000
        """Seconds that every request, and every message of a websocket, waits."""
        self.fail_files: list[str] = list(config.fail_files)
        """Globs: files whose name or path matches fail inside a 200."""
        self.requests: collections.deque[LoggedRequest] = collections.deque(maxlen=config.remembered_requests)
        """The last requests, in the order of their answers."""
        self.analysis_seconds = config.analysis_seconds
        """How long an analysis takes that begins now."""
        self.analysis = AnalysisMode.parse(config.analysis)
        """How analyses misbehave."""
        self.realtime_gate = Gate(RealtimeMode.parse(config.realtime))
        self.websocket_gate = Gate(RealtimeMode.parse(config.websocket))
        self.loop: asyncio.AbstractEventLoop | None = None
        """The server's loop, while it runs."""
        self.loop_thread = 0
        """The thread of that loop."""
        self._script: list[tuple[str, str, collections.deque[Answer | None]]] = []
        self._guard = threading.Lock()

    def runs_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Remember the server's loop, and this thread as its own: changes are made there."""
        self.loop, self.loop_thread = loop, threading.get_ident()

    def set_realtime(self, text: str | None) -> None:
        """`off`, `hang`, `refuse`, `flap:S`, `kill-after:S` or None, for both transports. Raises ValueError."""
        self._change(self.realtime_gate, RealtimeMode.parse(text))

    def set_websocket(self, text: str | None) -> None:
        """The same for the websocket transport alone."""
        self._change(self.websocket_gate, RealtimeMode.parse(text))

    def set_analysis(self, text: str | None) -> None:
        """`silent`, `hang`, `fail:STAGE`, `refuse:STAGE`, several with commas, or None. Raises ValueError."""
        self.analysis = AnalysisMode.parse(text)

    def cut_realtime(self) -> None:
        """Cut every live realtime connection once; new ones are welcome."""
        self._on_loop(self.realtime_gate.cut)

    def next_answers(self, method: str, path: str, answers: Iterable[int | Answer | None]) -> None:
        """Script the next requests of this method whose path matches the glob.

        Each takes the next of `answers`: a status, an `Answer`, or None for no fault.
        """
        queue = collections.deque(Answer(item) if isinstance(item, int) else item for item in answers)
        with self._guard:
            self._script.append((method, path, queue))

    def take_answer(self, method: str, path: str) -> Answer | None:
        """The scripted answer for this request, if there is one; it is used up."""
        with self._guard:
            for wanted, pattern, queue in self._script:
                if wanted == method and queue and fnmatch.fnmatchcase(path, pattern):
                    return queue.popleft()
        return None

    def fails(self, *names: str) -> bool:
        """Whether a file of one of these names is to fail."""
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.fail_files for name in names)

    def count(self, method: str, path: str) -> int:
        """How many logged requests have this method and a path that matches the glob."""
        return sum(r.method == method and fnmatch.fnmatchcase(r.path, path) for r in list(self.requests))

    def _change(self, gate: Gate, mode: RealtimeMode) -> None:
        self._on_loop(lambda: gate.change(mode))

    def _on_loop(self, action: Callable[[], None]) -> None:
        loop = self.loop
        if loop is None or not loop.is_running() or threading.get_ident() == self.loop_thread:
            action()
            return
        done = threading.Event()

        def act() -> None:
            try:
                action()
            finally:
                done.set()

        loop.call_soon_threadsafe(act)
        done.wait(5)
