"""The reduce loop: one queue in, one state, any number of observers. Everything that draws or calls back runs here."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

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


class Loop:
    """Takes events from any thread by `emit`, and applies them in the thread that calls `turn`."""

    def __init__(
        self, observers: Sequence[Renderer], alarms: Alarms, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` answers in seconds of any origin that never go back."""
        self.state = ProgressState()
        self._observers, self._alarms, self._clock = observers, alarms, clock
        self._queue: SimpleQueue[Event] = SimpleQueue()
        self._drawn = 0.0
        self._started = False
        self._early: list[Event] = []

    def emit(self, event: Event) -> None:
        """Put an event in line; never blocks, from any thread."""
        self._queue.put(event)

    def apply(self, event: Event) -> None:
        """Change the state and tell the observers. What comes before the run's start is told after it."""
        if not self._started and not isinstance(event, ev.CallMade):
            if not isinstance(event, ev.RunStarted):
                self._early.append(event)
                return
            self._started = True
            for waiting in (event, *self._early):
                self.apply(waiting)
            return
        now = self._clock()
        for public in reduce(self.state, _without_secrets(event), now):
            for observer in self._observers:
                observer.handle(public, self.state, now)

    def turn(self) -> ev.EngineStopped | None:
        """Wait for events for one frame at most, apply what is there, refresh. The engine's last word, once it came."""
        due = self._drawn + FRAME
        while True:
            try:
                event = self._queue.get(timeout=max(0.001, due - self._clock()))
            except Empty:
                break
            self.apply(event)
            if isinstance(event, ev.EngineStopped):
                return event
            if self._clock() >= due:
                break
        self._drawn = self._clock()
        if self._started:  # before it, there is nothing to tell
            self.apply(ev.Ticked())
            for alarm in self._alarms.look(self.state, self._drawn):
                self.apply(alarm)
            for observer in self._observers:
                observer.refresh(self.state, self._drawn)
        return None

    def drain(self, seconds: float) -> None:
        """Go on for `seconds`, then apply whatever is still in line."""
        end = self._clock() + seconds
        while self._clock() < end:
            self.turn()
        self.flush()

    def flush(self) -> None:
        """Apply what is in line, without waiting."""
        while True:
            try:
                event = self._queue.get_nowait()
            except Empty:
                return
            self.apply(event)

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Observers are closed at the end, however it comes."""
        try:
            yield
        finally:
            for observer in self._observers:
                observer.close(self.state, self._clock())

    def finish(self, code: Exit, channel: ev.ChannelStats) -> ev.RunFinished:
        """Apply and return the last event."""
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
        self.apply(outcome)
        return outcome

    def failure_codes(self) -> list[Exit]:
        """The exit codes that the failed files ask for."""
        return [exit_status.of_failure(code, retryable=retryable) for code, retryable in self.state.failed_as]


def _without_secrets(event: Event) -> Event:
    """A server's words may quote the token that it was sent: no view, stream or report may pass it on."""
    match event:
        case ev.FileFailed() | ev.FileRetry() | ev.AnalysisMessage():
            return replace(event, message=mask(event.message))
        case ev.RunWarning() | ev.ServerMessage():
            return replace(event, text=mask(event.text))
        case ev.PollFailed():
            return replace(event, reason=mask(event.reason))
        case ev.AnalysisEnded():
            return replace(event, summary=mask(event.summary), error=mask(event.error))
        case ev.SessionProgress():
            files = tuple(replace(file, error=mask(file.error)) if file.error else file for file in event.files)
            return replace(event, message=mask(event.message), files=files)
        case ev.EngineStopped(UploaderError() as error):
            error.args = (mask(str(error)),)
    return event


def alarms(settings: Settings) -> Alarms:
    """The thresholds that the user wants to be warned of."""
    return Alarms(stall=settings.stall, latency_ms=settings.warn_latency, error_percent=settings.warn_error_rate)


def peak_rss() -> int:
    """The most memory this process has held, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    import sys

    try:  # Linux: what getrusage says may be the peak of whoever started us
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
