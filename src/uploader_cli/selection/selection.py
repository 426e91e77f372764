"""The files of a run: a stream whose first items are known before anything is sent, walked in a thread after that.

The walk is a bounded number of files ahead of the transfer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, FileFailed
from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import FileError
from uploader_cli.selection.walk import Selected, Step, forgiven
from uploader_cli.sources.content import sha256_of

STEPS_AHEAD = 1000  # maximum steps taken before anything is sent; a selection that ends within them is completely known
AHEAD_SECONDS = 1.0  # maximum seconds for these steps, for a slow file system
MOST_AHEAD = 10_000  # maximum items taken if none of them can be sent
MOST_OPEN = 10_000  # maximum selected items that have not ended: more than one session, in little memory
NOTICEABLE = 64 << 20  # minimum bytes of a file whose content check is announced
_ENDS = frozenset({ev.FileCompleted, ev.FileFailed, ev.FileSkipped})
JOIN_WITHIN = 0.5  # seconds that `close` waits for the walk, since a file system may hang


class Part(Protocol):
    """The part of what is found that a run takes; a feature has one (`Feature.part`)."""

    def holds(self, name: str) -> bool:
        """Return whether a file with this name on the server belongs to the part."""

    def takes(self, name: str) -> bool:
        """Return the same, and count the file."""

    def totals(self) -> dict[str, Any]:
        """Return what a report's head says of all files that were counted."""


class Selection:
    """Items in a stable order, to be iterated once.

    `ahead` are the first ones; `complete` is True if there are no others.
    """

    def __init__(
        self, steps: Iterable[Step], clock: Callable[[], float] = time.monotonic, *, unending: bool = False
    ) -> None:
        """Take the first steps, none that are `unending`; raise their errors."""
        self._later = iter(steps)
        self.ahead: list[Selected] = []
        self.complete = False
        self.parts: Sequence[Part] = ()
        found = taken = 0
        end = clock() + AHEAD_SECONDS
        while not unending and clock() < end and (taken < STEPS_AHEAD or (not found and len(self.ahead) < MOST_AHEAD)):
            try:
                step = next(self._later)
            except StopIteration:
                self.complete = True
                break
            taken += 1
            if step is not None:
                self.ahead.append(step)
                found += isinstance(step, LocalFile)

    @property
    def files(self) -> list[LocalFile]:
        """The files of `ahead`."""
        return [item for item in self.ahead if isinstance(item, LocalFile)]

    def steps(self) -> Iterator[Step]:
        """Return an iterator of all items, with None for a step without one."""
        return chain(self.ahead, self._later)

    def __iter__(self) -> Iterator[Selected]:
        return (item for item in self.steps() if item is not None)


def within(steps: Iterable[Step], parts: Iterable[Part]) -> Iterator[Step]:
    """Yield the steps, with None for items that are not in all of the parts."""
    for part in parts:
        steps = _within(steps, part)
    yield from steps


def _within(steps: Iterable[Step], part: Part) -> Iterator[Step]:
    for step in steps:
        yield step if step is not None and part.takes(step.relative_path or step.path) else None


def placed(steps: Iterable[Step], dest: str) -> Iterator[Step]:
    """Yield the steps with files whose place on the server is below the directory `dest`."""
    for step in steps:
        if isinstance(step, LocalFile):
            step = step.below(dest)
        elif isinstance(step, FileFailed) and step.local is not None:
            step = replace(step, local=step.local.below(dest))
        yield step


class _Closed(Exception):
    """The queue was closed."""


