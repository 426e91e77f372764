"""Which file next: limits → sessions → the transfer, in a thread of its own.

`Engine.run` puts events: for every file exactly one of completed, failed, skipped or cancelled. It knows no renderer
and never waits for the realtime channel.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import SkipReason, WarningCode
from uploader_cli.core.plan import ASSUMED, Limits, LocalFile, PlannedSession, plan_sessions, refusal
from uploader_cli.core.protocol import Session
from uploader_cli.transfer.batch import Batch
from uploader_cli.transfer.confirm import Confirmation
from uploader_cli.transfer.context import Context
from uploader_cli.transfer.ledger import Ledger
from uploader_cli.transfer.limiter import Limiter, unlimited
from uploader_cli.transfer.negotiation import choose, endless
from uploader_cli.transfer.precheck import Precheck
from uploader_cli.transfer.retrying import retrying
from uploader_cli.transfer.session import SessionDesk, Work
from uploader_cli.transfer.session_queue import TICK, SessionQueue
from uploader_cli.transfer.tus import TusClient
from uploader_cli.transfer.tus_files import TusFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenacity import Retrying

    from uploader_cli.core.events import Event
    from uploader_cli.core.last_heard import LastHeard
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.context import Followers
    from uploader_cli.transfer.journal_run import RunHandle
    from uploader_cli.transfer.session_queue import Supply
    from uploader_cli.transfer.stop import Stop

FIRST_CONTACT_RETRIES = 2
"""Against a server that was never heard: a wrong address should be told soon."""


class Engine:
    """Sends files, one session after the other."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        emit: Callable[[Event], None],
        followers: Followers,
        last_heard: LastHeard,
        stop: Stop,
        *,
        run: RunHandle,
        remember: Callable[[Limits], None],
        announce: Callable[[str, int], None] = lambda _protocol, _jobs: None,
    ) -> None:
        """`run` is this run's hold on the journal; `remember` is told what the server takes, for a later dry run.

        `announce(protocol, jobs)` is called once, before anything else is told: when it is known how files will travel,
        or when it turns out that they won't.
        """
        throttle = Limiter(settings.limit_rate, stop.sleep) if settings.limit_rate else unlimited
        ledger = Ledger((), emit, dropped=run.dropped, let_go=run.let_go)
        self._context = Context(api, settings, emit, followers, last_heard, stop, ledger, run, throttle)
        self._remember, self._announce, self._announced = remember, announce, False
        self._desk = SessionDesk(self._context)
        self._confirm = Confirmation(self._context)
        self._batch = Batch(self._context, self._desk, self._confirm)
        self._tus: TusFiles | None = None
        self._opened: Session | None = None
        """A session to go on with, and how many files it has room for."""
        self._room = 0

    def run(self, supply: Supply) -> errors.UploaderError | None:
        """Send all that it yields. The error that ended the run early, if one did.

        Every file was told of either way, those too that the walk finds after an error; an interrupt ends the walk.
        """
        ended: errors.UploaderError | None = None
        try:
            try:
                self._run(supply)
            except errors.Interrupted:
                raise
            except errors.UploaderError as error:
                ended = error
                self._end(supply, error)
        except errors.Interrupted:
            self._begin()
            self._interrupted()
            for file in supply.close():
                self._context.ledger.admit(file)
            self._context.ledger.cancel_all()
        return ended

    def _begin(self) -> None:
        if not self._announced:
            self._announced = True
            wanted = self._context.settings.protocol
            protocol = "tus" if self._tus is not None or wanted == "tus" else "batch"
            self._announce(protocol, self._tus.jobs if self._tus is not None else 1)

    def shut(self) -> None:
        """End every request under way, from another thread."""
        self._context.api.shut()
        if self._tus is not None:
            self._tus.shut()

    def _end(self, supply: Supply, error: errors.UploaderError) -> None:
        """The run ends here, for the files too that nobody has seen yet."""
        ledger = self._context.ledger
        self._begin()
        ledger.fail_all(error)
        self._desk.abandon("partial")
        while not supply.ended:
            self._context.stop.check()
            file = supply.take(TICK)
            if file is not None:
                ledger.admit(file)
                ledger.fail(file, error)

    def _run(self, supply: Supply) -> None:
        if not supply.ahead:
            self._begin()
            supply.take()
            if supply.ended:
                return
        limits = self._endpoint() if self._context.settings.tus_endpoint else self._limits(supply.ahead)
        self._tus = self._choose()
        self._begin()
        if self._tus is not None:
            limits = replace(limits, empty_files=True)
        precheck = Precheck(self._context, limits)
        queue = SessionQueue(supply, lambda file: self._accept(file, precheck, limits), limits, self._context.stop)
        while (planned := queue.next()) is not None:
            self._send(planned, queue, precheck, limits)
            precheck.claims.clear()

    def _send(self, planned: PlannedSession, queue: SessionQueue, precheck: Precheck, limits: Limits) -> None:
        """Those of a planned session that may start, in a new session or in the one that is open already."""
        category = planned.category or self._context.settings.category
        opened = self._opened if self._opened is not None and self._opened.category == category else None
        waiting, files = deque(planned.files), list[LocalFile]()
        while waiting and (opened is None or len(files) < self._room):
            file = waiting.popleft()
            if self._may_start(file, precheck):
                files.append(file)
        if waiting:
            queue.put_back(PlannedSession(list(waiting)))
        self._context.api.budget.sessions_to_come = len(queue)
        if not files:
            return
        if opened is not None:
            self._opened = None
        elif self._context.settings.tus_endpoint:
            opened = Session("", "", None)
        work = Work(opened or self._new_session(len(files), category), limits, deque(files))
        if self._tus is not None:
            self._tus.send(work, precheck.claims)
        else:
            self._batch.send(work)

    def _choose(self) -> TusFiles | None:
        """Resumable transfer where the server offers it, unless batch was asked for (wire contract 5)."""
        offered = choose(self._context.settings, self._context.api.tus)
        return TusFiles(self._context, self._desk, self._confirm, offered) if offered is not None else None

    def _endpoint(self) -> Limits:
        """What a tus server takes, by its OPTIONS (wire contract 5): one endless session, as it were."""
        context = self._context
        client = TusClient(context.api.http, context.settings.target_url, context.api.authorization, context.api.note)
        context.api.tus = self._retrying(FIRST_CONTACT_RETRIES)(client.options)
        limits = endless(context.api.tus)
        self._remember(limits)
        return limits

    # --- what the server takes ----------------------------------------------------------------------------------------

    def _limits(self, files: Sequence[LocalFile]) -> Limits:
        """What the server takes. Afterwards a session may be open to go on with.

        Until a limit is known, `expectedFiles` is what fits the assumed ones, once more with 1 on a 400 (3.12).
        """
        api = self._context.api
        limits = self._retrying(FIRST_CONTACT_RETRIES)(api.health)
        if limits is not None:
            self._remember(limits)
            self._rejoin()
            return limits
        assumed = next(plan_sessions((file for file in files if not refusal(file, ASSUMED)), ASSUMED), None)
        category = (assumed.category if assumed is not None else None) or self._context.settings.category
        room = len(assumed.files) if assumed is not None else max(1, min(len(files), ASSUMED.max_files))
        try:
            session = self._new_session(room, category)
        except errors.AnswerError as error:
            if error.status != 400 or room == 1:
                raise
            room = 1
            session = self._new_session(room, category)
        if session.limits is not None:
            self._remember(session.limits)
        self._opened, self._room = session, room
        return session.limits or ASSUMED

    def _rejoin(self) -> None:
        """Go on with a session of the run before, where the server still knows it and it has not ended."""
        context = self._context
        for session_id in context.run.open_sessions():
            try:
                known = context.api.progress(session_id)
            except errors.AnswerError:
                known = None
            if known is not None and known.status in ("pending", "uploading") and known.total:
                room = known.total - (known.completed or 0) - (known.failed or 0)
                if room > 0:
                    self._opened, self._room = Session(session_id, context.settings.category, None), room
                    return
            context.run.session_closed(session_id)

    def _new_session(self, expected: int, category: str) -> Session:
        return self._retrying()(self._context.api.create_session, category, expected)

    def _retrying(self, at_most: int | None = None) -> Retrying:
        return retrying(self._context.settings, self._context.stop, at_most=at_most)

    # --- files --------------------------------------------------------------------------------------------------------

    def _accept(self, file: LocalFile, precheck: Precheck, limits: Limits) -> bool:
        """Whether the file is to be planned; one that need not or can't be sent is told of."""
        ledger = self._context.ledger
        ledger.admit(file)
        if not precheck.is_missing(file):
            return False
        refused = refusal(file, limits)
        if refused is not None:
            ledger.refuse(file, refused)
        return refused is None

    def _may_start(self, file: LocalFile, precheck: Precheck) -> bool:
        context = self._context
        context.stop.check()
        if context.settings.fail_fast and context.ledger.failures:
            context.ledger.skip(file, SkipReason.FAIL_FAST)
            return False
        return precheck.claim(file)

    def _interrupted(self) -> None:
        context, session = self._context, self._desk.current
        if self._batch.body_out:
            text = "the server had the whole request already: what was in it may be stored"
            context.warn(WarningCode.MAY_BE_STORED, text)
        if session is None:
            return
        if context.settings.cancel_on_interrupt:
            try:
                context.api.cancel(session)
                context.run.session_closed(session)
            except errors.UploaderError as error:
                context.warn(WarningCode.CANCEL_FAILED, f"session {session} was not cancelled: {error}")
        self._desk.abandon("cancelled")
