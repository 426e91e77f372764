"""What a task tells the driver: events as compact rows of plain values."""

from __future__ import annotations

import threading
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from uploader_cli.core import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable

    Row = tuple[Any, ...]

SHOWN = 8 << 20  # bytes from which a file's progress is reported; of smaller files only the end is
_PLAIN = {
    kind.__name__: kind
    for kind in (
        *(ev.FileStarted, ev.BytesSent, ev.BytesConfirmed, ev.FileRetry),
        *(ev.SessionCreated, ev.SessionFinished, ev.RunWarning, ev.Paused, ev.CallMade),
    )
}
"""Events whose row has their type's name and their fields."""
_FIELDS = {name: [field.name for field in fields(kind)] for name, kind in _PLAIN.items()}
COMPLETED, FAILED, SKIPPED, AGAIN = "completed", "failed", "skipped", "again"
ENDS = (COMPLETED, FAILED, SKIPPED)


class Report:
    """Collects the events of a task: `news` since the last call, and all ends of files. Thread-safe."""

    def __init__(self) -> None:
        self.ends: list[Row] = []
        self._lock = threading.Lock()
        self._news: list[Row] = []
        self._sent: dict[int, Row] = {}  # the last progress of each file
        self._confirmed: dict[int, Row] = {}
        self._begun: dict[int, tuple[str, int]] = {}  # session and attempt of each running file
        self._shown: set[int] = set()

    def emit(self, event: ev.Event) -> None:
        """Add an event."""
        with self._lock:
            self._add(event)

    def take(self) -> list[Row]:
        """Return the rows since the last call."""
        with self._lock:
            rows = [
                *self._news,
                *self._sent.values(),
                *self._confirmed.values(),
            ]  # in this order: confirmed bytes count as sent
            self._news, self._sent, self._confirmed = [], {}, {}
        return rows

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
                    self._news.append(_row(event))
            case ev.BytesSent(file=number) if number in self._shown:
                self._sent[number] = _row(event)
            case ev.BytesConfirmed(file=number) if number in self._shown:
                self._confirmed[number] = _row(event)
            case ev.BytesSent() | ev.BytesConfirmed():
                pass
            case ev.FileCompleted(file=number):
                known = (event.server_id, event.location, event.verified, event.checksum, event.seconds, event.url)
                self._end((COMPLETED, number, *self._begun.get(number, ("", 0)), *known))
            case ev.FileFailed(file=number):
                what = (event.code, event.message, event.retryable)
                self._end((FAILED, number, *self._begun.get(number, ("", 0)), *what))
            case ev.FileSkipped(file=number):
                self._end((SKIPPED, number, "", 0, event.reason, event.checksum, event.url))
            case ev.FileRetry(file=number):
                self._tell_progress(number)
                self._news.append(_row(event))
            case _ if type(event).__name__ in _PLAIN:
                self._news.append(_row(event))

    def _end(self, row: Row) -> None:
        number = row[1]
        self._begun.pop(number, None)
        self._shown.discard(number)
        self._tell_progress(number)
        self._news.append(row)
        self.ends.append(row)

    def _tell_progress(self, number: int) -> None:
        """Add the last progress of a file, before the row that ends the attempt."""
        for moved in (self._sent, self._confirmed):
            if row := moved.pop(number, None):
                self._news.append(row)


def _row(event: ev.Event) -> Row:
    name = type(event).__name__
    return (name, *(getattr(event, field) for field in _FIELDS[name]))


def event_of(row: Row, tried: Callable[[int], int]) -> ev.Event:
    """Return the event of a row; `tried(file)` are the attempts of earlier tries of the task, which are added."""
    kind, *values = row
    event = _PLAIN[kind](*values)
    match event:
        case ev.FileStarted() | ev.FileRetry() | ev.BytesSent() | ev.BytesConfirmed():
            return replace(event, attempt=event.attempt + tried(event.file))
    return event