class WalkQueue:
    """Files in the order of the selection, for one consumer thread.

    The walk emits an event for each selected item, and another for one that ends here: skipped or failed. It pauses
    while `MOST_OPEN` items have not ended; `listen` counts those that have. With `whole` it does not pause: no file is
    taken before it has ended, and then no more than `MOST_OPEN` that have not.
    """

    def __init__(
        self,
        selection: Selection,
        emit: Callable[[ev.Event], None],
        *,
        most: int = MOST_OPEN,
        whole: bool = False,
        is_stored: Callable[[LocalFile], bool] = lambda _file: False,
    ) -> None:
        """Emits nothing before `start`. A missing file that `is_stored` is no failure."""
        self.ahead, self._is_stored = selection.files, is_stored
        self.ended = False
        self._selection, self._emit = selection, emit
        self._free = threading.Semaphore(max(most, len(selection.ahead)))
        self._walked = threading.Event() if whole else None
        self._queue: SimpleQueue[LocalFile | BaseException | None] = SimpleQueue()  # None: the end
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Continue the walk in a thread; emit a complete selection at once, so that its totals are known."""
        if self._selection.complete:
            for item in self._selection.ahead:
                self._emit_selected(item)
            self._emit_end()
            if not any(file.sha256 for file in self.ahead):
                self._run()
                return
        self._thread = threading.Thread(target=self._run, name="uploader-walk", daemon=True)
        self._thread.start()

    def take(self, wait: float = 0.0) -> LocalFile | None:
        """Return the next file; None if none arrived within `wait` seconds, or if `ended` is set.

        Raises the error that ended the walk early.
        """
        if self.ended or not self._may_take(wait):
            return None
        try:
            item = self._queue.get(block=wait > 0, timeout=wait)
        except Empty:
            return None
        if isinstance(item, LocalFile):
            return item
        self.ended = True
        if item is not None:
            raise item
        return None

    def _may_take(self, wait: float) -> bool:
        return self._walked is None or (self._walked.wait(wait) and self._free.acquire(timeout=wait))

    def listen(self, events: Sequence[ev.Event]) -> None:
        """Continue the walk by the number of files that ended; a listener of the run's loop, in any thread."""
        ended = sum(type(event) in _ENDS for event in events)
        if ended:
            self._free.release(ended)

    def close(self) -> list[LocalFile]:
        """Stop the walk; return the files that were not taken."""
        self._closed.set()
        self._free.release()
        if self._thread is not None:
            self._thread.join(JOIN_WITHIN)
        left: list[LocalFile] = []
        while not self._queue.empty():
            item = self._queue.get()
            if isinstance(item, LocalFile):
                left.append(item)
        self.ended = True
        return left

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            if self._selection.complete:
                for item in self._selection.ahead:
                    self._put(item)
            else:
                self._walk()
        except _Closed:
            pass
        except BaseException as bug:  # noqa: BLE001 - `take` raises it
            error = bug
        finally:
            self._queue.put(error)
            if self._walked is not None:
                self._walked.set()

    def _walk(self) -> None:
        for step in self._selection.steps():
            if step is not None and self._walked is None:
                self._free.acquire()
            self._check_open()
            if step is not None:
                self._emit_selected(step)
                self._put(step)
        self._emit_end()

    def _emit_end(self) -> None:
        of_all: dict[str, Any] = {}
        for part in self._selection.parts:
            of_all |= part.totals()
        self._emit(ev.SelectionEnded(of_all))

    def _emit_selected(self, item: Selected) -> None:
        self._emit(ev.FileSelected(item.file, item.path, item.known_size if isinstance(item, LocalFile) else 0))

    def _put(self, item: Selected) -> None:
        """Queue a file whose content is as listed; emit the end of every other item."""
        if isinstance(item, LocalFile):
            item = self._checked(item)
        if not isinstance(item, LocalFile):
            item = forgiven(item, self._is_stored)
        if isinstance(item, LocalFile):
            self._queue.put(item)
        else:
            self._emit(item)

    def _checked(self, file: LocalFile) -> LocalFile | ev.FileFailed:
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


def differs(file: LocalFile, checkpoint: Callable[[], None] = lambda: None) -> ev.FileFailed | None:
    """Return why `file` must not be sent; None without an expected SHA-256, or if it matches.

    `checkpoint` is called between reads and raises to stop.
    """
    if file.sha256 is None:
        return None
    try:
        found = sha256_of(file, checkpoint)
    except FileError as error:
        code = FailureCode.MISMATCH if error.code is FailureCode.CHANGED else error.code
        problem = _PROBLEMS.get(error.code) or error.reason
    else:
        if found == file.sha256:
            return None
        code, problem = FailureCode.MISMATCH, f"the SHA-256 is {found}, not {file.sha256} as listed; not sent"
    return ev.FileFailed(file.file, file.path, code, problem, retryable=False, local=file)


_PROBLEMS = {
    FailureCode.VANISHED: "the file no longer exists",
    FailureCode.CHANGED: "modified while it was compared; not sent",
}
