"""The job that sends files in batch mode: one session, one request at a time (docs/protocol.md, section 3)."""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.plan import request_length
from uploader_cli.transfer.protocols import batch
from uploader_cli.transfer.protocols.machine import How
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.send import Driver
from uploader_cli.transfer.upload_session import UploadSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.protocol import Session
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.protocols.machine import Again
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
            yield from self._send(worker, self._next_group(api))

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

    def _send(self, worker: Worker, files: Sequence[LocalFile]) -> Iterator[Sequence[FileResult]]:
        driver = Driver(self._context, worker, self.session, files, self._flow.body)
        try:
            end = yield from driver.run(batch.step, self._begin(files))
        finally:
            if driver.unanswered:
                self._flow.unanswered = True
        if driver.sent is not None:
            self._flow.measured(driver.sent)
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
