"""The ledger of files in progress, for all jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, TypeAlias

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import Event, FailureCode, SkipReason
from uploader_cli.transfer.projections import awaited_of, completed, failed_event, is_forgotten, receipt_of, skipped
from uploader_cli.transfer.results import FileResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from uploader_cli.core.last_heard import LastHeard
    from uploader_cli.core.plan import LocalFile, Refusal
    from uploader_cli.transfer.journal.upload_journal import UploadJournal

End: TypeAlias = ev.FileCompleted | ev.FileFailed | ev.FileSkipped
SKIPS = {
    FailureCode.REFUSED_TYPE: SkipReason.TYPE,
    FailureCode.REFUSED_SIZE: SkipReason.SIZE,
    FailureCode.EMPTY: SkipReason.EMPTY,
}
RUN_ENDING = (
    errors.Interrupted,
    errors.RateLimited,
    errors.Unreachable,
    errors.ProxyUnauthorized,
    errors.DiskFull,
    errors.UsageError,
    errors.NotAnUploadServer,
    errors.SessionCancelled,
)
"""Errors that end the run: they concern every file."""


def ends_run(error: errors.UploaderError) -> bool:
    """Return whether `error` ends the run. A 403 may concern one file; a 401 never does."""
    return isinstance(error, RUN_ENDING) or (isinstance(error, errors.Unauthorized) and error.status == 401)


class Followers(Protocol):
    """The realtime channel, as the transfer sees it. No call may block."""

    last_heard: LastHeard

    def follow(self, session: str) -> None:
        """Follow a session that was opened; nothing of it was sent yet."""

    def body_sent(self, session: str) -> None:
        """Note that a request of the session has left this machine."""

    def leave(self, session: str) -> None:
        """Stop following the session: it is over."""


class Ledger:
    """The files in progress. Emit their events: attempts, and exactly one end for each file. Thread-safe."""

    def __init__(
        self,
        emit: Callable[[Event], None],
        run: UploadJournal,
        url_of: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
        *,
        verify: bool = False,
    ) -> None:
        """`url_of(where)` returns the URL of a stored file from its path in an answer. `verify`: see `receipt_of`."""
        self.open: dict[int, LocalFile] = {}
        self.has_failures = False
        self._emit, self._run, self._url_of, self._clock = emit, run, url_of, clock
        self._verify = verify
        self._tried: dict[int, tuple[int, float]] = {}  # attempts, and when the first one began
        self._running: set[int] = set()  # files with an attempt in progress

    def admit(self, file: LocalFile) -> None:
        self.open[file.file] = file

    def attempt(self, file: LocalFile) -> int:
        """Return the number of the current attempt, from 1."""
        return self._tried[file.file][0]

    def start(self, file: LocalFile, session: str, name: str, offset: int = 0, *, packed: bool = False) -> bool:
        """Begin an attempt at `offset` (bytes) under the server's `name`; return False where one is in progress."""
        if file.file in self._running:
            return False
        attempts, began = self._tried.get(file.file) or (0, self._clock())
        self._tried[file.file] = attempts + 1, began
        self._running.add(file.file)
        self._emit(ev.FileStarted(file.file, file.path, file.known_size, session, offset, attempts + 1, name, packed))
        return True

    def retry(self, files: Iterable[LocalFile], error: errors.UploaderError, delay: float = 0.0) -> None:
        """End the attempt because of `error`, and announce another one after `delay` seconds."""
        for file in files:
            if file.file in self._tried:
                self._running.discard(file.file)
                self._emit(ev.FileRetry(file.file, self.attempt(file) + 1, round(delay, 3), error.code, error.reason))

    def repeat(self, files: Iterable[LocalFile], error: errors.UploaderError, delay: float = 0.0) -> None:
        """Do so for files that share a request, whose attempt goes on after a rate limit, a new token or a pause."""
        if not isinstance(error, errors.RateLimited | errors.Unauthorized | errors.PackInProgress):
            self.retry(files, error, delay)

    def end(self, outcomes: Sequence[FileResult]) -> None:
        """Emit the end of each file, and keep or forget what the journal has of those that failed."""
        bad = {outcome.file: outcome.error for outcome in outcomes if outcome.error is not None}
        if bad:
            forgotten = [file for file, error in bad.items() if is_forgotten(error)]
            taken = [file for file, error in bad.items() if error.code is FailureCode.EXISTS]
            if forgotten:
                self._run.forget(forgotten)
            if taken:
                self._run.forget(taken, receipts=False)
            self._run.release(list(bad))
        for outcome in outcomes:
            if outcome.error is not None:
                self._fail(outcome.file, outcome.error)
            elif outcome.skipped is not None:
                self.skip(outcome, outcome.skipped)
            else:
                self._complete(outcome)

    def record(self, results: Sequence[FileResult]) -> None:
        """Journal stored files: receipts, and what is known of those that the server still processes."""
        stored = [receipt_of(one, verify=self._verify) for one in results if one.values is None]
        if stored:
            self._run.completed(stored)
        for result in results:
            if result.values is not None:
                self._run.update(result.file, awaited=awaited_of(result, result.values))

    def close(self, file: LocalFile, end: End) -> None:
        """Emit the end of a file, once; the journal is as it has to be then."""
        self._tried.pop(file.file, None)
        self._running.discard(file.file)
        if self.open.pop(file.file, None) is not None:
            self.has_failures = self.has_failures or isinstance(end, ev.FileFailed)
            self._emit(end)

    def refuse(self, file: LocalFile, refusal: Refusal) -> None:
        """End a file that the server would not take: a named one fails, one found by walking is skipped."""
        if file.named:
            self._fail(file, errors.FileFailure(refusal.message, code=refusal.code))
        else:
            self.skip(FileResult(file), SKIPS[refusal.code])

    def skip(self, outcome: FileResult, reason: SkipReason) -> None:
        """Leave out a file, which may be on the server."""
        self.close(outcome.file, skipped(outcome, reason, self._url_of))

    def fail_all(self, error: errors.UploaderError) -> None:
        """End every open file: those with an attempt fail with `error`, the others are skipped."""
        left = list(self.open.values())
        self.end([FileResult(file, error) for file in left if file.file in self._tried])
        self.skip_untried()

    def skip_untried(self) -> None:
        untried = [file for file in list(self.open.values()) if file.file not in self._tried]
        self._run.release(untried)
        for file in untried:
            self.skip(FileResult(file), SkipReason.NOT_TRIED)

    def cancel_all(self) -> None:
        left = tuple(self.open.values())
        self.open.clear()
        self._emit(ev.FilesCancelled(tuple(file.file for file in left), left))

    def _complete(self, outcome: FileResult) -> None:
        attempts, began = self._tried.get(outcome.file.file) or (1, self._clock())
        self.close(outcome.file, completed(outcome, self._url_of, attempts=attempts, seconds=self._clock() - began))

    def _fail(self, file: LocalFile, error: errors.UploaderError) -> None:
        self.close(file, failed_event(file, error))
