"""The job of the worker pool that speaks batch: one session, one multipart request after the other.

docs/protocol.md, section 3, says how the reference backend behaves; its numbers are cited below.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.core.plan import request_length
from uploader_cli.core.protocol import utf8, wire_name
from uploader_cli.transfer.api import stored_path
from uploader_cli.transfer.bodies import MultipartBody
from uploader_cli.transfer.checks import equal_on_server, says_nothing
from uploader_cli.transfer.job import Outcome, ends_run, failed
from uploader_cli.transfer.retry import Tries
from uploader_cli.transfer.sessions import UploadSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uploader_cli.core.plan import Limits, LocalFile
    from uploader_cli.core.protocol import Session, StoredFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.job import Context
    from uploader_cli.transfer.pacing import Stop
    from uploader_cli.transfer.pool import Worker

MEASURABLE = 8 * 1024 * 1024
"""Bytes a request must have for its speed to count: less fits into socket buffers."""
REQUEST_LIMIT = 300.0
"""Seconds in which the reference backend wants a whole request (3.10)."""
SPLIT_REFUSALS = (400, 413, 415, 422)
"""A refused request does not say which file it is about: its halves are sent."""
UNAVAILABLE = 503
"""The one 5xx that says nothing was done."""
UNKNOWN_SESSION = "UPLOAD_FAILED"
"""The code of a 500 by which the reference backend refuses an unknown session (3.14). The bundled server, which shows
`relativePaths`, answers 404 or 409 then: there it means that the disk failed."""
UNTOUCHED = "the request was stopped because of another file in it"
LOOK_EVERY = 1.0
LOOK_AT_LEAST = 4.0
"""Seconds between two looks where calls are scarce: the reference backend forgets a session 5 s after its end (3.6)."""
PATIENCE = 5
"""Looks in a row without an answer after which the outcome counts as unknown."""
LONGEST = 300
"""Looks in all: a server that still works after so many seconds is not waited for."""


class Flow:
    """What all batch jobs of a run share: the measured rate of requests in bytes/s, and counts of them."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self.waiting = 0
        """Sessions that no job has opened yet: polls leave calls for them."""
        self.unanswered: set[BatchSession] = set()
        """Jobs whose request the server has whole: what is in it may be stored."""
        self._body = threading.Semaphore(1)

    def begin_body(self, stop: Stop) -> None:
        """Wait until no other job sends a body: while the server processes one session, the next is sent."""
        while not self._body.acquire(timeout=0.1):
            stop.check()

    def end_body(self) -> None:
        """Let the next job send its body."""
        self._body.release()


