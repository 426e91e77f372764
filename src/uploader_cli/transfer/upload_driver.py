"""The drivers of an upload and of the joining of parts: what they do for the machines, journal and report."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol, TypeVar

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.protocol import utf8
from uploader_cli.sources.content import Stream
from uploader_cli.transfer.bodies import Body
from uploader_cli.transfer.protocols import join, upload
from uploader_cli.transfer.protocols.join import Join
from uploader_cli.transfer.protocols.machine import (
    Append,
    Create,
    Done,
    Failed,
    Interim,
    Locate,
    Machine,
    Named,
    NewKey,
    Position,
    Read,
    ReadBack,
    ReadLast,
    Ready,
    Recall,
    Recalled,
    Told,
)
from uploader_cli.transfer.protocols.upload import Kept, Task, Upload
from uploader_cli.transfer.send import Driver
from uploader_cli.transfer.tus_chunks import Chunks
from uploader_cli.transfer.tus_state import ONE_TRIP_LESS, is_far

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from uploader_cli.transfer.bodies import Piece
    from uploader_cli.transfer.journal.reading import PendingPart
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.protocols.machine import Came, Step, Wanted
    from uploader_cli.transfer.tus_state import Tus, TusFileState
    from uploader_cli.transfer.upload_calls import UploadCalls


class OfUpload(Machine, Protocol):
    """The state of a machine that ends at a position in an upload."""

    @property
    def kept(self) -> Kept:
        """What the journal has of it."""

    @property
    def forgets(self) -> bool:
        """Whether the journal forgets the file, which the server has refused for good."""


State = TypeVar("State", bound=OfUpload)


class PositionDriver(Driver[State, Position]):
    """Run a machine that ends at a position in an upload."""

    _client: UploadCalls
    _part: int | None = None  # the part in whose entry of the journal it is kept; None: that of the file

    def __init__(self, file: TusFileState, tus: Tus, step: Step[State], state: State) -> None:
        super().__init__(tus.context, step, state)
        self._file, self._tus = file, tus

    @contextmanager
    def _opened(self, worker: Worker) -> Iterator[None]:
        self._client = worker.tus
        yield

    def _alone(self, wanted: Wanted) -> AbstractContextManager[None]:
        """No other request creates an upload until its URL is journaled."""
        return self._context.run.creation(self._file.file) if isinstance(wanted, Create) else nullcontext()

    def _over(self, end: Wanted) -> Position:
        """Return where the server has all of it. Raise the last error, or what stopped it."""
        if not isinstance(end, Done):
            raise TypeError(end)
        if (failure := end.error) is not None:
            failure.forgets = failure.forgets or self.state.forgets
            raise failure
        return end.position

    def _keep(self, before: State) -> None:
        kept, old = self.state.kept, before.kept
        if kept != old:
            changed = [name for name in Kept.__struct_fields__ if getattr(kept, name) != getattr(old, name)]
            values = {name: getattr(kept, name) for name in changed}
            self._context.run.update(self._file.file, part=self._part, **values)

    def _failure(self, error: errors.UploaderError) -> Failed:
        return Failed(error, accepted=self._client.has_created)

    def _locate(self, wanted: Locate) -> Told:
        self._file.checkpoint()
        return Told(self._client.ask(wanted))

    def _repeats(self, error: errors.UploaderError, delay: float) -> None:
        self._file.retry(error, delay)

    def _sleep(self, seconds: float) -> None:
        self._file.sleep(seconds)


class JoinDriver(PositionDriver[Join]):
    """Join the parts of a file at `urls`, or search for what is left of them (`join.search`)."""

    def __init__(
        self,
        file: TusFileState,
        tus: Tus,
        urls: Iterable[str],
        step: Step[Join] = join.step,
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
        self._client = worker.tus
        far = is_far(worker.api.request_ids.round_trip) and self._file.size >= ONE_TRIP_LESS
        self.state = replace(self.state, task=replace(self.state.task, far=far))
        with self._chunks.opened(worker):
            yield

    def found(self, offset: int) -> None:
        """Record the server's offset before the machine begins."""
        before, self.state = self.state, upload.found(self.state, offset)
        self._keep(before)
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
            case Read(offset, creates):
                return self._read(offset, creates=creates)
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
            case NewKey(failed=failed):
                key = self._file.renew(self.state.task.index, failed)
                self.state = replace(self.state, kept=Kept())  # the journal has nothing of the new one
                self._file.lost(self._number)
                return Named(key)
        raise TypeError(wanted)

    def _read(self, offset: int, *, creates: bool) -> Ready:
        """Wait out a pause when the length of the chunk is known; a creation may be sent without it."""
        length = self._chunks.available(offset)
        self._file.checkpoint()
        self._context.pacer.wait_out_pause(self._file.sleep, creates=creates)
        if not creates:
            self._chunk = self._chunks.chunk(offset, length)
        size = self._chunks.size
        at_creation = self._tus.with_creation(size) if self._tus.in_one_request(size) else None
        return Ready(length, size, at_creation)

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
