"""The active faults: rules from the options, and changes at run time.

Tests use `Faults` (`app.state.faults`, `EmbeddedServer.faults`); its methods are thread-safe. `wrapper.FaultyApp` and
`wrapper.FaultyEvents` inject the faults.
"""

from __future__ import annotations

import asyncio
import collections
import fnmatch
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from uploader_server.config import ServerConfig, analysis_rules, socket_rule
from uploader_server.http.tracking import LoggedRequest
from uploader_server.simulation.exchange import Answer, Kept
from uploader_server.simulation.rules import Rule, parse_rule, parse_short
from uploader_server.simulation.table import SOCKETS


class RealtimeMode(NamedTuple):
    """A fault of one or both Socket.IO transports: the end of a `socket-` rule's kind, or `up` for none."""

    kind: str = "up"
    seconds: float = 0.0

    @classmethod
    def of(cls, rule: Rule) -> RealtimeMode:
        return cls(rule.kind.removeprefix("socket-"), rule.values.get("seconds", 0.0))


class AnalysisMode(NamedTuple):
    """The faults of analyses, as the `analysis-` rules have them."""

    silent: bool = False
    hang: bool = False
    fails: Mapping[str, bool] = {}  # whether the failure is permanent, by the stage that fails

    def with_fault(self, rule: Rule) -> AnalysisMode:
        kind = rule.kind.removeprefix("analysis-")
        if rule.target:
            return self._replace(fails={**self.fails, rule.target: kind == "refuse"})
        return self._replace(silent=self.silent or kind == "silent", hang=self.hang or kind == "hang")


