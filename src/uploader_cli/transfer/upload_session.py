"""What the jobs of a run share: its context and its upload sessions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import SessionCreated, SessionFinished, SkipReason, WarningCode
from uploader_cli.core.sizes import ChunkSize
from uploader_cli.sources.content import Digests
from uploader_cli.sources.unchanged import Doubts
from uploader_cli.transfer.budget import Limiter
from uploader_cli.transfer.ledger import Followers, Ledger, ends_run
from uploader_cli.transfer.pacer import holding
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.targets import target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.protocol import Session
    from uploader_cli.core.terms import Terms
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.journal.upload_journal import UploadJournal
    from uploader_cli.transfer.targets import Opened


class RunContext:
    def __init__(
        self,
        api: Api,
        followers: Followers,
        run: UploadJournal,
        *,
        started: Callable[[str, int], None] = lambda _protocol, _jobs: None,
        largest_chunk: int | None = None,
        outlasts_start: bool = False,
        reads: bool = True,
    ) -> None:
        """`started(protocol, jobs)` is called once, before any event of a file or a session.

        `largest_chunk` is the most bytes that a proxy of the server lets pass, known from an earlier run.
        `outlasts_start`: an outage is waited out at the first contact, too. `reads`: this process reads the files.
        """
        self.api, self.settings, self.followers, self.run = api, api.settings, followers, run
        self.emit, self.pacer, self.stop = api.emit, api.pacer, api.pacer.stop
        self.warn, self.warn_once = api.warn, api.warn_once
        self.ledger = Ledger(api.emit, run, api.url_of, verify=api.settings.verify)
        self.throttle = Limiter(api.settings.limit_rate, self.stop.sleep)
        self.doubts = Doubts()
        self.hashes = api.settings.hashes and reads  # all files (`--digest`), not only those that are sent once more
        self.digests = Digests(self.stop.checkpoint, None if self.hashes else self.doubts.is_sent_again)
        self.sessions: set[UploadSession] = set()  # open sessions
        self.target = target_of(api.settings)
        self.terms = self.target.unmet  # until `take`
        self.chunk = ChunkSize(api.settings.chunk_size, largest_chunk, api.settings.chunk_rule)
        self._started, self._beginning = started, threading.Lock()
        self._outlasts_start = outlasts_start or api.settings.unending
        self._prober: Api | None = None  # its client; one thread at a time uses it

    def begin(self, protocol: str, jobs: int) -> None:
        """Report the start of the run, once."""
        with self._beginning:
            started, self._started = self._started, lambda _protocol, _jobs: None
            started(protocol, jobs)

    def meet(self, files: Sequence[LocalFile]) -> Opened | None:
        """Make the first contact, and take the terms of the run; see `Target.meet`."""
        if self._outlasts_start:
            self.pacer.probe = self._probe
        terms, opened = self.target.meet(self.api, self.run, files, self.chunk)
        self.take(terms)
        return opened

    def take(self, terms: Terms) -> None:
        """Take the terms of the run. From now on outages are waited out."""
        self.terms, self.pacer.probe = terms, self._probe

    def _probe(self) -> None:
        api = self._prober = self.api.another()
        try:
            self.target.reach(api, self.terms)
        finally:
            api.close()

    def shut(self) -> None:
        """End the calls that are no worker's, from another thread."""
        self.api.shut()
        if self._prober is not None:
            self._prober.shut()

    def outlasts(self, error: errors.UploaderError) -> bool:
        """Return whether the run goes on without a session because of `error`: one without an end tries again later."""
        return self.settings.unending and error.retryable and not ends_run(error)

    @property
    def fails_fast(self) -> bool:
        return self.settings.fail_fast and self.ledger.has_failures

    def skip(self, files: Iterable[LocalFile]) -> None:
        for file in files:
            self.ledger.skip(FileResult(file), SkipReason.FAIL_FAST)


class UploadSession:
    """An open session, until its last file ends. A tus endpoint has none: its id is empty.

    Thread-safe; each call passes its own `Api`. No lock is taken during a call but that of a renewal.
    """

    def __init__(self, context: RunContext, session: Session, files: int) -> None:
        """`files` is the number of its files."""
        self.id, self.category, self._secret = session.session_id, session.category, session.secret
        self.ends_itself = files == session.expected  # the bundled server ends a session once it has stored all files
        self._context, self._left = context, files
        self._failures = self._given_up = 0
        self._lock, self._renewing = threading.Lock(), threading.Lock()
        self._open = self._renewed = False

    def begin(self) -> None:
        """Report the session and follow its progress."""
        self._open, context = True, self._context
        context.sessions.add(self)
        if self.id:
            context.run.session_opened(self.id, self.category, self._secret)
            context.emit(SessionCreated(self.id, self.category, self._left))
            context.followers.follow(self.id)

    def over(self, api: Api, files: int, *, failed: int = 0, given_up: int = 0) -> None:
        """Count ended files; close the session after the last one. The server has no result of `given_up` files."""
        with self._lock:
            self._left -= files
            self._failures += failed
            self._given_up += given_up
            if self._left > 0 or not self._open:
                return
            self._open = False
        if self.id:
            self._close(api)
        self._context.sessions.discard(self)

    def skip(self, api: Api, files: Sequence[LocalFile]) -> None:
        self._context.skip(files)
        self.over(api, len(files), given_up=len(files))

    def renew(self, api: Api, lost: str) -> bool:
        """Replace the session `lost` once (docs/protocol.md, section 3.14). Return False the second time.

        One thread creates the new one, others wait for it. Return False also where the run outlasts that this fails.
        """
        context = self._context
        with holding(self._renewing, context.stop.checkpoint):
            if self._renewed:
                return self.id != lost
            self._renewed = True
            try:
                made = context.target.open(api, self.category, max(1, self._left))
            except errors.UploaderError as error:
                if not context.outlasts(error):
                    raise
                return False
            why = "is gone on the server, or belongs to another client"
            context.warn(WarningCode.SESSION_LOST, f"session {lost} {why}: continuing in {made.session_id}")
            context.run.session_closed(lost, failed=True)
            self._leave("lost")
            self.id, self._secret, self.ends_itself = made.session_id, made.secret, False
            self.begin()
            return True

    def abandon(self, status: str) -> None:
        """Report the end of a run in the middle of the session; a resumed run may join it."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open and self.id:
            self._leave(status)

    def cancel(self, api: Api) -> None:
        if self._open and self.id:
            try:
                api.cancel(self.id)
                self._context.run.session_closed(self.id)
            except errors.UploaderError as error:
                self._context.warn(WarningCode.CANCEL_FAILED, f"session {self.id} was not cancelled: {error}")

    def _close(self, api: Api) -> None:
        context = self._context
        ended = self.ends_itself and not self._failures and not self._given_up
        if context.terms.limits.relative_paths and not ended:
            try:
                api.finish(self.id, self._given_up, retries=context.settings.retries)
            except errors.Interrupted:
                self._leave("cancelled")
                raise
            except errors.UploaderError as error:
                context.warn(WarningCode.FINISH_FAILED, f"session {self.id} was not finished: {error}")
        context.run.session_closed(self.id, failed=self._failures > 0)
        self._leave("partial" if self._failures else "completed")

    def _leave(self, status: str) -> None:
        self._context.emit(SessionFinished(self.id, status))
        self._context.followers.leave(self.id)
