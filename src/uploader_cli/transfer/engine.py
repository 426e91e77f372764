"""Which file next: limits → sessions → the transfer, in a thread of its own.

`Engine.run` puts events: for every file exactly one of completed, failed, skipped or cancelled. It knows no renderer
and never waits for the realtime channel.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import RunWarning, SkipReason, WarningCode
from uploader_cli.core.plan import ASSUMED, Limits, LocalFile, PlannedSession, plan_sessions, refusal
from uploader_cli.transfer.batch import Batch, Work
from uploader_cli.transfer.ledger import Ledger
from uploader_cli.transfer.multipart import open_unchanged
from uploader_cli.transfer.retrying import retrying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tenacity import Retrying

    from uploader_cli.core.events import Event
    from uploader_cli.core.protocol import Session
    from uploader_cli.core.sightings import Sightings
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.batch import Followers
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
        sightings: Sightings,
        stop: Stop,
        *,
        remember: Callable[[Limits], None],
    ) -> None:
        """`remember` is told what the server takes, for a later dry run."""
        self._api, self._settings, self._emit, self._stop = api, settings, emit, stop
        self._followers, self._sightings, self._remember = followers, sightings, remember

    def run(self, files: Sequence[LocalFile]) -> errors.UploaderError | None:
        """Send all of them. The error that ended the run early, if one did; every file was told of either way."""
        ledger = Ledger(files, self._emit)
        batch = Batch(self._api, self._settings, self._emit, self._followers, self._sightings, self._stop, ledger)
        try:
            self._run(files, ledger, batch)
        except errors.Interrupted:
            self._interrupted(batch)
            ledger.cancel_all()
        except errors.UploaderError as error:
            ledger.fail_all(error)
            batch.abandon("partial")
            return error
        return None

    def _run(self, files: Sequence[LocalFile], ledger: Ledger, batch: Batch) -> None:
        if not files:
            return
        limits, opened, room = self._limits(files)
        sessions = deque(plan_sessions(_acceptable(files, limits, ledger), limits))
        while sessions:
            planned = sessions.popleft().files
            if opened is not None and len(planned) > room:
                sessions.appendleft(PlannedSession(planned[room:]))
                planned = planned[:room]
            self._api.budget.sessions_to_come = len(sessions)
            planned = [file for file in planned if self._may_start(file, ledger)]
            if not planned:
                continue
            session = opened or self._retrying()(self._api.create_session, self._settings.category, len(planned))
            opened = None
            batch.send(Work(session, limits, deque(planned)))

    def _limits(self, files: Sequence[LocalFile]) -> tuple[Limits, Session | None, int]:
        """What the server takes; where only a session answer tells, that session and how many files it was opened for.

        Until a limit is known, `expectedFiles` is what fits the assumed ones, once more with 1 on a 400 (3.12).
        """
        limits = self._retrying(FIRST_CONTACT_RETRIES)(self._api.health)
        if limits is not None:
            self._remember(limits)
            return limits, None, 0
        assumed = next(plan_sessions((file for file in files if not refusal(file, ASSUMED)), ASSUMED), None)
        room = len(assumed.files) if assumed is not None else min(len(files), ASSUMED.max_files)
        try:
            session = self._retrying()(self._api.create_session, self._settings.category, room)
        except errors.AnswerError as error:
            if error.status != 400 or room == 1:
                raise
            room = 1
            session = self._retrying()(self._api.create_session, self._settings.category, room)
        if session.limits is not None:
            self._remember(session.limits)
        return session.limits or ASSUMED, session, room

    def _may_start(self, file: LocalFile, ledger: Ledger) -> bool:
        self._stop.check()
        if self._settings.fail_fast and ledger.failures:
            ledger.skip(file, SkipReason.FAIL_FAST)
            return False
        try:
            open_unchanged(file).close()
        except errors.FileError as error:
            ledger.fail(file, error)
            return False
        return True

    def _retrying(self, at_most: int | None = None) -> Retrying:
        return retrying(self._settings, self._stop, at_most=at_most)

    def _interrupted(self, batch: Batch) -> None:
        if batch.body_out:
            text = "the server had the whole request already: what was in it may be stored"
            self._emit(RunWarning(WarningCode.MAY_BE_STORED, text))
        if batch.session is None:
            return
        if self._settings.cancel_on_interrupt:
            try:
                self._api.cancel(batch.session)
            except errors.UploaderError as error:
                text = f"session {batch.session} was not cancelled: {error}"
                self._emit(RunWarning(WarningCode.CANCEL_FAILED, text))
        batch.abandon("cancelled")


def _acceptable(files: Iterable[LocalFile], limits: Limits, ledger: Ledger) -> Iterator[LocalFile]:
    """Those that the server would take; the others are told of."""
    for file in files:
        refused = refusal(file, limits)
        if refused is None:
            yield file
        else:
            ledger.refuse(file, refused)
