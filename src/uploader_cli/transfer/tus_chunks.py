"""The chunks of an upload with their checksums: of a local file, one that is read into memory, or a stream."""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from typing import IO, TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.capabilities import checksum_header, chunk_length
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.plan import ENDLESS
from uploader_cli.sources import checksums
from uploader_cli.sources.chunks import HashedChunks
from uploader_cli.sources.content import PART_AFTER, Stream, ignore_read, is_local
from uploader_cli.sources.unchanged import open_unchanged
from uploader_cli.transfer.bodies import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.sources.content import OnRead
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.tus_state import Tus, TusFileState


class Chunks:
    """What is sent of the range of a file from `start`. Offsets and `size` count from there.

    `size` is `ENDLESS` until the end of a stream is found. `checksum` is the algorithm, or None.
    """

    stream: Stream | None
    _source: IO[bytes] | None  # None for a stream
    _hashed: HashedChunks | None = None
    _data: memoryview | None = None  # the chunk of a stream

    def __init__(self, state: TusFileState, tus: Tus, start: int, size: int, checksum: str | None) -> None:
        self._state, self._tus, self._start, self.size, self.checksum = state, tus, start, size, checksum
        self.stream = state.file.content if isinstance(state.file.content, Stream) else None
        on_read = tus.context.digests.read if not start else ignore_read  # a digest needs the bytes in order
        # The server compares what is hashed with what is sent: only one of them is read for the digest.
        self.on_read: OnRead = ignore_read if checksum is not None and self.stream is None else on_read
        self._on_hashed: OnRead = on_read

    @contextmanager
    def opened(self, worker: Worker) -> Iterator[None]:
        """Keep the file open for chunks, and a thread that hashes the next one."""
        file = self._state.file
        with open_unchanged(file) if self.stream is None else nullcontext() as self._source:
            if self.checksum is not None and self.stream is None:
                self._hashed = HashedChunks(
                    file,
                    self.checksum,
                    self._state.checkpoint,
                    worker.helper,
                    self._tus.buffers,
                    source=self._source if is_local(file) else None,
                    on_read=self._on_hashed,
                    on_doubt=self._tus.context.doubts.add,
                    waits=worker.api.sockets.waits,
                )
            try:
                yield
            finally:
                if self._hashed is not None:
                    self._hashed.close()
                self._hashed = None

    def available(self, offset: int) -> int:
        """Return the bytes of the chunk at `offset`; read those of a stream, and find its end.

        Raise `FileFailure` where the server takes only chunks that are too large for the memory.
        """
        length, chunk = self._read(offset), self._tus.chunk
        if self._in_memory and chunk.least > chunk.most_in_memory and offset + length != self.size:
            words = f"the server takes no requests below {chunk.least:,} bytes (min-append-size), which are too large"
            fix = "for the memory: upload a local file"
            raise errors.FileFailure(f"{words} {fix}", code=FailureCode.SERVER_REFUSED)
        return length

    def _read(self, offset: int) -> int:
        if self.stream is None:
            length = self.length(offset)
            return length if self._hashed is None else self._hashed.prepared(self._start + offset, length)
        chunk, context = self._tus.chunk, self._tus.context
        patience = PART_AFTER if chunk.least == 1 else math.inf  # a server with a rule takes whole chunks only
        self._data = self.stream.chunk(offset, self._tus.chunk_in_memory, self._state.checkpoint, patience)
        self.on_read(self._state.file, offset, self._data)
        if offset + len(self._data) > (most := context.terms.limits.max_file_size):
            raise errors.FileFailure(f"exceeds the server's limit of {most} bytes", code=FailureCode.REFUSED_SIZE)
        self.size = self._state.size = ENDLESS if self.stream.length is None else self.stream.length
        return len(self._data)

    def length(self, offset: int) -> int:
        """Return the bytes of the chunk at `offset` of a file."""
        return chunk_length(offset, self.size, self._tus.chunk_in_memory if self._in_memory else self._tus.chunk.size)

    @property
    def _in_memory(self) -> bool:
        return self.stream is not None or (self._hashed is not None and not is_local(self._state.file))

    def chunk(self, offset: int, size: int) -> tuple[Piece, str | None]:
        """Return a chunk and its checksum header; start hashing the next chunk."""
        start, checksum, data = self._start + offset, None, self._data
        if self._tus.context.hashes and not self._start:
            self._tus.context.digests.reach(self._state.file, offset)  # what an earlier run has sent
        if self._hashed is not None and size:
            digest, data, _ = self._hashed.of(start, size)
            checksum = checksum_header(self.checksum or "", digest)
            self._hashed.prepare(start + size, self.length(offset + size))
        elif data is not None and self.checksum is not None:
            data = data[:size]
            checksum = checksum_header(self.checksum, checksums.of(self.checksum, data))
        return Piece(size, data, self._state.file, start, self._source), checksum
