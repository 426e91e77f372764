"""The files that appear in directories (`--watch`): each is selected once it is complete, and again after a change.

A file is complete when its size and mtime were the same in walks that are `settle` seconds apart, and when no program
has it open, as far as notifications tell. They also start a walk sooner; what a walk finds decides, because the system
may lose notifications.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from queue import SimpleQueue
from typing import Protocol

from msgspec.structs import replace

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, WarningCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import utf8
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.selection import Part, within
from uploader_cli.selection.walk import Selected, Step, walk
from uploader_cli.sources.directories import directories

UNFINISHED = (".*", "*.[pP][aA][rR][tT]", "*.[tT][mM][pP]", "*.[cC][rR][dD][oO][wW][nN][lL][oO][aA][dD]")
"""Patterns of files that other programs have not finished, and of hidden ones."""
MOST_PAUSE, LEAST_PAUSE = 5.0, 0.1  # seconds between two walks: half the time that files need to settle, within these
NOTIFIED_PAUSE = 30.0  # seconds between two walks without a notification, where there are any
REST = 10  # a walk rests that many times as long as it took
FIRST_RETRY, LAST_RETRY = (
    60.0,
    3600.0,
)  # seconds until a failed file is selected again; doubled from the first to the last
STEP = 0.25  # seconds between two steps without a file: so soon the walk can be stopped
UNREADABLE = WarningCode("directory")
"""A directory can't be read, or watched."""
LOOKED_UP = 64  # files that are looked up in the journal together

_TABLE = """
PRAGMA journal_mode = OFF; PRAGMA cache_size = -8192; -- KiB
CREATE TABLE seen (
  path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, walk INTEGER NOT NULL, due REAL,
  failures INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
BEGIN;
"""
# `due` is the time at which a file is selected if it is still the same; NULL: not before it changes.
_ADDED = "INSERT OR REPLACE INTO seen (path, size, mtime_ns, due, walk) VALUES (?, ?, ?, ?, ?)"
_End = ev.FileCompleted | ev.FileSkipped | ev.FileFailed


class Notifications(Protocol):
    """What the system tells of directories (`notifications`)."""

    def is_open(self, path: str) -> bool:
        """Return whether a program has opened the file and not closed it."""

    def close(self) -> None:
        """End the notifications."""


