"""Notifications of changed directories by watchdog (the extra `watch`).

On Linux (inotify) they also tell which files are open. Which of them are written is unknown: watchdog reports a change
of the mode as it does one of the content.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from watchdog import events as wd
from watchdog.observers import Observer

TELLS_OPEN = sys.platform == "linux"
OPEN_WITHIN = 600.0
"""Seconds after the last notification of an open file in which it counts as open: that of its end may be lost."""
MOST_OPENED = 1000  # files after which those are forgotten whose end was lost
_OPENED, _UNCHANGED, _ENDED = wd.FileOpenedEvent, wd.FileClosedNoWriteEvent, (wd.FileClosedEvent, wd.FileDeletedEvent)
_KINDS = [_OPENED, _UNCHANGED, *_ENDED, wd.FileMovedEvent, wd.FileCreatedEvent]


class Notifier(wd.FileSystemEventHandler):
    """Watches directories and those below them until `close`."""

    def __init__(
        self, paths: Sequence[str], wake: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`wake()` is called in another thread when a file may be complete. Raises `OSError` beyond a limit."""
        self._wake, self._clock = wake, clock
        self._opened: dict[str, tuple[int, float]] = {}  # how often, and when that was last told
        self._lock = threading.Lock()
        self._observer = Observer()
        for path in paths:
            self._observer.schedule(self, path, recursive=True, event_filter=_KINDS)
        self._observer.start()

    def dispatch(self, event: wd.FileSystemEvent) -> None:
        path = os.fsdecode(event.src_path)
        if TELLS_OPEN:
            with self._lock:
                times, _ = self._opened.pop(path, (0, 0.0))
                if isinstance(event, wd.FileMovedEvent):
                    path = os.fsdecode(event.dest_path)
                times += isinstance(event, _OPENED) - isinstance(event, _UNCHANGED)
                if times > 0 and not isinstance(event, _ENDED):
                    self._opened[path] = times, self._clock()
                if len(self._opened) > MOST_OPENED:
                    self._opened = {path: one for path, one in self._opened.items() if self._is_recent(one)}
        if not isinstance(event, _OPENED | _UNCHANGED):
            self._wake()

    def is_open(self, path: str) -> bool:
        """Return whether a program has opened the file and not closed it."""
        with self._lock:
            return path in self._opened and self._is_recent(self._opened[path])

    def close(self) -> None:
        """End the notifications; a call that wakes may follow."""
        self._observer.stop()

    def _is_recent(self, opened: tuple[int, float]) -> bool:
        return self._clock() - opened[1] < OPEN_WITHIN
