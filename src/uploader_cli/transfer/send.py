"""The driver: it does what a machine wants, and tells it what came (`protocols/machine`).

For each request it takes the pacer's leave, sends, and asks the machine again. It repeats nothing by itself.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.protocol import sent_name
from uploader_cli.sources.content import read_whole, sha256_of
from uploader_cli.sources.unchanged import failure
from uploader_cli.transfer.bodies import Body, multipart, pack_form, upload_form
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pacer import Tries, holding
from uploader_cli.transfer.protocols.machine import (
    Act,
    Answered,
    Ask,
    Begin,
    Came,
    Certain,
    End,
    Failed,
    Find,
    Form,
    Found,
    GaveUp,
    Hear,
    Heard,
    Look,
    Named,
    NewKey,
    Packed,
    Queried,
    Query,
    Read,
    Ready,
    Renew,
    Renewed,
    State,
    Step,
    Wait,
    Waited,
)
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.stored_files import equal_on_server

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Generator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.upload_session import RunContext, UploadSession


class Sent(NamedTuple):
    """A body that was answered well: its bytes, the seconds until the last one was out, and until the answer."""

    length: int
    seconds: float
    answered: float


class Driver:
    """What one job needs to run its machine: the files, their session, and the connection of its worker."""

    def __init__(
        self,
        context: RunContext,
        worker: Worker,
        session: UploadSession,
        files: Sequence[LocalFile],
        turn: threading.Lock | None = None,
    ) -> None:
        """`turn` is held while a form is sent."""
        self._context, self._worker, self._session, self._turn = context, worker, session, turn
        self._files, self._data = files, list[bytearray]()
        self.reading = 0.0  # seconds for which files were read
        self.sent: Sent | None = None  # the last one
        self.unanswered = False  # whether the server may have stored the files of a form, and is not known to have
        self._tries = self._fresh_tries()
        self._fatal: errors.UploaderError | None = None  # what ends the run

    def run(self, step: Step[State], state: State) -> Generator[Sequence[FileResult], None, End]:
        """Run a machine from `state` on; yield the results of files that can't be read.

        The value of the generator is what the machine ends with. Raise what ends the run, after the other results.
        """
        came: Came
        state, wanted = self._tell(step, state, Begin())
        while not isinstance(wanted, End):
            match wanted:
                case Ask():
                    state, wanted = self._asked(step, state, wanted)
                    continue
                case Read():
                    came, unread = self._read()
                    if unread:
                        yield unread
                case NewKey(error):
                    came = Named(self._context.run.packed(self._files))
                    self._go_on(error)
                case Renew(lost, error):
                    is_new = self._session.renew(self._worker.api, lost)
                    came = Renewed(self._session.id if is_new else "", error)
                    self._go_on(error if is_new else None)
                case _:
                    came = self._look(wanted)
            state, wanted = self._tell(step, state, came)
        if self._fatal is not None:
            others = [result for result in wanted.results if result.error is not self._fatal]
            if others:
                yield others
            raise self._fatal
        return wanted

    def _tell(self, step: Step[State], state: State, came: Came) -> tuple[State, Act]:
        """Tell a machine what came; journal what is certain now, before what it wants is done."""
        state, wanted = step(state, came)
        if not isinstance(wanted, Certain):
            return state, wanted
        if wanted.files:
            self._context.run.certain(wanted.files)
        return state, wanted.after

    def _asked(self, step: Step[State], state: State, ask: Ask) -> tuple[State, Act]:
        """Send a request, again as often as the machine wants that and the pacer allows it."""
        error: errors.UploaderError
        try:
            while True:
                with self._tries.leave():
                    came = self._ask(ask)
                    state, wanted = self._tell(step, state, came)
                    while isinstance(wanted, Look):
                        state, wanted = self._tell(step, state, self._look(wanted))
                    self.unanswered = False
                    if not (isinstance(came, Failed) and isinstance(wanted, Ask)):
                        return state, wanted
                    error, ask, self._files = came.error, wanted, wanted.files
                    if not self._tries.waited_out(error):
                        break
            if ends_run(error):
                self._fatal = error
        except errors.ServerDied as died:
            error = died
        except errors.UploaderError as fatal:
            error = self._fatal = fatal
        return self._tell(step, state, GaveUp(error))

    def _ask(self, ask: Ask) -> Answered | Failed:
        context, form, began = self._context, ask.body if isinstance(ask.body, Form) else None, time.monotonic()
        for file in ask.files:
            name = sent_name(file, paths=form is None or form.paths)
            context.ledger.start(file, self._session.id, name, packed=form is None)
        with ExitStack() as turn:  # until the last byte is out
            body = self._body(ask, turn.close)
            try:
                if form is not None and self._turn is not None:
                    turn.enter_context(holding(self._turn, context.stop.checkpoint))
                    context.pacer.wait_out_pause()  # one may have begun meanwhile
                answer = self._worker.api.ask(ask, body)
            except errors.Interrupted:
                raise
            except errors.UploaderError as error:
                context.stop.checkpoint()
                return Failed(error, body is None or body.through)
            finally:
                if body is not None:
                    body.close()
        if form is not None and body is not None and not body.through:
            words = "the server answered before it had the whole request"
            return Failed(errors.ConnectionLost(words, body_sent=False), sent=False)
        self._tries.succeeded()
        if body is not None:
            self.sent = Sent(len(body), body.seconds, time.monotonic() - began)
        return Answered(answer.status, answer.body)

    def _look(self, wanted: Look) -> Came:
        """Find out what the server has, by what was said or is asked. Raise what ends the run."""
        api, heard = self._worker.api, self._context.followers.last_heard
        match wanted:
            case Wait(seconds):
                self._context.stop.sleep(min(api.budget.poll_interval(), seconds))
                return Waited()
            case Hear(session, names):
                return Heard(tuple(heard.of(session, name) for name in names))
            case Find(files):
                return Found(tuple(equal_on_server(api, file) for file in files))
            case Query(session):
                try:
                    progress = api.progress(session, patient=True)
                except errors.RateLimited:
                    return Queried(None, limited=True)
                except errors.Interrupted:
                    raise
                except errors.UploaderError:
                    return Queried(None)
                if progress is not None:
                    heard.note(progress)
                return Queried(progress)

    def _body(self, ask: Ask, release: Callable[[], None]) -> Body | None:
        """Return the body, which reports its bytes as they leave; `release` is called when a form is out."""
        match ask.body:
            case Packed(manifest):
                return self._pack(manifest)
            case Form():
                return self._form(ask.body, ask.files, release)
        return None

    def _pack(self, manifest: bytes) -> Body:
        """Return the body of a pack, with the bytes before the data and after it reported in proportion."""
        context, numbers = self._context, tuple(file.file for file in self._files)
        form = pack_form(manifest, self._data)
        data, length = sum(map(len, self._data)), sum(piece.length for piece in form[1])
        return Body(
            *form,
            checkpoint=context.stop.checkpoint,
            throttle=context.throttle,
            on_count=lambda sent: context.emit(ev.PackSent(numbers, sent * data // length)),
            on_through=lambda: context.emit(ev.BodySent(numbers)),
        )

    def _form(self, form: Form, files: Sequence[LocalFile], release: Callable[[], None]) -> Body:
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
            on_last=lambda: context.run.uncertain(files),  # a kill from here on may leave the files stored
            on_through=on_through,
            on_read=context.digests.read,
            on_doubt=context.doubts.add,
        )

    def _read(self) -> tuple[Ready, list[FileResult]]:
        """Read all files; return their digests, and the results of those that can't be read."""
        digests, unread, began = list[str | None](), list[FileResult](), time.monotonic()
        read: list[LocalFile] = []
        for file in self._files:
            data = bytearray(file.size)
            try:
                digests.append(self._read_one(file, data))
            except errors.FileError as error:
                digests.append(None)
                unread.append(FileResult(file, error))
            else:
                read.append(file)
                self._data.append(data)
        self._files, self.reading = read, time.monotonic() - began
        return Ready(tuple(digests)), unread

    def _read_one(self, file: LocalFile, data: bytearray) -> str:
        """Read a file into `data` and return its SHA-256; one in doubt is read twice. Raise `FileError`."""
        checkpoint, doubts = self._context.stop.checkpoint, []
        digest = read_whole(file, memoryview(data), checkpoint, lambda *doubt: doubts.append(doubt))
        if doubts and sha256_of(file, checkpoint) != digest:
            raise failure(file, "it changed while it was being read")
        return digest

    def _go_on(self, error: errors.UploaderError | None) -> None:
        """Count retries anew, because something other than a wait has changed; `error` was the reason."""
        self._tries = self._fresh_tries()
        if error is not None:
            self._context.ledger.retry(self._files, error)

    def _fresh_tries(self) -> Tries:
        pacer = self._context.pacer
        return Tries(pacer, pacer.retries, lambda *why: self._context.ledger.repeat(self._files, *why))
