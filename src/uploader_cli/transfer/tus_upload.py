"""Upload one range of a file to a tus server, chunk by chunk.

After each failure the server is asked for its offset (docs/protocol.md, section 5). The count of
retries restarts only when the offset exceeds all before, so the loop ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.sizes import FIRST_CHUNK
from uploader_cli.core.tus import LARGE, LARGE_AND_FAR, LEAST_PART, checksum_header, chunk_length
from uploader_cli.transfer.bodies import IN_MEMORY, Body, Buffers, HashedChunks, Piece, open_unchanged
from uploader_cli.transfer.retry import Tries

if TYPE_CHECKING:
    from typing import IO

    from uploader_cli.core.sizes import ChunkSize
    from uploader_cli.core.tus import Capabilities
    from uploader_cli.transfer.job import Context
    from uploader_cli.transfer.journal import PendingPart
    from uploader_cli.transfer.pool import Pool, Worker
    from uploader_cli.transfer.tus import Position, TusClient
    from uploader_cli.transfer.tus_job import TusFile

RESTARTS = 3
"""New uploads per run after the server has lost one."""
FAR = 0.02
"""Seconds of round trip from which one connection does not fill the link."""


@dataclass(frozen=True, slots=True)
class Tus:
    """What all tus jobs of a run share. `checksum` is an algorithm or None."""

    context: Context
    pool: Pool
    capabilities: Capabilities
    chunk: ChunkSize
    checksum: str | None
    buffers: Buffers = field(default_factory=Buffers)

    @property
    def chunk_size(self) -> int:
        """Bytes of the next chunk. With a checksum an adaptive size is limited by memory."""
        size = self.chunk.size
        return min(size, IN_MEMORY) if self.chunk.adapts and self.checksum is not None else size

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


class Part:
    """One range of a file, or all of it (`index` None), and its upload. Offsets count from its start.

    The journal knows the end of the bytes whose checksums the server has accepted (`checked`), and the end of the
    chunk being sent where it extends them (`pledged`, else 0): that chunk is stored whole or not at all.
    """

    _client: TusClient
    _hashed: HashedChunks | None
    _last: Position
    _source: IO[bytes]

    def __init__(self, job: TusFile, tus: Tus, known: PendingPart, *, whole: bool) -> None:
        self.index = None if whole else known.index
        self.start, self.size, self.key, self.url = known.offset, known.size, known.upload_key, known.url
        self.checked, self.pledged = known.checked_until, known.pledged_until
        self.confirmed = self.sent = 0
        self._job, self._tus, self._run, self._journaled = job, tus, tus.context.run, self.pledged
        self._offset: int | None = None
        """The server's offset; None while it is unknown."""
        self._most = -1
        """The highest offset so far."""
        self._reach = self.size
        """The highest offset that the server can have: the end of what was sent."""
        self._asked = job.resumes
        """Whether the key may have been sent before."""
        self._carried = self._restarts = 0
        """Bytes of the body of the last request; new uploads in place of lost ones."""
        self._tries = Tries(
            tus.context.retry,
            on_retry=self._failed,
            shrink=lambda _error: tus.chunk.refuse(self._carried),
            sleep=job.sleep,
        )

    def run(self, worker: Worker) -> Position:
        """Return once the server has all of it. Raise the last error, or what stopped it."""
        job, tus = self._job, self._tus
        self._client, self._hashed = worker.tus, None
        if tus.checksum is not None:
            self._hashed = HashedChunks(job.file, tus.checksum, job.check, worker.helper, tus.buffers)
        try:
            with open_unchanged(job.file) as self._source:
                while self._offset != self.size:
                    self._tries.run(self._advance)
        except (errors.ConnectionLost, errors.ServerFault):
            if not self._is_there_after_all():
                raise
        finally:
            if self._hashed is not None:
                self._hashed.close()
        return self._last

    def found(self, offset: int) -> None:
        """Record the server's offset, which may be lower than before."""
        self.confirmed, self.sent = offset, max(self.sent, offset)
        checked = offset if offset == self.pledged else min(self.checked, offset)
        changed, self.checked, self.pledged = checked != self.checked, checked, 0
        if changed and (self.index is not None or offset < self.size):
            self._run.checked(self._job.file, checked, part=self.index)

    def _failed(self, error: errors.UploaderError, delay: float) -> None:
        if self._carried and isinstance(error, errors.ConnectionLost | errors.TimedOut | errors.ChecksumMismatch):
            self._tus.chunk.failed()
        self._job.retry(error, delay, self)

    def _is_there_after_all(self) -> bool:
        """Ask once more when no retry is left: an answer that was lost is no failure."""
        if self.url is None or not self._carried or self._reach < self.size:
            return False
        try:
            self._tus.context.retry.wait_out_pause(self._job.sleep)
            position = self._client.head(self.url)
        except errors.UploaderError:
            return False
        if position.offset == self.size:
            self._confirm(position, self.size)
        return position.offset == self.size

    def _advance(self) -> None:
        """Find the server's offset, then send chunks until it is higher than ever."""
        mark = self._most
        while self._offset is None:
            if self.url is None:
                self._create()
            else:
                self._find(self.url)
        while self._offset is not None and self._offset <= mark and self._offset < self.size:
            self._send(self._offset, self.url or "")

    def _create(self) -> None:
        """Create an upload, without a body where the key was sent before: the server may know it."""
        job, again, self._asked = self._job, self._asked, True
        size = self.size if self._tus.in_one_request(self.size) and not again else 0
        self._reach = self.size if again else 0
        if size:
            job.begin()
        self._prepare(size)
        body, checksum = self._chunk(0, size) if size else (None, None)
        metadata, partial = {**job.metadata(self), "uploadKey": self.key}, self.index is not None
        created = self._client.create(self.size, metadata, body=body, checksum=checksum, partial=partial)
        self.url = created.url
        if partial:
            self._run.created(job.file, created.url, part=self.index)
        elif not self._tus.in_one_request(self.size):  # such a file is found again by its key
            self._run.created(job.file, created.url)
        offset = created.offset if created.offset is not None or size else 0
        if offset is None:
            return
        if offset > self._reach:
            raise errors.ProtocolError(f"{created.url} begins at offset {offset} of {self._reach} bytes sent")
        self._confirm(created, offset)

    def _find(self, url: str) -> None:
        """Ask for the offset. Restart where it or the length is impossible."""
        self._prepare(0)
        try:
            found = self._client.head(url)
        except errors.UploadGone as error:
            self._restart(error)
            return
        if found.offset is not None and found.offset <= self._reach and found.length in (None, self.size):
            self._confirm(found, found.offset)
        else:
            claim = f"offset {found.offset} of {found.length} bytes"
            self._restart(errors.ProtocolError(f"{url} claims {claim}, which is not what was sent there"))

    def _restart(self, error: errors.UploaderError) -> None:
        """Forget the upload, and journal the key of the next one."""
        if self._restarts == RESTARTS:
            raise error
        self._restarts += 1
        self._asked, self._most, self.url = False, -1, None
        self.confirmed = self.sent = self.checked = self.pledged = self._journaled = 0
        if self.index is None:
            self.key = self._run.creating(self._job.file, self._job.sent_to).upload_key
        else:
            self.key = self._run.creating_part(self._job.file, self.index)

    def _send(self, offset: int, url: str) -> None:
        """Send one chunk and record the new offset. Raise `OffsetConflict` for an impossible one."""
        self._offset = None  # unknown until the answer
        size = chunk_length(offset, self.size, self._tus.chunk_size)
        self._prepare(size)
        body, checksum = self._chunk(offset, size)
        with self._tus.chunk.travelling(size, time.monotonic):
            sent = self._client.patch(url, offset, body, checksum)
        if sent.offset is None or not offset < sent.offset <= offset + size:
            raise errors.OffsetConflict(f"{size} bytes at offset {offset} led to offset {sent.offset}", status=204)
        self._confirm(sent, sent.offset)

    def _prepare(self, size: int) -> None:
        """Wait until a request with a body of `size` bytes may be sent."""
        self._carried = size
        self._job.check()
        self._tus.context.retry.wait_out_pause(self._job.sleep)

    def _chunk(self, offset: int, size: int) -> tuple[Body, str | None]:
        """Return the body of a chunk and its checksum header; start hashing the next chunk."""
        tus, job, start, end = self._tus, self._job, self.start + offset, offset + size
        checksum = data = None
        if self._hashed is not None:
            digest, data = self._hashed.of(start, size)
            checksum = checksum_header(tus.checksum or "", digest)
            self._hashed.prepare(start + size, chunk_length(end, self.size, tus.chunk_size))
        self.pledged = end if checksum is not None and offset <= self.checked else 0
        pledge = self.pledged if size < self.size else 0  # one that is the whole part needs none
        if pledge != self._journaled:
            self._journaled = pledge
            self._run.pledged(job.file, pledge, part=self.index)
        self._reach = max(self._reach, end)
        body = Body(
            "application/offset+octet-stream",
            [Piece(size, data, job.file, start, self._source)],
            check=job.check,
            throttle=tus.context.throttle,
            on_sent=lambda _file, sent: job.report_sent(self, offset + sent),
        )
        return body, checksum

    def _confirm(self, position: Position, offset: int) -> None:
        if offset > self._most:
            self._most = offset
            self._tries.advanced()
        if self._carried:
            self._tus.chunk.arrived(self._carried)
        self._offset, self._last = offset, position
        self._job.report_confirmed(self, offset)
