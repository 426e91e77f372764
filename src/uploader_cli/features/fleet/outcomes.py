"""What a task tells the driver: ends of files, and other events of its run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from uploader_cli.core import events as ev
from uploader_cli.transfer.journal.reading import PendingUpload
from uploader_cli.transfer.ledger import End

SHOWN = 8 << 20  # bytes from which the progress of a file is reported; of smaller files only the end is
SLOW = 2.0  # seconds after which that of a smaller file is reported, too


class FileEnd(NamedTuple):
    """The end of a file, without what the driver knows of it; `attempt` is 0 where none had begun."""

    session: str
    attempt: int
    event: End


class Creating(NamedTuple):
    """A request is about to create the upload of a file, of which the journal has this."""

    file: int
    upload: PendingUpload


class Journaled(NamedTuple):
    """What the journal has of the upload of a file."""

    file: int
    upload: PendingUpload


News: TypeAlias = FileEnd | Creating | Journaled | ev.Event


class TaskReport:
    """Collects the events of a task: `news` since the last call, and all ends of files. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.ends: list[FileEnd] = []
        self._lock = threading.Lock()
        self._news: list[News] = []
        self._sent: dict[int, ev.Event] = {}  # the last progress of each file
        self._confirmed: dict[int, ev.Event] = {}
        self._begun: dict[int, tuple[ev.FileStarted, float]] = {}  # each running file, and when it began
        self._shown: set[int] = set()
        self._moved = True

    def emit(self, event: ev.Event) -> None:
        with self._lock:
            self._moved = True
            self._add(event)

    def step(self) -> None:
        """Note that the work goes on, as a read of a file that is hashed, without news."""
        with self._lock:
            self._moved = True

    def add(self, news: Creating | Journaled) -> None:
        with self._lock:
            self._moved = True
            self._news.append(news)

    def take(self) -> list[News]:
        """Return the news since the last call."""
        with self._lock:
            # in this order: confirmed bytes count as sent
            news = [*self._news, *self._sent.values(), *self._confirmed.values()]
            self._news, self._sent, self._confirmed = [], {}, {}
        return news

    def moved(self) -> bool:
        """Return whether anything has happened since the last call, also what is no news; True at first."""
        with self._lock:
            moved, self._moved = self._moved, False
        return moved

    def _add(self, event: ev.Event) -> None:
        match event:
            case ev.FileStarted(file=number):
                self._begun[number] = event, self._clock()
                large = event.size is not None and event.size >= SHOWN
                if number in self._shown or (large and not event.packed):
                    self._show(event)
            case ev.BytesSent(file=number) if self._is_shown(number):
                self._sent[number] = event
            case ev.BytesConfirmed(file=number) if self._is_shown(number):
                self._confirmed[number] = event
            case ev.FileCompleted() | ev.FileFailed() | ev.FileSkipped():
                self._end(event)
            case ev.FileRetry(file=number):
                self._tell_progress(number)
                self._news.append(event)
            case ev.SessionCreated() | ev.SessionFinished() | ev.RunWarning() | ev.Paused() | ev.CallMade():
                self._news.append(event)

    def _show(self, event: ev.FileStarted) -> None:
        self._shown.add(event.file)
        self._news.append(event)

    def _is_shown(self, number: int) -> bool:
        """Return whether the progress of a file is reported; begin to report a slow one."""
        if number not in self._shown and number in self._begun:
            started, begun = self._begun[number]
            if not started.packed and self._clock() - begun >= SLOW:
                self._show(started)
        return number in self._shown

    def _end(self, event: End) -> None:
        self._shown.discard(event.file)
        self._tell_progress(event.file)
        started, _ = self._begun.pop(event.file, (None, 0.0))
        session, attempt = (started.session, started.attempt) if started else ("", 0)
        end = FileEnd(session, attempt, replace(event, path="", local=None))
        self._news.append(end)
        self.ends.append(end)

    def _tell_progress(self, number: int) -> None:
        """Add the last progress of a file, before the news that end the attempt."""
        for moved in (self._sent, self._confirmed):
            if event := moved.pop(number, None):
                self._news.append(event)
