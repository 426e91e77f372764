"""What a task tells the driver: ends of files as compact rows of plain values, and events."""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

from uploader_cli.core import events as ev

Row: TypeAlias = tuple[Any, ...]
News: TypeAlias = Row | ev.Event

SHOWN = 8 << 20  # bytes from which a file's progress is reported; of smaller files only the end is
COMPLETED, FAILED, SKIPPED, AGAIN = "completed", "failed", "skipped", "again"
"""The first value of a row: three ends of a file, and a task that runs again."""


class TaskReport:
    """Collects the events of a task: `news` since the last call, and all ends of files. Thread-safe."""

    def __init__(self) -> None:
        self.ends: list[Row] = []
        self._lock = threading.Lock()
        self._news: list[News] = []
        self._sent: dict[int, ev.Event] = {}  # the last progress of each file
        self._confirmed: dict[int, ev.Event] = {}
        self._begun: dict[int, tuple[str, int]] = {}  # session and attempt of each running file
        self._shown: set[int] = set()

    def emit(self, event: ev.Event) -> None:
        """Add an event."""
        with self._lock:
            self._add(event)

    def take(self) -> list[News]:
        """Return the news since the last call."""
        with self._lock:
            # in this order: confirmed bytes count as sent
            news = [*self._news, *self._sent.values(), *self._confirmed.values()]
            self._news, self._sent, self._confirmed = [], {}, {}
        return news

    def tell(self, *row: Any) -> None:
        """Add a row that is no event."""
        with self._lock:
            self._news.append(row)

    def _add(self, event: ev.Event) -> None:
        match event:
            case ev.FileStarted(file=number):
                self._begun[number] = event.session, event.attempt
                if event.size is not None and event.size >= SHOWN and not event.packed:
                    self._shown.add(number)
                    self._news.append(event)
            case ev.BytesSent(file=number) if number in self._shown:
                self._sent[number] = event
            case ev.BytesConfirmed(file=number) if number in self._shown:
                self._confirmed[number] = event
            case ev.BytesSent() | ev.BytesConfirmed():
                pass
            case ev.FileCompleted(file=number):
                known = (event.server_id, event.location, event.verified, event.checksum, event.seconds, event.url)
                begun = self._begun.get(number, ("", 0))
                self._end((COMPLETED, number, *begun, *known, event.verified_by))
            case ev.FileFailed(file=number):
                what = (event.code, event.message, event.retryable)
                self._end((FAILED, number, *self._begun.get(number, ("", 0)), *what))
            case ev.FileSkipped(file=number):
                self._end((SKIPPED, number, "", 0, event.reason, event.checksum, event.url))
            case ev.FileRetry(file=number):
                self._tell_progress(number)
                self._news.append(event)
            case ev.SessionCreated() | ev.SessionFinished() | ev.RunWarning() | ev.Paused() | ev.CallMade():
                self._news.append(event)

    def _end(self, row: Row) -> None:
        number = row[1]
        self._begun.pop(number, None)
        self._shown.discard(number)
        self._tell_progress(number)
        self._news.append(row)
        self.ends.append(row)

    def _tell_progress(self, number: int) -> None:
        """Add the last progress of a file, before the news that end the attempt."""
        for moved in (self._sent, self._confirmed):
            if event := moved.pop(number, None):
                self._news.append(event)