class BatchSession:
    """Send the files of one planned session, in one session on the server or, once that is lost, in a second one."""

    def __init__(
        self,
        context: Context,
        files: Sequence[LocalFile],
        limits: Limits,
        flow: Flow,
        *,
        category: str,
        opened: Session | None = None,
        register: set[UploadSession],
    ) -> None:
        """`opened` is a session to use instead of a new one; `register` holds the sessions that are open."""
        self.session: UploadSession | None = None
        self.context, self.flow = context, flow
        self._limits, self._category, self._opened, self._register = limits, category, opened, register
        self._waiting = deque(files)
        self._halves: deque[list[LocalFile]] = deque()
        """Requests that are sent next as they are: halves of one that was refused."""
        self._most = 1 << 30
        self._renewed = False

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield outcomes as requests are answered. Raise what ends the run."""
        context, ledger = self.context, self.context.ledger
        self.flow.waiting -= 1
        worker.api.budget.sessions_to_come = self.flow.waiting
        if context.settings.fail_fast and ledger.failures:
            self._skip_the_rest(worker.api)
            return
        self._open(worker.api)
        while self._halves or self._waiting:
            context.stop.check()
            if context.settings.fail_fast and ledger.failures:
                self._skip_the_rest(worker.api)
                return
            yield from self._send_group(worker.api, self._next_group(worker.api))

    def _open(self, api: Api) -> None:
        made = self._opened
        if made is None:
            made = self.context.retry.run(lambda: api.create_session(self._category, len(self._waiting)))
        self.session = UploadSession(self.context, made, self._limits, len(self._waiting), self._register)
        self.session.begin()

    def _next_group(self, api: Api) -> list[LocalFile]:
        if self._halves:
            return self._halves.popleft()
        ahead = list(islice(self._waiting, self._most))
        count = request_length(ahead, self.flow.rate, metered=api.budget.metered)
        return [self._waiting.popleft() for _ in range(count)]

    def _skip_the_rest(self, api: Api) -> None:
        """Skip what was not started (`--fail-fast`)."""
        left = [file for group in self._halves for file in group] + list(self._waiting)
        self._halves.clear()
        self._waiting.clear()
        for file in left:
            self.context.ledger.skip(file, SkipReason.FAIL_FAST)
        if self.session is not None:
            self.session.over(api, len(left), given_up=len(left))

    # --- one request --------------------------------------------------------------------------------------------------

    def _send_group(self, api: Api, group: list[LocalFile]) -> Iterator[Sequence[Outcome]]:
        """Send one request until each of its files is over or waits again. `group` shrinks as files are settled."""
        request = _Request(self, api, group)
        try:
            request.send()
        except errors.FileError as error:
            broken = [file for file in group if file.path == error.path]
            request.outcomes += [Outcome(file, error) for file in broken]
            self._put_back([file for file in group if file not in broken], errors.ConnectionLost(UNTOUCHED))
        except errors.TooSlow as error:
            if len(group) > 1:
                self._most = len(group) // 2
                self._put_back(group, error)
            else:
                request.outcomes.append(Outcome(group[0], _too_slow(group[0], error)))
        except errors.SessionLost as error:
            request.outcomes += self._move(api, group, error)
        except errors.AnswerError as error:
            if ends_run(error):
                yield request.outcomes  # what is settled is not sent again
                raise
            if error.status in SPLIT_REFUSALS and len(group) > 1:
                self.context.ledger.retry(group, error)
                middle = (len(group) + 1) // 2
                self._halves.extendleft((group[middle:], group[:middle]))
            else:
                request.outcomes += [Outcome(file, error) for file in group]
        except errors.UploaderError as error:
            if ends_run(error):
                yield request.outcomes
                raise
            request.outcomes += [Outcome(file, error) for file in group]
        if request.outcomes:
            yield request.outcomes

    def _put_back(self, files: Sequence[LocalFile], error: errors.UploaderError) -> None:
        """Send files again, in requests that are cut anew."""
        self.context.ledger.retry(files, error)
        self._waiting.extendleft(reversed(files))

    def _move(self, api: Api, group: Sequence[LocalFile], error: errors.SessionLost) -> list[Outcome]:
        """Continue in a new session, once, where the server has forgotten this one (3.14)."""
        if self.session is None:
            raise error
        if self._renewed:
            left = [*group, *(file for half in self._halves for file in half), *self._waiting]
            self._halves.clear()
            self._waiting.clear()
            return [Outcome(file, error) for file in left]
        self._renewed = True
        self.context.ledger.retry(group, error)
        self.session.renew(api, self.session.id)
        self._waiting.extendleft(reversed(group))
        return []


class _Request:
    """One multipart request with its retries. What is settled leaves `group` and is in `outcomes`."""

    def __init__(self, job: BatchSession, api: Api, group: list[LocalFile]) -> None:
        if job.session is None:
            raise AssertionError("no session is open")
        self.outcomes: list[Outcome] = []
        self._job, self._api, self._group, self._session = job, api, group, job.session
        self._context = job.context
        self._sending = False
        self._excused = False
        """True where the attempt goes on after a rate limit or with a new token: it counts as the same one."""
        self._paths = self._session.limits.relative_paths

    def send(self) -> None:
        """Send it until it is answered. Raise the error that remains for the files that are left in the group."""

        def on_retry(error: errors.UploaderError, delay: float) -> None:
            self._excused = isinstance(error, errors.RateLimited | errors.Unauthorized)
            if not self._excused:
                self._context.ledger.retry(self._group, error, delay)

        Tries(self._context.retry, on_retry=on_retry).run(self._attempt)

    def _attempt(self) -> None:
        job, run = self._job, self._context.run
        for file in self._group if not self._excused else ():
            self._context.ledger.start(file, self._session.id, self._name(file))
        bodies: list[MultipartBody] = []

        def make_body() -> MultipartBody:
            bodies.append(self._body())
            return bodies[-1]

        job.flow.begin_body(self._context.stop)
        self._sending = True
        try:
            stored = self._api.batch(make_body, len(self._group))
        except errors.UploaderError as error:
            self._end_body()
            self._context.stop.check()
            if not self._paths and isinstance(error, errors.ServerFault) and error.error == UNKNOWN_SESSION:
                error = errors.SessionLost(str(error), status=error.status, error=error.error)
            if self._may_have_landed(error):
                self._settle(error)
            job.flow.unanswered.discard(job)
            if bodies and bodies[-1].given_out and self._group:
                run.certain(self._group)
            if self._group:
                raise error
            return
        finally:
            self._end_body()
        job.flow.unanswered.discard(job)
        body = bodies[-1]
        if len(body) >= MEASURABLE and body.seconds > 0:
            job.flow.rate = len(body) / body.seconds
        self._receive(stored)

    def _end_body(self) -> None:
        sending, self._sending = self._sending, False
        if sending:
            self._job.flow.end_body()

    def _body(self) -> MultipartBody:
        job, context = self._job, self._context
        job.flow.unanswered.discard(job)
        fields = [("sessionId", self._session.id), ("category", self._session.category)]
        if self._paths:
            fields += [("relativePath", utf8(file.relative_path)) for file in self._group]
        group, session_id = tuple(self._group), self._session.id

        def on_sent(file: LocalFile, sent: int) -> None:
            context.emit(ev.BytesSent(file.file, context.ledger.attempt(file), sent))

        def on_through() -> None:
            job.flow.unanswered.add(job)
            self._end_body()
            context.emit(ev.BodySent(tuple(file.file for file in group)))
            context.followers.body_sent(session_id)

        return MultipartBody(
            fields,
            group,
            on_sent=on_sent,
            on_through=on_through,
            on_last=lambda: context.run.uncertain(group),  # a kill from here on may leave the files stored
            check=context.stop.check,
            throttle=context.throttle,
            sized=self._paths,
        )

    def _receive(self, stored: Sequence[StoredFile]) -> None:
        """Take the answer's word for each file (3.5), matched by what was sent (3.13)."""
        for file, item in self._matched(stored):
            self._group.remove(file)
            outcome = self._outcome(file, item)
            if outcome.error is not None and item is not None:
                self._context.run.certain([file])
            self.outcomes.append(outcome)

    def _outcome(self, file: LocalFile, item: StoredFile | None) -> Outcome:
        if item is None:
            return Outcome(file, errors.ProtocolError("the server's answer does not mention this file"))
        if item.status != "completed":
            words = item.error or f"its status is {item.status or 'missing'}"
            return _not_stored(file, words)
        if item.size is not None and item.size != file.size:
            words = f"the server stored {item.size} of {file.size} bytes"
            return failed(file, FailureCode.INTEGRITY, words)
        location = stored_path(self._session.category, item.location) if item.location else None
        return Outcome(file, server_id=item.server_id, location=location, file_path=item.file_path)

    def _matched(self, stored: Sequence[StoredFile]) -> list[tuple[LocalFile, StoredFile | None]]:
        """Pair each file with its entry in the answer: by name, and by order where names came back changed."""
        left = list(stored)
        found: dict[int, StoredFile] = {}
        for file in self._group:
            names = (self._name(file), wire_name(file.name))
            item = next((item for item in left if (item.relative_path or item.name) in names), None)
            if item is not None:
                left.remove(item)
                found[file.file] = item
        renamed = iter(left if len(stored) == len(self._group) else ())
        return [(file, found.get(file.file) or next(renamed, None)) for file in self._group]

    def _name(self, file: LocalFile) -> str:
        return utf8(file.relative_path) if self._paths else wire_name(file.name)

    # --- when the answer is missing -----------------------------------------------------------------------------------

    def _may_have_landed(self, error: errors.UploaderError) -> bool:
        """Return whether the server had the whole request and it is not known what it did with it (3.15)."""
        match error:
            case errors.ConnectionLost():
                return error.body_sent
            case errors.ServerFault():
                return self._job in self._job.flow.unanswered and error.status != UNAVAILABLE
            case _:
                return isinstance(error, errors.ProtocolError)

    def _settle(self, error: errors.UploaderError) -> None:
        """Look what the server has, and take out of the group what needs no other attempt."""
        found = self._find_by_path() if self._paths else self._find_by_progress()
        for file in list(self._group):
            if file.file in found:
                outcome = found[file.file]
            elif self._context.settings.resend_unknown:
                outcome = None
            else:
                outcome = Outcome(file, errors.OutcomeUnknown(f"{error}; the server may have stored it, or not"))
            if outcome is None:
                continue
            self._group.remove(file)
            if file.file in found:
                self._context.run.certain([file])
            self.outcomes.append(outcome)

    def _find_by_path(self) -> dict[int, Outcome | None]:
        """Return the outcome of each file, None for one that is not stored, nothing for one that can't be asked for.

        For servers that store under the path that they were given, and never store equal bytes twice.
        """
        stop, category = self._context.stop, self._session.category
        stop.sleep(LOOK_EVERY)
        found: dict[int, Outcome | None] = {}
        for file in self._group:
            try:
                checksum = equal_on_server(self._api, category, file, stop.check)
            except errors.Interrupted:
                raise
            except errors.UploaderError as error:
                if says_nothing(error):
                    continue
                checksum = None
            location = stored_path(category, utf8(file.relative_path))
            found[file.file] = Outcome(file, location=location, checksum=checksum) if checksum else None
        return found

    def _find_by_progress(self) -> dict[int, Outcome | None]:
        """Return the outcomes that events or `/progress` report. Takes seconds while the server works, or is gone."""
        context, misses = self._context, 0
        for _ in range(LONGEST):
            found = self._reported()
            if misses >= PATIENCE or len(found) == len(self._group):
                return found
            context.stop.sleep(min(self._api.budget.poll_interval(), LOOK_AT_LEAST))
            try:
                message = self._api.progress(self._session.id, patient=True)
            except errors.Interrupted:
                raise
            except errors.RateLimited:
                break
            except errors.UploaderError:
                message = None
            if message is not None:
                context.last_heard.note(message)
            misses = 0 if message is not None else misses + 1
        return self._reported()

    def _reported(self) -> dict[int, Outcome | None]:
        found: dict[int, Outcome | None] = {}
        for file in self._group:
            status = self._context.last_heard.of(self._session.id, wire_name(file.name))
            if status is not None and status.status == "completed":
                found[file.file] = Outcome(file, server_id=status.server_id)
            elif status is not None and status.status == "failed":
                found[file.file] = _not_stored(file, status.error or "it gives no reason")
        return found


def _not_stored(file: LocalFile, words: str) -> Outcome:
    return failed(file, FailureCode.SERVER_FAILED, f"the server could not store it: {words}")


def _too_slow(file: LocalFile, error: errors.TooSlow) -> errors.TooSlow:
    """Name the rate that the one file alone would need (3.10): repeating the request as it was can't help."""
    needed = max(0.01, file.size / REQUEST_LIMIT / 1e6)
    words = f"{error}; {file.size} bytes need {needed:.2f} MB/s to arrive in {REQUEST_LIMIT:.0f} s"
    out = errors.TooSlow(words, status=error.status, error=error.error)
    out.retryable = False
    return out
