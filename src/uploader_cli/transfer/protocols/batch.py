"""The job that uploads in batch mode: one session, one multipart request at a time (docs/protocol.md, section 3)."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode
from uploader_cli.core.plan import LocalFile, request_length
from uploader_cli.core.protocol import Session, StoredFile, location_in, paired, sent_name, utf8, wire_name
from uploader_cli.core.state import SERVER_TERMINAL
from uploader_cli.transfer.bodies import Body, multipart, upload_form
from uploader_cli.transfer.delays import holding
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.results import FileResult, failed, not_stored
from uploader_cli.transfer.stored_files import NO_OUTCOME, equal_on_server
from uploader_cli.transfer.upload_session import RunContext, UploadSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.pool import Worker

MEASURABLE = 8 * 1024 * 1024  # least bytes of a request whose speed counts: fewer fit into socket buffers
REQUEST_LIMIT = 300.0  # seconds for a whole request on the reference backend (3.10)
SPLIT_REFUSALS = (400, 413, 415, 422)  # refusals that do not name the file: the request is halved
UNAVAILABLE = 503  # the only 5xx after which nothing was stored
UNTOUCHED = "the request was stopped because of another file in it"
LOOK_EVERY = 1.0  # seconds before the query by path
LOOK_AT_LEAST = 4.0  # most seconds between two queries: the reference backend forgets a session 5 s after its end (3.6)
UNANSWERED_QUERIES = 5  # queries without an answer after which the outcome is unknown
LONGEST = 300  # most queries for one request


class Flow:
    def __init__(self) -> None:
        self.rate: float | None = None  # bytes/s of the last request that was large enough to measure
        self.unanswered: set[BatchSession] = set()
        """Jobs whose complete request has no answer yet: its files may be stored."""
        self.body = threading.Lock()
        """Held by the job that sends a body, while the server processes another one."""


class BatchSession:
    """Send the files of one planned session; a lost session is replaced once."""

    session: UploadSession
    _api: Api

    def __init__(
        self,
        context: RunContext,
        files: Sequence[LocalFile],
        flow: Flow,
        *,
        category: str,
        opened: Session | None = None,
    ) -> None:
        """`opened` is a session to use instead of a new one."""
        self._context, self._flow, self._paths = context, flow, context.terms.limits.relative_paths
        self._category, self._opened = category, opened
        self._waiting = deque(files)
        self._halves: deque[list[LocalFile]] = deque()  # halves of refused requests, which are sent next
        self._most = 1 << 30
        self._group: list[LocalFile] = []  # the files of the request, without those that have ended
        self._ended: list[FileResult] = []

    def run(self, worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Yield outcomes as requests are answered. Raise what ends the run."""
        context, self._api = self._context, worker.api
        self._api.budget.sessions_to_come -= 1
        if context.fails_fast:
            context.skip(self._waiting)
            return
        try:
            made = self._opened or context.target.open(self._api, self._category, len(self._waiting), self._waiting)
        except errors.UploaderError as error:
            if not context.outlasts(error):
                raise
            context.ledger.end([FileResult(file, error) for file in self._waiting])
            return
        self.session = UploadSession(context, made, len(self._waiting))
        self.session.begin()
        while self._halves or self._waiting:
            context.stop.checkpoint()
            if context.fails_fast:
                self.session.skip(self._api, self._take_rest())
                return
            self._group, self._ended = self._next_group(), []
            try:
                context.pacer.call(self._send, on_retry=partial(context.ledger.repeat, self._group))
            except errors.UploaderError as error:
                if ends_run(error):
                    yield self._ended  # what is settled is not resent
                    raise
                self._ended += self._failed(error)
            if self._ended:
                yield self._ended

    def _next_group(self) -> list[LocalFile]:
        if self._halves:
            return self._halves.popleft()
        ahead = list(islice(self._waiting, self._most))
        count = request_length(ahead, self._flow.rate, metered=self._api.budget.metered)
        return [self._waiting.popleft() for _ in range(count)]

    def _take_rest(self) -> list[LocalFile]:
        rest = [*(file for group in self._halves for file in group), *self._waiting]
        self._halves.clear()
        self._waiting.clear()
        return rest

    def _failed(self, error: errors.UploaderError) -> list[FileResult]:
        """Return the outcomes of the files that `error` ends; put the others back."""
        group, retry = self._group, self._context.ledger.retry
        match error:
            case errors.FileError():
                broken = [file for file in group if file.path == error.path]
                rest = [file for file in group if file not in broken]
                retry(rest, errors.ConnectionLost(UNTOUCHED))
                self._waiting.extendleft(reversed(rest))
                return [FileResult(file, error) for file in broken]
            case errors.TooSlow() if len(group) == 1:
                return [FileResult(group[0], _too_slow(group[0], error))]
            case errors.TooSlow():
                self._most = len(group) // 2
            case errors.SessionLost():
                if not self.session.renew(self._api, self.session.id):  # lost twice (3.14)
                    return [FileResult(file, error) for file in [*group, *self._take_rest()]]
            case errors.AnswerError() if error.status in SPLIT_REFUSALS and len(group) > 1:
                retry(group, error)
                middle = (len(group) + 1) // 2
                self._halves.extendleft((group[middle:], group[:middle]))
                return []
            case _:
                return [FileResult(file, error) for file in group]
        retry(group, error)
        self._waiting.extendleft(reversed(group))
        return []

    def _send(self) -> None:
        """Send one request. Raise the error of the files that are left in the group."""
        flow, context = self._flow, self._context
        for file in self._group:
            context.ledger.start(file, self.session.id, sent_name(file, paths=self._paths))
        sending = ExitStack()  # until the last byte is out
        body = self._body(sending.close)
        try:
            with sending:
                sending.enter_context(holding(flow.body, context.stop.checkpoint))
                context.pacer.wait_out_pause()  # one may have begun meanwhile
                stored = self._api.batch(self.session.id, body, len(self._group))
            if not body.through:
                raise errors.ConnectionLost("the server answered before it had the whole request", body_sent=False)
        except errors.UploaderError as error:
            context.stop.checkpoint()
            if self._may_have_landed(error):
                self._settle(error)
            if body.given_out and self._group:
                context.run.certain(self._group)
            flow.unanswered.discard(self)
            if self._group:
                raise error
        else:
            flow.unanswered.discard(self)
            if len(body) >= MEASURABLE and body.seconds > 0:
                flow.rate = len(body) / body.seconds
            for file, item in paired(self._group, stored, paths=self._paths):
                self._receive(file, item)
        finally:
            body.close()

    def _body(self, release: Callable[[], None]) -> Body:
        context, session, group = self._context, self.session, tuple(self._group)
        self._flow.unanswered.discard(self)
        fields = [("sessionId", session.id), ("category", session.category)]
        if self._paths:
            fields += [("relativePath", utf8(file.relative_path)) for file in group]
        if context.settings.if_exists == "fail":
            fields.append(("ifExists", "fail"))

        def on_sent(file: LocalFile, sent: int) -> None:
            context.emit(ev.BytesSent(file.file, context.ledger.attempt(file), sent))

        def on_through() -> None:
            self._flow.unanswered.add(self)
            release()
            context.emit(ev.BodySent(tuple(file.file for file in group)))
            context.followers.body_sent(session.id)

        return Body(
            *multipart(upload_form(fields, group, sized=self._paths)),
            checkpoint=context.stop.checkpoint,
            throttle=context.throttle,
            on_sent=on_sent,
            on_last=lambda: context.run.uncertain(group),  # a kill from here on may leave the files stored
            on_through=on_through,
            on_read=context.on_read,
            on_doubt=context.doubts.add,
        )

    def _receive(self, file: LocalFile, item: StoredFile | None) -> None:
        self._group.remove(file)
        if item is None:
            words = "the server's answer does not mention this file"
            self._ended.append(FileResult(file, errors.ProtocolError(words)))
            return
        if item.status != "completed":
            why = item.error or f"its status is {item.status or 'missing'}"
            outcome = not_stored(file, why, item.error_code or "")
        elif item.size is not None and item.size != file.size:
            words = f"the server stored {item.size} of {file.size} bytes"
            outcome = failed(file, FailureCode.INTEGRITY, words)
        else:
            location = location_in(self.session.category, item.location) if item.location else None
            outcome = FileResult(file, server_id=item.server_id, location=location, file_path=item.file_path)
        if outcome.error is not None:
            self._context.run.certain([file])
        self._ended.append(outcome)

    def _may_have_landed(self, error: errors.UploaderError) -> bool:
        """Return whether the server had the whole request and its outcome is unknown (3.15)."""
        match error:
            case errors.SessionLost() | errors.RateLimited() | errors.Unauthorized(status=401):
                return False  # given before a file is processed
            case errors.ConnectionLost():
                return error.body_sent
            case errors.ServerFault():
                return self in self._flow.unanswered and error.status != UNAVAILABLE
            case errors.AnswerError():
                return self in self._flow.unanswered and not self._paths and self._is_processed()
            case _:
                return isinstance(error, errors.ProtocolError)

    def _is_processed(self) -> bool:
        """Return whether the session has a file of the request: one that is refused leaves none in it (3.15)."""
        if any(outcome is not None and outcome.error is None for outcome in self._reported().values()):
            return True
        try:
            message = self._progress()
        except errors.RateLimited:
            return False
        names = {wire_name(file.name) for file in self._group}
        return message is not None and not names.isdisjoint(status.name for status in message.files)

    def _settle(self, error: errors.UploaderError) -> None:
        """Ask what the server has stored; remove the files that need no other attempt from the group."""
        found = self._find_by_path() if self._paths else self._find_by_progress()
        for file in list(self._group):
            outcome = found.get(file.file)
            if file.file not in found and not self._context.settings.resend_unknown:
                outcome = FileResult(file, errors.OutcomeUnknown(f"{error}; the server may have stored it, or not"))
            if outcome is None:
                continue
            self._group.remove(file)
            self.session.ends_itself = False  # the file may have been there before
            if file.file in found:
                self._context.run.certain([file])
            self._ended.append(outcome)

    def _find_by_path(self) -> dict[int, FileResult | None]:
        """Ask for each file by path: its outcome, None where it is not stored, no entry without an answer."""
        self._context.stop.sleep(LOOK_EVERY)
        found: dict[int, FileResult | None] = {}
        for file in self._group:
            try:
                found[file.file] = equal_on_server(self._api, file, retries=self._api.pacer.retries)
            except NO_OUTCOME:
                raise
            except errors.UploaderError:  # it refuses to say, or all retries are used
                continue
        return found

    def _find_by_progress(self) -> dict[int, FileResult | None]:
        context, misses = self._context, 0
        for _ in range(LONGEST):
            found = self._reported()
            if misses >= UNANSWERED_QUERIES or len(found) == len(self._group):
                return found
            context.stop.sleep(min(self._api.budget.poll_interval(), LOOK_AT_LEAST))
            try:
                message = self._progress()
            except errors.RateLimited:
                break
            misses = misses + 1 if message is None or message.status in SERVER_TERMINAL else 0
        return self._reported()

    def _progress(self) -> ev.SessionProgress | None:
        """Ask once; None without an answer about the session. Raise `RateLimited`."""
        try:
            message = self._api.progress(self.session.id, patient=True)
        except (errors.Interrupted, errors.RateLimited):
            raise
        except errors.UploaderError:
            return None
        if message is not None:
            self._context.followers.last_heard.note(message)
        return message

    def _reported(self) -> dict[int, FileResult | None]:
        found: dict[int, FileResult | None] = {}
        for file in self._group:
            status = self._context.followers.last_heard.of(self.session.id, wire_name(file.name))
            if status is not None and status.status == "completed":
                found[file.file] = FileResult(file, server_id=status.server_id)
            elif status is not None and status.status == "failed":
                found[file.file] = not_stored(file, status.error)
        return found


def _too_slow(file: LocalFile, error: errors.TooSlow) -> errors.TooSlow:
    """Return a permanent error that names the rate which this file alone needs (3.10)."""
    needed = max(0.01, file.size / REQUEST_LIMIT / 1e6)
    words = f"{error}; {file.size} bytes need {needed:.2f} MB/s to arrive in {REQUEST_LIMIT:.0f} s"
    out = errors.TooSlow(words, status=error.status, error=error.error)
    out.retryable = False
    return out