class Gate:
    """Availability of one or both Socket.IO transports, as `mode` says; faults change it."""

    def __init__(self, mode: RealtimeMode, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: float | None = None  # time of the first connection attempt, from which the timed modes count
        self._timer: asyncio.TimerHandle | None = None
        self.live: set[Callable[[], None]] = set()  # for each live connection a function that closes it
        self.mode = mode
        self.on_cut: Callable[[], None] = lambda: None
        """Called after a cut, to end long-polling connections without a running request."""

    def state(self) -> str:
        """Return how a new connection is handled now: `up`, `off`, `refuse` or `hang`."""
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
            self.schedule()

    def change(self, mode: RealtimeMode) -> None:
        """Change the mode; cut live connections unless the new mode permits them."""
        thawed = self.frozen()
        if self._timer is not None:
            self._timer.cancel()
        self.mode, self._first = mode, None
        if thawed or mode.kind in {"off", "refuse", "hang"}:
            self.cut()

    def cut(self) -> None:
        for end in list(self.live):
            end()
        self.live.clear()
        self.on_cut()

    def schedule(self, periods: int = 1) -> None:
        if self.mode.kind in {"flap", "kill-after", "kick"}:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(periods * self.mode.seconds, self._cut_on_time)

    def _cut_on_time(self) -> None:
        self.cut()
        if self.mode.kind != "kill-after":
            self.schedule(2 if self.mode.kind == "flap" else 1)


class Restart(NamedTuple):
    """A requested restart: what state the new server keeps, and the seconds without a server."""

    memory: Kept
    down: float


class Faults:
    """The active faults. Raises RuleError for an invalid rule."""

    def __init__(self, config: ServerConfig) -> None:
        self.latency = 0.0  # delay in seconds of every request and websocket message
        self.fail_files: list[str] = []  # globs; files with a matching name or path fail inside a 200
        self._requests: collections.deque[LoggedRequest] = collections.deque(maxlen=config.remembered_requests)
        self.analysis_seconds = (
            3.0 if config.analysis_seconds is None else config.analysis_seconds
        )  # duration of a new analysis in seconds
        self.analysis = AnalysisMode()  # faults of analyses
        self.gates = {side: Gate(RealtimeMode()) for side in SOCKETS}
        """Availability of Socket.IO: of both transports, and of each one."""
        self.on_restart: Callable[[Restart], None] | None = None
        """Restarts the server; set by `Runner`, called on the server's loop."""
        self.loop: asyncio.AbstractEventLoop | None = None  # the server's loop, while it runs
        self._loop_thread = 0
        self._rules: list[Rule] = []
        self.script: list[tuple[str, str, collections.deque[Answer | None]]] = []
        self._guard = threading.Lock()
        for text in config.rules:
            self.add(text)

    def runs_on(self, loop: asyncio.AbstractEventLoop, drop: Callable[..., None]) -> None:
        """Set the server's loop, and this thread as its thread: changes run there.

        `drop` ends realtime connections after a cut, all or those (not) of `websockets`.
        """
        self.loop, self._loop_thread = loop, threading.get_ident()
        self.gates["realtime"].on_cut = drop
        self.gates["websocket"].on_cut = lambda: drop(websockets=True)
        self.gates["polling"].on_cut = lambda: drop(websockets=False)

    @property
    def requests(self) -> list[LoggedRequest]:
        """The last requests until now, in the order of their responses."""
        return list(self._requests)

    def keep(self, entry: LoggedRequest) -> None:
        self._requests.append(entry)

    @property
    def rules(self) -> list[Rule]:
        with self._guard:
            return list(self._rules)

    def add(self, text: str) -> Rule:
        """Activate a rule (docs/server.md). Raises RuleError."""
        rule = parse_rule(text)
        if rule.kind.startswith("socket-"):
            self._change(rule.target, RealtimeMode.of(rule))
        elif rule.kind.startswith("analysis-"):
            self.analysis = self.analysis.with_fault(rule)
        elif rule.kind == "latency":
            self.latency = rule.values["ms"] / 1000
        elif rule.kind == "fail-file":
            self.fail_files.append(rule.target)
        with self._guard:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        with self._guard:
            self._rules.clear()
            self.script.clear()
        self.latency, self.analysis = 0.0, AnalysisMode()
        self.fail_files.clear()
        for side in SOCKETS:
            self._change(side, RealtimeMode())

    def hit(self, field: str, *names: str) -> list[Rule]:
        """Count a REQUEST (method and path) or an EVENT (name), and return the rules that act on it."""
        return [rule for rule in self.rules if rule.concerns(field, *names) and rule.count()]

    def set_realtime(self, text: str | None) -> None:
        """Set the fault of both transports, as in `--realtime`; None removes it. Raises ValueError."""
        self._set("realtime", text)

    def set_websocket(self, text: str | None) -> None:
        """Set the fault of the websocket transport, as in `--websocket`. Raises ValueError."""
        self._set("websocket", text)

    def set_analysis(self, text: str | None) -> None:
        """Set the faults of analyses, as in `--analysis`; None removes them. Raises ValueError."""
        mode = AnalysisMode()
        for rule in () if text is None else parse_short(text, *analysis_rules(text)):
            mode = mode.with_fault(rule)
        self.analysis = mode

    def cut_realtime(self) -> None:
        """Cut every live realtime connection once."""
        self._on_loop(self.gates["realtime"].cut)

    def restart(self, memory: Kept = "all", down: float = 0.0) -> None:
        """Restart the server with all its state, the stored files only, or nothing, after `down` seconds.

        Returns before the restart. Raises RuntimeError if the server doesn't support restarts.
        """
        restart = self.on_restart
        if restart is None:
            raise RuntimeError("this server can't be restarted by a fault")
        self._on_loop(lambda: restart(Restart(memory, down)))

    def next_answers(self, method: str, path: str, answers: Iterable[int | Answer | None]) -> None:
        """Script the next requests of this method whose path matches the glob.

        Each takes the next of `answers`: a status, an `Answer`, or None for no fault.
        """
        queue = collections.deque(Answer(item) if isinstance(item, int) else item for item in answers)
        with self._guard:
            self.script.append((method, path, queue))

    def take_answer(self, method: str, path: str) -> Answer | None:
        """Remove and return the scripted response to this request, if any."""
        with self._guard:
            for wanted, pattern, queue in self.script:
                if wanted == method and queue and fnmatch.fnmatchcase(path, pattern):
                    return queue.popleft()
        return None

    def fails(self, *names: str) -> bool:
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.fail_files for name in names)

    def count(self, method: str, path: str) -> int:
        """Return the number of logged requests with this method and a path that matches the glob."""
        return sum(r.method == method and fnmatch.fnmatchcase(r.path, path) for r in self.requests)

    def _set(self, side: str, text: str | None) -> None:
        mode = RealtimeMode() if text is None else RealtimeMode.of(*parse_short(text, socket_rule(side, text)))
        self._change(side, mode)

    def _change(self, side: str, mode: RealtimeMode) -> None:
        self._on_loop(lambda: self.gates[side].change(mode))

    def _on_loop(self, action: Callable[[], None]) -> None:
        """Call `action` on the server's loop, and wait for its end (up to 5 s)."""
        loop = self.loop
        if loop is None or not loop.is_running() or threading.get_ident() == self._loop_thread:
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
