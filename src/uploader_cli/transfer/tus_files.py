"""The files of one session by tus: several workers take one after the other (wire contract 5)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import Paused, SkipReason, WarningCode
from uploader_cli.core.tus import LARGE
from uploader_cli.transfer.tus_types import Terms
from uploader_cli.transfer.tus_worker import Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.tus import Capabilities
    from uploader_cli.transfer.confirm import Confirmation
    from uploader_cli.transfer.context import Context
    from uploader_cli.transfer.journal_records import Claim
    from uploader_cli.transfer.session import SessionDesk, Work
    from uploader_cli.transfer.tus import TusClient

AUTO_JOBS = 4


class TusFiles:
    """Sends the files of one session at a time."""

    def __init__(self, context: Context, desk: SessionDesk, confirm: Confirmation, capabilities: Capabilities) -> None:
        """Raises `UsageError` for a checksum that the server does not offer."""
        settings = context.settings
        try:
            checksum = capabilities.checksum(settings.checksum)
        except ValueError as error:
            raise errors.UsageError(f"--checksum: {error}", hint="--checksum auto takes what is offered") from error
        self.context, self.confirm = context, confirm
        self.terms = Terms(
            stop=context.stop,
            budget=context.api.budget,
            capabilities=capabilities,
            chunk_size=settings.chunk_size,
            checksum=checksum,
            retries=settings.retries,
            max_wait=settings.max_wait,
            refresh=context.api.refresh,
            throttle=context.throttle,
        )
        self.jobs = AUTO_JOBS if settings.jobs == "auto" else settings.jobs
        self.claims: Mapping[int, Claim] = {}
        self._desk = desk
        self._lock = threading.Lock()
        self._running = 0
        self._paused_until = 0.0
        self._workers: list[Worker] = []

    def send(self, work: Work, claims: Mapping[int, Claim]) -> None:
        """Send all files of a session. Raises what ends the whole run: no server, no permission, an interrupt.

        `claims` is what the journal has of each file, by its number.
        """
        failures = self.context.ledger.failures
        self.claims = claims
        self._desk.open(work)
        self.context.followers.body_sent(work.session.session_id)
        self._workers = [Worker(self, work) for _ in range(min(self.jobs, len(work.waiting)))]
        for worker in self._workers:
            worker.start()
        for worker in self._workers:
            worker.join()
        fatal = [worker.fatal for worker in self._workers if worker.fatal is not None]
        if fatal:
            raise next((error for error in fatal if not isinstance(error, errors.Interrupted)), fatal[0])
        self._desk.close(work, failures=self.context.ledger.failures > failures)

    def shut(self) -> None:
        """End every request under way, from another thread."""
        for worker in self._workers:
            worker.shut()

    def probe(self, client: TusClient) -> None:
        """Raise where the server does not answer at all."""
        if self.context.settings.tus_endpoint:
            client.options()
        else:
            self.context.api.health()

    # --- what the workers ask -----------------------------------------------------------------------------------------

    def take(self, work: Work) -> tuple[LocalFile, int] | None:
        """The next file, and in how many parts it may go: more than one where it is large and workers are idle."""
        with self._lock:
            while work.waiting:
                file = work.waiting.popleft()
                if self.context.settings.fail_fast and self.context.ledger.failures:
                    self.context.ledger.skip(file, SkipReason.FAIL_FAST)
                    continue
                self._running += 1
                idle = self.jobs - self._running - len(work.waiting)
                splits = file.size >= LARGE and self.terms.capabilities.concatenates
                return file, 1 + max(0, idle) if splits else 1
        return None

    def done(self) -> None:
        """A worker is free again."""
        with self._lock:
            self._running -= 1

    def halt(self, work: Work) -> None:
        """Something ended the run: no other file is taken."""
        with self._lock:
            work.waiting.clear()

    def paused(self, seconds: float) -> None:
        """The server's rate limit: all workers wait, and one word about it is enough."""
        until = time.monotonic() + seconds
        with self._lock:
            told, self._paused_until = self._paused_until, max(until, self._paused_until)
        if until > told + 1.0:
            self.context.emit(Paused(seconds, "the server's rate limit"))
            words = f"rate limited: waiting {seconds:.0f} s as the server asked"
            self.context.warn(WarningCode.RATE_LIMITED, words)

    def renew(self, work: Work, lost: str) -> bool:
        """The session is gone: make a new one, once for all workers; False where that was done already and lost too."""
        with self._lock:
            if work.session.session_id != lost:
                return True
            if work.renewed:
                return False
            self._desk.renew(work, len(work.waiting) + self._running)
            self._desk.open(work)
            self.context.followers.body_sent(work.session.session_id)
            return True
