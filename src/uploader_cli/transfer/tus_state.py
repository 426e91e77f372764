"""What the uploads of one file share: terms of the run, attempts, sums, metadata and the journal entry."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.capabilities import LARGE, LARGE_AND_FAR, LEAST_PART, QUEUED_PART, Capabilities
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.protocol import utf8
from uploader_cli.core.sizes import FIRST_CHUNK, ChunkSize
from uploader_cli.sources.chunks import IN_MEMORY, Buffers
from uploader_cli.transfer.bodies import metadata_of, named
from uploader_cli.transfer.journal.reading import Claim, PendingUpload
from uploader_cli.transfer.journal.receipts import is_doubtful

if TYPE_CHECKING:
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.terms import Terms
    from uploader_cli.transfer.journal.receipts import Stored
    from uploader_cli.transfer.pool import Pool
    from uploader_cli.transfer.protocols.machine import Position
    from uploader_cli.transfer.tus_reading import Readings
    from uploader_cli.transfer.upload_session import RunContext

ID_HEADERS = ("Upload-File-Id", "stream-media-id")  # headers with the server's ID of a file, without `id-header`
FAR = 0.02  # seconds of round trip from which one connection does not fill the link
ONE_TRIP_LESS = 32 << 20  # minimum bytes of a file whose first chunk is sent with its creation to a distant server
FAILURE_TICK = 0.25  # seconds between two checks for a failure of another part


def is_far(round_trip: float | None) -> bool:
    """Return whether the server is so distant that round trips and more connections count."""
    return round_trip is not None and round_trip > FAR


@dataclass(frozen=True, slots=True)
class Tus:
    """What all tus jobs of a run share."""

    context: RunContext
    pool: Pool
    capabilities: Capabilities
    readings: Readings
    buffers: Buffers = field(default_factory=Buffers)
    parts_refused: threading.Event = field(default_factory=threading.Event)  # once the server takes no parts of files
    created_anew: set[bool] = field(default_factory=set)  # what answers to creations with bytes said: `Position.new`

    @property
    def terms(self) -> Terms:
        return self.context.terms

    @property
    def chunk(self) -> ChunkSize:
        return self.context.chunk

    @property
    def chunk_in_memory(self) -> int:
        """Bytes of the next chunk where it is kept in memory, which limits an adaptive size."""
        size = min(self.chunk.size, self.chunk.most_in_memory)
        return min(size, max(IN_MEMORY, self.chunk.least)) if self.chunk.adapts else size

    def in_one_request(self, length: int) -> bool:
        """Return whether `length` bytes are sent with the creation."""
        most = min(self.chunk.size, FIRST_CHUNK) if self.chunk.adapts else self.chunk.size
        return (self.capabilities.creates_with_upload and length <= most) or length < self.capabilities.resumes_from

    def with_creation(self, length: int) -> int:
        """Return how many of the `length` bytes of an upload, which fit in one request, are sent with its creation.

        Servers that name uploads by their metadata answer a creation with what they have. With all bytes in it that
        answer is the same whether these were stored, or others were there before. So the last byte is sent alone until
        answers to creations have said that uploads were new (201), and again after one that has not.
        """
        settings, said = self.context.settings, self.created_anew
        if self.terms.keys or said == {True} or (settings.bytes_at_creation and not said):
            return length
        return 0 if settings.chunk_rule is not None else length - (length > 0)

    def parts(self, size: int, idle: int, spare: int, round_trip: float | None) -> int:
        """Return into how many parts a file of `size` bytes is cut: one, unless the link is distant or capped.

        Each of the `idle` workers gets one beside the worker that asks. Some of a large file wait for the `spare` ones.
        """
        if not (idle and self.terms.parts) or self.parts_refused.is_set():
            return 1
        if not (is_far(round_trip) and size >= LARGE_AND_FAR) and not (self.chunk.capped and size >= LARGE):
            return 1
        waiting = size // QUEUED_PART
        count = min(1 + spare, waiting) if waiting >= 2 * (1 + idle) else 1 + idle  # else the last ones end alone
        return min(count, size // LEAST_PART)


class TusFileState:
    """The state of one file, for the threads that send its parts, which have the numbers 0, 1, ….

    Its events are sums over the parts. Within an attempt no sum falls; a retry of any part ends the attempt.
    """

    error: BaseException | None = None  # the first failure of a part: it stops the others
    receipt: Stored | None = None  # of the file, all of which the server had before its upload was created

    def __init__(self, tus: Tus, session: str, file: LocalFile, claim: Claim) -> None:
        """`session` is the ID that is named to the server; `claim` is the file's state in the journal."""
        self.file, self.session = file, session
        self.size = file.size  # `ENDLESS` until the end of a stream is known
        self.resumes = claim.state not in (ClaimState.NEW, ClaimState.CHANGED)
        self.upload = claim.upload or PendingUpload("")
        self.server_id = self.upload.server_id  # from the answer to the creation
        self.terms = tus.terms
        self._tus, self._context = tus, tus.context
        self._confirmed: list[int] = []
        self._sent: list[int] = []
        self._most_confirmed = self._most_sent = 0
        self._lock = threading.RLock()

    def divide(self, count: int) -> None:
        """Begin with `count` parts of which the server has nothing."""
        self._confirmed, self._sent = [0] * count, [0] * count

    def checkpoint(self) -> None:
        """Raise `Interrupted` once the run is stopped or another part has failed."""
        self._context.stop.checkpoint()
        if self.error is not None:
            raise errors.Interrupted("another part of the file failed")

    def sleep(self, seconds: float) -> None:
        """Wait; raise as `checkpoint` does."""
        while seconds > 0:
            self.checkpoint()
            step = min(FAILURE_TICK, seconds) if len(self._sent) > 1 else seconds
            self._context.stop.sleep(step)
            seconds -= step
        self.checkpoint()

    # Attempts and sums

    def begin(self) -> None:
        with self._lock:
            there = sum(self._confirmed)
            if self._context.ledger.start(self.file, self.session, utf8(self.file.relative_path), there):
                self._most_confirmed = self._most_sent = there

    def retry(self, error: errors.UploaderError, delay: float, part: int | None = None) -> None:
        """End the attempt: a part, or the request that joins the parts, is repeated after `delay` seconds."""
        with self._lock:
            if self.error is not None:
                return
            self.begin()
            if part is not None:
                self._sent[part] = self._confirmed[part]
            self._context.ledger.retry([self.file], error, delay)

    def found(self, part: int, offset: int) -> None:
        self._confirmed[part], self._sent[part] = offset, max(self._sent[part], offset)

    def lost(self, part: int) -> None:
        self._confirmed[part] = self._sent[part] = 0

    def report_sent(self, part: int, total: int) -> None:
        with self._lock:
            self.begin()
            self._sent[part] = total
            total = sum(self._sent)
            through = total == self.size  # the server processes it, or joins its parts
            if total > self._most_sent or through:
                self._most_sent = max(self._most_sent, total)
                attempt = self._context.ledger.attempt(self.file)
                self._context.emit(ev.BytesSent(self.file.file, attempt, total, through))

    def report_confirmed(self, offset: int) -> None:
        with self._lock:
            self.begin()
            self._most_confirmed = max(self._most_confirmed, sum(self._confirmed))
            # For a file in one request the end event is enough.
            if offset < self.size or not self._tus.in_one_request(self.size):
                self._tell_confirmed(self._most_confirmed)

    def report_joined(self) -> None:
        with self._lock:
            self.begin()
            self._tell_confirmed(self.size)

    def _tell_confirmed(self, total: int) -> None:
        self._context.emit(ev.BytesConfirmed(self.file.file, self._context.ledger.attempt(self.file), total))

    # What is said to the server, and what it says

    def metadata(self, part: tuple[int, int] | None = None) -> dict[str, str]:
        """Return the metadata of the file, or of the part of `part` (index, start) (docs/extensions.md)."""
        file, session = self.file, {"sessionId": self.session} if self.session else {}
        if part is not None:
            if not self.terms.keys:
                return self.metadata() if self.terms.describes_parts else {}
            place = {"finalLength": str(file.size), "partOffset": str(part[1])}
            return {"finalKey": self.upload.upload_key} | place | session
        if not self.terms.gets_keys:
            return self._own_metadata
        known = named(file) | {"lastModified": str(file.mtime_ns // 1_000_000)}
        if self._context.settings.if_exists == "fail":
            known["ifExists"] = "fail"
        return {"uploadKey": self.upload.upload_key} | known | session | self._own_metadata

    @cached_property
    def _own_metadata(self) -> dict[str, str]:
        return metadata_of(self.file, self._context.settings.metadata, self.checkpoint)

    def id_in(self, answer: Position) -> str | None:
        own = self._context.settings.id_header
        return next(filter(None, map(answer.headers.get, (own,) if own else ID_HEADERS)), None)

    def recall(self) -> bool:
        """Return whether a receipt counts for the file, all of which the server had before."""
        if not self._context.settings.resend:
            (receipt,) = self._context.run.receipts([self.file])
            if receipt is not None and not is_doubtful(self.file, receipt):
                self.receipt = receipt
        return self.receipt is not None

    def renew(self, index: int | None, failed: str | None) -> str:
        """Journal another upload, for a part or for the whole file (None), and return its key.

        One that the server `failed` to store is deleted once the file is stored.
        """
        run, file = self._context.run, self.file
        with self._lock:  # parts may do this at once
            old = self.upload.replaced
            replaced = old if failed is None else (*old, failed)
            self.upload = replace(self.upload, replaced=replaced)
            if index is not None:
                return run.creating_part(file, index, replaced=replaced)
            return run.creating(file, self.session, replaced=replaced).upload_key
