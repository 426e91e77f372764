"""The job that sends files in batch mode: one session, one request at a time (docs/protocol.md, section 3)."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.plan import request_length
from uploader_cli.core.protocol import sent_name
from uploader_cli.transfer.bodies import Body, multipart, upload_form
from uploader_cli.transfer.pacer import holding
from uploader_cli.transfer.protocols import batch
from uploader_cli.transfer.protocols.machine import (
    Ask,
    BodyOut,
    Find,
    Form,
    Found,
    GaveUp,
    Hear,
    Heard,
    How,
    Look,
    Queried,
    Query,
    Wait,
    Waited,
)
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.send import FilesDriver
from uploader_cli.transfer.stored_files import equal_on_server
from uploader_cli.transfer.upload_session import UploadSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.protocol import Session
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.protocols.machine import Again, Came, End, Wanted
    from uploader_cli.transfer.send import Sent
    from uploader_cli.transfer.upload_session import RunContext

ENDPOINT = "/api/upload/batch"
MEASURABLE = 8 * 1024 * 1024  # least bytes of a request whose speed counts: fewer fit into socket buffers


class Flow:
    """What the batches of a run share."""

    def __init__(self) -> None:
        self.rate: float | None = None  # bytes/s of the last request that was large enough to measure
        self.body = threading.Lock()
        """Held by the job that sends a body, while the server processes another one."""
        self.unanswered = False  # whether a job was ended while the server had a whole request

    def measured(self, sent: Sent) -> None:
        if sent.length >= MEASURABLE and sent.seconds > 0:
            self.rate = sent.length / sent.seconds


class BatchDriver(FilesDriver[batch.BatchState]):
    """Send one batch, and find out what the server has of it."""

    unanswered = False  # whether the server may have stored the files, and is not known to have

    def __init__(
        self, context: RunContext, worker: Worker, session: UploadSession, state: batch.BatchState, turn: threading.Lock
    ) -> None:
        """`turn` is held while a form is sent."""
        super().__init__(context, worker, session, batch.step, state)
        self._turn = turn

    def _tell(self, came: Came) -> None:
        super()._tell(came)
        if not isinstance(self._wanted, Look) and not isinstance(came, GaveUp):
            self.unanswered = False

    def _keep(self, before: batch.BatchState) -> None:
        old, new, run = before.unsure, self.state.unsure, self._context.run
        if added := new - old:
            run.uncertain([file for file in before.files if file.file in added])
        if gone := old - new:
            run.certain([file for file in before.files if file.file in gone])

    def _done(self, wanted: Wanted) -> Came:
        api, heard = self._worker.api, self._context.followers.last_heard
        match wanted:
            case Ask(body=Form() as form, files=files):
                for file in files:
                    self._context.ledger.start(file, self._session.id, sent_name(file, paths=form.paths))
                with ExitStack() as turn:  # until the last byte is out
                    turn.enter_context(holding(self._turn, self._context.stop.checkpoint))
                    self._context.pacer.wait_out_pause()  # one may have begun meanwhile
                    return self._ask(wanted, self._body(form, files, turn.close), whole=True)
            case Wait(seconds):
                self._context.stop.sleep(min(api.budget.poll_interval(), seconds))
                return Waited()
            case Hear(session, names):
                return Heard(tuple(heard.of(session, name) for name in names))
            case Find(files):
                return Found(tuple(equal_on_server(api, file) for file in files))
            case Query(session):
                return self._query(session)
        return super()._done(wanted)

    def _body(self, form: Form, files: Sequence[LocalFile], release: Callable[[], None]) -> Body:
        """Return the body, which reports its bytes as they leave; `release` is called when it is out."""
        context, session = self._context, self._session.id

        def on_sent(file: LocalFile, sent: int) -> None:
            context.emit(ev.BytesSent(file.file, context.ledger.attempt(file), sent))

        def on_through() -> None:
            self.unanswered = True
            release()
            context.emit(ev.BodySent(tuple(file.file for file in files)))
            context.followers.body_sent(session)

        return Body(
            *multipart(upload_form(form.fields, files, sized=form.paths)),
            checkpoint=context.stop.checkpoint,
            throttle=context.throttle,
            on_sent=on_sent,
            on_last=lambda: self._tell(BodyOut()),
            on_through=on_through,
            on_read=context.digests.read,
            on_doubt=context.doubts.add,
        )

    def _query(self, session: str) -> Queried:
        try:
            progress = self._worker.api.progress(session, patient=True)
        except errors.RateLimited:
            return Queried(None, limited=True)
        except errors.Interrupted:
            raise
        except errors.UploaderError:
            return Queried(None)
        if progress is not None:
            self._context.followers.last_heard.note(progress)
        return Queried(progress)


class BatchJob:
    """Send the files of one planned session; a lost session is replaced once."""

    session: UploadSession

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
        self._context, self._flow, self._category, self._opened = context, flow, category, opened
        self._waiting = deque(files)
        self._halves: deque[Sequence[LocalFile]] = deque()  # halves of refused requests, which are sent next
        self._most = 1 << 30

    def run(self, worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Yield results as requests are answered. Raise what ends the run."""
        context, api = self._context, worker.api
        api.budget.sessions_to_come -= 1
        if context.fails_fast:
            context.skip(self._waiting)
            return
        try:
            made = self._opened or context.target.open(api, self._category, len(self._waiting), self._waiting)
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
                self.session.skip(api, self._take_rest())
                return
            state = self._begin(self._next_group(api))
            driver = BatchDriver(context, worker, self.session, state, self._flow.body)
            end = driver.run(worker)
            self._flow.unanswered = self._flow.unanswered or driver.unanswered
            yield from driver.stopped(end)
            yield from self._ended(driver.sent, end)

    def _next_group(self, api: Api) -> Sequence[LocalFile]:
        if self._halves:
            return self._halves.popleft()
        ahead = list(islice(self._waiting, self._most))
        count = request_length(ahead, self._flow.rate, metered=api.budget.metered)
        return [self._waiting.popleft() for _ in range(count)]

    def _take_rest(self) -> list[LocalFile]:
        rest = [*(file for group in self._halves for file in group), *self._waiting]
        self._halves.clear()
        self._waiting.clear()
        return rest

    def _ended(self, sent: Sent | None, end: End) -> Iterator[Sequence[FileResult]]:
        if sent is not None:
            self._flow.measured(sent)
        if end.fetched:
            self.session.ends_itself = False  # the file may have been there before
        for again in end.again:
            self._put_back(again)
        results = list(end.results)
        if results and isinstance(error := results[-1].error, errors.SessionLost):  # lost twice (3.14)
            results += [FileResult(file, error) for file in self._take_rest()]
        if results:
            yield results

    def _begin(self, files: Sequence[LocalFile]) -> batch.BatchState:
        context, settings = self._context, self._context.settings
        return batch.BatchState(
            settings.server + ENDPOINT,
            self.session.id,
            self.session.category,
            tuple(files),
            paths=context.terms.limits.relative_paths,
            if_exists="fail" if settings.if_exists == "fail" else "",
            resend_unknown=settings.resend_unknown,
        )

    def _put_back(self, again: Again) -> None:
        """Send files in another request, which is the next one: in halves that are small once, or all that follow."""
        self._context.ledger.retry(again.files, again.error)
        middle = (len(again.files) + 1) // 2
        if again.how is How.HALVED and not isinstance(again.error, errors.TooSlow):
            self._halves.extendleft((again.files[middle:], again.files[:middle]))
            return
        if again.how is How.HALVED:
            self._most = len(again.files) // 2
        self._waiting.extendleft(reversed(again.files))
