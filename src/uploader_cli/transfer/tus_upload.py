"""One range of a file, all of it or a part, brought to a tus server chunk by chunk.

After every failure the server is asked for its offset, and its answer holds (docs/protocol.md, section 5). Retries are
counted anew whenever the server has more than it ever had: so the loop ends, whatever a server claims.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from uploader_cli import errors
from uploader_cli.core.tus import LARGE, LARGE_AND_FAR, LEAST_PART, checksum_header, chunk_length
from uploader_cli.transfer.bodies import IN_MEMORY, Buffers, ChunkBody, HashedChunks, open_unchanged
from uploader_cli.transfer.pacing import unlimited
from uploader_cli.transfer.retry import Tries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Executor
    from typing import IO

    from uploader_cli.core.tus import Capabilities
    from uploader_cli.transfer.retry import Retry
    from uploader_cli.transfer.tus import Position, TusClient
    from uploader_cli.transfer.tus_job import Part, Progress

RESTARTS = 3
"""How often one run creates a new upload because the server has lost the old one."""
FIRST_CHUNK = 8 << 20
"""Bytes of the first chunks where their size is found automatically."""
MOST_CHUNK = 64 << 20
"""Bytes of the largest of them."""
SAFE_CHUNK = 5 << 20
"""Bytes of the smallest of them, unless a 413 asks for less: Cloudflare Stream takes no smaller ones."""
GRAIN = 256 << 10
"""Their sizes are multiples of this: some servers take no others."""
CHUNK_SECONDS = 1.5
"""Seconds that such a chunk is to take."""
FLAT = 0.75
"""Share of its rate alone that a connection has beside others, if the limit is its own."""
FAR = 0.02
"""Seconds of round trip from which on one connection is taken not to fill the link."""
LEAST_CHUNK = 64 << 10
"""Bytes below which a 413 is not answered with a smaller chunk any more (docs/protocol.md, section 5)."""


class ChunkSize:
    """Bytes of a chunk, shared by all workers: what one of them meets changes the chunks of all.

    `auto` begins with `FIRST_CHUNK` and follows the rate of a connection: a chunk is to take `CHUNK_SECONDS`, and has
    `FIRST_CHUNK` to `MOST_CHUNK` bytes, or less after a failure. A number is changed by 413 alone.
    """

    def __init__(self, size: int | Literal["auto"], known: int | None = None) -> None:
        """`known` is the `limit` of an earlier run. A number is tried all the same: so a limit can be lifted again."""
        self.adapts, self.limit = size == "auto", known
        """`limit`: bytes of the largest chunk that the server takes, where a 413 has told; None elsewhere."""
        self._most = min(MOST_CHUNK, max(LEAST_CHUNK, known or MOST_CHUNK)) if size == "auto" else size
        self.size = min(FIRST_CHUNK, self._most) if self.adapts else self._most
        self._least = LEAST_CHUNK if self.adapts else min(LEAST_CHUNK, max(1, self.size // 2))
        self._refused = False  # True from a 413 until a smaller chunk has arrived
        self._lock = threading.Lock()
        self._travelling = self._meetings = 0  # chunks on their way; how often one began while another was
        self._alone = self._beside = 0.0  # bytes a second of the last chunk that travelled alone, or beside others

    @property
    def capped(self) -> bool:
        """True where a connection is as fast beside others as alone: several of them are faster than one."""
        return self._beside > FLAT * self._alone > 0

    def refuse(self, size: int) -> bool:
        """Make chunks smaller than `size` bytes, which are too many; False where no smaller one is tried."""
        smaller = max(self._least, (size + 1) // 2)
        if self.adapts:
            smaller = smaller // GRAIN * GRAIN or smaller
        if smaller >= size:
            return False
        with self._lock:
            self._refused = True
            self._most = min(self._most, smaller)
            self.size = min(self.size, smaller)
        return True

    def failed(self) -> None:
        """Make chunks smaller, because one did not arrive."""
        if self.adapts:
            with self._lock:
                self.size = min(self.size, max(SAFE_CHUNK, self.size // 2 // GRAIN * GRAIN))

    def arrived(self, size: int) -> None:
        """Note that the server has taken a body of `size` bytes."""
        with self._lock:
            if self._refused and size <= self._most:
                self.limit, self._refused = self._most, False
            elif self.limit is not None and size > self.limit:
                self.limit = None

    @contextmanager
    def travelling(self, size: int) -> Iterator[None]:
        """Measure how long a chunk of `size` bytes takes to arrive, if it does."""
        with self._lock:
            met, beside = self._meetings, self._travelling
            self._travelling += 1
            self._meetings += beside > 0
        began, arrived = time.monotonic(), False
        try:
            yield
            arrived = True
        finally:
            with self._lock:
                self._travelling -= 1
                if arrived and size >= min(self.size, FIRST_CHUNK):
                    rate = size / max(1e-6, time.monotonic() - began)
                    if met == self._meetings:
                        self._alone = rate
                    elif beside and self._travelling:
                        self._beside = rate
                    if self.adapts:
                        wanted = int(min(max(rate * CHUNK_SECONDS, FIRST_CHUNK), self._most))
                        self.size = wanted // GRAIN * GRAIN or wanted


@dataclass(frozen=True, slots=True)
class Terms:
    """What all uploads of a run share. `checksum` is an algorithm or None, `throttle` the run's one `Limiter`."""

    retry: Retry
    capabilities: Capabilities
    chunk: ChunkSize
    checksum: str | None = None
    throttle: Callable[[int], int] = unlimited
    buffers: Buffers = field(default_factory=Buffers)

    @property
    def chunk_size(self) -> int:
        """Bytes of the next chunk; one with a checksum stays in memory unless a larger size was asked for."""
        size = self.chunk.size
        return min(size, IN_MEMORY) if self.chunk.adapts and self.checksum is not None else size

    def in_one_request(self, length: int) -> bool:
        """Return whether `length` bytes go with their creation: they are sent anew where its answer is lost."""
        most = min(self.chunk.size, FIRST_CHUNK) if self.chunk.adapts else self.chunk.size
        return self.capabilities.creates_with_upload and length <= most

    def parts(self, size: int, idle: int, round_trip: float | None) -> int:
        """Return in how many parts a file of `size` bytes is sent, where `idle` workers could help.

        More than one where the server is far away or limits each connection; `round_trip` is in seconds.
        """
        if not idle or not self.capabilities.concatenates:
            return 1
        if round_trip is not None and round_trip > FAR and size >= LARGE_AND_FAR:
            return min(1 + idle, size // LEAST_PART)
        return 1 + idle if self.chunk.capped and size >= LARGE else 1


class TusUpload:
    """Send one range of a file. `run` is called once, in the thread that owns the client."""

    _source: IO[bytes]
    _last: Position
    """The answer that confirmed most recently."""

    def __init__(
        self,
        client: TusClient,
        terms: Terms,
        progress: Progress,
        part: Part,
        metadata: Mapping[str, str],
        *,
        resumes: bool = False,
        helper: Callable[[], Executor] | None = None,
    ) -> None:
        """`metadata` are without `uploadKey`; with `resumes` the key of the part may have been sent before.

        `helper()` is the worker's executor, for checksums ahead.
        """
        self._client, self._terms, self._progress, self._part = client, terms, progress, part
        self._metadata, self._asked, self._length = metadata, resumes, part.size
        self._offset: int | None = None
        """The server's offset; None until it is known, and again after each failure."""
        self._most = -1
        """The highest offset that this upload ever had: only more is an advance."""
        self._reach = part.size
        """The highest offset that the server can have: the end of what was sent of an upload created here."""
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
        """Create an upload. A key that was sent before goes without a body: a server may know it, and its offset."""
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
        """Ask for the server's offset. It holds, unless it is impossible: more than was sent, or another length."""
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
        """Send one chunk. An offset that no request of ours explains is a conflict."""
        self._offset = None  # unknown until the answer
        size = chunk_length(offset, self._length, self._terms.chunk_size)
        self._prepare(size)
        body, checksum = self._chunk(offset, size)
        with self._terms.chunk.travelling(size):
            sent = self._client.patch(url, offset, body, checksum)
        if sent.offset is None or not offset < sent.offset <= offset + size:
            raise errors.OffsetConflict(f"{size} bytes at offset {offset} led to offset {sent.offset}", status=204)
        self._confirm(sent, sent.offset)

    def _prepare(self, size: int) -> None:
        """Wait until a request with a body of `size` bytes may be sent."""
        self._carried = size
        self._progress.check()
        self._terms.retry.wait_out_pause(self._progress.sleep)

    def _chunk(self, offset: int, size: int) -> tuple[ChunkBody, str | None]:
        """Return the body of a chunk and its checksum header, and begin with the next chunk's checksum."""
        progress, start, end = self._progress, self._part.start + offset, offset + size
        checksum = data = None
        if self._hashed is not None:
            digest, data = self._hashed.of(start, size)
            checksum = checksum_header(self._terms.checksum or "", digest)
            self._hashed.prepare(start + size, chunk_length(end, self._length, self._terms.chunk_size))
        progress.sending(self._part, offset, end, checksum=checksum is not None)
        self._reach = max(self._reach, end)
        body = ChunkBody(
            progress.file,
            self._source,
            start,
            size,
            on_sent=lambda sent: progress.sent(self._part, offset + sent),
            check=progress.check,
            data=data,
            throttle=self._terms.throttle,
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
