"""What a task of an import does, in a Dask worker: send its files."""

from __future__ import annotations

import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from uploader_cli import __version__, errors
from uploader_cli.core.last_heard import LastHeard
from uploader_cli.fleet.outcomes import FileEnd, TaskReport
from uploader_cli.fleet.tasks import TaskInput
from uploader_cli.selection.selection import Selection, WalkQueue
from uploader_cli.settings import resolve_here
from uploader_cli.settings.places import STATE_IN_MEMORY
from uploader_cli.transfer import engine
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.journal import Journal, RunTarget
from uploader_cli.transfer.pacer import Stop
from uploader_cli.transfer.scheduler import Scheduler
from uploader_cli.transfer.upload_session import RunContext

if TYPE_CHECKING:
    from distributed import Worker

TOPIC = "uploader-import"
"""The topic of structured events that has the news of all tasks."""
TASK_REPORT_EVERY = 0.5  # seconds between two reports of a task


class TaskResult(NamedTuple):
    """The result of a task: all ends, the error that ended it early, and its duration in seconds."""

    ends: list[FileEnd]
    error: errors.UploaderError | None
    seconds: float


class _Controls:
    """What the driver passes to the tasks of one run in this process."""

    def __init__(self) -> None:
        self.stop, self.budget = Stop(), RateBudget()


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


def began_name(run: str, number: int) -> str:
    """Return the name of the Dask event that is set once a task began: it exists where a task is run again."""
    return f"{TOPIC}-{run}-{number}"


def stop(run: str) -> None:
    """Stop the tasks of a run in this process at their next resumable point."""
    _controls(run).stop.set()


def pause(run: str, seconds: float) -> None:
    """Pause all calls of a run in this process."""
    _controls(run).budget.pause(seconds)


def dask_setup(_worker: Worker) -> None:
    """Ignore Ctrl-C, which a terminal sends to all its processes: the driver stops the tasks in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def send(task: TaskInput) -> TaskResult:
    """Send the files of a task and return their outcomes.

    A task that runs again (its first worker died) first asks the server which files it has.
    """
    from distributed import get_worker

    if task.version != __version__:
        text = f"this machine runs uploader {task.version}, the worker {get_worker().address} runs {__version__}"
        return TaskResult([], errors.UsageError(text, hint="install the same version on all workers"), 0.0)
    began, controls, report, worker = time.monotonic(), _controls(task.run), TaskReport(), get_worker()
    again = _began_before(worker, began_name(task.run, task.number))
    if again:
        report.runs_again()

    def tell() -> None:
        if news := report.take():
            worker.log_event(TOPIC, (task.run, task.number, pickle.dumps(news)))

    error: errors.UploaderError | None
    with _every(tell):
        try:
            error = _send(task, report, controls, again=again or task.again)
        except errors.UploaderError as problem:  # of the settings
            error = problem
    return TaskResult(report.ends, error, time.monotonic() - began)


def _began_before(worker: Worker, name: str) -> bool:
    """Set a Dask event; return whether an earlier try has set it. A client, as `Event` uses, would cost 50 ms."""
    from distributed.utils import sync

    async def look() -> bool:
        before = await worker.scheduler.event_is_set(name=name)
        await worker.scheduler.event_set(name=name)
        return bool(before)

    return bool(sync(worker.loop, look))


def _send(task: TaskInput, report: TaskReport, controls: _Controls, *, again: bool) -> errors.UploaderError | None:
    settings = resolve_here({}, stored=task.options)
    files = list(task.local_files())
    with Journal(STATE_IN_MEMORY) as journal:  # a task that runs again asks the server
        run = journal.begin(RunTarget(settings.target_url, settings.category), {}, identity=[task.run, task.number])
        run.secret, run.again = task.secret, again
        api = Api(settings, report.emit, controls.stop, run=run.id, budget=controls.budget)
        queue = WalkQueue(Selection(files), report.emit, most=len(files) + 1)
        context = RunContext(api, _Unfollowed(), run, started=lambda _protocol, _jobs: queue.start())
        context.outlasts_start = True  # the server has answered the driver
        try:
            return engine.upload(Scheduler(context), queue)
        finally:
            api.close()


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
