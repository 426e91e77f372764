"""One file, or one range of a file, brought to a tus server chunk by chunk.

After every failure the server is asked for its offset, and its answer holds (docs/protocol.md, section 5). Retries are
counted anew whenever the server has more than it ever had: so the loop ends, whatever a server claims.
"""

from __future__ import annotations

import secrets
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

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.tus import Capabilities
    from uploader_cli.transfer.retry import Retry
    from uploader_cli.transfer.tus import TusClient

RESTARTS = 3
"""How often one run creates a new upload because the server has lost the old one."""
FIRST_CHUNK = 8 << 20
"""Bytes of the first chunks where their size is found automatically."""
MOST_CHUNK = 64 << 20
"""Bytes of the largest of them."""
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

    `auto` begins with `FIRST_CHUNK` and follows the rate of a connection: a chunk is to take `CHUNK_SECONDS`, up to
    `MOST_CHUNK`. A number is changed by 413 alone.
    """

    def __init__(self, size: int | Literal["auto"]) -> None:
        self.adapts = size == "auto"
        self.size = FIRST_CHUNK if size == "auto" else size
        self._most = MOST_CHUNK if size == "auto" else size
        self._floor = self.size
        """Bytes below which a low rate makes no chunk smaller; failures lower it."""
        self._least = max(1, min(LEAST_CHUNK, self.size // 2))
        self._lock = threading.Lock()
        self._travelling = self._meetings = 0
        """Chunks on their way, and how often one began while another was."""
        self._alone = self._beside = 0.0
        """Bytes a second of the last chunk that travelled alone, and of the last one beside others."""

    @property
    def capped(self) -> bool:
        """True where a connection is as fast beside others as alone: several of them are faster than one."""
        return self._beside > FLAT * self._alone > 0

    def refuse(self, size: int) -> bool:
        """Note that a body of `size` bytes is too large; False where no smaller one is tried."""
        smaller = (size + 1) // 2
        if smaller < self._least or smaller == size:
            return False
        with self._lock:
            self._most = min(self._most, smaller)
            self.size = min(self.size, smaller)
        return True

    def failed(self) -> None:
        """Make chunks smaller, because one did not arrive."""
        if self.adapts:
            with self._lock:
                self.size = self._floor = min(self.size, max(GRAIN, self.size // 2 // GRAIN * GRAIN))

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
                    self._follow(rate)

    def _follow(self, rate: float) -> None:
        if self.adapts:
            self._floor = min(FIRST_CHUNK, 2 * self._floor)
            wanted = min(max(rate * CHUNK_SECONDS, self._floor), self._most)
            self.size = int(wanted) // GRAIN * GRAIN or int(wanted)


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


@dataclass(frozen=True, slots=True)
class Watch:
    """Callbacks of one upload, called from the thread that runs it, while it holds no lock.

    Bytes are absolute within the range that is sent. Within one attempt neither `sent` nor `confirmed` falls.
    `attempt(n)` is always called before the `retry` that leads to attempt `n + 1`, and before a refusal is raised.
    """

    created: Callable[[str], None] = lambda _url: None
    """`(url)`: the upload has a URL. For the journal."""
    attempt: Callable[[int, int], None] = lambda _offset, _attempt: None
    """`(offset, attempt)`: an attempt begins at that offset; the first is 1."""
    confirmed: Callable[[int, int], None] = lambda _offset, _checked: None
    """`(offset, checked_until)`: the server has so many bytes, and compared the checksums up to `checked_until`."""
    pledged: Callable[[int], None] = lambda _until: None
    """`(until)`: the next chunk ends there and its checksum covers all bytes so far; 0 if it does not.

    For the journal, before the chunk is sent. Called only for chunks that are not the whole range, and on a change."""
    sent: Callable[[int], None] = lambda _sent: None
    """`(total)`: so many bytes have left this machine."""
    retry: Callable[[errors.UploaderError, float, int], None] = lambda _error, _delay, _attempt: None
    """`(error, delay, attempt)`: the next attempt comes after `delay` seconds."""


SILENT = Watch()
"""No callbacks."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the journal has of an upload: its URL, or only the key of a creation whose answer never came.

    `confirmed`, `checked_until` and `pledged_until` are in bytes, as they were last reported.
    """

    url: str | None = None
    key: str | None = None
    confirmed: int = 0
    checked_until: int = 0
    pledged_until: int = 0

    def verifies(self, length: int) -> bool:
        """Return whether all bytes of a complete upload of `length` bytes lay in accepted chunks."""
        return length in (self.checked_until, self.pledged_until)


UNKNOWN = Known()
"""A new upload."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The server has every byte. `headers` are of the answer that said so; `verified` is by chunk checksums.

    `attempts` counts the first.
    """

    url: str
    headers: Mapping[str, str]
    verified: bool
    attempts: int


def new_key() -> str:
    """Return a random `uploadKey` (docs/protocol.md, section 5)."""
    return secrets.token_urlsafe(18)


class TusUpload:
    """Send one range. `run` is called once, in the thread that owns the client."""

    _source: IO[bytes]

    def __init__(
        self,
        client: TusClient,
        terms: Terms,
        file: LocalFile,
        metadata: Mapping[str, str],
        *,
        watch: Watch = SILENT,
        known: Known = UNKNOWN,
        make_key: Callable[[], str] = new_key,
        part: tuple[int, int] | None = None,
        helper: Callable[[], Executor] | None = None,
        check: Callable[[], None] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """`metadata` without `uploadKey`: `make_key()` returns one before each creation, in the journal already.

        `part` is `(start, bytes)` of a partial upload (tus 1.0, concatenation); None for the whole file. `helper()` is
        the worker's executor, for checksums ahead; `check()` raises to stop, and so does `sleep(seconds)`:
        by default once the run is stopped.
        """
        self._client, self._terms, self._file, self._metadata = client, terms, file, metadata
        self._watch, self._make_key = watch, make_key
        self._start, self._length = part or (0, file.size)
        self._partial = part is not None
        self._url, self._key = known.url, known.key
        self._last, self._checked = known.confirmed, known.checked_until
        self._attempt, self._begun = 1, False
        self._offset: int | None = None
        """The server's offset; None until it is known, and again after each failure."""
        self._most = -1
        """The highest offset that this upload ever had: only more is an advance."""
        self._reach = self._length
        """The highest offset that the server can have: the end of what was sent of an upload created here."""
        self._pledged: tuple[int, int] | None = (known.checked_until, known.pledged_until)
        """The range of the chunk being sent, where it carries a checksum: a server stores all of it or nothing."""
        self._journaled_pledge = known.pledged_until
        self._carried = 0
        """Bytes of the body of the last request."""
        self._reported = 0
        self._restarts = 0
        self._headers: Mapping[str, str] = {}
        self._check = check or terms.retry.stop.check
        self._hashed: HashedChunks | None = None
        if terms.checksum is not None:
            self._hashed = HashedChunks(file, terms.checksum, self._check, helper, terms.buffers)
        self._sleep = sleep
        self._tries = Tries(
            terms.retry, on_retry=self._failed, shrink=self._shrink, stale=lambda: client.stale, sleep=sleep
        )

    def run(self) -> Sent:
        """Return once the server has all of it. Raise the last error, `FileError` or `Interrupted`."""
        try:
            with open_unchanged(self._file) as self._source:
                while self._offset != self._length:
                    self._tries.run(self._advance)
        except errors.UploaderError as error:
            if not self._is_there_after_all(error):
                if not isinstance(error, errors.FileError | errors.Interrupted):
                    self._begin(self._last)  # the attempt is reported before it fails
                raise
        finally:
            if self._hashed is not None:
                self._hashed.close()
        return Sent(self._url or "", self._headers, self._checked == self._length, self._attempt)

    # --- after a failure ----------------------------------------------------------------------------------------------

    def _shrink(self, _error: errors.TooLarge) -> bool:
        """Halve the chunks of all workers, where the refused request had a body that can be smaller."""
        return self._carried > 1 and self._terms.chunk.refuse(self._carried)

    def _failed(self, error: errors.UploaderError, delay: float) -> None:
        """End the attempt; another one follows, from the server's offset."""
        if self._carried and isinstance(error, errors.ConnectionLost | errors.TimedOut | errors.ChecksumMismatch):
            self._terms.chunk.failed()
        self._begin(self._last)
        self._begun = False
        self._attempt += 1
        self._watch.retry(error, delay, self._attempt)

    def _is_there_after_all(self, error: errors.UploaderError) -> bool:
        """Ask once more when no retry is left: an answer that was lost is no failure."""
        lost = isinstance(error, errors.ConnectionLost | errors.ServerFault)
        if not lost or self._url is None or not self._carried or self._reach < self._length:
            return False
        try:
            self._terms.retry.wait_out_pause(self._sleep)
            position = self._client.head(self._url)
        except errors.UploaderError:
            return False
        if position.offset != self._length:
            return False
        self._confirm(position.offset, position.headers)
        return True

    # --- the way forward ----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        mark, offset = self._most, self._located()
        while offset <= mark and offset < self._length:
            offset = self._send(offset)

    def _located(self) -> int:
        while self._offset is None:
            if self._url is None:
                self._create()
            else:
                self._find(self._url)
        return self._offset

    def _create(self) -> None:
        """Create an upload. A key that was sent before goes without a body: a server may know it, and its offset."""
        again, self._key = self._key is not None, self._key or self._make_key()
        size = self._length if self._terms.in_one_request(self._length) and not again else 0
        self._reach = self._length if again else 0
        if size:
            self._begin(0)
        body, checksum = self._chunk(0, size)
        created = self._client.create(
            self._length,
            {**self._metadata, "uploadKey": self._key},
            body=body,
            checksum=checksum,
            partial=self._partial,
        )
        self._url = created.url
        self._watch.created(created.url)
        offset = created.offset if created.offset is not None or size else 0
        if offset is not None and offset > self._reach:
            raise errors.ProtocolError(f"{created.url} begins at offset {offset} of {self._reach} bytes sent")
        if offset is not None:
            self._confirm(offset, created.headers)

    def _find(self, url: str) -> None:
        """Ask for the server's offset. It holds, unless it is impossible: more than was sent, or another length."""
        self._carried = 0
        self._check()
        self._terms.retry.wait_out_pause(self._sleep)
        try:
            position = self._client.head(url)
        except errors.UploadGone as error:
            self._restart(error)
            return
        if position.offset <= self._reach and position.length in (None, self._length):
            self._confirm(position.offset, position.headers)
            return
        claim = f"offset {position.offset} of {position.length} bytes"
        self._restart(errors.ProtocolError(f"{url} claims {claim}, which is not what was sent there"))

    def _restart(self, error: errors.UploaderError) -> None:
        if self._restarts == RESTARTS:
            raise error
        self._restarts += 1
        self._url = self._key = self._pledged = None
        self._most, self._last, self._checked, self._journaled_pledge = -1, 0, 0, 0

    def _send(self, offset: int) -> int:
        """Send one chunk and return the new offset. An offset that no request of ours explains is a conflict."""
        self._offset = None  # unknown until the answer
        size = chunk_length(offset, self._length, self._terms.chunk_size)
        body, checksum = self._chunk(offset, size)
        if body is None or self._url is None:
            raise AssertionError("an empty chunk, or no URL to send it to")
        self._journal_pledge(offset + size if self._pledged and offset <= self._checked and size < self._length else 0)
        with self._terms.chunk.travelling(size):
            position = self._client.patch(self._url, offset, body, checksum)
        if not offset < position.offset <= offset + size:
            raise errors.OffsetConflict(f"{size} bytes at offset {offset} led to offset {position.offset}", status=204)
        self._confirm(position.offset, position.headers)
        return position.offset

    def _chunk(self, offset: int, size: int) -> tuple[ChunkBody | None, str | None]:
        """Return the body and its checksum header, and begin with the next chunk's checksum. No body for no bytes."""
        self._carried = size
        self._check()
        self._terms.retry.wait_out_pause(self._sleep)
        if not size:
            return None, None
        start, end = self._start + offset, offset + size
        checksum = data = None
        if self._hashed is not None:
            digest, data = self._hashed.of(start, size)
            checksum = checksum_header(self._terms.checksum or "", digest)
            self._hashed.prepare(start + size, chunk_length(end, self._length, self._terms.chunk_size))
        self._pledged = (offset, end) if checksum is not None else None
        self._reach = max(self._reach, end)
        body = ChunkBody(
            self._file,
            self._source,
            start,
            size,
            on_sent=lambda sent: self._sent(offset + sent),
            check=self._check,
            data=data,
            throttle=self._terms.throttle,
        )
        return body, checksum

    # --- what is known, and reported ----------------------------------------------------------------------------------

    def _confirm(self, offset: int, headers: Mapping[str, str]) -> None:
        """Take the server's offset: it may be higher or lower than before."""
        pledged, self._pledged = self._pledged, None
        if pledged is not None and pledged[0] <= self._checked and pledged[1] == offset:
            self._checked = offset  # it stores a chunk that has a checksum whole or not at all
        self._checked = min(self._checked, offset)
        if offset > self._most:
            self._most = offset
            self._tries.advanced()
        self._offset = self._last = offset
        self._headers = headers
        self._begin(offset)
        self._watch.confirmed(offset, self._checked)

    def _journal_pledge(self, until: int) -> None:
        if until != self._journaled_pledge:
            self._journaled_pledge = until
            self._watch.pledged(until)

    def _begin(self, offset: int) -> None:
        if not self._begun:
            self._begun, self._reported = True, offset
            self._watch.attempt(offset, self._attempt)

    def _sent(self, total: int) -> None:
        if total > self._reported:
            self._reported = total
            self._watch.sent(total)
