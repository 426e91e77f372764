"""The drivers of an upload and of the joining of parts: they do what the machine wants, and tell it what came.

They repeat nothing by themselves: where a machine wants a `Retry`, the pacer waits, or refuses. Its retries count anew
after progress.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.protocol import utf8
from uploader_cli.sources.content import Stream
from uploader_cli.transfer.bodies import Body
from uploader_cli.transfer.pacer import Tries
from uploader_cli.transfer.protocols import join, upload
from uploader_cli.transfer.protocols.join import Join
from uploader_cli.transfer.protocols.machine import Append, Begin, Create, Failed, GaveUp, Locate, Named, Waited
from uploader_cli.transfer.protocols.upload import (
    Done,
    Interim,
    Kept,
    Prepare,
    Prepared,
    ReadBack,
    ReadLast,
    Recall,
    Recalled,
    Replace,
    Retry,
    Task,
    Told,
    Upload,
)
from uploader_cli.transfer.tus_chunks import Chunks
from uploader_cli.transfer.tus_state import ONE_TRIP_LESS, is_far

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from uploader_cli.transfer.bodies import Piece
    from uploader_cli.transfer.journal.reading import PendingPart
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.protocols.machine import Position
    from uploader_cli.transfer.tus_state import Tus, TusFileState
    from uploader_cli.transfer.upload_calls import UploadCalls


State = TypeVar("State", Upload, Join)
Wanted: TypeAlias = upload.Wanted | join.Wanted
Came: TypeAlias = upload.Came | join.Came


class PositionDriver(ABC, Generic[State]):
    """Run a machine that ends at a position in an upload; `state` is what is known. Its progress renews the retries."""

    _client: UploadCalls
    _wanted: Wanted
    _part: int | None = None  # the part in whose entry of the journal it is kept; None: that of the file

    def __init__(
        self, file: TusFileState, tus: Tus, step: Callable[[State, Any], tuple[State, Wanted]], state: State
    ) -> None:
        self.state: State = state
        self._step: Callable[[State, Any], tuple[State, Wanted]] = step
        self._kept = state.kept
        self._file, self._tus, self._context = file, tus, tus.context

    def run(self, worker: Worker) -> Position:
        """Return once the server has all of it. Raise the last error, or what stopped it."""
        self._client = worker.tus
        with self._opened(worker):
            self._tell(Begin())
            tries = self._fresh_tries()
            while not isinstance(self._wanted, Done):
                with tries.leave():
                    mark = self.state.most
                    while not (isinstance(self._wanted, Retry | Done) or self.state.most > mark):
                        self._do(self._wanted)
                    if isinstance(self._wanted, Retry):
                        self._wait_out(tries, self._wanted.error)
                        continue
                tries.succeeded()
                tries = self._fresh_tries()
        if (failure := self._wanted.error) is not None:
            failure.forgets = failure.forgets or self.state.forgets
            raise failure
        return self._wanted.position

    @contextmanager
    def _opened(self, worker: Worker) -> Iterator[None]:
        """Keep open what the machine needs."""
        del worker
        yield

    def _fresh_tries(self) -> Tries:
        pacer = self._context.pacer
        return Tries(pacer, pacer.retries, self._repeats, self._shrink, self._file.sleep)

    def _wait_out(self, tries: Tries, error: errors.UploaderError) -> None:
        """Wait until what has failed may be repeated, if that can help. The leave is held meanwhile."""
        came: Came
        try:
            came = Waited() if tries.waited_out(error) else GaveUp(error)
        except errors.UploaderError as stopped:
            came = GaveUp(stopped)
        self._tell(came)

    def _tell(self, came: Came) -> None:
        """Tell the machine what came; journal what is to be kept, before what it wants is done."""
        state, self._wanted = self._step(self.state, came)
        self._go_to(state)

    def _go_to(self, state: State) -> None:
        """Take the next state, and journal what is to be kept of it."""
        self.state, kept = state, self._kept
        if state.kept == kept:
            return
        self._kept = state.kept
        names = [name for name in Kept.__struct_fields__ if getattr(state.kept, name) != getattr(kept, name)]
        changed = {name: getattr(state.kept, name) for name in names}
        self._context.run.update(self._file.file, part=self._part, **changed)

    def _do(self, wanted: Wanted) -> None:
        """Do what is wanted, and tell what came. No other request creates an upload until its URL is journaled."""
        alone = self._context.run.creation(self._file.file) if isinstance(wanted, Create) else nullcontext()
        with alone:
            came: Came
            try:
                came = self._done(wanted)
            except errors.UploaderError as error:
                came = Failed(error, accepted=self._client.has_created)
            self._tell(came)

    @abstractmethod
    def _done(self, wanted: Wanted) -> Came:
        """Do what is wanted; return what came."""

    def _locate(self, wanted: Locate) -> Told:
        self._take_leave()
        return Told(self._client.ask(wanted))

    def _take_leave(self, *, creates: bool = False) -> None:
        self._file.checkpoint()
        self._context.pacer.wait_out_pause(self._file.sleep, creates=creates)

    def _repeats(self, error: errors.UploaderError, delay: float) -> None:
        self._file.retry(error, delay)

    def _shrink(self) -> bool:
        """Make the request smaller, which is too large, and return whether that is possible."""
        return False


class JoinDriver(PositionDriver[Join]):
    """Join the parts of a file at `urls`, or search for what is left of them (`join.search`)."""

    def __init__(
        self,
        file: TusFileState,
        tus: Tus,
        urls: Iterable[str],
        step: Callable[[Join, join.Came], tuple[Join, join.Wanted]] = join.step,
    ) -> None:
        kept = Kept(url=file.upload.url, ending=file.upload.ending)
        resends = tus.context.settings.resend_unknown
        super().__init__(file, tus, step, Join(tus.terms, file.size, tuple(urls), kept=kept, resends=resends))

    def _done(self, wanted: Wanted) -> Came:
        match wanted:
            case Locate():
                return self._locate(wanted)
            case Create():
                return Told(self._client.ask(replace(wanted, metadata=self._file.metadata())))
        raise TypeError(wanted)


class UploadDriver(PositionDriver[Upload]):
    """Send a file, or one part of it, in one upload; offsets count from its start."""

    _chunk: tuple[Piece, str | None]  # that is ready to be sent, and its checksum

    def __init__(self, file: TusFileState, tus: Tus, known: PendingPart, *, whole: bool) -> None:
        """`known` is what the journal has of the upload; `whole`: it is that of the file."""
        local, context = file.file, tus.context
        task = Task(
            tus.terms,
            tus.capabilities,
            utf8(local.path),
            index=None if whole else known.index,
            # What the server of an upload URL supports is unknown.
            checksum=None if local.upload_url else tus.terms.checksum,
            given=bool(local.upload_url),
            stream=isinstance(local.content, Stream),
            resumes=file.resumes,
            resends=context.settings.resend_unknown,
            elsewhere=context.run.kept_elsewhere,
        )
        kept = Kept(known.url, known.checked_until, known.pledged_until, known.sent_until, known.ending)
        super().__init__(file, tus, upload.step, upload.begin(Upload(task, known.upload_key, known.size), kept))
        self.start, self._number, self._part = known.offset, known.index, task.index
        self._chunks = Chunks(file, tus, known.offset, known.size, task.checksum)
        self._carried = 0  # bytes of the body of the last request

    @contextmanager
    def _opened(self, worker: Worker) -> Iterator[None]:
        far = is_far(worker.api.request_ids.round_trip) and self._file.size >= ONE_TRIP_LESS
        self.state = replace(self.state, task=replace(self.state.task, far=far))
        with self._chunks.opened(worker):
            yield

    def found(self, offset: int) -> None:
        """Record the server's offset before the machine begins."""
        self._go_to(upload.found(self.state, offset))
        self._file.found(self._number, offset)

    def _tell(self, came: Came) -> None:
        before = self.state
        super()._tell(came)
        state = self.state
        for warning in state.warnings[len(before.warnings) :]:
            self._context.warn(*warning)
        if state.parts_refused:
            self._tus.parts_refused.set()
        if state.told_new is not None:
            self._tus.created_anew.add(state.told_new)
        if before.offset is None and state.offset is not None:
            if self._carried:
                self._tus.chunk.arrived(self._carried)
            self._file.found(self._number, state.offset)
            self._file.report_confirmed(state.offset)

    def _done(self, wanted: Wanted) -> Came:
        match wanted:
            case Prepare(offset, creates):
                return self._prepare(offset, creates=creates)
            case Create():
                return self._create(wanted)
            case Append(offset=offset, size=size):
                self._carried = size
                body, checksum = self._body(offset)
                with self._tus.chunk.travelling(size, time.monotonic):
                    position = self._client.ask(replace(wanted, checksum=checksum), body)
                return Told(position, body.sent)
            case Locate():
                self._carried = 0
                return self._locate(wanted)
            case ReadLast(position):
                file = self._file
                found = self._tus.readings.state(self._client, file.file, position, file.size, file.sleep)
                return ReadBack(found)
            case Recall():
                return Recalled(self._file.recall())
            case Replace(failed):
                key = self._file.renew(self.state.task.index, failed)
                self._kept = Kept()
                self._file.lost(self._number)
                return Named(key)
        raise TypeError(wanted)

    def _prepare(self, offset: int, *, creates: bool) -> Prepared:
        """Take the leave when the length of the chunk is known; a creation may be sent without it."""
        length = self._chunks.available(offset)
        self._take_leave(creates=creates)
        if not creates:
            self._chunk = self._chunks.chunk(offset, length)
        size = self._chunks.size
        at_creation = self._tus.with_creation(size) if self._tus.in_one_request(size) else None
        return Prepared(length, size, at_creation)

    def _create(self, wanted: Create) -> Told:
        state, file, local = self.state, self._file, self._file.file
        self._carried = wanted.size
        if wanted.size:
            file.begin()
        body, checksum = None, None
        if wanted.has_body:
            self._chunk = self._chunks.chunk(0, wanted.size)
            body, checksum = self._body(0)
        metadata = file.metadata((state.task.index, self.start) if state.task.index is not None else None)
        if state.task.terms.gets_keys:
            metadata["uploadKey"] = wanted.key
        path = utf8(local.relative_path)
        call = replace(wanted, metadata=metadata, checksum=checksum, path=path, sha256=local.sha256)
        position = self._client.ask(call, body, lambda url: self._tell(Interim(url)))
        if position.url:
            file.server_id = file.id_in(position)
        if body is None:
            return Told(position, server_id=file.server_id)
        return Told(position, body.sent, body.through, file.server_id)

    def _body(self, offset: int) -> tuple[Body, str | None]:
        """Return the body of the chunk that is ready, and its checksum header."""
        (piece, checksum), file = self._chunk, self._file
        return Body(
            self._client.body_type,
            [piece],
            checkpoint=file.checkpoint,
            throttle=self._context.throttle,
            on_sent=lambda _file, sent: file.report_sent(self._number, offset + sent),
            on_read=self._chunks.on_read,
            on_doubt=self._context.doubts.add,
        ), checksum

    def _repeats(self, error: errors.UploaderError, delay: float) -> None:
        lost = isinstance(error, errors.ConnectionLost | errors.TimedOut | errors.ChecksumMismatch)
        if self._carried and (lost or (isinstance(error, errors.AnswerError) and error.outage)):
            self._tus.chunk.failed()
        self._file.retry(error, delay, self._number)

    def _shrink(self) -> bool:
        return self._tus.chunk.refuse(self._carried)
