"""The run loop: one queue of events, one state, any number of observers, all called from one thread."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.core.events import Event
from uploader_cli.core.masking import mask
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.errors import UploaderError
from uploader_cli.exit_status import Exit
from uploader_cli.settings import Settings

FRAME = 0.1
"""Seconds between two refreshes."""

_Value = TypeVar("_Value", bound="ev.Event | ev.FileStatus")


class Loop:
    """Takes events from any thread (`emit`); the thread that calls `turn` applies the events of a frame together.

    Observers draw; listeners are everything else that follows the run (back-pressure, receipts, phases).
    """

    def __init__(
        self,
        observers: Sequence[Observer],
        alarms: Alarms,
        clock: Callable[[], float] = time.monotonic,
        *,
        began: float = 0.0,
    ) -> None:
        """`clock` is monotonic, in seconds; `began` is when the command began, without it the run does so itself."""
        self.state = ProgressState(started=began)
        self.listeners: list[Callable[[Sequence[Event]], None]] = []
        """Each is called once per applied batch, with the events that observers received (see `reduce`)."""
        self._observers, self._alarms, self._clock = observers, alarms, clock
        self._queue: deque[tuple[float, Event]] = deque()
        self._wake = threading.Event()
        self._due = clock()
        self._started = False
        self._early: list[tuple[float, Event]] = []

    def emit(self, event: Event) -> None:
        """Queue an event with the current time; never blocks, callable from any thread."""
        self._queue.append((self._clock(), event))
        if type(event) is ev.EngineStopped:
            self._wake.set()

    def apply(self, event: Event) -> None:
        """Apply one event now, ahead of the queue. Events before the run's start are applied after it."""
        self._apply([(self._clock(), event)])

    def turn(self, until: float = math.inf) -> ev.EngineStopped | None:
        """Wait for the end of the frame, at most `until` a time, apply the queue and refresh the observers.

        Return at once, without a refresh, if an `EngineStopped` was queued.
        """
        self._wake.wait(max(0.0, min(self._due, until) - self._clock()))
        self._wake.clear()
        batch = self._take()
        self._apply(batch)
        for _, event in batch:
            if type(event) is ev.EngineStopped:
                return event
        now = self._clock()
        self._due = max(self._due, now - FRAME) + FRAME
        if self._started:  # nothing to show before
            self._apply([(now, ev.Ticked()), *((now, alarm) for alarm in self._alarms.look(self.state, now))])
            for observer in self._observers:
                observer.refresh(self.state, now)
        return None

    def drain(self, seconds: float, until: Callable[[ProgressState], bool] = lambda _state: False) -> None:
        """Turn for `seconds`, or `until` the state satisfies a condition; then apply the rest of the queue."""
        end = self._clock() + seconds
        while self._clock() < end and not until(self.state):
            self.turn(end)
        self.flush()

    def flush(self) -> None:
        """Apply the queue without waiting, then the resulting alarms."""
        self._apply(self._take())
        if self._started:
            now = self._clock()
            self._apply([(now, alarm) for alarm in self._alarms.look(self.state, now)])

    def _take(self) -> list[tuple[float, Event]]:
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def _apply(self, batch: list[tuple[float, Event]]) -> None:
        batch = batch if self._started else self._deferred(batch)
        applied: list[Event] = []
        try:
            for at, event in batch:
                for public in reduce(self.state, without_secrets(event), at):
                    applied.append(public)
                    for observer in self._observers:
                        observer.handle(public, self.state, at)
        finally:  # listeners get all events even if an observer fails (a closed pipe)
            if applied:
                for listener in self.listeners:
                    listener(applied)

    def _deferred(self, batch: list[tuple[float, Event]]) -> list[tuple[float, Event]]:
        """Return the events to apply now. Before the run's start only requests are, which the log records."""
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
        """Close all observers at the end, in order, even if one of them or the run fails."""
        with ExitStack() as closing:
            for observer in reversed(self._observers):
                closing.callback(lambda one: one.close(self.state, self._clock()), observer)
            yield

    def finish(
        self,
        code: Exit,
        channel: ev.ChannelStats,
        *,
        written: Callable[[ProgressState], bool] = lambda _state: True,
        unwritten: Callable[[], Exit] = lambda: Exit.USAGE,
    ) -> ev.RunFinished:
        """Apply and return the last event.

        `written` writes the reports, which include the outcome; if it returns False, exit code 0 becomes
        that of `unwritten`.
        """
        state = self.state
        now = self._clock()
        seconds = max(1e-3, now - state.started)
        outcome = ev.RunFinished(
            ok=code == Exit.OK,
            completed=state.completed,
            failed=state.failed,
            skipped=state.skipped,
            cancelled=state.cancelled,
            bytes=state.completed_bytes,
            seconds=round(seconds, 3),
            rate=round(state.average(now), 1),
            exit_code=int(code),
            channel=channel,
            peak_rss=peak_rss(),
            metrics=state.measures.result(seconds=seconds, events=channel.events, retries=state.retries),
        )
        reduce(self.state, outcome, self._clock())  # for the reports; observers get it when the exit code is final
        if not written(self.state):
            outcome = replace(outcome, exit_code=outcome.exit_code or int(unwritten()))
        self.apply(outcome)
        return outcome


def without_secrets(event: Event) -> Event:
    """Mask secrets that the server quoted: no view, stream or report may show them."""
    match event:
        case ev.SessionProgress(files=files) if any(file.error for file in files):
            event = replace(event, files=tuple(_masked(file, ("error",)) for file in files))
        case ev.EngineStopped(UploaderError() as error):
            error.args, error.hint = (mask(str(error)),), mask(error.hint)
    return _masked(event, event.texts)


def _masked(value: _Value, names: tuple[str, ...]) -> _Value:
    """Return `value` with its texts `names` masked; itself if nothing changes."""
    changed: dict[str, Any] = {}
    for name in names:
        text = getattr(value, name)
        if text and (clean := mask(text)) != text:
            changed[name] = clean
    return replace(value, **changed) if changed else value


def alarms(settings: Settings) -> Alarms:
    return Alarms(stall=settings.stall, latency_ms=settings.warn_latency, error_percent=settings.warn_error_rate)


def peak_rss() -> int:
    """Return the peak memory of this process in bytes."""
    with suppress(OSError, StopIteration):  # Linux: getrusage may return the parent's peak
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
