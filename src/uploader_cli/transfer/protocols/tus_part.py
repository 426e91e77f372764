"""One upload with tus: a file, or one part of a large file (docs/resumable-uploads.md)."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode, WarningCode
from uploader_cli.core.confirmation import UNCERTAIN, Ending, KnownBy, UploadState, refuses, upload_state
from uploader_cli.core.plan import ENDLESS
from uploader_cli.core.protocol import utf8
from uploader_cli.transfer.bodies import Body
from uploader_cli.transfer.protocols.dialect import Append, Creation
from uploader_cli.transfer.protocols.machine import Position
from uploader_cli.transfer.protocols.tus_chunks import Chunks
from uploader_cli.transfer.protocols.tus_entry import UploadEntry
from uploader_cli.transfer.protocols.tus_state import EARLIER, GONE, NOT_ENDED, NOT_STORED, ONE_TRIP_LESS, TWICE, is_far
from uploader_cli.transfer.upload_calls import impossible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.transfer.journal import PendingPart
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.protocols.tus_state import Tus, TusFileState
    from uploader_cli.transfer.upload_calls import UploadCalls

RESTARTS = 3  # new uploads per run after the server has lost one
BREAKS = (errors.ConnectionLost, errors.TimedOut, errors.ServerFault)
"""Errors after which the server may have kept a part of the bytes of a request."""


class Part:
    """One range of a file, or all of it (`index` None), and its upload. Offsets count from its start.

    After each failure the server is asked for its offset (docs/resumable-uploads.md). The count of retries restarts
    only when the offset exceeds all before, so the loop ends.
    """

    _client: UploadCalls
    _is_far: bool
    _last: Position

    def __init__(self, state: TusFileState, tus: Tus, known: PendingPart, *, whole: bool) -> None:
        """`known` is what the journal has of the upload."""
        self.entry = UploadEntry(state, tus, known, whole=whole)
        self.start = known.offset
        self.resumed = self.entry.checked + self.entry.pledged > 0  # whether an earlier run sent checksums
        self.continued = self.entry.reach > 0  # whether bytes were sent after a break, and before it
        self._state, self._number, self._tus = state, known.index, tus
        self._reason: errors.AnswerError | None = None  # that of the request that would complete the upload
        self._broken = False  # whether a request may have ended after some of its bytes
        # What the server of an upload URL supports is unknown.
        checksum = tus.terms.checksum if not state.file.upload_url else None
        self._chunks = Chunks(state, tus, known.offset, known.size, checksum)
        self._deferred = self._declared = False  # whether the server does not know the end; whether it declares that
        self._offset: int | None = None  # the server's offset; None while it is unknown
        self._most = -1  # the highest offset so far
        self._done = self._completing = self._renewed = False  # `_completing`: the last request would do that
        self._accepted = False  # whether a creation with all bytes has succeeded, and no bytes were sent after it
        self._asked = state.resumes  # whether the key may have been sent before
        self._carried = self._restarts = 0  # bytes of the body of the last request; new uploads in place of lost ones

    def run(self, worker: Worker) -> Position:
        """Return once the server has all of it. Raise the last error, or what stopped it."""
        state, tus = self._state, self._tus
        self._client = worker.tus
        self._is_far = is_far(worker.api.request_ids.round_trip) and self._state.size >= ONE_TRIP_LESS
        try:
            with self._chunks.opened(worker):
                while not self._done:
                    tus.context.pacer.call(self._advance, on_retry=self._failed, shrink=self._shrink, sleep=state.sleep)
        except (errors.ConnectionLost, errors.ServerFault):
            if not self._is_there_after_all():
                raise
        return self._last

    @property
    def size(self) -> int:
        """The bytes of the part; `ENDLESS` until the end of a stream is found."""
        return self._chunks.size

    def found(self, offset: int) -> None:
        """Record the server's offset, which may be lower than before."""
        self._state.found(self._number, offset)
        self.entry.found(offset, self.size)

    def usable(self, offset: int) -> int:
        """Return how many of the server's bytes are kept: none of a part that is sent again."""
        return offset if self._state_at(offset) in (UploadState.OPEN, UploadState.CONFIRMED) else 0

    def _failed(self, error: errors.UploaderError, delay: float) -> None:
        lost = isinstance(error, errors.ConnectionLost | errors.TimedOut | errors.ChecksumMismatch)
        if self._carried and (lost or (isinstance(error, errors.AnswerError) and error.outage)):
            self._tus.chunk.failed()
        self._state.retry(error, delay, self._number)

    def _shrink(self) -> bool:
        return self._tus.chunk.refuse(self._carried)

    def _is_there_after_all(self) -> bool:
        """Ask once more when no retry is left: an answer that was lost is no failure."""
        if self.entry.url is None or not self._completing:
            return False
        try:
            self._tus.context.pacer.wait_out_pause(self._state.sleep)
            position = self._client.head(self.entry.url)
            self._note(position)
            offset = position.offset or 0
            if self._state_at(offset) in (UploadState.CONFIRMED, UploadState.UNKNOWN):
                self._settle(position, offset)
        except errors.UploaderError:
            return False
        return self._done

    def _advance(self) -> None:
        """Find the server's offset, then send chunks until it is higher than ever, or the upload is complete."""
        mark = self._most
        while self._offset is None and not self._done:
            if self.entry.url is None:
                self._create()
            else:
                self._find(self.entry.url)
        while not self._done and self._offset is not None and self._offset <= mark:
            self._send(self._offset, self.entry.url or "")

    def _create(self) -> None:
        """Create an upload, without a body where the key was sent before: the server may know it."""
        state, again, self._asked = self._state, self._asked, True
        self._chunks.available(0)
        size = self._first_length(again=again)
        if size == self.size and state.may_be_stored(self.entry.ending):  # without a URL nothing says how that ended
            if self._restarts or not state.resends:
                self._end_unsure("")
                return
            self._restarts += 1
        if size:
            state.begin()
        completes = size == self.size and (size > 0 or state.stored_at_creation)
        self._prepare(size, completes=completes, creates=True)
        with self._tus.context.run.creation(state.file):
            created = self._post(size)
            if not created.url:  # some servers store an empty or a small file at its creation, without an upload
                state.unchecked = self._done = True
                self._confirm(created, size)
                return
            self._note(created)
            self._created(created)
        if (early := self.entry.reach < size) and created.offset is None:
            created = self._client.head(created.url)
        completes = completes and not early
        self._accepted, before = completes, self.entry.ending
        asks = again and before is not Ending.ERROR  # whether the server may have found the first upload by its key
        offset = created.offset if created.offset is not None or size or asks else 0
        if before is Ending.ERROR and not offset:  # that of a creation that was refused
            self.entry.ending = Ending.NONE
        if offset is not None:
            is_known = not self._deferred and self.entry.adopts(offset)
            self._settle(created, offset, accepted=completes or created.complete is True or is_known)
        elif asks:
            self._find(created.url)
        if before in UNCERTAIN and self._offset == 0 and self.entry.index is None:
            self._tus.context.warn(WarningCode.MAY_BE_STORED, f"{utf8(state.file.path)}: {TWICE}")

    def _post(self, size: int) -> Position:
        """Send the request that creates the upload, with its first `size` bytes."""
        state, file, index = self._state, self._state.file, self.entry.index
        # A body without a byte tells @tus/server that an empty file is complete: its S3 store stores it only then.
        is_stored = state.stored_at_creation and self._tus.capabilities.creates_with_upload
        body, checksum = self._chunk(0, size) if size or is_stored else (None, None)
        partial = index is not None
        metadata = state.metadata((index, self.start) if index is not None else None)
        if state.terms.gets_keys:
            metadata["uploadKey"] = self.entry.key
        self._deferred = self.size == ENDLESS
        length, path = None if self._deferred else self.size, utf8(file.relative_path)
        new = Creation(length, metadata, body, checksum, partial, path=path, sha256=file.sha256, on_url=self._announced)
        try:
            with self._completion():
                created = self._client.create(new)
        except errors.AnswerError as error:
            if not error.retryable:
                self.entry.refused()
            if partial and not state.terms.keys and refuses(error.status, by_server=True):
                self._tus.parts_refused.set()
            raise
        offset = created.offset or 0
        if created.url and body is not None and offset > (body.sent if state.terms.keys else self.size):
            self._created(created)
            raise impossible(created, 0, body)
        if created.url and body is not None and size and not state.terms.keys:
            is_new = created.new and offset <= body.sent
            self._tus.created_anew.add(is_new)
            if not body.through:
                self.entry.reach = body.sent  # answered before all bytes were sent: the server may have them already
            elif size == self.size and not is_new:
                self.entry.reach = 0  # the same answer as for an upload that was complete before
        return created

    def _created(self, created: Position) -> None:
        self._broken, self._state.server_id = False, self._state.id_in(created)
        is_sent = self._carried == self.size and self._tus.in_one_request(self.size)
        self.entry.created(created.url, self._chunks.length(0), is_sent=is_sent)

    def _announced(self, url: str) -> None:
        self.entry.announced(url, self._chunks.length(0))

    def _find(self, url: str) -> None:
        self._prepare(0)
        try:
            found = self._client.head(url)
        except errors.UploadGone as error:
            # All bytes were sent: servers and their hooks may delete an upload once its file is stored.
            sent = self.entry.index is None and (self._accepted or self.entry.ending in UNCERTAIN)
            unsure = self._state.may_be_stored(self.entry.ending)
            if (sent and self._renewed) or (unsure and not self._state.resends):
                self._end_unsure(url)
                return
            if sent:
                self._tus.context.warn(WarningCode.MAY_BE_STORED, f"{utf8(self._state.file.path)}: {GONE}")
            self._restart(error, failed=sent or unsure or self.entry.ending is Ending.ERROR)
            return
        except errors.NotFound as error:  # perhaps of a proxy, which does not know a wrong URL either
            if not self._state.file.upload_url or self.entry.reach or self._most >= 0:
                raise
            self._restart(error)
            return
        self._deferred = found.headers.get("Upload-Defer-Length") == "1"
        self._note(found)
        if found.offset is not None and found.length in (None, self.size):
            self._settle(found, found.offset, accepted=self._accepted)
        elif self._state.file.upload_url and found.length not in (None, self.size):
            words = f"its upload was created for {found.length:,} bytes, and it has {self.size:,}: nothing was sent"
            raise errors.FileFailure(words, code=FailureCode.SERVER_REFUSED)
        else:
            claim = f"offset {found.offset} of {found.length} bytes"
            self._restart(errors.ProtocolError(f"{url} claims {claim}, which is not what was sent there"))

    def _end_unsure(self, url: str) -> None:
        """End the part of a file that may be stored: its upload, if it had one, is gone."""
        self._state.known_by, self._done, self._last = KnownBy.NOTHING, True, Position(url, None, {})

    def _note(self, position: Position) -> None:
        """Take what the server says about the end of the upload, where its protocol has words for that."""
        if position.complete is not None:
            self._declared, self._deferred = position.complete, not position.complete
            if not position.complete and "Upload-Complete" in position.headers:
                self.entry.ending = Ending.NONE  # it is said, not assumed

    def _state_at(self, offset: int, *, accepted: bool = False) -> UploadState:
        length, state, entry = None if self._deferred else self.size, self._state, self.entry
        accepted = accepted or state.stored_at_creation
        known = {"declared": self._declared, "accepted": accepted, "part": entry.index is not None}
        return upload_state(offset, length, entry.reach, entry.ending, tells_stored=state.terms.tells_stored, **known)

    def _settle(self, position: Position, offset: int, *, accepted: bool = False) -> None:
        """Continue from the server's offset, end, or begin another upload.

        `accepted`: the position is in the success of the request that completes the upload.
        """
        state, found = self._state, self._state_at(offset, accepted=accepted)
        if found is UploadState.INTRUDED and state.file.upload_url and not state.resumes and self._most < 0:
            text = f"{utf8(state.file.path)}: {offset:,} bytes of its upload were sent elsewhere: they are not verified"
            self._tus.context.warn(WarningCode.FOREIGN_BYTES, text)
            state.unchecked, self.entry.reach = True, self.size
            found = self._state_at(offset)
        if found is UploadState.UNKNOWN and self.entry.index is None:
            found = state.read_last(self._client, position)
        if found is UploadState.INTRUDED:
            there, sent = f"the server has {offset:,} bytes of its upload", f"and {self.entry.reach:,} were sent"
            error = errors.ProtocolError(f"{there}, {sent}: somebody else writes to it")
            self._restart(error)
            text = f"{utf8(state.file.path)}: {error}; it is sent again from the beginning"
            self._tus.context.warn(WarningCode.FOREIGN_BYTES, text)
        elif found is UploadState.UNKNOWN and self.entry.index is None and (self._renewed or not state.resends):
            state.known_by, self._done, self._last = KnownBy.NOTHING, True, position
        elif found in (UploadState.FAILED, UploadState.UNKNOWN):  # a part that may be complete is no file yet
            words = EARLIER if self.entry.ending is Ending.ERROR else NOT_STORED
            self._restart(errors.ServerFault(words, status=500), failed=True)
        else:
            self._done = found is UploadState.CONFIRMED
            self._confirm(position, offset)

    def _restart(self, error: errors.UploaderError, *, failed: bool = False) -> None:
        """Forget the upload, and journal the key of the next one. Raise where that is impossible.

        `failed`: the server has all bytes and did not store them; there is one new upload in a run then.
        """
        error = self._reason if failed and self._reason is not None else error
        if self._state.file.upload_url:
            words = f"its upload can't be used: {error}; ask the service for a new upload URL"
            raise errors.FileFailure(words, code=FailureCode.SERVER_REFUSED) from error
        if self._chunks.stream is not None and self._chunks.stream.start:
            words = f"what was sent of it is lost, and it can't be read again: {error}"
            raise errors.FileFailure(words, code=error.code) from error
        if failed and self._renewed:
            raise errors.NotFinished(error) if isinstance(error, errors.AnswerError) else error
        if self._restarts == RESTARTS:
            raise error
        self._restarts, self._renewed = self._restarts + 1, self._renewed or failed
        self.entry.renew(failed=failed)
        self._asked, self._most, self._reason = failed, -1, None
        self._state.lost(self._number)
        self.continued = self._broken = False

    def _send(self, offset: int, url: str) -> None:
        """Send one chunk and record the new offset. Raise `OffsetConflict` for an impossible one."""
        self._offset, before = None, self.entry.ending  # the offset is unknown until the answer
        self.continued = self.continued or self._broken
        size, reach = self._chunks.available(offset), self.entry.reach
        self._prepare(size, completes=offset + size == self.size)
        body, checksum = self._chunk(offset, size)
        length = self.size if self._deferred and self.size != ENDLESS else None
        try:
            with self._tus.chunk.travelling(size, time.monotonic), self._completion():
                sent = self._client.ask(Append(url, offset, len(body), checksum, length), body)
        except errors.AnswerError as error:
            if before in UNCERTAIN and not size and self._state.terms.may_forget and not error.retryable:
                self.entry.ended(before)  # a complete upload may be refused its end, and HEAD does not tell that
                if self._renewed or not self._state.resends:
                    self._end_unsure(url)
                else:
                    self._restart(error, failed=True)
                return
            if self.size or not self._state.stores_early(error):
                raise
            self._state.unchecked = self._done = True  # the server has stored the empty file at its creation, or not
            self._confirm(self._last, 0)
            return
        if not body.through:  # more than what was sent before this answer is from somebody else
            self.entry.reach = max(reach, offset + body.sent)
        # The end of a stream may be found when all its bytes have been sent.
        if sent.offset is None or not offset + (size > 0) <= sent.offset <= offset + body.sent:
            raise impossible(sent, offset, body)
        self._deferred = self._deferred and length is None
        self._note(sent)
        if self._completing and not size and self._deferred:  # nothing is left to send: the next request is the same
            raise errors.ServerFault(NOT_ENDED, status=500)
        self._done = sent.offset == self.size and not self._deferred
        self._confirm(sent, sent.offset)

    @contextmanager
    def _completion(self) -> Iterator[None]:
        """Where the request within would complete the upload, journal how it ended unless it succeeded."""
        try:
            yield
        except errors.UploaderError as error:
            self._broken = self._broken or (self._carried > 0 and isinstance(error, BREAKS))
            if self._completing and not self._state.terms.tells_stored:
                error = self.entry.failed(error, has_created=self._client.has_created)
                self._reason = error if isinstance(error, errors.AnswerError) else None
                if (
                    self.entry.url is None
                    and self.entry.ending is Ending.ERROR
                    and isinstance(error, errors.ServerFault)
                ):
                    # A creation with all bytes: what follows is the new upload. By its key it would be the failed one.
                    self._renewed = True
                    self.entry.renew(failed=True)
            raise error from error.__cause__
        if self._completing:
            self.entry.ending = Ending.NONE

    def _first_length(self, *, again: bool) -> int:
        """Return the bytes that are sent with the creation.

        A distant server that knows keys gets the first chunk: it finds an upload whose creation was not answered.
        """
        if self.size < self._tus.capabilities.resumes_from:
            return self.size
        if again:
            return 0
        if self._tus.in_one_request(self.size):
            return self._tus.with_creation(self.size)
        has_key = self._state.terms.keys and self._tus.capabilities.creates_with_upload
        return self._chunks.length(0) if self._is_far and has_key and self._chunks.stream is None else 0

    def _prepare(self, size: int, *, completes: bool = False, creates: bool = False) -> None:
        """Wait until a request with a body of `size` bytes may be sent, which `completes` or `creates` the upload."""
        self._carried, self._completing = size, completes
        self._accepted = self._accepted and not size
        self._state.checkpoint()
        self._tus.context.pacer.wait_out_pause(self._state.sleep, creates=creates)

    def _chunk(self, offset: int, size: int) -> tuple[Body, str | None]:
        """Journal what is about to be sent; return the body of a chunk and its checksum header."""
        state = self._state
        piece, checksum = self._chunks.chunk(offset, size)
        checked = checksum is not None and self._tus.terms.trusts_checksums
        self.entry.sends(offset, offset + size, self.size, checked=checked)
        body = Body(
            self._client.body_type,
            [piece],
            checkpoint=state.checkpoint,
            throttle=self._tus.context.throttle,
            on_sent=lambda _file, sent: state.report_sent(self._number, offset + sent),
            on_read=self._chunks.on_read,
            on_doubt=self._tus.context.doubts.add,
        )
        body.completes = self._completing
        return body, checksum

    def _confirm(self, position: Position, offset: int) -> None:
        self._most = max(self._most, offset)
        if self._carried:
            self._tus.chunk.arrived(self._carried)
        self._offset, self._last = offset, position
        self.found(offset)
        self._state.report_confirmed(offset)
