"""Plan the work of one worker pool for the whole run.

The planner thread takes files from the walk, claims them in groups, divides them into sessions and queues jobs ahead
of the workers. Where the server has to be asked about files, a worker does that first. Workers keep their connections
until the run ends.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.bottleneck import Bottleneck, bottleneck
from uploader_cli.core.events import RunPaused, RunResumed, WarningCode
from uploader_cli.core.plan import SESSION_FILES, LocalFile, PlannedSession, Planner, plan_sessions, refusal
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.protocol import utf8
from uploader_cli.core.sizes import Groups, PackSize
from uploader_cli.transfer.batch_job import BatchJob, Flow
from uploader_cli.transfer.engine import TICK
from uploader_cli.transfer.file_checks import FileChecks
from uploader_cli.transfer.journal.reading import Claim
from uploader_cli.transfer.pack_job import PackJob, packs_of
from uploader_cli.transfer.pool import Job, Pool, Step, Worker
from uploader_cli.transfer.results import FileResult, failed
from uploader_cli.transfer.station import Carrier
from uploader_cli.transfer.stations import Stations
from uploader_cli.transfer.targets import meeting
from uploader_cli.transfer.tus_file import TusFile
from uploader_cli.transfer.tus_reading import Readings
from uploader_cli.transfer.tus_state import Tus, is_far
from uploader_cli.transfer.upload_calls import upload_calls
from uploader_cli.transfer.upload_session import RunContext, UploadSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from uploader_cli.core.protocol import Session
    from uploader_cli.transfer.engine import Supply
    from uploader_cli.transfer.targets import Opened

AHEAD = 2 * SESSION_FILES  # most files in progress: the next session is ready before one ends
CHECKED_AT_ONCE = 64  # files that are claimed and checked at once
PATIENCE = 0.5  # seconds without a new file after which an incomplete session starts


class Scheduler:
    """Send files with threads of this process, in as many sessions as the server's limits require."""

    def __init__(self, context: RunContext) -> None:
        self._api, self._settings = context.api, context.settings
        self.context = self._context = context
        self._stop, self._ledger, self._emit = context.stop, context.ledger, context.emit
        self._packs: PackSize | None = None
        self._opened: Opened | None = None
        self._pool = Pool(self._settings.jobs, self._make_worker, cap=self._settings.most_connections)
        self._stations = Stations(context)
        self._flow = Flow()
        self._blocked: deque[LocalFile] = deque()  # files that a proxy blocks, to be sent in batch mode
        self._began, self._cpu_before = time.monotonic(), time.process_time()
        self._claims: dict[int, Claim] = {}  # claims of files that are not in a session yet

    def bottleneck(self) -> Bottleneck | None:
        """Return what limited the speed of the run so far."""
        seconds, limit = time.monotonic() - self._began, self._settings.limit_rate
        return bottleneck(
            self._pool.waits(),
            cpu=time.process_time() - self._cpu_before,
            seconds=seconds,
            round_trip=self._api.request_ids.round_trip,
            limited=self._context.throttle.granted / max(1e-3, seconds) / limit if limit else None,
        )

    def toggle_pause(self) -> None:
        """Begin no request with content until this is called again; those being sent are completed."""
        held = self._context.pacer.held = not self._context.pacer.held
        self._pool.hold(on=held)
        self._emit(RunPaused() if held else RunResumed())

    def change_jobs(self, step: int) -> int:
        """Change the number of jobs and return it; `--jobs auto` no longer does."""
        return self._pool.resize(step)

    def shut(self) -> None:
        """End every request that is being sent, from another thread."""
        self._context.shut()
        self._pool.shut()
        self._stations.shut()

    def begin(self) -> None:
        """Announce the protocol and the number of jobs, once."""
        terms, wanted = self._context.terms, self._settings.protocol
        known = wanted if terms.tus is None and wanted in ("tus", "ietf") else terms.protocol
        self._context.begin(known, self._pool.most)

    def interrupted(self) -> None:
        """Let calls pass that leave the sessions; report what may be stored of the requests that were interrupted."""
        self._context.pacer.held = False  # sessions are cancelled also in a pause of the user
        if self._flow.unanswered:
            text = "the server had the whole request already: what was in it may be stored"
            self._context.warn(WarningCode.MAY_BE_STORED, text)

    def send(self, supply: Supply) -> None:
        """Send all files. Raise what ends the run."""
        early = None
        if not supply.ahead:
            self.begin()
            early = supply.take()
            if early is not None:
                self._ledger.admit(early)  # a failure of the first contact ends it, too
            if supply.ended:
                return
        with meeting(self.begin):
            self._opened = self._context.meet(supply.ahead)
        terms = self._context.terms
        if terms.tus is None:
            self._pool.auto = None
        else:
            self._context.pacer.overloaded = self._pool.overloaded
            readings = Readings(self._context.warn, known=terms.tells_missing)
            self._tus = Tus(self._context, self._pool, terms.tus, readings)
            if terms.packs is not None:
                self._packs = PackSize(
                    terms.packs,
                    self._settings.chunk_size,
                    self._pool.most,
                    limit_rate=self._settings.limit_rate,
                    far=is_far(self._api.request_ids.round_trip),
                )
                self._pool.resized = self._packs.share
        self.begin()
        if terms.tus is not None and is_far(round_trip := self._api.request_ids.round_trip):
            idle = self._pool.most - 1
            self._pool.connect_ahead(sum(self._tus.parts(file.size, idle, idle, round_trip) for file in supply.ahead))
        self._checks = FileChecks(self._context)
        try:
            self._plan(supply, early)
            while self._is_busy:
                self._check()
                self._rest()
        except BaseException as error:
            self._pool.fail(error)
            raise
        finally:
            self._pool.close()
            self._stations.close()
        self._raise()

    def _make_worker(self, pool: Pool) -> Worker:
        api, context = self._api.another(), self._context
        return Worker(pool, api, upload_calls(api, context.terms, context.chunk), self._finish)

    def _finish(self, worker: Worker, job: Job, outcomes: Sequence[FileResult]) -> None:
        """Take the results of a job through the stations, in its worker; queue again what falls back."""
        back = self._stations.take(Carrier(worker.api, job.session), outcomes)
        if back and job.session is not None:
            self._fall_back(worker, job, job.session, back)

    def _plan(self, supply: Supply, early: LocalFile | None) -> None:
        """Queue jobs until the walk has ended and all files are planned. Raise what ends the run."""
        planner = Planner(self._context.terms.limits)
        checking: deque[Future[list[tuple[LocalFile, Claim]]]] = deque()

        def check(files: list[LocalFile], pack: bool) -> None:
            checking.append(self._check_files(files, pack))

        groups, idle = Groups(self._packs, CHECKED_AT_ONCE, check), 0.0
        if early is not None:
            self._accept(early, groups)
        while True:
            self._check()
            while checking and checking[0].done():  # in the order of the walk
                for picked, claim in checking.popleft().result():
                    self._claims[picked.file] = claim
                    self._dispatch(planner.add(picked))
            full, file = len(self._ledger.open) - self._stations.kept >= AHEAD, None
            if not full and not supply.ended:
                file = supply.take(0.0 if groups or checking else TICK)
                idle = 0.0 if file is not None or groups or checking else idle + TICK
            if file is not None:
                self._accept(file, groups)
                continue
            groups.flush()
            if checking:
                wait([checking[0]], TICK)
            elif supply.ended or idle >= PATIENCE or (full and self._pool.takes_more):
                session = planner.cut()
                if session is None and supply.ended:
                    return
                self._dispatch(session)
            elif full:
                self._rest()

    def _check_files(self, files: Sequence[LocalFile], pack: bool) -> Future[list[tuple[LocalFile, Claim]]]:
        """Return the files of a group that are sent; where the server has to be asked, a worker does that."""
        checks, picked = self._checks, Future[list[tuple[LocalFile, Claim]]]()
        ended: list[FileResult] = []
        claimed = checks.claim(files, ended, pack=pack)
        if claimed is not None and not checks.asks(claimed):
            picked.set_result(checks.pick(self._api, files, claimed, ended, pack=pack))
            self._end(ended)
            return picked

        def ask(worker: Worker) -> Iterator[Sequence[FileResult]]:
            self._stop.checkpoint()
            sent = checks.pick(worker.api, files, claimed, ended, pack=pack)
            yield self._compared_later(ended)
            picked.set_result(sent)

        self._pool.put([Step(ask, None)])
        return picked

    def _compared_later(self, results: Sequence[FileResult]) -> list[FileResult]:
        """Queue what has to be compared of files that were not sent, and return the other results.

        To compare a stored file may take as long as to send it, and new files don't wait for that: each is a job behind
        all others, unless one lookup tells the digests of all.
        """
        consumes = self._settings.consumes
        now, later = list[FileResult](), list[FileResult]()
        for one in results:
            (later if one.skipped is not None and (consumes or one.compares) else now).append(one)
        together = consumes and self._context.terms.lookup is not None and later
        for group in [later] if together else [[one] for one in later]:
            self._pool.put([Step(partial(self._compare, group), None)], last=True)
        return now

    def _compare(self, results: Sequence[FileResult], _worker: Worker) -> Iterator[Sequence[FileResult]]:
        self._stop.checkpoint()
        if self._context.fails_fast:
            self._context.skip([one.file for one in results])
        else:
            yield results

    def _end(self, results: Sequence[FileResult]) -> None:
        """Take the results of files that were not sent through the stations."""
        self._stations.take(Carrier(self._api), results)

    def _accept(self, file: LocalFile, groups: Groups) -> None:
        file = self._stations.admit(file)
        self._ledger.admit(file)
        refused = refusal(file, self._context.terms.limits)
        if refused is not None:
            self._ledger.refuse(file, refused)
        elif (refused := self._context.target.refusal(file, self._stop.checkpoint)) is not None:
            self._end([failed(file, refused.code, refused.message)])
        else:
            groups.add(file)

    def _dispatch(self, planned: PlannedSession | None) -> None:
        """Queue the jobs of planned files, in a new session; first in the one that is open, as far as it has room."""
        if planned is None:
            return
        context, category = self._context, planned.category or self._settings.category
        parts: list[tuple[list[LocalFile], Session | None]] = [(planned.files, None)]
        if self._opened is not None and self._opened.session.category == category:
            (opened, capacity), self._opened = self._opened, None
            parts = [(planned.files[:capacity], opened), (planned.files[capacity:], None)]
        for files, there in parts:
            if not files:
                continue
            claims = [self._claims.pop(file.file) for file in files]
            if context.terms.tus is None:
                self._put_batch(files, category, there)
                continue
            try:
                made = there or context.target.open(self._api, category, len(files), files)
            except errors.UploaderError as error:
                if not context.outlasts(error):
                    raise
                self._end([FileResult(file, error) for file in files])
                continue
            session = UploadSession(context, made, len(files))
            # Names that are not UTF-8 may be equal there: the server counts a path with equal bytes once.
            session.ends_itself &= len({utf8(file.relative_path) for file in files}) == len(files)
            session.begin()
            if session.id:
                context.followers.body_sent(session.id)
            self._pool.put(list(self._tus_jobs(session, zip(files, claims, strict=True))))

    def _tus_jobs(self, session: UploadSession, files: Iterable[tuple[LocalFile, Claim]]) -> Iterator[Job]:
        """Yield one job for each large file and one for each pack of small files, in order."""
        for item in files if self._packs is None else packs_of(files, self._packs):
            if isinstance(item, list) and self._packs is not None:
                yield PackJob(self._context, self._pool, self._packs, session, item)
            elif isinstance(item, tuple):
                yield TusFile(self._tus, session, *item)

    def _fall_back(self, worker: Worker, job: Job, session: UploadSession, outcomes: Sequence[FileResult]) -> None:
        """Queue files for another protocol, because that of their job does not work for them.

        A file that can't be packed is sent with tus, in its session. Files whose uploads a proxy blocks are sent in
        batch mode, and share sessions. A file that is sent once more keeps its protocol (`settle_doubts`).
        """
        for outcome in outcomes:
            if outcome.error is not None:
                self._ledger.retry([outcome.file], outcome.error)
        stopped = [outcome for outcome in outcomes if isinstance(outcome.error, errors.PatchBlocked)]
        if stopped:
            self._context.warn_once(WarningCode.PATCH_BLOCKED, f"{stopped[0].error}: such files are sent in batch mode")
        blocked = list(outcomes) if isinstance(job, BatchJob) else stopped
        if blocked:
            self._blocked.extend(outcome.file for outcome in blocked)
            self._pool.put([Step(self._send_blocked, None)])
            session.over(worker.api, len(blocked), given_up=len(stopped))
        others = [outcome.file for outcome in outcomes if outcome not in blocked]
        replaced = {outcome.file.file: self._stored_before(outcome) for outcome in outcomes}
        claims = [
            Claim(ClaimState.NEW, self._context.run.creating(file, session.id, replaced=replaced[file.file]))
            for file in others
        ]
        jobs = [TusFile(self._tus, session, *item) for item in zip(others, claims, strict=True)]
        self._pool.put(jobs, first=True)

    def _stored_before(self, outcome: FileResult) -> tuple[str, ...]:
        """Return the upload at a tus endpoint that a file has which is sent once more."""
        url = outcome.content_location
        return (url,) if url is not None and not self._context.terms.keys else ()

    def _send_blocked(self, _worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Queue sessions for all blocked files; those that other workers are sending follow soon."""
        if self._blocked:
            self._stop.sleep(PATIENCE)
        files = [self._blocked.popleft() for _ in range(len(self._blocked))]
        for planned in plan_sessions(files, self._context.terms.limits):
            self._put_batch(planned.files, planned.category or self._settings.category, None)
        yield from ()

    def _put_batch(self, files: Sequence[LocalFile], category: str, opened: Session | None) -> None:
        self._api.budget.sessions_to_come += 1
        job = BatchJob(self._context, files, self._flow, category=category, opened=opened)
        self._pool.put([job])

    @property
    def _is_busy(self) -> bool:
        return not self._pool.at_rest or self._stations.kept > 0

    def _rest(self) -> None:
        """Wait until there is nothing to do, at most `TICK`."""
        with self._pool.rested:
            if self._is_busy and self._pool.fatal is None:
                self._pool.rested.wait(TICK)

    def _raise(self) -> None:
        """Raise what has ended the run in another thread."""
        if self._pool.fatal is not None:
            raise self._pool.fatal
        self._stations.check()

    def _check(self) -> None:
        self._stop.check()
        self._raise()
        self._pool.adapt(self._context.throttle)
