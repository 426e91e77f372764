"""The driver of an import: it cuts the selection into tasks, submits them to Dask and applies what they report."""

from __future__ import annotations

import math
import pickle
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from msgspec import structs

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.presence import ClaimState
from uploader_cli.features.fleet import cluster as dask
from uploader_cli.features.fleet import worker
from uploader_cli.features.fleet.cluster import RUNNING, TICK
from uploader_cli.features.fleet.events import WORKERS, WorkersChanged
from uploader_cli.features.fleet.members import Member, Members, Sample
from uploader_cli.features.fleet.run_secret import run_secret, upload_key
from uploader_cli.features.fleet.task_news import Task, TaskNews
from uploader_cli.features.fleet.tasks import Cutter, TaskInput, cost, fields_of
from uploader_cli.features.fleet.worker import TaskResult
from uploader_cli.sources.files import absolute, status
from uploader_cli.transfer.file_checks import Checked, FileChecks
from uploader_cli.transfer.journal.reading import PendingUpload
from uploader_cli.transfer.journal.receipts import Stored
from uploader_cli.transfer.journal.run_handle import RunHandle
from uploader_cli.transfer.pacer import Stop
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.station import Carrier
from uploader_cli.transfer.stations import Stations
from uploader_cli.transfer.targets import meeting
from uploader_cli.transfer.upload_session import RunContext

if TYPE_CHECKING:
    from uploader_cli.transfer.engine import Supply
    from uploader_cli.transfer.file_checks import Picked


CLAIMED_AT_ONCE = 500  # files that are claimed in the journal at once
UNKNOWN_AFTER = 5.0  # seconds without an answer of the server after which the run begins without a number of workers
TAKEN = 5000  # most files taken from the walk between two looks at the tasks
PATIENCE = 0.5  # seconds without a new file after which an incomplete task is submitted
GRACE = 1.5  # seconds that tasks get to stop
HALVED_EVERY = 5.0  # seconds between two reductions of the number of tasks after a 429 or 503
TOLD_EVERY = 1.0  # seconds between two reports about the workers
SAMPLES_TRIED = 3  # files that are tried as the one that each worker must see
LISTED_WITHIN = 2.0  # seconds until the first list of the workers
NO_WORKERS = 10.0  # seconds without a worker until a warning


