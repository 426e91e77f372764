"""The driver: it does what a machine wants, and tells it what came (`protocols/machine`).

It journals what the machine says, takes the pacer's leave, sends, and asks the machine again. It repeats nothing by
itself. What differs by protocol is in its subclasses: how one thing is done, what is journaled, how a retry is told.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from uploader_cli import errors
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pacer import Tries
from uploader_cli.transfer.protocols.machine import (
    Answered,
    Ask,
    Begin,
    Came,
    Done,
    End,
    Failed,
    GaveUp,
    Look,
    Machine,
    Renew,
    Renewed,
    Retry,
    State,
    Step,
    Waited,
    Wanted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.results import FileResult
    from uploader_cli.transfer.upload_session import RunContext, UploadSession


Result = TypeVar("Result")


class Driver(ABC, Generic[State, Result]):
    """Run one machine; `state` is what it knows."""

    _wanted: Wanted
    _fatal: errors.UploaderError | None = None  # what ends the run

    def __init__(self, context: RunContext, step: Step[State], state: State) -> None:
        self.state = state
        self._context, self._step = context, step

    def run(self, worker: Worker) -> Result:
        """Return the result of what the machine ends with (`_over`)."""
        tries, mark = self._fresh_tries(), self.state.progress
        try:
            with self._opened(worker):
                self._tell(Begin())
                while not isinstance(wanted := self._wanted, End | Done):
                    # a session is opened with a leave of its own
                    with nullcontext() if isinstance(wanted, Renew) else tries.leave():
                        self._do(wanted)
                        while isinstance(self._wanted, Look):
                            self._do(self._wanted)
                        if isinstance(self._wanted, Retry):
                            self._wait_out(tries, self._wanted.error)
                            mark = self.state.progress
                    if self.state.progress > mark or isinstance(wanted, Renew):
                        tries.succeeded()
                        tries, mark = self._fresh_tries(), self.state.progress
        except errors.Interrupted as stopped:
            self._give_up(stopped, ends=True)
        return self._over(self._wanted)

    def _tell(self, came: Came) -> None:
        """Tell the machine what came; journal what is to be kept, before what it wants is done."""
        before = self.state
        self.state, self._wanted = self._step(before, came)
        self._keep(before)

    def _do(self, wanted: Wanted) -> None:
        """Do what is wanted, and tell what came. Looks, and a new session, fail only with what ends the run."""
        came: Came
        with self._alone(wanted):
            try:
                came = self._done(wanted)
            except errors.Interrupted:
                raise
            except errors.UploaderError as error:
                if isinstance(wanted, Look | Renew):
                    self._give_up(error, ends=True)
                    return
                came = self._failure(error)
            self._tell(came)

    def _wait_out(self, tries: Tries, error: errors.UploaderError) -> None:
        """Wait until what has failed may be repeated, if that can help. The leave is held meanwhile."""
        try:
            again = tries.waited_out(error)
        except errors.Interrupted:
            raise
        except errors.UploaderError as stopped:
            again, error = False, stopped
        if again:
            self._tell(Waited())
        else:
            self._give_up(error, ends=ends_run(error))

    def _give_up(self, error: errors.UploaderError, *, ends: bool) -> None:
        """Tell that nothing is repeated, because of `error`, which `ends` the run or not."""
        if ends:
            self._fatal = error
        self._tell(GaveUp(error))

    def _fresh_tries(self) -> Tries:
        pacer = self._context.pacer
        return Tries(pacer, pacer.retries, self._repeats, self._shrink, self._sleep)

    # What differs by protocol

    def _opened(self, worker: Worker) -> AbstractContextManager[None]:
        """Keep open what the machine needs."""
        del worker
        return nullcontext()

    def _alone(self, wanted: Wanted) -> AbstractContextManager[None]:
        """Surround what must not happen twice at a time."""
        del wanted
        return nullcontext()

    @abstractmethod
    def _done(self, wanted: Wanted) -> Came:
        """Do what is wanted; return what came."""

    def _keep(self, before: State) -> None:
        """Journal what is to be kept of the state, which follows on the one `before`."""

    def _failure(self, error: errors.UploaderError) -> Failed:
        return Failed(error)

    @abstractmethod
    def _repeats(self, error: errors.UploaderError, delay: float) -> None:
        """Tell of a repetition after `delay` seconds."""

    def _shrink(self) -> bool:
        """Make the request smaller, which is too large, and return whether that is possible."""
        return False

    def _sleep(self, seconds: float) -> None:
        self._context.stop.sleep(seconds)

    @abstractmethod
    def _over(self, end: Wanted) -> Result:
        """Return the result of what the machine ends with; raise the error of an upload."""


class OfFiles(Machine, Protocol):
    """The state of a machine that sends several files in one request."""

    @property
    def files(self) -> tuple[LocalFile, ...]:
        """The files of the next request."""


Files = TypeVar("Files", bound=OfFiles)


class Sent(NamedTuple):
    """A body that was answered well: its bytes, the seconds until the last one was out, and until the answer."""

    length: int
    seconds: float
    answered: float


class FilesDriver(Driver[Files, End]):
    """Run the machine that sends several files of a session in one request."""

    def __init__(
        self, context: RunContext, worker: Worker, session: UploadSession, step: Step[Files], state: Files
    ) -> None:
        super().__init__(context, step, state)
        self._worker, self._session = worker, session
        self.sent: Sent | None = None  # the last one

    def stopped(self, end: End) -> Iterator[Sequence[FileResult]]:
        """Where the machine ends because the run does: yield the results of other causes, and raise the error."""
        if self._fatal is None:
            return
        others = [result for result in end.results if result.error is not self._fatal]
        if others:
            yield others
        raise self._fatal

    def _done(self, wanted: Wanted) -> Came:
        if not isinstance(wanted, Renew):
            raise TypeError(wanted)
        is_new = self._session.renew(self._worker.api, wanted.lost)
        if is_new:
            self._context.ledger.retry(self.state.files, wanted.error)
        return Renewed(self._session.id if is_new else "", wanted.error)

    def _over(self, end: Wanted) -> End:
        if not isinstance(end, End):
            raise TypeError(end)
        return end

    def _ask(self, ask: Ask, body: Body | None, *, whole: bool) -> Answered | Failed:
        """Send one request; an answer before its last byte counts unless it has to arrive as a `whole`."""
        began = time.monotonic()
        try:
            answer = self._worker.api.ask(ask, body)
        except errors.UploaderError as error:
            self._context.stop.checkpoint()
            return Failed(error, body is None or body.through)
        finally:
            if body is not None:
                body.close()
        if body is not None and whole and not body.through:
            words = "the server answered before it had the whole request"
            return Failed(errors.ConnectionLost(words, body_sent=False), sent=False)
        if body is not None:
            self.sent = Sent(len(body), body.seconds, time.monotonic() - began)
        return Answered(answer.status, answer.body)

    def _repeats(self, error: errors.UploaderError, delay: float) -> None:
        self._context.ledger.repeat(self.state.files, error, delay)
