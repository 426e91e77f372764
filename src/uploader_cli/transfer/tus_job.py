"""Jobs that upload with tus: one file, or one part of a large file (docs/protocol.md, section 5)."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.codes import FailureCode, WarningCode
from uploader_cli.core.confirmation import TAKES_NO_PATCH, UNCERTAIN, Ending, Verdict, ending_of, refuses, verdict
from uploader_cli.core.plan import ENDLESS, LocalFile
from uploader_cli.core.protocol import TAKEN, utf8
from uploader_cli.core.sizes import FIRST_CHUNK, ChunkSize
from uploader_cli.core.tus import LARGE, LARGE_AND_FAR, LEAST_PART, Capabilities, checksum_header, chunk_length
from uploader_cli.core.tus import parts as cut
from uploader_cli.sources.chunks import IN_MEMORY, Buffers, HashedChunks
from uploader_cli.sources.content import PATIENCE, Stream, ignore_read, open_unchanged
from uploader_cli.transfer.bodies import Body, Piece, metadata_of, named
from uploader_cli.transfer.job import Outcome, ends_run, failed
from uploader_cli.transfer.journal import Claim, ClaimState, PendingPart, PendingUpload
from uploader_cli.transfer.pool import Pool, Step, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uploader_cli.transfer.sessions import Context, UploadSession
    from uploader_cli.transfer.tus import Position, TusClient

ID_HEADERS = ("Upload-File-Id", "stream-media-id")  # headers with the server's ID of a file, without `id-header`
RESTARTS = 3  # new uploads per run after the server has lost one
JOINED = "the server was asked to join its parts, and no answer tells whether it did: it may have stored the file"
EARLIER = "the server answered an earlier request for its last bytes with an error"
FAR = 0.02  # seconds of round trip from which one connection does not fill the link
TICK = 0.25  # seconds between two checks for a failure of another part


@dataclass(frozen=True, slots=True)
class Tus:
    """What all tus jobs of a run share. `checksum` is an algorithm or None."""

    context: Context
    pool: Pool
    capabilities: Capabilities
    chunk: ChunkSize
    checksum: str | None
    in_batch: Callable[[TusFile, errors.PatchBlocked], None] | None = None
    """Send a file in batch mode; None where the user or the server wants tus."""
    buffers: Buffers = field(default_factory=Buffers)

    @property
    def chunk_size(self) -> int:
        """Bytes of the next chunk."""
        return self.chunk.size if self.checksum is None else self.chunk_in_memory

    @property
    def chunk_in_memory(self) -> int:
        """Bytes of the next chunk where it is kept in memory, which limits an adaptive size."""
        size = self.chunk.size
        return min(size, max(IN_MEMORY, self.chunk.least)) if self.chunk.adapts else size

    def in_one_request(self, length: int) -> bool:
        """Return whether `length` bytes are sent with the creation."""
        most = min(self.chunk.size, FIRST_CHUNK) if self.chunk.adapts else self.chunk.size
        return self.capabilities.creates_with_upload and length <= most

    def parts(self, size: int, idle: int, round_trip: float | None) -> int:
        """Return the number of parts of a file of `size` bytes: more than one on a distant or capped link."""
        if not idle or not self.capabilities.concatenates:
            return 1
        if round_trip is not None and round_trip > FAR and size >= LARGE_AND_FAR:
            return min(1 + idle, size // LEAST_PART)
        return 1 + idle if self.chunk.capped and size >= LARGE else 1


class TusFile:
    """Send one file, in one upload or in parts that are joined. `claim` is its state in the journal.

    The threads of all parts report to it; its events are sums. Within an attempt no number falls; a retry of any part
    ends the attempt.
    """

    def __init__(self, tus: Tus, session: UploadSession, file: LocalFile, claim: Claim) -> None:
        self.session, self.file = session, file
        self.sent_to = session.id  # the id of the session that is named to the server
        self.resumes = claim.state not in (ClaimState.NEW, ClaimState.CHANGED)
        self.foreign = tus.context.settings.foreign  # without upload keys; joined parts remain
        self.unsure = False  # whether nothing tells if the server has stored the file
        self.unchecked = False  # whether bytes are there that this client has not sent, or no answer confirmed the end
        self.parts: list[Part] = []
        self.error: BaseException | None = None  # the first failure of a part: it stops the others
        self._tus, self._context = tus, tus.context
        # An upload that a service created is never deleted.
        self._outdated = claim.outdated.urls if claim.outdated is not None and not file.upload_url else ()
        self._upload = claim.upload or PendingUpload("")
        self.server_id = self._upload.server_id  # from the answer to the creation
        self.has_keys = not tus.context.settings.preset  # the service of a preset may not know metadata
        self._begun, self._left = False, 0
        self._most_confirmed = self._most_sent = 0
        self._lock = threading.RLock()

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome of the file. Raise what ends the run."""
        if self._context.fails_fast:
            self.session.skip(worker.api, [self.file])
            return
        self._discard(worker.tus, self._outdated)
        yield from self._end(worker, lambda: self._send(worker))

    def _send_part(self, part: Part, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Send one part. The last one to end joins them and yields the outcome of the file."""
        failure = None
        try:
            self.check()
            part.run(worker)
        except BaseException as error:  # noqa: BLE001 - raised by the part that ends last
            failure = error
        with self._lock:
            self.error = self.error or failure
            self._left -= 1
            is_last = not self._left
        if is_last:
            yield from self._end(worker, lambda: self._join(worker.tus))

    def _end(self, worker: Worker, last: Callable[[], Position | None]) -> Iterator[Sequence[Outcome]]:
        """Call `last` and yield the outcome; a file whose session is lost resumes in another one."""
        file = self.file
        try:
            sent = last()
        except errors.UploaderError as error:
            if not isinstance(error, errors.FileError | errors.Interrupted):
                self.begin()  # the attempt is reported before it fails
            if ends_run(error):
                raise
            if isinstance(error, errors.SessionLost) and self.session.renew(worker.api, self.sent_to):
                self._context.ledger.retry([file], error)
                (claim,) = self._context.run.claim([file])
                self._tus.pool.put([TusFile(self._tus, self.session, file, claim)], first=True)
            elif isinstance(error, errors.PatchBlocked) and self._tus.in_batch is not None and not file.once:
                self._tus.in_batch(self, error)
                self.session.over(worker.api, 1, given_up=1)
            elif isinstance(error, errors.AnswerError) and error.error == TAKEN:
                yield [failed(file, FailureCode.EXISTS, str(error))]
            else:
                yield [Outcome(file, error)]
            return
        if sent is not None:
            location = sent.headers.get("Content-Location")
            if file.upload_url and not location:
                readable = None  # no event and no receipt has the URL of an upload that a service created
            else:  # only the paths of a foreign server are known
                readable = urljoin(sent.url, location or "") if self.foreign else location or sent.url
            verified = not self.unchecked and sum(part.checked for part in self.parts) == self.size
            server_id = self.id_in(sent) or self.server_id
            file = replace(file, size=self.size) if file.once else file
            if self.unsure:
                self.begin()  # the attempt is reported before it fails
            else:  # some servers name uploads by their metadata: an old URL may be the new one
                self._discard(worker.tus, (url for url in self._upload.replaced if url != sent.url))
            known = Outcome(file, server_id=server_id, location=location, readable=readable)
            yield [known._replace(verified=verified and not self.unsure, unsure=self.unsure)]

    def _send(self, worker: Worker) -> Position | None:
        """Return the complete upload; None where its parts have become jobs."""
        tus, run, file, upload, session = self._tus, self._context.run, self.file, self._upload, self.session.id
        whole = self.resumes or file.upload_url or file.once or run.secret  # another process would not find parts
        count = 1 if whole else tus.parts(file.size, tus.pool.idle, worker.api.request_ids.round_trip)
        sizes, parts = [size for _, size in cut(file.size, count)], upload.parts
        if len(sizes) > 1:
            self._upload, parts = run.creating(file, session, replaced=upload.replaced), run.split(file, sizes)
        elif not parts:
            # In a session the key is used instead of the URL: this moves an upload from another session.
            url = file.upload_url or (None if session else upload.url)
            parts = (upload.piece(ENDLESS if file.once else file.size, url=url),)
        self.sent_to, self._left = session, len(parts)
        self.parts = [Part(self, tus, part, whole=len(parts) == 1) for part in parts]
        return self._send_parts(worker) if len(parts) > 1 else self.parts[0].run(worker)

    def _send_parts(self, worker: Worker) -> Position | None:
        """Make jobs of the parts; return the upload that an earlier run joined them to, if any.

        The bundled server finds it by its key once all parts are gone: no request joins parts that are gone (section
        7).
        """
        client, size, joined = worker.tus, self.file.size, None
        if self.foreign and self._upload.url is not None:
            joined = self._head(client, self._upload.url)
        heads = [self._head(client, part.url) if part.url and joined is None else None for part in self.parts]
        if not self.foreign and len(self._urls) == len(heads) and not any(heads):
            joined = self._context.pacer.call(lambda: client.create(size, self.metadata()))
            if joined.offset != size:
                client.discard(joined.url)  # the key was unknown: the server created an upload
                replaced = self._upload.replaced
                self._upload = self._context.run.creating(self.file, self.sent_to, replaced=replaced)
                self.resumes = False
                return self._send(worker)
        complete = joined if joined is not None and joined.offset == size else None
        for part, head in zip(self.parts, heads, strict=True):
            part.found(part.size if complete else part.usable(head.offset or 0) if head else 0)
        if complete is not None:
            return self._joined(client, complete)
        if self.sent_to != (self._upload.session or ""):  # their keys move them to this session
            for part in self.parts:
                part.url = None
        self.begin()
        self._tus.pool.put([Step(partial(self._send_part, part), self.session) for part in self.parts], first=True)
        return None

    def _head(self, client: TusClient, url: str) -> Position | None:
        with suppress(errors.UploadGone):
            return self._context.pacer.call(lambda: client.head(url))
        return None

    def _join(self, client: TusClient) -> Position:
        if self.error is not None:
            raise self.error
        if Ending(self._upload.ending) in UNCERTAIN and not self.resends:
            raise errors.OutcomeUnknown(JOINED)
        pacer, ended = self._context.pacer, list[Ending]()

        def join() -> Position:
            try:
                return client.create(None, self.metadata(), parts=self._urls)
            except errors.UploaderError as error:
                self._join_failed(error, ended)
                raise

        joined = pacer.call(join, on_retry=self.retry)
        self._context.run.update(self.file, url=joined.url)
        if joined.offset is None:
            joined = pacer.call(lambda: client.head(joined.url), on_retry=self.retry)
        if joined.offset != self.file.size:
            raise errors.ProtocolError(f"{joined.url} was joined to {joined.offset} bytes of {self.file.size}")
        return self._joined(client, joined)

    def _join_failed(self, error: errors.UploaderError, ended: list[Ending]) -> None:
        """Add to `ended` how a request to join the parts ended; raise what the file fails with after the second one."""
        ending = self.ended(error, Ending.NONE)
        refused = isinstance(error, errors.AnswerError) and error.status < 500
        if not self.foreign or refused or ending is Ending.NONE:  # the parts were not joined
            return
        ended.append(ending)
        unsure = next((ending for ending in ended if ending in UNCERTAIN), None)
        if unsure is not None:
            self._context.run.update(self.file, ending=unsure)
        if len(ended) > 1 and unsure is not None:
            raise errors.OutcomeUnknown(JOINED) from error
        if len(ended) > 1 and isinstance(error, errors.AnswerError):
            raise errors.NotFinished(error) from error

    def _joined(self, client: TusClient, joined: Position) -> Position:
        with self._lock:
            self.begin()
            self._tell(ev.BytesConfirmed, self.file.size)
        if self.foreign:
            self._discard(client, self._urls)
        return joined

    def _discard(self, client: TusClient, urls: Iterable[str]) -> None:
        if self._tus.capabilities.terminates:
            for url in urls:
                client.discard(url)

    def ended(self, error: errors.UploaderError, before: Ending) -> Ending:
        """Return how the request ended that would complete an upload of the file and has failed.

        A file that a foreign server refuses for good is forgotten, unless it has an upload URL, which stays refused.
        """
        if isinstance(error, errors.AnswerError):
            refused = refuses(error.status, by_server=error.by_tus) and not error.retryable
            error.forgets = error.forgets or (self.foreign and refused and not self.file.upload_url)
            return ending_of(error.status, before, by_server=error.by_tus)
        is_lost = isinstance(error, errors.ConnectionLost) and error.body_sent
        return ending_of(None, before, by_server=False) if is_lost else before

    def renewed(self, part: Part, *, failed: bool) -> str:
        """Journal another upload for a part, or for the whole file, and return its key.

        One that the server `failed` to store is deleted once the file is stored.
        """
        run, file = self._context.run, self.file
        with self._lock:  # parts may do this at once
            old = self._upload.replaced
            replaced = (*old, part.url) if failed and part.url is not None else old
            self._upload = replace(self._upload, replaced=replaced)
            if part.index is not None:
                return run.creating_part(file, part.index, replaced=replaced)
            return run.creating(file, self.sent_to, replaced=replaced).upload_key

    @property
    def size(self) -> int:
        """The bytes of the file; `ENDLESS` until the end of a stream is known."""
        return self.parts[0].size if self.file.once else self.file.size

    @property
    def _urls(self) -> list[str]:
        return [part.url for part in self.parts if part.url]

    def metadata(self, part: Part | None = None) -> dict[str, str]:
        """Return the metadata of the file, or of a part (docs/protocol.md, section 7)."""
        file, session = self.file, {"sessionId": self.sent_to} if self.sent_to else {}
        if part is not None and part.index is not None:
            if self.foreign:
                return session
            place = {"finalLength": str(file.size), "partOffset": str(part.start)}
            return {"finalKey": self._upload.upload_key} | place | session
        if not self.has_keys:
            return self._own_metadata
        known = named(file) | {"lastModified": str(file.mtime_ns // 1_000_000)}
        if self._context.settings.if_exists == "fail":
            known["ifExists"] = "fail"
        return {"uploadKey": self._upload.upload_key} | known | session | self._own_metadata

    @property
    def resends(self) -> bool:
        """Whether a file that may be stored is sent again."""
        return self._context.settings.resend_unknown

    def id_in(self, answer: Position) -> str | None:
        """Return the server's ID of the file from the headers of an answer."""
        own = self._context.settings.id_header
        return next(filter(None, map(answer.headers.get, (own,) if own else ID_HEADERS)), None)

    @cached_property
    def _own_metadata(self) -> dict[str, str]:
        return metadata_of(self.file, self._context.settings.metadata, self.check)

    def check(self) -> None:
        """Raise `Interrupted` once the run is stopped or another part has failed."""
        self._context.pacer.stop.check()
        if self.error is not None:
            raise errors.Interrupted("another part of the file failed")

    def sleep(self, seconds: float) -> None:
        """Wait; raise as `check` does."""
        while seconds > 0:
            self.check()
            step = min(TICK, seconds) if len(self.parts) > 1 else seconds
            self._context.pacer.stop.sleep(step)
            seconds -= step
        self.check()

    def begin(self) -> None:
        """Begin an attempt unless one is in progress."""
        with self._lock:
            if not self._begun:
                self._begun = True
                self._most_confirmed = self._most_sent = sum(part.confirmed for part in self.parts)
                name = utf8(self.file.relative_path)
                self._context.ledger.start(self.file, self.sent_to, name, self._most_confirmed)

    def retry(self, error: errors.UploaderError, delay: float, part: Part | None = None) -> None:
        """End the attempt: a part, or the request that joins the parts, is repeated after `delay` seconds."""
        with self._lock:
            if self.error is not None:
                return
            self.begin()
            if part is not None:
                part.sent = part.confirmed
            self._begun = False
            self._context.ledger.retry([self.file], error, delay)

    def report_sent(self, part: Part, total: int) -> None:
        """Report the sent bytes of a part."""
        with self._lock:
            self.begin()
            part.sent = total
            total = sum(part.sent for part in self.parts)
            if total > self._most_sent:
                self._most_sent = total
                self._tell(ev.BytesSent, total)

    def report_confirmed(self, part: Part, offset: int) -> None:
        """Report the server's offset in a part."""
        part.found(offset)
        with self._lock:
            self.begin()
            self._most_confirmed = max(self._most_confirmed, sum(part.confirmed for part in self.parts))
            # For a file in one request the end event is enough.
            if offset < self.size or not self._tus.in_one_request(self.size):
                self._tell(ev.BytesConfirmed, self._most_confirmed)

    def _tell(self, event: type[ev.BytesSent | ev.BytesConfirmed], total: int) -> None:
        self._context.emit(event(self.file.file, self._context.ledger.attempt(self.file), total))


class Part:
    """One range of a file, or all of it (`index` None), and its upload. Offsets count from its start.

    After each failure the server is asked for its offset (docs/protocol.md, section 5). The count of retries restarts
    only when the offset exceeds all before, so the loop ends.

    The journal has the end of the bytes whose checksums the server has accepted (`checked`), the end of the chunk
    being sent where it extends them (`pledged`, else 0: that chunk is stored whole or not at all), the end of all that
    was sent (`reach`: what the server has beyond it is from somebody else), and how the request ended that would
    complete the upload (`ending`). `core.confirmation` says when it is complete.
    """

    _client: TusClient
    _hashed: HashedChunks | None
    _last: Position
    _source: IO[bytes] | None  # None for a stream
    _reason: errors.AnswerError | None

    def __init__(self, job: TusFile, tus: Tus, known: PendingPart, *, whole: bool) -> None:
        self.index = None if whole else known.index
        self.start, self.size, self.key, self.url = known.offset, known.size, known.upload_key, known.url
        self.checked, self.pledged = known.checked_until, known.pledged_until
        self.confirmed = self.sent = 0
        self._job, self._tus, self._run = job, tus, tus.context.run
        self._ending, self._reason = Ending(known.ending), None  # `_reason`: the error that it ended with
        self._reach = known.reach if job.resumes else 0
        self._journaled: dict[str, Any] = {"pledged_until": self.pledged, "ending": self._ending}
        self._journaled["sent_until"] = known.sent_until
        self._stream = job.file.content if isinstance(job.file.content, Stream) else None
        self._checksum = tus.checksum if not job.file.upload_url else None  # what such a server supports is unknown
        self._deferred = False  # whether the server does not know the length yet
        self._data: memoryview | None = None  # the chunk of a stream
        self._on_read = tus.context.on_read if not self.start else ignore_read  # a digest needs the bytes in order
        self._offset: int | None = None  # the server's offset; None while it is unknown
        self._most = -1  # the highest offset so far
        self._done = self._completing = self._renewed = False  # `_completing`: the last request would do that
        self._asked = job.resumes  # whether the key may have been sent before
        self._carried = self._restarts = 0  # bytes of the body of the last request; new uploads in place of lost ones

    def run(self, worker: Worker) -> Position:
        """Return once the server has all of it. Raise the last error, or what stopped it."""
        job, tus = self._job, self._tus
        self._client, self._hashed = worker.tus, None
        if self._checksum is not None and self._stream is None:
            self._hashed = HashedChunks(
                job.file,
                self._checksum,
                job.check,
                worker.helper,
                tus.buffers,
                on_read=self._on_read,
                waits=worker.api.sockets.waits,
            )
        try:
            with open_unchanged(job.file) if self._stream is None else nullcontext() as self._source:
                while not self._done:
                    tus.context.pacer.call(self._advance, on_retry=self._failed, shrink=self._shrink, sleep=job.sleep)
        except (errors.ConnectionLost, errors.ServerFault):
            if not self._is_there_after_all():
                raise
        finally:
            if self._hashed is not None:
                self._hashed.close()
            del self._job, self._hashed  # cycles, which the rare garbage collections leave for long
        return self._last

    def found(self, offset: int) -> None:
        """Record the server's offset, which may be lower than before."""
        self.confirmed, self.sent = offset, max(self.sent, offset)
        checked = offset if offset == self.pledged else min(self.checked, offset)
        changed, self.checked, self.pledged = checked != self.checked, checked, 0
        if changed and (self.index is not None or offset < self.size):
            self._run.update(self._job.file, part=self.index, checked_until=checked)

    def usable(self, offset: int) -> int:
        """Return how many of the server's bytes are kept: none of a part that is sent again."""
        return offset if self._verdict(offset) in (Verdict.OPEN, Verdict.CONFIRMED) else 0

    def _failed(self, error: errors.UploaderError, delay: float) -> None:
        if self._carried and isinstance(error, errors.ConnectionLost | errors.TimedOut | errors.ChecksumMismatch):
            self._tus.chunk.failed()
        self._job.retry(error, delay, self)

    def _shrink(self) -> bool:
        return self._tus.chunk.refuse(self._carried)

    def _is_there_after_all(self) -> bool:
        """Ask once more when no retry is left: an answer that was lost is no failure."""
        if self.url is None or not self._completing:
            return False
        try:
            self._tus.context.pacer.wait_out_pause(self._job.sleep)
            position = self._client.head(self.url)
        except errors.UploaderError:
            return False
        offset = position.offset or 0
        match self._verdict(offset):
            case Verdict.OPEN if not self.size and self._ending is Ending.LOST:  # its offset says nothing
                self._job.unchecked = self._done = True
            case Verdict.CONFIRMED | Verdict.UNKNOWN:
                self._settle(position, offset)
        return self._done

    def _advance(self) -> None:
        """Find the server's offset, then send chunks until it is higher than ever, or the upload is complete."""
        mark = self._most
        while self._offset is None and not self._done:
            if self.url is None:
                self._create()
            else:
                self._find(self.url)
        while not self._done and self._offset is not None and self._offset <= mark:
            self._send(self._offset, self.url or "")

    def _create(self) -> None:
        """Create an upload, without a body where the key was sent before: the server may know it."""
        job, again, self._asked = self._job, self._asked, True
        self._available(0)
        size = self.size if self._tus.in_one_request(self.size) and not again else 0
        if size:
            job.begin()
        self._prepare(size, completes=size > 0, creates=True)
        body, checksum = self._chunk(0, size) if size else (None, None)
        metadata, partial = job.metadata(self), self.index is not None
        if job.has_keys:
            metadata["uploadKey"] = self.key
        self._deferred = self.size == ENDLESS
        length = None if self._deferred else self.size
        created = self._completed(
            lambda: self._client.create(length, metadata, body=body, checksum=checksum, partial=partial)
        )
        self.url = created.url
        job.server_id = job.id_in(created)
        offset = created.offset if created.offset is not None or size else 0
        if not offset:  # a new upload, and not one that the server knew by the key
            self._ending = Ending.NONE
        if partial or not self._tus.in_one_request(self.size):  # a file in one request is found again by its key
            known = {"server_id": job.server_id} if job.server_id and not partial else {}
            self._journal(force=True, sent_until=max(self._reach, self._length(0)), url=created.url, **known)
        if offset is not None:
            self._settle(created, offset)

    def _find(self, url: str) -> None:
        self._prepare(0)
        try:
            found = self._client.head(url)
        except errors.UploadGone as error:
            self._restart(error, failed=self._ending is Ending.ERROR and self._job.foreign)
            return
        self._deferred = found.headers.get("Upload-Defer-Length") == "1"
        if found.offset is not None and found.length in (None, self.size):
            self._settle(found, found.offset)
        elif self._job.file.upload_url and found.length not in (None, self.size):
            words = f"its upload was created for {found.length:,} bytes, and it has {self.size:,}: nothing was sent"
            raise errors.FileFailure(words, code=FailureCode.SERVER_REFUSED)
        else:
            claim = f"offset {found.offset} of {found.length} bytes"
            self._restart(errors.ProtocolError(f"{url} claims {claim}, which is not what was sent there"))

    def _verdict(self, offset: int) -> Verdict:
        length = None if self._deferred else self.size
        return verdict(offset, length, self._reach, self._ending, foreign=self._job.foreign)

    def _settle(self, position: Position, offset: int) -> None:
        """Continue from the server's offset, end, or begin another upload."""
        job, found = self._job, self._verdict(offset)
        if found is Verdict.INTRUDED and job.file.upload_url and not job.resumes and self._most < 0:
            text = f"{utf8(job.file.path)}: {offset:,} bytes of its upload were sent elsewhere: they are not verified"
            self._tus.context.warn(WarningCode.FOREIGN_BYTES, text)
            job.unchecked, self._reach = True, self.size
            found = self._verdict(offset)
        if found is Verdict.INTRUDED:
            there, sent = f"the server has {offset:,} bytes of its upload", f"and {self._reach:,} were sent"
            error = errors.ProtocolError(f"{there}, {sent}: somebody else writes to it")
            self._restart(error)
            text = f"{utf8(job.file.path)}: {error}; it is sent again from the beginning"
            self._tus.context.warn(WarningCode.FOREIGN_BYTES, text)
        elif found is Verdict.UNKNOWN and self.index is None and (self._renewed or not job.resends):
            job.unsure = self._done = True
            self._last = position
        elif found in (Verdict.FAILED, Verdict.UNKNOWN):  # a part that may be complete is no file yet
            self._restart(errors.ServerFault(EARLIER, status=500), failed=True)
        else:
            self._done = found is Verdict.CONFIRMED
            self._confirm(position, offset)

    def _restart(self, error: errors.UploaderError, *, failed: bool = False) -> None:
        """Forget the upload, and journal the key of the next one. Raise where that is impossible.

        `failed`: the server has all bytes and did not store them; there is one new upload in a run then.
        """
        error = self._reason if failed and self._reason is not None else error
        if self._job.file.upload_url:
            words = f"its upload can't be used: {error}; ask the service for a new upload URL"
            raise errors.FileFailure(words, code=FailureCode.SERVER_REFUSED) from error
        if self._stream is not None and self._stream.start:
            words = f"what was sent of it is lost, and it can't be read again: {error}"
            raise errors.FileFailure(words, code=error.code) from error
        if failed and self._renewed:
            raise errors.NotFinished(error) if isinstance(error, errors.AnswerError) else error
        if self._restarts == RESTARTS:
            raise error
        self._restarts, self._renewed = self._restarts + 1, self._renewed or failed
        self.key = self._job.renewed(self, failed=failed)
        self._asked, self._most, self.url = failed, -1, None  # without a body its URL is known if it fails, too
        self.confirmed = self.sent = self.checked = self.pledged = self._reach = 0
        self._ending, self._reason = Ending.NONE, None
        self._journaled = {"pledged_until": 0, "ending": Ending.NONE, "sent_until": None}

    def _send(self, offset: int, url: str) -> None:
        """Send one chunk and record the new offset. Raise `OffsetConflict` for an impossible one."""
        self._offset = None  # unknown until the answer
        size = self._available(offset)
        self._prepare(size, completes=offset + size == self.size)
        body, checksum = self._chunk(offset, size)
        length = self.size if self._deferred and self.size != ENDLESS else None
        try:
            with self._tus.chunk.travelling(size, time.monotonic):
                sent = self._completed(lambda: self._client.patch(url, offset, body, checksum, length))
        except errors.AnswerError as error:
            if self.size or not self._job.foreign or error.status not in TAKES_NO_PATCH:
                raise
            self._job.unchecked = self._done = True  # the server has stored the empty file at its creation, or not
            self._confirm(self._last, 0)
            return
        # The end of a stream may be found when all its bytes have been sent.
        if sent.offset is None or not offset + (size > 0) <= sent.offset <= offset + size:
            raise errors.OffsetConflict(f"{size} bytes at offset {offset} led to offset {sent.offset}", status=204)
        self._deferred = self._deferred and length is None
        self._done = sent.offset == self.size and not self._deferred
        self._confirm(sent, sent.offset)

    def _completed(self, ask: Callable[[], Position]) -> Position:
        """Return the answer to a request; where it would complete the upload, journal how it ended otherwise."""
        try:
            answer = ask()
        except errors.UploaderError as error:
            if self._completing and self._job.foreign:
                self._ending = self._job.ended(error, self._ending)
                self._reason = error if isinstance(error, errors.AnswerError) else None
                # A creation with all bytes that failed at the server: what follows is the new upload.
                self._renewed = self._renewed or (self.url is None and isinstance(self._reason, errors.ServerFault))
                known: dict[str, Any] = {} if self.url is None else {"url": self.url, "sent_until": self._reach}
                self._journal(ending=self._ending, **known)  # also of a file in one request: its key tells nothing
            raise
        if self._completing:
            if not self.size and self._ending is Ending.LOST:
                self._job.unchecked = True  # some servers answer a repeated request without storing the file
            self._ending = Ending.NONE
        return answer

    def _available(self, offset: int) -> int:
        """Return the bytes of the chunk at `offset`; read those of a stream, and find its end."""
        stream, chunk = self._stream, self._tus.chunk
        if stream is None:
            return self._length(offset)
        patience = PATIENCE if chunk.least == 1 else math.inf  # a server with a rule takes whole chunks only
        self._data = stream.chunk(offset, self._tus.chunk_in_memory, self._job.check, patience)
        self._on_read(self._job.file, offset, self._data)
        if offset + len(self._data) > (most := self._tus.context.limits.max_file_size):
            raise errors.FileFailure(f"exceeds the server's limit of {most} bytes", code=FailureCode.REFUSED_SIZE)
        self.size = ENDLESS if stream.length is None else stream.length
        return len(self._data)

    def _length(self, offset: int) -> int:
        """Return the bytes of the next chunk of a file at `offset`."""
        return chunk_length(offset, self.size, self._tus.chunk_size)

    def _prepare(self, size: int, *, completes: bool = False, creates: bool = False) -> None:
        """Wait until a request with a body of `size` bytes may be sent. `completes`: the upload is complete then.

        `creates`: the request creates an upload.
        """
        self._carried, self._completing = size, completes
        self._job.check()
        self._tus.context.pacer.wait_out_pause(self._job.sleep, creates=creates)

    def _chunk(self, offset: int, size: int) -> tuple[Body, str | None]:
        """Return the body of a chunk and its checksum header; start hashing the next chunk."""
        tus, job, start, end = self._tus, self._job, self.start + offset, offset + size
        checksum, data = None, self._data
        if tus.context.digests is not None and not self.start:
            tus.context.digests.reach(job.file, offset)  # what an earlier run has sent
        if self._hashed is not None and size:
            digest, data, _ = self._hashed.of(start, size)
            checksum = checksum_header(self._checksum or "", digest)
            self._hashed.prepare(start + size, self._length(end))
        elif data is not None and self._checksum is not None:
            checksum = checksum_header(self._checksum, hashlib.new(self._checksum, data).digest())
        self.pledged = end if checksum is not None and offset <= self.checked else 0
        self._reach = max(self._reach, end)
        known, whole = self._journaled["sent_until"], size == self.size  # a request with all of it needs no entry
        reach = known if whole and known is None else max(self._reach, known or 0)
        self._journal(pledged_until=0 if whole else self.pledged, sent_until=reach)
        body = Body(
            "application/offset+octet-stream",
            [Piece(size, data, job.file, start, self._source)],
            check=job.check,
            throttle=tus.context.throttle,
            on_sent=lambda _file, sent: job.report_sent(self, offset + sent),
            on_read=self._on_read,
        )
        return body, checksum

    def _confirm(self, position: Position, offset: int) -> None:
        if offset > self._most:
            self._most = offset
        if self._carried:
            self._tus.chunk.arrived(self._carried)
        self._offset, self._last = offset, position
        self._job.report_confirmed(self, offset)

    def _journal(self, *, force: bool = False, **values: Any) -> None:
        """Write those fields of the upload that differ from the journal's; all with `force`."""
        changed = {name: value for name, value in values.items() if force or self._journaled.get(name) != value}
        if changed:
            self._journaled |= changed
            self._run.update(self._job.file, part=self.index, **changed)
