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
from uploader_cli.transfer.pacing import unlimited
from uploader_cli.transfer.retry import Tries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor
    from typing import IO

    from uploader_cli.core.sizes import ChunkSize
    from uploader_cli.core.tus import Capabilities
    from uploader_cli.transfer.job import Context
    from uploader_cli.transfer.retry import Retry
    from uploader_cli.transfer.tus import Position, TusClient
    from uploader_cli.transfer.tus_job import Part, Progress

RESTARTS = 3
"""New uploads per run after the server has lost one."""
FAR = 0.02
"""Seconds of round trip from which one connection does not fill the link."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all uploads of a run share. `checksum` is an algorithm or None."""

    retry: Retry
    capabilities: Capabilities
    chunk: ChunkSize
    checksum: str | None = None
    throttle: Callable[[int], int] = unlimited
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


def terms_for(context: Context, capabilities: Capabilities, chunk: ChunkSize) -> Terms:
    """Return the terms of a run. Raise `UsageError` for a checksum that the server does not offer."""
    try:
        checksum = capabilities.checksum(context.settings.checksum)
    except ValueError as error:
        raise errors.UsageError(f"--checksum: {error}", hint="--checksum auto takes what is offered") from error
    return Terms(context.retry, capabilities, chunk, checksum=checksum, throttle=context.throttle)


class TusUpload:
    """Send one range of a file. Call `run` once, in the thread that owns the client."""

    _source: IO[bytes]
    _last: Position

    def __init__(
        self,
        client: TusClient,
        terms: Terms,
        progress: Progress,
        part: Part,
        metadata: Mapping[str, str],
        *,
        resumes: bool,
        helper: Callable[[], Executor],
    ) -> None:
        """`resumes`: the key of the part may have been sent before. `helper()` computes checksums ahead."""
        self._client, self._terms, self._progress, self._part = client, terms, progress, part
        self._metadata, self._asked, self._length = metadata, resumes, part.size
        self._offset: int | None = None
        """The server's offset; None while it is unknown."""
        self._most = -1
        """The highest offset so far."""
        self._reach = part.size
        """The highest offset that the server can have: the end of what was sent."""
        self._carried = self._restarts = 0
        """Bytes of the body of the last request; new uploads in place of lost ones."""
        self._hashed: HashedChunks | None = None
        if terms.checksum is not None:
            self._hashed = HashedChunks(progress.file, terms.checksum, progress.check, helper, terms.buffers)
        self._tries = Tries(
            terms.retry,
            on_retry=self._failed,
            shrink=lambda _error: terms.chunk.refuse(self._carried),
            stale=lambda: client.stale,
            sleep=progress.sleep,
        )

    def run(self) -> Position:
        """Return once the server has all of it. Raise the last error, or what stopped it."""
        try:
            with open_unchanged(self._progress.file) as self._source:
                while self._offset != self._length:
                    self._tries.run(self._advance)
        except (errors.ConnectionLost, errors.ServerFault):
            if not self._is_there_after_all():
                raise
        finally:
            if self._hashed is not None:
                self._hashed.close()
        return self._last

    def _failed(self, error: errors.UploaderError, delay: float) -> None:
        if self._carried and isinstance(error, errors.ConnectionLost | errors.TimedOut | errors.ChecksumMismatch):
            self._terms.chunk.failed()
        self._progress.retry(error, delay, self._part)

    def _is_there_after_all(self) -> bool:
        """Ask once more when no retry is left: an answer that was lost is no failure."""
        if self._part.url is None or not self._carried or self._reach < self._length:
            return False
        try:
            self._terms.retry.wait_out_pause(self._progress.sleep)
            position = self._client.head(self._part.url)
        except errors.UploaderError:
            return False
        if position.offset != self._length:
            return False
        self._confirm(position, self._length)
        return True

    def _advance(self) -> None:
        """Find the server's offset, then send chunks until it is higher than ever."""
        mark = self._most
        while self._offset is None:
            if self._part.url is None:
                self._create()
            else:
                self._find(self._part.url)
        while self._offset is not None and self._offset <= mark and self._offset < self._length:
            self._send(self._offset, self._part.url or "")

    def _create(self) -> None:
        """Create an upload, without a body where the key was sent before: the server may know it."""
        again, self._asked = self._asked, True
        size = self._length if self._terms.in_one_request(self._length) and not again else 0
        self._reach = self._length if again else 0
        if size:
            self._progress.begin()
        self._prepare(size)
        body, checksum = self._chunk(0, size) if size else (None, None)
        metadata, partial = {**self._metadata, "uploadKey": self._part.key}, self._part.index is not None
        created = self._client.create(self._length, metadata, body=body, checksum=checksum, partial=partial)
        self._progress.created(self._part, created.url)
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
        if found.offset is not None and found.offset <= self._reach and found.length in (None, self._length):
            self._confirm(found, found.offset)
        else:
            claim = f"offset {found.offset} of {found.length} bytes"
            self._restart(errors.ProtocolError(f"{url} claims {claim}, which is not what was sent there"))

    def _restart(self, error: errors.UploaderError) -> None:
        if self._restarts == RESTARTS:
            raise error
        self._restarts += 1
        self._progress.restarted(self._part)
        self._asked, self._most = False, -1

    def _send(self, offset: int, url: str) -> None:
        """Send one chunk and record the new offset. Raise `OffsetConflict` for an impossible one."""
        self._offset = None  # unknown until the answer
        size = chunk_length(offset, self._length, self._terms.chunk_size)
        self._prepare(size)
        body, checksum = self._chunk(offset, size)
        with self._terms.chunk.travelling(size, time.monotonic):
            sent = self._client.patch(url, offset, body, checksum)
        if sent.offset is None or not offset < sent.offset <= offset + size:
            raise errors.OffsetConflict(f"{size} bytes at offset {offset} led to offset {sent.offset}", status=204)
        self._confirm(sent, sent.offset)

    def _prepare(self, size: int) -> None:
        """Wait until a request with a body of `size` bytes may be sent."""
        self._carried = size
        self._progress.check()
        self._terms.retry.wait_out_pause(self._progress.sleep)

    def _chunk(self, offset: int, size: int) -> tuple[Body, str | None]:
        """Return the body of a chunk and its checksum header; start hashing the next chunk."""
        progress, start, end = self._progress, self._part.start + offset, offset + size
        checksum = data = None
        if self._hashed is not None:
            digest, data = self._hashed.of(start, size)
            checksum = checksum_header(self._terms.checksum or "", digest)
            self._hashed.prepare(start + size, chunk_length(end, self._length, self._terms.chunk_size))
        progress.sending(self._part, offset, end, checksum=checksum is not None)
        self._reach = max(self._reach, end)
        body = Body(
            "application/offset+octet-stream",
            [Piece(size, data, progress.file, start, self._source)],
            check=progress.check,
            throttle=self._terms.throttle,
            on_sent=lambda _file, sent: progress.sent(self._part, offset + sent),
        )
        return body, checksum

    def _confirm(self, position: Position, offset: int) -> None:
        if offset > self._most:
            self._most = offset
            self._tries.advanced()
        if self._carried:
            self._terms.chunk.arrived(self._carried)
        self._offset, self._last = offset, position
        self._progress.confirmed(self._part, offset)
