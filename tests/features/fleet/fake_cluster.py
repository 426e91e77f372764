"""A cluster without processes: a test says what its workers do with their checks and tasks."""

from __future__ import annotations

import pickle
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from time_limits import PATIENCE

from uploader_cli.core import events as ev
from uploader_cli.errors import UploaderError
from uploader_cli.features.fleet import worker
from uploader_cli.features.fleet.cluster import Listed
from uploader_cli.features.fleet.outcomes import FileEnd
from uploader_cli.features.fleet.worker import Preflight, TaskResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.features.fleet.outcomes import News
    from uploader_cli.features.fleet.tasks import TaskInput

CALL = ev.CallMade("GET", "https://h/health", None, 200, 0.1, None)
"""The request of each check."""


class Future:
    """The future of a check or a task."""

    def __init__(self) -> None:
        self.status = "pending"
        self.outcome: Any = None
        self._then: list[Callable[[Future], None]] = []

    def add_done_callback(self, call: Callable[[Future], None]) -> None:
        self._then.append(call)
        if self.status != "pending":
            call(self)

    def end(self, outcome: Any) -> None:
        """Return a value, or raise an exception."""
        self.outcome, self.status = outcome, "error" if isinstance(outcome, Exception) else "finished"
        for call in self._then:
            call(self)


@dataclass
class Given:
    """A task as a worker gets it."""

    worker: str
    input: TaskInput
    cluster: FakeCluster
    future: Future = field(default_factory=Future)

    @property
    def files(self) -> list[LocalFile]:
        return [*self.input.local_files()]

    @property
    def names(self) -> str:
        return " ".join(file.relative_path for file in self.files)

    def tell(self, *news: News) -> None:
        """Report news of the task."""
        self.cluster.hear((self.input.run, self.input.number, pickle.dumps(news)))

    def end(self, *ends: FileEnd, error: UploaderError | None = None, process: str | None = None) -> None:
        """Return the result."""
        self.future.end(TaskResult([*ends], error, 0.1, process or self.input.process))

    def complete(self) -> None:
        """Send all files."""
        self.end(*(completed(file.file, file.size) for file in self.files))

    def send(self) -> None:
        """Send the files as a worker does, in this process."""
        self.future.end(worker.send(self.input))

    def die(self) -> None:
        """Lose the worker."""
        del self.cluster.workers[self.worker]
        self.future.status = "lost"


def completed(number: int, size: int | None = 1) -> FileEnd:
    """Return the end of a file that is stored."""
    return FileEnd("s", 1, ev.FileCompleted(number, "", size, "id", None, verified=False, attempts=1, seconds=0.1))


class FakeCluster:
    """Gives each task to `task` in a thread, and each check to `check`; `workers` are those that are connected."""

    def __init__(self, *names: str, threads: int = 1) -> None:
        self.workers = {name: Listed(name, threads, 0.0) for name in names}
        self.task: Callable[[Given], None] = Given.complete
        self.check: Callable[[str], Exception | None] = lambda _worker: None
        self.allowed_losses, self.dashboard = 3, ""
        self.process = ""  # the mark of all processes; if it is empty, each check finds another one
        self.given: list[Given] = []
        self.checked: list[str] = []
        self.paused: list[float] = []
        self.stopped: list[str | None] = []
        self.hear: Callable[[tuple[str, int, bytes]], None] = lambda _message: None
        self._threads: list[threading.Thread] = []
        self.most_at_once = self._turns = 0

    def join(self, name: str) -> None:
        """Connect another worker."""
        self.workers[name] = Listed(name, 1, 0.0)

    def beats(self) -> None:
        """Let all workers report to the scheduler, as they do while a task hangs."""
        self.workers = {name: one._replace(heartbeat=one.heartbeat + 1) for name, one in self.workers.items()}

    @contextmanager
    def connected(self, _settings: object, _run: str, news: Any, *_stops: object) -> Iterator[FakeCluster]:
        """Stand in for `cluster.connected`."""
        self.hear = news
        yield self
        for thread in self._threads:
            thread.join(PATIENCE)

    def listed(self, wait: float = 0.0) -> Mapping[str, Listed]:
        del wait
        self._turns += 1
        return dict(self.workers)

    def turn(self, times: int = 3) -> None:
        """Wait until the driver has looked at the workers so often.

        After the first look it applies what tasks told before, after the second it submits what that allows.
        """
        until, end = self._turns + times, time.monotonic() + PATIENCE
        while self._turns < until:
            assert time.monotonic() < end
            time.sleep(0.005)

    def submit(self, function: object, arguments: tuple[Any, ...], address: str, _key: str) -> Future:
        if function is worker.preflight:
            self.checked.append(address)
            future = Future()
            error = self.check(address)
            process = self.process or f"process {len(self.checked)}"
            if error is None or isinstance(error, UploaderError):
                future.end(Preflight("" if error else process, error, [CALL]))
            else:
                future.end(error)
            return future
        given = Given(address, arguments[0], self)
        self.given.append(given)
        running = sum(each.future.status == "pending" for each in self.given)
        self.most_at_once = max(self.most_at_once, running)
        self.run(self.task, given)
        return given.future

    def run(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in a thread, which ends before the run."""
        self._threads.append(threading.Thread(target=function, args=arguments, daemon=True))
        self._threads[-1].start()

    def result(self, future: Future) -> Any:
        if isinstance(future.outcome, Exception):
            raise future.outcome
        return future.outcome

    def pause(self, seconds: float) -> None:
        self.paused.append(seconds)
        worker.pause(self.given[0].input.run, seconds)

    def stop(self, address: str | None = None) -> None:
        self.stopped.append(address)
        for run in {each.input.run for each in self.given}:
            worker.stop(run, address is None)
