"""What is told of each file: exactly one end for every one, and attempts that are counted."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, SkipReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uploader_cli.core.plan import LocalFile, Refusal

SKIPS = {
    FailureCode.REFUSED_TYPE: SkipReason.TYPE,
    FailureCode.REFUSED_SIZE: SkipReason.SIZE,
    FailureCode.EMPTY: SkipReason.EMPTY,
}


class Ledger:
    """The files of a run that are not over yet, and the events that say how each went on."""

    def __init__(
        self,
        files: Iterable[LocalFile],
        emit: Callable[[ev.Event], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        dropped: Callable[[LocalFile], None] = lambda _file: None,
        let_go: Callable[[LocalFile], None] = lambda _file: None,
    ) -> None:
        """All of `files` are open. `dropped` is told of each that failed for good, `let_go` of each that did not.

        Several threads may call.
        """
        self.open: dict[int, LocalFile] = {file.file: file for file in files}
        self.failures = 0
        self._emit, self._clock, self._dropped, self._let_go = emit, clock, dropped, let_go
        self._lock = threading.Lock()
        self._attempts: dict[int, int] = {}
        self._began: dict[int, float] = {}

    def admit(self, file: LocalFile) -> None:
        """One more file is open."""
        self.open[file.file] = file

    def attempt(self, file: LocalFile) -> int:
        """The attempt under way, from 1."""
        return self._attempts[file.file]

    def start(self, file: LocalFile, session: str, name: str, offset: int = 0) -> None:
        """An attempt begins at `offset` (bytes); `name` is how the server will call the file."""
        attempt = self._attempts[file.file] = self._attempts.get(file.file, 0) + 1
        self._began.setdefault(file.file, self._clock())
        self._emit(ev.FileStarted(file.file, file.path, file.size, session, offset, attempt, name))

    def again(self, files: Iterable[LocalFile], error: BaseException | None, delay: float = 0.0) -> None:
        """Another attempt will follow after `delay` seconds, because of `error`."""
        code = error.code if isinstance(error, errors.UploaderError) else FailureCode.NETWORK
        for file in files:
            self._emit(ev.FileRetry(file.file, self.attempt(file) + 1, round(delay, 3), code, str(error)))

    def complete(
        self,
        file: LocalFile,
        server_id: str | None,
        location: str | None,
        *,
        checksum: str | None = None,
        verified: bool = False,
        file_path: str | None = None,
    ) -> None:
        """The server has it; `checksum` (hex SHA-256) where all of it was compared, `verified` also by chunks."""
        if not self._close(file):
            return
        began, attempts = self._began.pop(file.file, None), self._attempts.pop(file.file, 1)
        self._emit(
            ev.FileCompleted(
                file.file,
                file.path,
                file.size,
                server_id,
                location,
                verified=verified or checksum is not None,
                attempts=attempts,
                seconds=round(self._clock() - began, 3) if began is not None else 0.0,
                checksum=f"sha256:{checksum}" if checksum else None,
                file_path=file_path,
                local=file,
            )
        )

    def fail(self, file: LocalFile, error: errors.UploaderError) -> None:
        """The file is over because of `error`. What changed after its SHA-256 was compared is not what was listed."""
        changed = file.sha256 is not None and error.code is FailureCode.CHANGED
        self.fail_with(file, FailureCode.MISMATCH if changed else error.code, str(error), retryable=error.retryable)

    def fail_with(self, file: LocalFile, code: FailureCode, message: str, *, retryable: bool = False) -> None:
        """The file is over for a reason that is no exception."""
        if self._close(file):
            with self._lock:
                self.failures += 1
            self._forget(file)
            (self._let_go if retryable else self._dropped)(file)
            self._emit(ev.FileFailed(file.file, file.path, code, message, retryable, file))

    def fail_all(self, error: errors.UploaderError) -> None:
        """Every file that is still open is over."""
        for file in list(self.open.values()):
            self.fail(file, error)

    def refuse(self, file: LocalFile, refusal: Refusal) -> None:
        """The server would not take it: a failure where it was named, a counted skip where it was found by walking."""
        if file.named:
            self.fail_with(file, refusal.code, refusal.message)
        else:
            self.skip(file, SKIPS[refusal.code])

    def skip(self, file: LocalFile, reason: SkipReason) -> None:
        """The file is left out."""
        if self._close(file):
            self._forget(file)
            self._emit(ev.FileSkipped(file.file, file.path, reason, file))

    def cancel_all(self) -> None:
        """An interrupt ended the run."""
        left = tuple(self.open.values())
        self.open.clear()
        self._emit(ev.FilesCancelled(tuple(file.file for file in left), left))

    def _forget(self, file: LocalFile) -> None:
        self._began.pop(file.file, None)
        self._attempts.pop(file.file, None)

    def _close(self, file: LocalFile) -> bool:
        """Strike the file off; False where it is over already."""
        return self.open.pop(file.file, None) is not None