class Arrivals:
    """The steps of endless walks through directories, for one thread. Memory is bounded by the files in progress."""

    def __init__(
        self,
        paths: Sequence[str],
        filters: Filters,
        *,
        settle: float,
        follow_links: bool = False,
        parts: Sequence[Part] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.wake = threading.Event()
        """Start the next walk soon; set from any thread."""
        self.emit: Callable[[ev.Event], None] = lambda _event: None
        self.uploaded: Callable[[Sequence[LocalFile]], list[bool]] = lambda files: [False] * len(files)
        """Return which files an earlier run, or this one before it was resumed, has stored."""
        self.notify: Callable[[Sequence[str], Callable[[], None]], Notifications] | None = None
        """Begin notifications of directories, which call a function. Raises `OSError`."""
        self._paths, self._filters, self._follow, self._parts = paths, filters, follow_links, parts
        self._settle, self._clock, self._sleep = settle, clock, sleep
        self._numbers = count()
        self._open: dict[int, str] = {}  # the files in progress, by their numbers
        self._busy: set[str] = set()  # their paths
        self._ended: SimpleQueue[_End] = SimpleQueue()
        self._trouble: dict[str, str] = {}  # what could not be read in the last walk, and why
        self._next = 0.0  # when a known file is due
        self._incomplete = 0  # files of this walk that are not complete
        self._notifications: Notifications | None = None

    def __iter__(self) -> Iterator[Step]:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a temporary file
        self._db.executescript(_TABLE)
        self._subscribe()
        for number in count():
            began = self._clock()
            self.wake.clear()
            yield from self._walk(number)
            self.emit(ev.CaughtUp(self._incomplete))
            now = self._clock()
            yield from self._rest(now, REST * (now - began))

    def listen(self, events: Iterable[ev.Event]) -> None:
        """Note which files have ended; a listener of the run's loop."""
        for event in events:
            if isinstance(event, _End):
                self._ended.put(event)

    def close(self) -> None:
        """End the notifications."""
        if self._notifications is not None:
            self._notifications.close()

    def _subscribe(self) -> None:
        if self.notify is None:
            return
        self.close()
        try:
            self._notifications = self.notify(self._paths, self.wake.set)
        except OSError as error:
            self._notifications = self.notify = None
            text = f"no notifications of new files: {error.strerror or error}; directories are walked every few seconds"
            self.emit(ev.RunWarning(UNREADABLE, text))

    def _walk(self, number: int) -> Iterator[Step]:
        """Walk once; yield the files that are due."""
        now, due = self._clock(), list[LocalFile]()
        self._next, self._incomplete, trouble = float("inf"), 0, dict[str, str]()
        for step in within(walk(self._paths, self._filters, follow_links=self._follow), self._parts):
            self._take_ended()
            item: Selected | None = None
            if isinstance(step, LocalFile):
                due += [step] if self._is_due(step, number, now) else []
            elif isinstance(step, ev.FileSkipped):
                item = self._once(step, number)
            elif step is not None and (step.code is not FailureCode.VANISHED or step.path in self._paths):
                trouble[step.path] = step.message
            if len(due) == LOOKED_UP:
                yield from self._selected(due)
                due.clear()
            yield item
        yield from self._selected(due)
        self._db.execute("DELETE FROM seen WHERE walk != ?", (number,))
        self._report(trouble)
        directories.forget()

    def _is_due(self, file: LocalFile, walk: int, now: float) -> bool:
        """Note what the walk has found; return whether the file is complete and has to be sent."""
        key = os.fsencode(file.path)
        found = self._db.execute("SELECT size, mtime_ns, due, failures FROM seen WHERE path = ?", (key,)).fetchone()
        if found is None or found[:2] != (file.size, file.mtime_ns):
            due, failures = now + self._settle, 0
            self._db.execute(_ADDED, (key, file.size, file.mtime_ns, due, walk))
        else:
            *_, due, failures = found
            self._db.execute("UPDATE seen SET walk = ? WHERE path = ?", (walk, key))
        if due is None:
            return False
        if now >= due and file.path not in self._busy and not self._is_open(file.path):
            self._db.execute("UPDATE seen SET due = NULL WHERE path = ?", (key,))
            return True
        self._next = min(self._next, due) if due > now else self._next
        self._incomplete += not failures
        return False

    def _is_open(self, path: str) -> bool:
        return self._notifications is not None and self._notifications.is_open(path)

    def _once(self, skipped: ev.FileSkipped, walk: int) -> Selected | None:
        """Return what the walk leaves out where it has not been reported since it is there."""
        key = os.fsencode(skipped.path) + b"\0"  # no file has such a path
        if self._db.execute("UPDATE seen SET walk = ? WHERE path = ?", (walk, key)).rowcount:
            return None
        self._db.execute(_ADDED, (key, 0, 0, None, walk))
        return replace(skipped, file=next(self._numbers))

    def _selected(self, files: Sequence[LocalFile]) -> Iterator[LocalFile]:
        """Yield the files that were not uploaded before, with their numbers in the run."""
        for file, is_there in zip(files, self.uploaded(files) if files else (), strict=True):
            if not is_there:
                file = replace(file, file=next(self._numbers))
                self._open[file.file] = file.path
                self._busy.add(file.path)
                yield file

    def _take_ended(self) -> None:
        """Plan another try of files that failed, and forget those that are gone: what follows there is new."""
        while not self._ended.empty():
            event = self._ended.get()
            path = self._open.pop(event.file, None)
            if path is None:
                continue
            self._busy.discard(path)
            key = os.fsencode(path)
            if isinstance(event, ev.FileFailed):
                (failures,) = self._db.execute("SELECT failures FROM seen WHERE path = ?", (key,)).fetchone() or (0,)
                due = self._clock() + min(FIRST_RETRY * 2.0 ** min(failures, 20), LAST_RETRY)
                change = "UPDATE seen SET due = ?, failures = failures + 1 WHERE path = ? AND due IS NULL"
                self._db.execute(change, (due, key))
                self._next = min(self._next, due)
            elif event.gone:
                self._db.execute("DELETE FROM seen WHERE path = ? AND due IS NULL", (key,))

    def _report(self, trouble: dict[str, str]) -> None:
        """Warn of directories that can't be read now, and say which are back."""
        before, self._trouble = self._trouble, trouble
        for path, why in trouble.items():
            if before.get(path) != why:
                text = f"{utf8(path)}: {why}; it is looked for again"
                self.emit(ev.RunWarning(UNREADABLE, text))
        for path in before.keys() - trouble.keys():
            self.emit(ev.RunWarning(WarningCode.RECOVERED, f"{utf8(path)} can be read again"))
            if path in self._paths:
                self._subscribe()

    def _rest(self, now: float, least: float) -> Iterator[None]:
        """Wait for the next walk, with a step now and then."""
        pause = max(LEAST_PAUSE, min(self._settle / 2, MOST_PAUSE)) if self._notifications is None else NOTIFIED_PAUSE
        earliest, latest = now + max(least, LEAST_PAUSE), now + pause
        while True:
            now, due = self._clock(), max(earliest, min(latest, self._next))
            if now >= due or (now >= earliest and self.wake.is_set()):
                return
            self._sleep(min(STEP, due - now))
            yield None
            self._take_ended()
