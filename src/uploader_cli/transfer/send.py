"""The driver: it does what a machine wants, and tells it what came (`protocols/machine`).

For each request it takes the pacer's leave, sends, and asks the machine again. It repeats nothing by itself.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.protocol import utf8
from uploader_cli.sources.content import read_whole, sha256_of
from uploader_cli.sources.unchanged import failure
from uploader_cli.transfer.bodies import Body, pack_form
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pacer import Tries
from uploader_cli.transfer.protocols.machine import (
    Answered,
    Ask,
    Begin,
    Came,
    End,
    Failed,
    GaveUp,
    Named,
    NewKey,
    Packed,
    Read,
    Ready,
    Renew,
    Renewed,
    State,
    Step,
    Wanted,
)
from uploader_cli.transfer.results import FileResult

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.upload_session import RunContext, UploadSession


class Driver:
    """What one job needs to run its machine: the files, their session, and the connection of its worker."""

    def __init__(self, context: RunContext, worker: Worker, session: UploadSession, files: Sequence[LocalFile]) -> None:
        self._context, self._worker, self._session = context, worker, session
        self._files, self._data = list(files), list[bytearray]()
        self.reading = 0.0  # seconds for which files were read
        self.sent: tuple[int, float] | None = None  # bytes of the last body that was answered well, and its seconds
        self._tries = self._fresh_tries()

    def run(self, step: Step[State], state: State) -> Generator[Sequence[FileResult], None, End]:
        """Run a machine from `state` on; yield the results of files that can't be read.

        The value of the generator is what the machine ends with. Raise what ends the run.
        """
        came: Came
        state, wanted = step(state, Begin())
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
            state, wanted = step(state, came)
        return wanted

    def _asked(self, step: Step[State], state: State, ask: Ask) -> tuple[State, Wanted]:
        """Send a request, again as often as the machine wants that and the pacer allows it."""
        while True:
            with self._tries.leave():
                came = self._ask(ask)
                state, wanted = step(state, came)
                if not (isinstance(came, Failed) and isinstance(wanted, Ask)):
                    return state, wanted
                try:
                    may_repeat, error = self._tries.waited_out(came.error), came.error
                except errors.ServerDied as died:
                    may_repeat, error = False, died
                if not may_repeat and ends_run(error):
                    raise error
                if not may_repeat:
                    return step(state, GaveUp(error))
                ask = wanted

    def _ask(self, ask: Ask) -> Answered | Failed:
        for file in self._files:
            self._context.ledger.start(file, self._session.id, utf8(file.relative_path), packed=True)
        body, began = None if ask.body is None else self._body(ask.body), time.monotonic()
        try:
            answer = self._worker.api.ask(ask, body)
        except errors.Interrupted:
            raise
        except errors.UploaderError as error:
            return Failed(error, body is None or body.through)
        self._tries.succeeded()
        if body is not None:
            self.sent = len(body), time.monotonic() - began
        return Answered(answer.status, answer.body)

    def _body(self, packed: Packed) -> Body:
        """Return the body, which reports its bytes as they leave, those before the data and after it in proportion."""
        context, numbers = self._context, tuple(file.file for file in self._files)
        form = pack_form(packed.manifest, self._data)
        data, length = sum(map(len, self._data)), sum(piece.length for piece in form[1])
        return Body(
            *form,
            checkpoint=context.stop.checkpoint,
            throttle=context.throttle,
            on_count=lambda sent: context.emit(ev.PackSent(numbers, sent * data // length)),
            on_through=lambda: context.emit(ev.BodySent(numbers)),
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
