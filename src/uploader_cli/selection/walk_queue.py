"""Walk the selection in a thread, a bounded number of files ahead of the transfer."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from uploader_cli.core import events as ev
from uploader_cli.core.plan import LocalFile
from uploader_cli.selection.checksum import differs
from uploader_cli.selection.walk import Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.selection.selection import Selection
    from uploader_cli.selection.walk import Selected, Unusable

MOST = 10_000
"""Maximum selected items that have not ended: more than one session, in little memory."""
NOTICEABLE = 64 << 20
"""Minimum bytes of a file whose content check is announced."""
_JOIN = 0.5
"""Seconds that `close` waits for the walk, since a file system may hang."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


class _Closed(Exception):
    """The queue was closed."""


class WalkQueue:
    """Files in the order of the selection, for one consumer thread.

    The walk emits an event for each selected item, and another for one that ends here: skipped or failed. It pauses
    while `MOST` items have not ended; `settle` or `settled` reports those that have.
    """

    def __init__(self, selection: Selection, emit: Callable[[ev.Event], None], *, most: int = MOST) -> None:
        """Emits nothing before `start`."""
        self.ahead = selection.files
        self.ended = False
        self._selection, self._emit = selection, emit
        self._free = threading.Semaphore(max(most, len(selection.ahead)))
        self._queue: SimpleQueue[LocalFile | _End] = SimpleQueue()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Continue the walk in a thread; emit a complete selection at once."""
        if not self._selection.complete:
            self._thread = threading.Thread(target=self._walk, name="uploader-walk", daemon=True)
            self._thread.start()
            return
        for item in self._selection.ahead:
            self._select(item)
        self._emit(ev.SelectionEnded())
        if not any(file.sha256 for file in self.ahead):
            self._hand_on_all()
            return
        self._thread = threading.Thread(target=self._hand_on_all, name="uploader-check", daemon=True)
        self._thread.start()

    def take(self, wait: float = 0.0) -> LocalFile | None:
        """Return the next file; None if none arrived within `wait` seconds, or if `ended` is set.

        Raises the error that ended the walk early.
        """
        if self.ended:
            return None
        try:
            item = self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
        except Empty:
            return None
        if isinstance(item, LocalFile):
            return item
        self.ended = True
        if item.error is not None:
            raise item.error
        return None

    def settle(self, events: Sequence[ev.Event]) -> None:
        """Count the ended files; a listener of the run's loop."""
        ended = sum(isinstance(event, ev.FileCompleted | ev.FileFailed | ev.FileSkipped) for event in events)
        if ended:
            self.settled(ended)

    def settled(self, count: int = 1) -> None:
        """Report that `count` items (at least 1) have ended, so that the walk continues. From any thread."""
        self._free.release(count)

    def close(self) -> list[LocalFile]:
        """Stop the walk; return the files that were not taken."""
        self._closed.set()
        self._free.release()
        if self._thread is not None:
            self._thread.join(_JOIN)
        left: list[LocalFile] = []
        while not self._queue.empty():
            item = self._queue.get()
            if isinstance(item, LocalFile):
                left.append(item)
        self.ended = True
        return left

    def _walk(self) -> None:
        error: BaseException | None = None
        try:
            for step in self._selection.steps():
                if step is not None:
                    self._free.acquire()
                if self._closed.is_set():
                    return
                if step is not None:
                    self._select(step)
                    self._hand_on(step)
            self._emit(ev.SelectionEnded())
        except BaseException as bug:  # noqa: BLE001 - `take` raises it
            error = bug
        finally:
            self._queue.put(_End(error))

    def _hand_on_all(self) -> None:
        for item in self._selection.ahead:
            self._hand_on(item)
        self._queue.put(_End())

    def _select(self, item: Selected) -> None:
        self._emit(ev.FileSelected(item.file, item.path, item.size if isinstance(item, LocalFile) else 0))

    def _hand_on(self, item: Selected) -> None:
        if isinstance(item, LocalFile):
            item = self._checked(item)
        if isinstance(item, LocalFile):
            self._queue.put(item)
        elif isinstance(item, Skipped):
            self._emit(ev.FileSkipped(item.file, item.path, item.reason))
        else:
            self._emit(ev.FileFailed(item.file, item.path, item.code, item.message, retryable=False, local=item.local))

    def _checked(self, file: LocalFile) -> LocalFile | Unusable:
        """Compare a file's content with the digest of its list, unless the queue was closed."""
        slow = file.sha256 is not None and file.size >= NOTICEABLE
        try:
            self._check_open()
            if slow:
                self._emit(ev.ContentChecked(file.path))
            return differs(file, self._check_open) or file
        except _Closed:
            return file
        finally:
            if slow:
                self._emit(ev.ContentChecked(""))

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise _Closed
