"""The workers of a cluster: which take part in an import, which are kept out, and what each has done."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_cli import __version__, errors
from uploader_cli.core import events as ev
from uploader_cli.features.fleet import worker
from uploader_cli.features.fleet.cluster import RUNNING
from uploader_cli.features.fleet.events import WORKERS, WorkerPhase, WorkerSeen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Future

    from uploader_cli.features.fleet.cluster import Cluster

CHECKED_AGAIN = 10.0  # seconds until a worker that is kept out is checked again

Sample = tuple[object, ...]
"""The fields of a file that each worker must see (`tasks.fields_of`); empty where none can be used for that."""


@dataclass(slots=True)
class Member:
    """A worker process. `process` is the mark of the one that passed the check; empty while it gets no task."""

    address: str
    name: str
    threads: int
    heard: float  # time of its last sign of life (monotonic)
    since: float  # time when it was first listed (monotonic)
    process: str = ""
    problem: errors.UploaderError | None = None  # why it is kept out
    silent: bool = False  # its tasks made no progress, and went to others
    doubted: bool = False  # its last check has failed for the first time, for a reason that may be over
    heartbeat: float = 0.0  # of the scheduler's clock
    tasks: set[int] = field(default_factory=set)
    files: int = 0  # that have ended there
    bytes: int = 0  # sent of them
    sending: dict[int, int] = field(default_factory=dict)  # bytes sent of files that have not ended
    check: Future[Any] | None = None
    checked_at: float = 0.0

    @property
    def phase(self) -> WorkerPhase:
        if self.silent:
            return WorkerPhase.SILENT
        if self.problem is not None:
            return WorkerPhase.KEPT_OUT
        return WorkerPhase.READY if self.process else WorkerPhase.CHECKED

    @property
    def sent(self) -> int:
        return self.bytes + sum(self.sending.values())


class Members:
    """The workers that the scheduler lists. One gets tasks once its check has succeeded."""

    def __init__(
        self,
        cluster: Cluster,
        options: Mapping[str, object],
        emit: Callable[[ev.Event], None],
        *,
        wake: Callable[[], None],
        outlast: Callable[[errors.UploaderError], None],
    ) -> None:
        """`wake` is called once a check has ended; `outlast(error)` waits where the server is down for all."""
        self._cluster, self._options, self._emit = cluster, options, emit
        self._wake, self._outlast = wake, outlast
        self._all: dict[str, Member] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def slots(self) -> int:
        """The number of tasks that run at once, also of workers that are being checked."""
        return sum(one.threads for one in self._all.values() if one.phase in (WorkerPhase.READY, WorkerPhase.CHECKED))

    def promising(self, seconds: float) -> bool:
        """Return whether a worker takes part, or is new: its first check has not taken `seconds` yet."""
        newest = time.monotonic() - seconds
        return any(
            one.process or (one.phase is WorkerPhase.CHECKED and one.since > newest) for one in self._all.values()
        )

    def look(self, sample: Callable[[], Sample | None]) -> list[Member]:
        """Take the scheduler's list, check new workers with a file of the run, and return those that are gone."""
        listed, now = self._cluster.listed(), time.monotonic()
        gone = [self._all.pop(address) for address in list(self._all) if address not in listed]
        for address, known in listed.items():
            member = self._all.get(address)
            if member is None:
                member = self._all[address] = Member(address, known.name, known.threads, now, now)
            if known.heartbeat != member.heartbeat:
                member.heartbeat, member.heard = known.heartbeat, now
            if not member.process:
                self._check(member, now, sample)
        return gone

    def shown(self) -> tuple[WorkerSeen, ...]:
        """Return what the view says of each worker, by its name."""
        now = time.monotonic()
        return tuple(
            WorkerSeen(one.name, one.phase, one.files, one.sent, now - one.heard)
            for one in sorted(self._all.values(), key=lambda one: (len(one.name), one.name))
        )

    def free(self) -> Member | None:
        """Return the worker with the fewest tasks for its threads; None if each has one more than threads."""
        ready = [one for one in self._all.values() if one.process and len(one.tasks) <= one.threads]
        return min(ready, key=lambda one: len(one.tasks) / one.threads, default=None)

    def replaced(self, member: Member) -> None:
        """Check a worker again: another process answers at its address."""
        member.process = ""

    def hangs(self, member: Member) -> None:
        """Send no task to a worker until it passes a check again; stop its tasks, if it hears that."""
        member.process, member.silent = "", True
        self._cluster.stop(member.address)

    def unfit(self) -> errors.UploaderError | None:
        """Return why no worker can take part: the problem of the first, if all have one for good."""
        problems = [one.problem for one in self._all.values()]
        return problems[0] if problems and not any(one is None or one.retryable for one in problems) else None

    def _check(self, member: Member, now: float, sample: Callable[[], Sample | None]) -> None:
        """Begin a check, or take its result."""
        if member.check is None:
            file = sample() if now >= member.checked_at else None
            if file is not None:
                given = (__version__, self._options, file)
                key = f"{worker.TOPIC}-check-{secrets.token_hex(8)}"
                member.check = self._cluster.submit(worker.preflight, given, member.address, key)
                member.check.add_done_callback(lambda _future: self._wake())
            return
        if member.check.status in RUNNING:
            return
        check, member.check, member.checked_at = member.check, None, now + CHECKED_AGAIN
        try:
            found: worker.Preflight = self._cluster.result(check)
        except TimeoutError:  # it has just died
            return
        except errors.UploaderError:
            raise
        except Exception as error:  # noqa: BLE001 - of whatever the worker has installed
            hint = "install the same version of uploader-cli on all workers"
            found = worker.Preflight("", errors.UsageError(f"it can't run imports: {error}", hint=hint), [])
        self._checked(member, found)

    def _checked(self, member: Member, found: worker.Preflight) -> None:
        for call in found.calls:
            self._emit(call)
        problem = found.error
        doubted, member.doubted = member.doubted, False
        if problem is not None and problem.retryable and not doubted:  # it may have met an outage, or a restart
            self._outlast(problem)
            member.doubted, member.checked_at = True, 0.0
            return
        if problem is None:
            member.process = found.process
            if member.silent or member.problem:
                self._warn(f"worker {member.name} takes part again")
        else:
            problem.args = (f"worker {member.name} takes no part: {problem}",)
            if str(problem) != str(member.problem):
                self._warn(str(problem))
        member.problem, member.silent = problem, False

    def _warn(self, text: str) -> None:
        self._emit(ev.RunWarning(WORKERS, text))
