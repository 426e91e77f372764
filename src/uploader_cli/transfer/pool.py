"""The worker pool: threads that live as long as the run, and their jobs."""

from __future__ import annotations

import resource
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from uploader_cli import errors
from uploader_cli.core.bottleneck import Waits
from uploader_cli.core.jobs import FIRST_JOBS, MOST_JOBS, AutoJobs
from uploader_cli.sources.directories import KEPT_OPEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.budget import Limiter
    from uploader_cli.transfer.results import FileResult
    from uploader_cli.transfer.upload_calls import UploadCalls
    from uploader_cli.transfer.upload_session import UploadSession


MEASURED_SECONDS = 1.0  # seconds of a throughput measurement for `--jobs auto`
MOST_WORKERS = 500  # maximum threads: more are slower, and the bundled server takes no more connections of one client
OF_WORKER = 3  # descriptors of one worker: its connection, the file that it sends, and the one that is hashed ahead
OTHER_FILES = 20 + 2 * KEPT_OPEN  # descriptors of the rest of a run: 20 for the journal, the channel, pipes and outputs


class Job(Protocol):
    """One unit of work of a worker."""

    @property
    def session(self) -> UploadSession | None:
        """The session of its files."""

    def run(self, worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Yield groups of outcomes. Raise what ends the run."""


class Step(NamedTuple):
    """A job that is one function."""

    run: Callable[[Worker], Iterator[Sequence[FileResult]]]
    session: UploadSession | None


class Worker(threading.Thread):
    """One thread of the pool. It keeps its connections for the whole run."""

    def __init__(
        self, pool: Pool, api: Api, calls: UploadCalls, finish: Callable[[Worker, Job, Sequence[FileResult]], None]
    ) -> None:
        """`calls` are those of resumable uploads; `finish(worker, job, outcomes)` ends files."""
        super().__init__(name="uploader-worker", daemon=True)
        self.ahead = False  # whether it connects before its first job
        self.api, self.tus = api, calls
        self.helper = ThreadPoolExecutor(1, thread_name_prefix="uploader-checksum")  # begins its thread when it is used
        self._pool, self._finish = pool, finish

    def run(self) -> None:
        """Do one job after the other until the pool is closed. Every error ends the run: a job may wait for it."""
        job: Job | None = None
        try:
            if self.ahead:
                self.api.connect(self.tus.endpoint)
            while (job := self._pool.take()) is not None:
                began = time.monotonic()
                for outcomes in job.run(self):
                    self._finish(self, job, outcomes)
                self.api.sockets.waits.busy += time.monotonic() - began
                self._pool.done(job)
        except BaseException as error:  # noqa: BLE001 - raised by the planner
            self._pool.fail(error)
            if job is not None:
                self._pool.done(job)
        finally:
            self.helper.shutdown()  # after what it was told to close
            self.api.close()


def most_workers() -> int:
    """Return the number of workers that the limit of open files allows (`ulimit -n`), at most `MOST_WORKERS`."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        MOST_WORKERS
        if limit == resource.RLIM_INFINITY
        else min(MOST_WORKERS, max(1, (limit - OTHER_FILES) // OF_WORKER))
    )


class Pool:
    """A queue of jobs, one of jobs that are begun behind these, and at most `most` workers, started on demand."""

    def __init__(
        self, jobs: int | Literal["auto"], make_worker: Callable[[Pool], Worker], *, cap: int | None = None
    ) -> None:
        """There are never more than `cap` workers, nor than `most_workers`."""
        self.auto = AutoJobs() if jobs == "auto" else None  # controls the number of workers with `--jobs auto`
        self._cap = most_workers() if cap is None else min(cap, most_workers())
        self.most = min(self._cap, self.auto.jobs if self.auto is not None else int(jobs))
        self._make_worker = make_worker
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # for workers
        self.rested = threading.Condition(self._lock)  # for the planner, which waits for an idle pool
        self.fatal: BaseException | None = None  # the first error that ended the run
        self.held = False  # True while no job is begun
        self.resized: Callable[[int], object] = lambda _most: None  # called with each new number of workers
        self._jobs: deque[Job] = deque()
        self._last: deque[Job] = deque()  # begun only while `_jobs` is empty, and by all workers but one
        self._last_begun: list[Job] = []
        self._workers: list[Worker] = []
        self._busy = 0
        self._closed = False
        self._halved_at = 0.0

    @property
    def idle(self) -> int:
        """Workers without a job, once the queues are taken."""
        return max(0, self.most - self._needed)

    @property
    def spare(self) -> int:
        """Workers that can help the job that asks: the idle ones, and beside a single job those that `auto` may add.

        None is added soon after the server was overloaded.
        """
        with self._lock:
            grows = self.auto is not None and self.most >= FIRST_JOBS and self._needed <= 1
            return min(self._cap, MOST_JOBS) - 1 if grows else self.idle

    @property
    def at_rest(self) -> bool:
        """True without queued jobs and busy workers."""
        return not self._needed

    @property
    def takes_more(self) -> bool:
        """True where the next job would be begun before all queued ones: at rest, or with only jobs put `last`."""
        with self._lock:
            return self.at_rest or (bool(self._last) and not self._jobs)

    @property
    def _needed(self) -> int:
        return self._busy + len(self._jobs) + len(self._last)

    def put(self, jobs: Sequence[Job], *, first: bool = False, last: bool = False) -> None:
        """Append jobs, or put them at the head of the queue, or `last`: behind all that are put meanwhile.

        Start workers for them.
        """
        with self._lock:
            if first:
                self._jobs.extendleft(jobs[::-1])
            else:
                (self._last if last else self._jobs).extend(jobs)
            self._start(self._needed)
            self._work.notify(len(jobs))

    def connect_ahead(self, jobs: int) -> None:
        """Start the workers for so many jobs, which connect meanwhile: a distant server takes a round trip for that."""
        with self._lock:
            self._start(jobs, ahead=True)

    def _start(self, needed: int, *, ahead: bool = False) -> None:
        for _ in range(min(self.most, needed) - len(self._workers)):
            worker = self._make_worker(self)
            worker.ahead = ahead
            worker.start()  # first: `close` joins all workers, and only a thread that runs can be joined
            self._workers.append(worker)

    def take(self) -> Job | None:
        """Wait for the next job; None once the pool is closed or has failed."""
        with self._lock:
            while self.fatal is not None or self.held or self._busy >= self.most or not (queue := self._next):
                if self.fatal is not None or (self._closed and not self._busy):  # a busy worker may queue parts
                    return None
                self._work.wait()
            self._busy += 1
            if queue is self._last:
                self._last_begun.append(queue[0])
            return queue.popleft()

    @property
    def _next(self) -> deque[Job]:
        """The queue of the next job. One of several workers is left to jobs that are not put `last`."""
        return self._last if not self._jobs and len(self._last_begun) < max(1, self.most - 1) else self._jobs

    def done(self, job: Job) -> None:
        with self._lock:
            self._busy -= 1
            if job in self._last_begun:
                self._last_begun.remove(job)
            if self.at_rest:
                self._wake()

    def hold(self, *, on: bool) -> None:
        """Begin no job until this is called with False; running jobs are not affected."""
        with self._lock:
            self.held = on
            self._wake()

    def adapt(self, traffic: Limiter) -> None:
        """Adapt the number of workers to the throughput, once per `MEASURED_SECONDS`."""
        if self.auto is None or (rate := traffic.measure(MEASURED_SECONDS)) is None or self.held:
            return
        with self._lock:
            if self.auto is not None:
                self._resize(self.auto.measured(rate, in_line=bool(self._jobs)))

    def overloaded(self) -> None:
        """Halve the number of workers, at most once per `MEASURED_SECONDS`."""
        with self._lock:
            now = time.monotonic()
            if self.auto is None or now - self._halved_at < MEASURED_SECONDS:
                return
            self._halved_at = now
            self._resize(self.auto.refused())

    def resize(self, step: int) -> int:
        """Change the number of workers by `step`, from 1 to `MOST_JOBS`, and return it; it is no longer adapted."""
        with self._lock:
            self.auto = None
            self._resize(max(1, min(self.most + step, max(self.most, MOST_JOBS))))
            return self.most

    def fail(self, error: BaseException) -> None:
        """End the run. An interrupt never hides another error."""
        with self._lock:
            if self.fatal is None or isinstance(self.fatal, errors.Interrupted):
                self.fatal = error
            self._wake()

    def close(self) -> None:
        """Wait until the queues are empty (or the run has failed) and all workers have ended."""
        with self._lock:
            self._closed = True
            self._wake()
            workers = list(self._workers)
        for worker in workers:
            worker.join()

    def waits(self) -> Waits:
        total = Waits()
        for worker in self._workers:
            total.add(worker.api.sockets.waits)
        return total

    def shut(self) -> None:
        """End every running request, from another thread."""
        for worker in list(self._workers):
            worker.api.shut()

    def _resize(self, most: int) -> None:
        most = min(most, self._cap)
        if most != self.most:
            self.most = most
            self.put(())
            self._wake()
            self.resized(most)

    def _wake(self) -> None:
        self._work.notify_all()
        self.rested.notify_all()
