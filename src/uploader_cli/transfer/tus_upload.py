"""One file, or one range of a file, brought to a tus server: chunk after chunk, until all is there or a reason why not.

After every failure the server is asked where it is, and its word holds (wire contract 5). Retries are counted anew
whenever it has more than it ever had: so the loop ends, whatever a server claims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.tus import checksum_header, chunk_length
from uploader_cli.transfer.chunk import ChunkBody, Digests
from uploader_cli.transfer.multipart import open_unchanged
from uploader_cli.transfer.tus_retry import TusRetry
from uploader_cli.transfer.tus_types import SILENT, UNKNOWN, Known, Sent, Watch, new_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import IO

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.tus import TusClient
    from uploader_cli.transfer.tus_types import Terms

ANEW = 3
"""How often one run begins a new upload because the server has lost the old one."""


class TusUpload:
    """Brings one range to the server. `run` is called once, in the thread that owns the client."""

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
    ) -> None:
        """`metadata` without `uploadKey`: `make_key()` gives one before each new creation, journaled already.

        `part` is `(start, bytes)` of a partial upload (tus 1.0, concatenation); None for the whole file.
        """
        self._client, self._terms, self._file, self._metadata = client, terms, file, metadata
        self._watch, self._make_key = watch, make_key
        self._start, self._length = part or (0, file.size)
        self._partial = part is not None
        self._url, self._key = known.url, known.key
        self._last, self._checked = known.confirmed, known.checked_until
        self._attempt, self._begun = 1, False
        self._offset: int | None = None
        """Where the server is; None until it is known, and again after each failure."""
        self._most = -1
        """The highest offset that this upload ever had: only more is an advance."""
        self._reach = self._length
        """As far as the server can possibly be: the end of what was sent of an upload made here."""
        self._pledged: tuple[int, int] | None = (known.checked_until, known.pledged_until)
        """The chunk under way, where its checksum goes with it: a server stores all of it or nothing."""
        self._pledge_told = known.pledged_until
        self._chunk_size = terms.chunk_size
        self._carried = 0
        """Bytes of the body of the last request."""
        self._told = 0
        self._anew, self._halved = 0, False
        self._headers: Mapping[str, str] = {}
        self._digests = Digests(file, terms.checksum, terms.stop.check) if terms.checksum is not None else None
        self._retry = TusRetry(client, terms, failed=self._failed, pause=watch.pause, shrink=self._shrink)

    def run(self) -> Sent:
        """Until the server has all of it. Raises why it has not: the last error, `FileError` or `Interrupted`."""
        try:
            with open_unchanged(self._file) as self._source:
                while self._offset != self._length:
                    self._retry.run(self._go_on)
        except errors.UploaderError as error:
            if not self._is_there_after_all(error):
                if not isinstance(error, errors.FileError | errors.Interrupted):
                    self._begin(self._last)  # what was tried is told of, before it fails
                raise
        finally:
            if self._digests is not None:
                self._digests.close()
        return Sent(self._url or "", self._headers, self._checked == self._length, self._attempt)

    # --- after a failure ----------------------------------------------------------------------------------------------

    def _shrink(self) -> bool:
        """Half the chunk, once, where the refused request had one."""
        if self._halved or self._carried < 2:
            return False
        self._halved, self._chunk_size = True, (self._carried + 1) // 2
        return True

    def _failed(self, error: errors.UploaderError, delay: float) -> None:
        """The attempt is over; another one follows, from wherever the server says that it is."""
        self._begin(self._last)
        self._begun = False
        self._attempt += 1
        self._watch.retry(error, delay, self._attempt)

    def _is_there_after_all(self, error: errors.UploaderError) -> bool:
        """A last look when no retry is left: an answer that was lost is no failure (wire contract 5)."""
        lost = isinstance(error, errors.ConnectionLost | errors.ServerFault)
        if not lost or self._url is None or not self._carried or self._reach < self._length:
            return False
        try:
            position = self._client.head(self._url)
        except errors.UploaderError:
            return False
        if position.offset != self._length:
            return False
        self._confirm(position.offset, position.headers)
        return True

    # --- the way forward ----------------------------------------------------------------------------------------------

    def _go_on(self) -> None:
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
        """A new upload. A key that was sent before goes again without a body: a server that knows it tells how far."""
        again, self._key = self._key is not None, self._key or self._make_key()
        fits = self._terms.capabilities.creates_with_upload and self._length <= self._chunk_size
        size = self._length if fits and not again else 0
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
        """Ask where the server is. Its word holds, unless it can't be: more than was sent, or another length."""
        self._carried = 0
        self._retry.ready()
        try:
            position = self._client.head(url)
        except errors.UploadGone as error:
            self._begin_anew(url, error)
            return
        if position.offset <= self._reach and position.length in (None, self._length):
            self._confirm(position.offset, position.headers)
            return
        claim = f"offset {position.offset} of {position.length} bytes"
        self._begin_anew(url, errors.ProtocolError(f"{url} claims {claim}, which is not what was sent there"))

    def _begin_anew(self, url: str, error: errors.UploaderError) -> None:
        if self._anew == ANEW:
            raise error
        self._anew += 1
        self._url = self._key = self._pledged = None
        self._most, self._last, self._checked, self._pledge_told = -1, 0, 0, 0
        self._watch.gone(url)

    def _send(self, offset: int) -> int:
        """One chunk; the new offset. One that no request of ours explains is a conflict: HEAD will tell."""
        self._offset = None  # until an answer tells
        size = chunk_length(offset, self._length, self._chunk_size)
        body, checksum = self._chunk(offset, size)
        if body is None or self._url is None:
            raise AssertionError("a chunk of nothing, or sent nowhere")
        self._tell_pledge(offset + size if self._pledged and offset <= self._checked and size < self._length else 0)
        position = self._client.patch(self._url, offset, body, checksum)
        if not offset < position.offset <= offset + size:
            raise errors.OffsetConflict(f"{size} bytes at offset {offset} led to offset {position.offset}", status=204)
        self._confirm(position.offset, position.headers)
        return position.offset

    def _chunk(self, offset: int, size: int) -> tuple[ChunkBody | None, str | None]:
        """The body and its checksum header, and the checksum of the next chunk begun. No body for no bytes."""
        self._carried = size
        self._retry.ready()
        if not size:
            return None, None
        start, end = self._start + offset, offset + size
        checksum = None
        if self._digests is not None:
            checksum = checksum_header(self._terms.checksum or "", self._digests.of(start, size))
            self._digests.prepare(start + size, chunk_length(end, self._length, self._chunk_size))
        self._pledged = (offset, end) if checksum is not None else None
        self._reach = max(self._reach, end)
        body = ChunkBody(
            self._file,
            self._source,
            start,
            size,
            on_sent=lambda sent: self._sent(offset + sent),
            check=self._terms.stop.check,
            throttle=self._terms.throttle,
        )
        return body, checksum

    # --- what is known, and told --------------------------------------------------------------------------------------

    def _confirm(self, offset: int, headers: Mapping[str, str]) -> None:
        """The server has `offset` bytes: perhaps more than before, perhaps less."""
        pledged, self._pledged = self._pledged, None
        if pledged is not None and pledged[0] <= self._checked and pledged[1] == offset:
            self._checked = offset  # it stores a chunk that has a checksum whole or not at all
        self._checked = min(self._checked, offset)
        if offset > self._most:
            self._most = offset
            self._retry.advanced()
        self._offset = self._last = offset
        self._headers = headers
        self._begin(offset)
        self._watch.confirmed(offset, self._checked)

    def _tell_pledge(self, until: int) -> None:
        if until != self._pledge_told:
            self._pledge_told = until
            self._watch.pledged(until)

    def _begin(self, offset: int) -> None:
        if not self._begun:
            self._begun, self._told = True, offset
            self._watch.attempt(offset, self._attempt)

    def _sent(self, total: int) -> None:
        if total > self._told:
            self._told = total
            self._watch.sent(total)
