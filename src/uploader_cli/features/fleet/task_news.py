"""What tasks of an import report: receipts and uploads for the journal, ends of files, and events of the run."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import structs

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, PauseReason, WarningCode
from uploader_cli.features.fleet.events import WORKERS
from uploader_cli.features.fleet.outcomes import Creating, FileEnd, Journaled
from uploader_cli.transfer.journal.file_keys import written_identity
from uploader_cli.transfer.journal.reading import PendingUpload
from uploader_cli.transfer.journal.receipts import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distributed import Future

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.features.fleet.members import Member
    from uploader_cli.features.fleet.outcomes import News
    from uploader_cli.transfer.journal.run_handle import RunHandle
    from uploader_cli.transfer.ledger import End
    from uploader_cli.transfer.upload_session import RunContext


@dataclass(slots=True)
class Task:
    """A task that was submitted to a worker: its files that have not ended."""

    files: dict[int, LocalFile]
    cost: int
    future: Future[Any]
    member: Member
    heard: float  # time of its last progress
    begun: bool = False
    creating: set[int] = field(default_factory=set)  # files whose upload is being created
    sessions: set[str] = field(default_factory=set)  # those that it has opened and not finished
    lost_by: tuple[str, ...] = ()  # the workers that died or hung with it


class TaskNews:
    """Applies the news of all tasks. `uploads` are those of files that have not ended, at a tus endpoint."""

    def __init__(
        self,
        context: RunContext,
        run: RunHandle,
        *,
        pause: Callable[[float], None],
        overloaded: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pause(seconds)` is called after a 429, for all workers, and `overloaded` after each 429 and 503."""
        self._run, self._ledger, self._emit = run, context.ledger, context.emit
        self._pause, self._overloaded, self._clock = pause, overloaded, clock
        self.uploads: dict[int, PendingUpload] = {}
        self.paused_until = 0.0
        self._pauses, self._paused_for = 0, 0.0  # the number of the pause, and its seconds
        self._attempts: dict[int, int] = {}  # attempts of files whose start was reported
        self._tried: dict[int, int] = {}  # attempts of earlier tries of a task
        self._said: set[str] = set()

    def apply(self, task: Task, news: Sequence[News]) -> None:
        """Apply the news of a task: receipts first."""
        task.heard, task.begun, member = self._clock(), True, task.member
        member.heard = task.heard
        self._adopt(task, [item for item in news if isinstance(item, Creating | Journaled)])
        stored = [
            self._receipt(task.files[item.event.file], item.event)
            for item in news
            if isinstance(item, FileEnd) and isinstance(item.event, ev.FileCompleted) and item.event.file in task.files
        ]
        if stored:
            self._run.completed(stored)
        for item in news:
            match item:
                case ev.Event():
                    if isinstance(item, ev.BytesSent):
                        member.sending[item.file] = item.sent
                    elif isinstance(item, ev.SessionCreated):
                        task.sessions.add(item.session)
                    elif isinstance(item, ev.SessionFinished):
                        task.sessions.discard(item.session)
                    self._tell(item)
                case FileEnd() if item.event.file in task.files:
                    task.creating.discard(item.event.file)
                    self._file_ended(task.files.pop(item.event.file), member, *item)

    def leave(self, task: Task, status: str) -> None:
        """Report the end of the sessions that a task has opened and will not finish."""
        while task.sessions:
            self._tell(ev.SessionFinished(task.sessions.pop(), status))

    def lost(self, task: Task, why: str) -> None:
        """Report that the task of a lost worker runs again; name the files that this may leave on the server."""
        for number in task.creating:
            text = f"{why} while it created the upload of {task.files[number].path}: one may be left on the server"
            self._emit(ev.RunWarning(WORKERS, text))
        if not task.begun:
            return
        text = f"{why}: its task with {len(task.files):,} unfinished files runs again"
        self._emit(ev.RunWarning(WORKERS, text))
        for file in task.files:
            if (attempt := self._attempts.get(file)) is not None:
                self._tried[file] = attempt
                self._emit(ev.FileRetry(file, attempt + 1, 0.0, FailureCode.NETWORK, why))

    def _adopt(self, task: Task, news: Sequence[Creating | Journaled]) -> None:
        """Journal what a worker knows of its uploads."""
        known = dict[int, PendingUpload]()
        for item in news:
            if item.file not in task.files:
                continue
            known[item.file] = item.upload
            if isinstance(item, Creating):
                task.creating.add(item.file)
            else:
                task.creating.discard(item.file)
        if known:
            self.uploads |= known
            self._run.put([(task.files[number], upload) for number, upload in known.items()])

    def _receipt(self, file: LocalFile, end: ev.FileCompleted) -> Stored:
        sha256 = end.checksum.removeprefix("sha256:") if end.checksum else None
        return Stored(file, end.server_id, end.location, sha256, end.verified, end.link, written_identity(file))

    def _file_ended(self, file: LocalFile, member: Member, session: str, attempt: int, end: End) -> None:
        number, tried = file.file, self._tried.pop(file.file, 0)
        self.uploads.pop(number, None)
        member.files += 1
        member.sending.pop(number, None)
        if attempt and number not in self._attempts:
            self._emit(ev.FileStarted(number, file.path, file.size, session, 0, attempt, packed=True))
        self._attempts.pop(number, None)
        if isinstance(end, ev.FileCompleted):
            end = structs.replace(end, attempts=end.attempts + tried)
            member.bytes += file.size
        elif isinstance(end, ev.FileFailed):
            end = structs.replace(end, message=f"{end.message} (worker {member.name})")
        if not isinstance(end, ev.FileCompleted):
            self._run.release([file])
        self._ledger.close(file, structs.replace(end, path=file.path, local=file))

    def _tell(self, event: ev.Event) -> None:
        """Pass on an event of a worker. What concerns all workers is reported once."""
        if isinstance(event, ev.FileStarted | ev.FileRetry | ev.BytesSent | ev.BytesConfirmed):
            event = structs.replace(event, attempt=event.attempt + self._tried.get(event.file, 0))
        match event:
            case ev.FileStarted():
                file = self._ledger.open.get(event.file)
                if file is None:
                    return
                self._attempts[event.file] = event.attempt
                event = structs.replace(event, path=file.path)  # as selected
            case ev.FileRetry() if event.file not in self._attempts:
                file = self._ledger.open.get(event.file)
                if file is None:
                    return
                self._attempts[event.file] = event.attempt - 1
                self._emit(ev.FileStarted(event.file, file.path, file.size, "", 0, event.attempt - 1, packed=True))
            case ev.Paused(reason=PauseReason.RATE_LIMIT):
                if not self._pause_all(event.seconds):
                    return
            case ev.CallMade(status=429 | 503):
                self._overloaded()
            case ev.RunWarning() if self._was_said(event):
                return
        self._emit(event)
        if isinstance(event, ev.SessionFinished):
            self._emit(ev.SessionLeft(event.session))

    def _was_said(self, warning: ev.RunWarning) -> bool:
        """Return whether a warning was reported before; note that it is now."""
        text = warning.text
        if warning.code is WarningCode.RATE_LIMITED:  # each worker names the rest of the same pause
            text = re.sub(r"(?<!\d)\d+ s", f"pause {self._pauses}", text)
        was_said = text in self._said
        self._said.add(text)
        return was_said

    def _pause_all(self, seconds: float) -> bool:
        """Pause all workers for so long; return False if they are paused already."""
        now = self._clock()
        if now + seconds <= self.paused_until + 1.0:
            return False
        if now >= self.paused_until or seconds > self._paused_for:  # else a worker heard late of the same pause
            self._pauses, self._paused_for = self._pauses + 1, seconds
        self.paused_until = now + seconds
        self._pause(seconds)
        return True
