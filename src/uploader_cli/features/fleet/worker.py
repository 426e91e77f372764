"""What a task of an import does, in a Dask worker: send its files."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from uploader_cli import __version__, errors
from uploader_cli.core import events as ev
from uploader_cli.core.last_heard import LastHeard
from uploader_cli.core.plan import LocalFile
from uploader_cli.features.fleet.outcomes import Creating, FileEnd, Journaled, TaskReport
from uploader_cli.features.fleet.task_journal import TaskJournal
from uploader_cli.features.fleet.tasks import TaskInput, local_file
from uploader_cli.selection.selection import Selection, WalkQueue
from uploader_cli.settings import resolve_here
from uploader_cli.sources.directories import real_directory
from uploader_cli.sources.files import identity_of, status
from uploader_cli.transfer import engine
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.pacer import Stop, holding
from uploader_cli.transfer.scheduler import Scheduler
from uploader_cli.transfer.targets import FIRST_CONTACT_RETRIES, target_of
from uploader_cli.transfer.upload_session import RunContext

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from distributed import Worker

TOPIC = "uploader-import"
"""The topic of structured events that has the news of all tasks."""
TASK_REPORT_EVERY = 0.5  # seconds between two reports of a task


PROCESS = secrets.token_hex(8)
"""The mark of this process: a worker that takes the place and address of another one has a new mark."""


class Preflight(NamedTuple):
    """The result of a check: the mark of the process, why it can't take part, and the requests that it sent."""

    process: str
    error: errors.UploaderError | None
    calls: list[ev.CallMade]


class TaskResult(NamedTuple):
    """The result of a task: all ends, the error that ended it early, its duration in seconds, and the process.

    A process that was not checked sends nothing.
    """

    ends: list[FileEnd]
    error: errors.UploaderError | None
    seconds: float
    process: str


class _Controls:
    """What the driver passes to the tasks of one run in this process."""

    def __init__(self) -> None:
        self.budget = RateBudget()
        self.creating = threading.Lock()  # held by the one request that creates an upload
        self._stops: set[Stop] = set()  # of the tasks that run
        self._over = False
        self._lock = threading.Lock()

    @contextmanager
    def task(self, report: TaskReport) -> Iterator[Stop]:
        """Yield what stops a task; the steps of its work are progress in `report`."""
        stop = Stop(report.step)
        with self._lock:
            self._stops.add(stop)
            if self._over:
                stop.set()
        try:
            yield stop
        finally:
            with self._lock:
                self._stops.discard(stop)

    def stop(self, *, over: bool) -> None:
        with self._lock:
            self._over = self._over or over
            for stop in self._stops:
                stop.set()


class _Unfollowed:
    """The followers of sessions: none, since the driver draws what tasks report."""

    def __init__(self) -> None:
        self.last_heard = LastHeard()

    def follow(self, session: str) -> None: ...

    def body_sent(self, session: str) -> None: ...

    def leave(self, session: str) -> None: ...


_runs: dict[str, _Controls] = {}
_lock = threading.Lock()


def _controls(run: str) -> _Controls:
    with _lock:
        return _runs.setdefault(run, _Controls())


def stop(run: str, over: bool) -> None:
    """Stop the tasks of a run in this process at their next resumable point, and later ones if the run is `over`."""
    _controls(run).stop(over=over)


def pause(run: str, seconds: float) -> None:
    """Pause all calls of a run in this process."""
    _controls(run).budget.pause(seconds)


