"""The run loop: one queue of events, one state, any number of observers. All drawing and calling back happens here."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from uploader_cli import exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState
from uploader_cli.errors import UploaderError
from uploader_cli.exit_status import Exit
from uploader_cli.settings import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.events import Event
    from uploader_cli.render import Renderer
    from uploader_cli.settings import Settings

FRAME = 0.1
"""Seconds between two refreshes."""

_Value = TypeVar("_Value", bound="ev.Event | ev.FileStatus")


class Loop:
    """Takes events from any thread by `emit`; the thread that calls `turn` applies those of a frame at once.

    Observers draw; listeners are everything else that follows the run (back-pressure, receipts, an analysis).
    """

    def __init__(
        self,
        observers: Sequence[Renderer],
        alarms: Alarms,
        clock: Callable[[], float] = time.monotonic,
        *,
        listeners: Sequence[Callable[[Sequence[Event]], None]] = (),
    ) -> None:
        """`clock` returns seconds of any origin that never go back.

        Each of `listeners` is called once for every applied batch, with the events that observers got (see `reduce`).
        """
        self.state = ProgressState()
        self.listeners = list(listeners)
        """May be added to before the first event."""
        self._observers, self._alarms, self._clock = observers, alarms, clock
        self._queue: deque[tuple[float, Event]] = deque()
        self._wake = threading.Event()
        self._due = clock()
        self._started = False
        self._early: list[tuple[float, Event]] = []

    def emit(self, event: Event) -> None:
        """Put an event in the queue, with the time at which it happened; never blocks, from any thread."""
        self._queue.append((self._clock(), event))
        if type(event) is ev.EngineStopped:
            self._wake.set()

    def apply(self, event: Event) -> None:
        """Apply one event now, ahead of the queue. What precedes the run's start is applied after it."""
        self._apply([(self._clock(), event)])

    def turn(self) -> ev.EngineStopped | None:
        """Wait for the end of the frame, apply everything in the queue, refresh the observers.

        Returns at once, without a refresh, with an `EngineStopped`.
        """
        return self._frame(self._due)

    def drain(self, seconds: float, until: Callable[[ProgressState], bool] = lambda _state: False) -> None:
        """Run for `seconds`, or `until` the state is as wanted; then apply what is left in the queue."""
        end = self._clock() + seconds
        while self._clock() < end and not until(self.state):
            self._frame(min(self._due, end))
        self.flush()

    def flush(self) -> None:
        """Apply everything in the queue, without waiting, and what follows from it for the alarms."""
        self._apply(self._take())
        if self._started:
            now = self._clock()
            self._apply([(now, alarm) for alarm in self._alarms.look(self.state, now)])

    def _frame(self, due: float) -> ev.EngineStopped | None:
        self._wake.wait(max(0.0, due - self._clock()))
        self._wake.clear()
        batch = self._take()
        self._apply(batch)
        for _, event in batch:
            if type(event) is ev.EngineStopped:
                return event
        now = self._clock()
        self._due = max(self._due, now - FRAME) + FRAME
        if self._started:  # before it, there is nothing to show
            self._apply([(now, ev.Ticked()), *((now, alarm) for alarm in self._alarms.look(self.state, now))])
            for observer in self._observers:
                observer.refresh(self.state, now)
        return None

    def _take(self) -> list[tuple[float, Event]]:
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def _apply(self, batch: list[tuple[float, Event]]) -> None:
        if not self._started:
            batch = self._held_back(batch)
        told: list[Event] = []
        try:
            for at, event in batch:
                for public in reduce(self.state, _without_secrets(event), at):
                    told.append(public)
                    for observer in self._observers:
                        observer.handle(public, self.state, at)
        finally:  # an observer that fails (a closed pipe) keeps no event from the listeners
            if told:
                for listener in self.listeners:
                    listener(told)

    def _held_back(self, batch: list[tuple[float, Event]]) -> list[tuple[float, Event]]:
        """What of `batch` can be applied: before the run's start that is only calls, which the log has."""
        out: list[tuple[float, Event]] = []
        for at, event in batch:
            if isinstance(event, ev.RunStarted):
                self._started = True
                out += [(at, event), *self._early]
                self._early.clear()
            elif self._started or isinstance(event, ev.CallMade):
                out.append((at, event))
            else:
                self._early.append((at, event))
        return out

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Close every observer at the end, in order, also where one of them or the run fails."""
        with ExitStack() as closing:
            for observer in reversed(self._observers):
                closing.callback(self._close, observer)
            yield

    def _close(self, observer: Renderer) -> None:
        observer.close(self.state, self._clock())

    def finish(
        self, code: Exit, channel: ev.ChannelStats, *, written: Callable[[ProgressState], bool] = lambda _state: True
    ) -> ev.RunFinished:
        """Apply and return the last event.

        `written` writes the reports, which tell of the outcome; where it returns False, exit code 0 becomes 2.
        """
        state = self.state
        seconds = max(1e-3, self._clock() - state.started)
        sending = max(1e-3, state.stopped - state.started) if state.stopped is not None else seconds
        outcome = ev.RunFinished(
            ok=code == Exit.OK,
            completed=state.completed,
            failed=state.failed,
            skipped=state.skipped,
            cancelled=state.cancelled,
            bytes=state.completed_bytes,
            seconds=round(seconds, 3),
            rate=round(min(state.completed_bytes, state.sent_total) / sending, 1),
            exit_code=int(code),
            channel=channel,
            peak_rss=peak_rss(),
            metrics=state.measures.result(seconds=seconds, events=channel.events, retries=state.retries),
        )
        reduce(self.state, outcome, self._clock())  # for the reports; observers get it once its exit code is certain
        if not written(self.state):
            outcome = replace(outcome, exit_code=outcome.exit_code or int(Exit.USAGE))
        self.apply(outcome)
        return outcome

    def failure_codes(self) -> list[Exit]:
        """Return the exit codes of the failed files."""
        return [exit_status.of_failure(code, retryable=retryable) for code, retryable in self.state.failed_as]


_TEXTS: dict[type[Event], tuple[str, ...]] = {
    ev.FileFailed: ("message",),
    ev.FileRetry: ("message",),
    ev.AnalysisMessage: ("message",),
    ev.AnalysisEnded: ("summary", "error"),
    ev.RunWarning: ("text",),
    ev.ServerMessage: ("text",),
    ev.PollFailed: ("reason",),
    ev.SessionProgress: ("message",),
    ev.EngineStopped: (),
}
"""Events that may carry words of the server, and the fields that do."""


def _without_secrets(event: Event) -> Event:
    """Mask what a server quoted of the token that it was sent: no view, stream or report may show it."""
    names = _TEXTS.get(type(event))
    if names is None:
        return event
    match event:
        case ev.SessionProgress(files=files) if any(file.error for file in files):
            event = replace(event, files=tuple(_masked(file, ("error",)) for file in files))
        case ev.EngineStopped(UploaderError() as error):
            error.args, error.hint = (mask(str(error)),), mask(error.hint)
    return _masked(event, names)


def _masked(value: _Value, names: tuple[str, ...]) -> _Value:
    """`value` with its texts `names` masked; itself where that changes nothing."""
    changed: dict[str, Any] = {}
    for name in names:
        text = getattr(value, name)
        if text and (clean := mask(text)) != text:
            changed[name] = clean
    return replace(value, **changed) if changed else value


def alarms(settings: Settings) -> Alarms:
    """Return the thresholds of `settings` at which the user is warned."""
    return Alarms(stall=settings.stall, latency_ms=settings.warn_latency, error_percent=settings.warn_error_rate)


def peak_rss() -> int:
    """Return the most memory that this process has held, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    import sys

    try:  # Linux: getrusage may give the peak of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