class Driver:
    """Send files with the workers of a Dask cluster. It stands in for the scheduler of one process."""

    most_open = staticmethod(dask.most_open)
    check = staticmethod(dask.check)

    def __init__(self, context: RunContext, run: RunHandle, after: ExitStack) -> None:
        """`after` closes the cluster after the run: the end of its processes is no part of it."""
        self._api, self._settings, self._after = context.api, context.settings, after
        self.context = self._context = context
        self._stop, self._ledger, self._emit = context.stop, context.ledger, context.emit
        self._run = run
        self._tasks: dict[int, Task] = {}
        self._cutter, self._submitted = Cutter(), 0
        # numbers of tasks, and pickled news; none once the task has ended
        self._inbox: SimpleQueue[tuple[int, bytes | None]] = SimpleQueue()
        # files of tasks whose workers died or hang, with the names of these
        self._lost: deque[tuple[list[LocalFile], tuple[str, ...]]] = deque()
        self._news = TaskNews(context, run, pause=self._pause, overloaded=self._overloaded)
        self._gone: list[Member] = []
        self._most: float = math.inf  # of tasks, after the server was overloaded
        self._halved_at = self._taken_at = 0.0
        self._told_at = 0.0
        self._alone_since, self._alone = 0.0, False
        processes = (self._settings.on or "").removeprefix("local:")
        self._slots, self._paused = int(processes) if processes.isdecimal() else 1, False
        self._jobs: int | None = None  # most tasks, where the user has chosen it with a key
        self._at_once = Stop()

    def bottleneck(self) -> None:
        """Return nothing: it is not known what limited the workers."""

    def toggle_pause(self) -> None:
        """Submit no task until this is called again; those that run are completed."""
        self._paused = not self._paused
        self._emit(ev.RunPaused() if self._paused else ev.RunResumed())

    def change_jobs(self, step: int) -> int:
        """Change the maximum number of tasks and return it."""
        self._jobs = max(1, (self._slots if self._jobs is None else self._jobs) + step)
        return self._jobs

    def shut(self) -> None:
        """Wait for nothing more, from another thread."""
        self._at_once.set()
        self._context.shut()

    def _contact(self) -> None:
        api, settings, context = self._api, self._settings, self._context
        offer = context.target.ask(api, context.chunk)
        looks_up = offer.lookup is not None and offer.limits is not None and offer.limits.relative_paths
        if offer.tus is None or (context.terms.sessions and not looks_up):
            raise api.lacking(
                f"{settings.server} can't take imports: it has no resumable uploads, or can't look up stored files",
                hint="use `uploader upload`, on each machine for its part of the files",
            )
        context.take(context.target.agreed(offer, ()))
        # What a lookup tells, the workers ask for; without one only this process knows what was sent.
        skips = settings.skip_existing and not looks_up
        self._options = {**dask.travelling(settings), "skip_existing": settings.skip_existing and looks_up}
        self._compares = settings.verify and settings.skips_sent and looks_up
        # Whatever the receipts say of files that are compared: the workers get them.
        sent_here = settings.resume and not (settings.resend or self._compares or skips)
        self._checks = FileChecks(context, Checked(skips, skips_sent=sent_here, verify=False))
        self._stations = Stations(context)
        self._secret = run_secret(settings.state_path, self._run.number)

    def begin(self) -> None:
        """Announce the number of tasks at once, once."""
        self._context.begin("tus", self._slots)

    def interrupted(self) -> None:
        """Nothing to do: the tasks have been stopped."""

    def send(self, supply: Supply) -> None:
        """Send all files. Raise what ends the run."""
        with meeting(self.begin, after=None if self._settings.on == f"local:{self._slots}" else UNKNOWN_AFTER):
            self._contact()
        cluster = dask.connected(self._settings, self._run.id, self._hear, self._stop, self._at_once)
        self._cluster = self._after.enter_context(cluster)
        self._members = Members(
            self._cluster,
            self._options,
            self._emit,
            wake=lambda: self._inbox.put((0, None)),
            outlast=self._outlast,
        )
        try:
            self._submit_all(supply)
        except BaseException as error:
            if isinstance(error, errors.UploaderError):
                self._stop_tasks()
            self._after.close()
            raise

    def _submit_all(self, supply: Supply) -> None:
        """Submit tasks until the walk has ended and all files are sent. Raise what ends the run."""
        self._slots = max(1, sum(one.threads for one in self._cluster.listed(LISTED_WITHIN).values()))
        self.begin()
        self._alone_since = time.monotonic()
        while not (supply.ended and not self._cutter.files and not self._tasks and not self._lost):
            self._stop.checkpoint()
            self._take(supply)
            self._look()
            if self._context.fails_fast:
                self._context.skip([*self._cutter.files, *(file for files, _ in self._lost for file in files)])
                self._cutter.clear()
                self._lost.clear()
            last = supply.ended or time.monotonic() - self._taken_at >= PATIENCE
            while (member := self._room()) is not None:
                if self._lost:
                    self._submit(member, *self._lost.popleft())
                elif files := self._cutter.cut(max(1, self._slots), last=last):
                    self._submit(member, self._claimed(files))
                else:
                    break
            self._receive(TICK)

    def _take(self, supply: Supply) -> None:
        for _ in range(TAKEN):
            if supply.ended or (file := supply.take()) is None:
                return
            self._ledger.admit(file)
            if file.upload_url:
                hint = "use `uploader upload`"
                raise errors.UsageError(f"{file.path} has an upload_url, which is not sent to workers", hint=hint)
            self._taken_at = time.monotonic()
            self._cutter.add(file)

    def _room(self) -> Member | None:
        """Return the worker for the next task, if there may be another one."""
        most = self._most
        for limit in (self._jobs, self._settings.most_connections):
            most = most if limit is None else min(most, limit)
        if len(self._tasks) >= most or self._paused or time.monotonic() < self._news.paused_until:
            return None
        return self._members.free()

    def _claimed(self, files: Sequence[LocalFile]) -> list[LocalFile]:
        """Return the files that the run has not sent before."""
        return [
            file
            for start in range(0, len(files), CLAIMED_AT_ONCE)
            for file in self._picked(files[start : start + CLAIMED_AT_ONCE])
        ]

    def _picked(self, files: Sequence[LocalFile]) -> list[LocalFile]:
        keys, ended = self._context.terms.keys, list[FileResult]()
        picked = self._checks.pick(self._api, files, None, ended, pack=keys)
        self._stations.take(Carrier(self._api), ended)
        if not keys:
            self._share(picked)
        return [file for file, _ in picked]

    def _share(self, picked: Picked) -> None:
        """Note what workers get of the uploads of claimed files, and the keys that they make themselves."""
        new = list[tuple[LocalFile, PendingUpload]]()
        for file, claim in picked:
            if claim.upload is None:
                continue
            if claim.outdated is not None:
                self._news.uploads[file.file] = structs.replace(claim.upload, replaced=tuple(claim.outdated.urls))
            elif claim.state is not ClaimState.NEW:  # workers of a lost driver may have sent more
                self._news.uploads[file.file] = claim.upload.outdated()
            else:
                new.append((file, PendingUpload(upload_key(self._secret, file))))
        if new:
            self._run.put(new)

    def _submit(self, member: Member, files: Sequence[LocalFile], lost_by: tuple[str, ...] | None = None) -> None:
        """Submit a task to a worker; `lost_by` are those that died or hung with the files."""
        if not files:
            return
        self._submitted += 1
        number, again = self._submitted, lost_by is not None or self._run.resumed_from is not None
        sent = tuple(fields_of(file, absolute(file.source)) for file in files)
        uploads = self._news.uploads
        known = {file.file: uploads[file.file] for file in files if file.file in uploads}
        given = TaskInput(
            self._run.id,
            number,
            member.process,
            self._shared(),
            self._secret,
            again,
            sent,
            None if self._context.terms.keys else known,
            self._receipts(files),
        )
        future = self._cluster.submit(worker.send, (given,), member.address, f"{worker.TOPIC}-{given.run}-{number}")
        now = time.monotonic()
        left = {file.file: file for file in files}
        self._tasks[number] = Task(left, cost(files), future, member, now, lost_by=lost_by or ())
        member.tasks.add(number)
        future.add_done_callback(lambda _future: self._inbox.put((number, None)))

    def _receipts(self, files: Sequence[LocalFile]) -> dict[int, Stored]:
        """Return the receipts of earlier runs with whose files a worker compares what the server has (`--verify`)."""
        if not self._compares:
            return {}
        known = zip(files, self._run.receipts(files), strict=True)
        return {file.file: receipt for file, receipt in known if receipt is not None}

    def _shared(self) -> dict[str, object]:
        """Return the options of a task, which gets its part of `--limit-rate`."""
        limit, most = self._settings.limit_rate, self._settings.most_connections
        if limit is None or most is None:
            return self._options
        return {**self._options, "limit_rate": str(limit // max(1, min(self._slots, most)))}

    # What tasks report

    def _hear(self, message: tuple[str, int, bytes]) -> None:
        """Take a message of a task, in a thread of Dask."""
        run, number, news = message
        if run == self._run.id:
            self._inbox.put((number, news))

    def _receive(self, wait: float) -> None:
        """Apply what has arrived, after waiting for it, and the results of tasks that have ended."""
        self._read(wait)
        ended = [number for number, task in self._tasks.items() if task.future.status not in RUNNING]
        self._read(0.0)  # what they reported before they ended
        for number in ended:
            self._end(number, self._tasks[number])

    def _read(self, wait: float) -> None:
        """Apply the messages of tasks, after waiting for the first one."""
        with suppress(Empty):
            number, news = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            while True:
                if news is not None and (task := self._tasks.get(number)) is not None:
                    self._news.apply(task, pickle.loads(news))  # noqa: S301 - Dask sends pickles, too
                number, news = self._inbox.get_nowait()

    def _end(self, number: int, task: Task) -> None:
        """Apply the result of a task. Raise what ends the run."""
        try:
            sent: TaskResult | None = self._cluster.result(task.future)
        except TimeoutError:  # its worker has just died
            return
        except Exception as error:
            if type(error).__name__ != "KilledWorker":
                raise
            sent = None
        if sent is None or sent.process != task.member.process:
            self._members.replaced(task.member)
            self._lose(number, f"worker {task.member.name} died", died=True)
            return
        self._news.apply(task, sent.ends)
        self._cutter.measured(task.cost, sent.seconds)
        self._most += 1
        self._forget(number)
        if sent.error is not None:
            if isinstance(sent.error, errors.Unauthorized):
                sent.error.hint = "the workers read the token from their environment, --token-file or --token-command"
            sent.error.args = (f"{sent.error} (worker {task.member.name})",)
            raise sent.error

    def _forget(self, number: int, sessions: str = "lost") -> Task:
        """Return a task that has ended or is given up; what it left of its sessions ends with this status."""
        task = self._tasks.pop(number)
        self._news.leave(task, sessions)
        task.member.tasks.discard(number)
        for file in task.files:
            task.member.sending.pop(file, None)
        return task

    def _lose(self, number: int, why: str, *, died: bool) -> None:
        """Send the files of a task with another worker, unless too many workers have `died`, or hung, with them."""
        task = self._forget(number)
        if not task.files:
            return
        if not died:  # it may send more
            self._news.uploads |= {n: upload.outdated() for n in task.files if (upload := self._news.uploads.get(n))}
        names = (*task.lost_by, task.member.name) if died or task.begun else task.lost_by
        if len(names) > self._cluster.allowed_losses:
            lost = errors.NetworkError(f"the workers that sent it died or made no progress: {', '.join(names)}")
            self._ledger.end([FileResult(file, lost) for file in task.files.values()])
            return
        self._lost.append((list(task.files.values()), names))
        self._news.lost(task, why)

    def _pause(self, seconds: float) -> None:
        self._cluster.pause(seconds)

    def _overloaded(self) -> None:
        """Halve the number of tasks after a 429 or 503; each task that ends adds one again."""
        now = time.monotonic()
        if now - self._halved_at >= HALVED_EVERY:
            self._halved_at = now
            self._most = max(1, min(self._most, self._slots, len(self._tasks)) // 2)

    def _look(self) -> None:
        """Learn which workers there are; give the tasks of lost ones to others. Raise what ends the run."""
        for member in self._gone:
            for number in list(member.tasks):
                self._lose(number, f"worker {member.name} died", died=True)
        self._gone = self._members.look(self._sample)  # their last messages arrive before the next look
        self._slots = self._members.slots
        now, seconds = time.monotonic(), self._settings.task_timeout
        for member in {task.member.address: task.member for task in self._tasks.values()}.values():
            since = [task.heard if task.begun else max(task.heard, member.heard) for task in self._of(member)]
            if now - max(min(since), self._news.paused_until) > seconds:
                self._members.hangs(member)
                for number in list(member.tasks):
                    self._lose(number, f"worker {member.name} made no progress for {seconds:.0f} s", died=False)
        if now - self._told_at >= TOLD_EVERY:
            self._told_at = now
            self._emit(WorkersChanged(self._members.shown(), self._cluster.dashboard))
        if self._members.promising(self._settings.cluster_timeout):
            self._alone_since, self._alone = now, False
        else:
            self._wait_for_workers(now - self._alone_since)

    def _of(self, member: Member) -> list[Task]:
        return [self._tasks[number] for number in member.tasks]

    def _wait_for_workers(self, waited: float) -> None:
        """Warn while no worker can take part. Raise why, after `--wait-for-server` or if waiting can't help."""
        if (unfit := self._members.unfit()) is not None:
            raise unfit
        place, limit = self._settings.on, self._settings.wait_for_server
        what = f"no worker {'has passed its test' if len(self._members) else 'is connected'} at {place}"
        if waited > max(NO_WORKERS, limit):
            raise errors.NetworkError(what, hint="start `dask worker`")
        if waited > NO_WORKERS and not self._alone:
            self._alone = True
            self._emit(ev.RunWarning(WORKERS, f"{what}: waiting up to {limit:.0f} s (--wait-for-server)"))

    def _outlast(self, error: errors.UploaderError) -> None:
        """Wait for the end of an outage that a worker has met, if the server can't be reached here, either."""
        if self._context.pacer.outlast(error, lambda _error, _delay: None):
            self._news.paused_until = time.monotonic()  # tasks waited, too

    def _sample(self) -> Sample | None:
        """Return a file that each worker must see: one that is here as it was selected; None without files yet."""
        files = [*islice(self._cutter.files, SAMPLES_TRIED), *islice(self._ledger.open.values(), SAMPLES_TRIED)]
        for file in files:
            with suppress(OSError):
                found = status(file.source)
                if (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns):
                    return fields_of(file, absolute(file.source))
        return () if files else None

    # The end

    def _stop_tasks(self) -> None:
        """Stop the tasks in order and apply their results."""
        self._cluster.stop()
        end = time.monotonic() + GRACE
        while self._tasks and time.monotonic() < end and not self._at_once:
            with suppress(errors.UploaderError):  # the first one counts
                self._receive(TICK)
        for number in list(self._tasks):
            self._forget(number, "cancelled")
        self._tasks.clear()  # Dask cancels what nobody waits for