def dask_setup(_worker: Worker) -> None:
    """Ignore Ctrl-C, which a terminal sends to all its processes: the driver stops the tasks in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def preflight(version: str, options: Mapping[str, object], sample: tuple[object, ...]) -> Preflight:
    """Check whether this process can send files of a run: its version, its options, a file of the run, the server."""
    report = TaskReport()
    error: errors.UploaderError | None = None
    try:
        _check(version, options, local_file(sample) if sample else None, report)
    except errors.UploaderError as problem:
        error = problem
    return Preflight(PROCESS, error, [one for one in report.take() if isinstance(one, ev.CallMade)])


def _check(version: str, options: Mapping[str, object], sample: LocalFile | None, report: TaskReport) -> None:
    if version != __version__:
        hint = "install the same version on all workers"
        raise errors.UsageError(f"it runs uploader {__version__}, and this machine {version}", hint=hint)
    settings = resolve_here({}, stored=options)
    if sample is not None:
        hint = "all workers need the files under the same paths, and the packages and credentials of URLs"
        try:
            found = status(sample.source)
        except OSError as error:
            raise errors.UsageError(f"it can't read {sample.path}: {error.strerror}", hint=hint) from error
        if (found.st_size, found.st_mtime_ns) != (sample.size, sample.mtime_ns):
            raise errors.UsageError(f"it has another file at {sample.path}", hint=hint)
    api, target = Api(settings, report.emit, Stop()), target_of(settings)
    try:
        api.pacer.call(partial(target.reach, api, target.unmet), at_most=FIRST_CONTACT_RETRIES)
    except errors.Unauthorized:
        raise
    except errors.AnswerError:  # the server can be reached; tasks wait for the end of an outage
        pass
    finally:
        api.close()


def send(task: TaskInput) -> TaskResult:
    """Send the files of a task and return their outcomes.

    A task that runs `again` (its first worker died) first asks the server which files it has.
    """
    from distributed import get_worker

    began, controls, report, worker = time.monotonic(), _controls(task.run), TaskReport(), get_worker()
    if task.process != PROCESS:  # Dask runs it again, in a process that took the place of the first one
        return TaskResult([], None, 0.0, PROCESS)

    error: errors.UploaderError | None
    with controls.task(report) as stop:
        telling = _Telling(worker, task, report, stop, controls.creating)
        telling.tell()
        with _every(telling.tell):
            try:
                error = _send(task, report, stop, controls.budget, telling)
            except errors.UploaderError as problem:  # of the settings
                error = problem
    return TaskResult(report.ends, error, time.monotonic() - began, PROCESS)


class _Telling:
    """Tells the driver what happens in a task, in order."""

    def __init__(
        self, worker: Worker, task: TaskInput, report: TaskReport, stop: Stop, creating: threading.Lock
    ) -> None:
        """`creating` is held by the request of this process that creates an upload."""
        self._worker, self._task, self._report, self._stop, self._creating = worker, task, report, stop, creating
        self._key = worker.get_current_task()
        self._lock = threading.Lock()

    def tell(self) -> None:
        """Send the news since the last call; an empty message says that something moves."""
        from distributed.utils import sync

        with self._lock:  # one message for all jobs that wait
            news, moved = self._report.take(), self._report.moved()
            if moved:
                message = (self._task.run, self._task.number, pickle.dumps(news))
                try:
                    sync(self._worker.loop, self._worker.scheduler.log_event, topic=TOPIC, msg=message)
                except OSError:  # the scheduler is gone
                    self._stop.set()

    def turn(self) -> AbstractContextManager[None]:
        """Return what lets one request of this process create an upload."""
        return holding(self._creating, self._stop.check)

    def note(self, news: Creating | Journaled) -> None:
        """Return once the scheduler has the news; stop the task if the driver no longer waits for it."""
        self._report.add(news)
        self.tell()
        known = self._worker.state.tasks.get(self._key)
        if known is None or known.state == "cancelled":
            self._stop.set()
        self._stop.checkpoint()


def _send(
    task: TaskInput, report: TaskReport, stop: Stop, budget: RateBudget, telling: _Telling
) -> errors.UploaderError | None:
    settings = resolve_here({}, stored=task.options)
    files = [_here(file, follows=settings.follow_links) for file in task.local_files()]
    run = TaskJournal(task, telling.note, telling.turn)
    api = Api(settings, report.emit, stop, run=secrets.token_hex(8), budget=budget)
    queue = WalkQueue(Selection(files), report.emit, most=len(files) + 1)
    context = RunContext(
        api,
        _Unfollowed(),
        run,
        started=lambda _protocol, _jobs: queue.start(),
        outlasts_start=True,  # the server has answered the driver
    )
    try:
        return engine.upload(Scheduler(context), queue)
    finally:
        api.close()


def _here(file: LocalFile, *, follows: bool) -> LocalFile:
    """Return a file with its identity, if it is as it was selected, and its real directory on this machine."""
    if file.is_remote:
        return file
    try:
        found = identity_of(os.stat(file.path))
    except OSError:
        return file
    directory = real_directory(file.path)
    if not (directory or file.named or follows):
        directory = os.path.dirname(file.path)  # a link has taken its place, which is not followed
    is_same = (found.size, found.mtime_ns) == (file.size, file.mtime_ns)
    return replace(file, identity=found if is_same else None, directory=directory)


@contextmanager
def _every(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` every `TASK_REPORT_EVERY` in a thread, and at the end of the block."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(TASK_REPORT_EVERY):
            action()

    thread = threading.Thread(target=repeat, name="uploader-report", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        action()
