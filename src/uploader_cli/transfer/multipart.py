"""A multipart/form-data body straight from disk: its length is known before, no file stands in memory."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from uploader_cli.core.events import FailureCode
from uploader_cli.core.protocol import wire_name
from uploader_cli.errors import FileError
from uploader_cli.transfer.limiter import unlimited

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile

REPORT_EVERY = 0.05
"""Seconds between two reports of one file's bytes: a renderer can't show more."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """A run of bytes of the body: given ones, or those of a file."""

    length: int
    data: bytes = b""
    file: LocalFile | None = None


class MultipartBody:
    """Field `files` only, text parts once each, quotes and line breaks in names percent-escaped (wire contract 3.13).

    `sized` adds a Content-Length to each file's part, for servers known to read it.
    """

    def __init__(
        self,
        fields: Sequence[tuple[str, str]],
        files: Sequence[LocalFile],
        *,
        on_sent: Callable[[LocalFile, int], None],
        on_through: Callable[[], None],
        check: Callable[[], None],
        throttle: Callable[[int], int] = unlimited,
        sized: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_sent(file, bytes)` is called as the kernel takes a file's bytes, `on_through()` after the last byte.

        `throttle` is a `Limiter` or the like: asked before each piece, it waits and says how many bytes may go.
        """
        self.boundary = f"uploader-{secrets.token_hex(12)}"
        self.content_type = f"multipart/form-data; boundary={self.boundary}"
        self.started = False
        self.check = check
        self.began: float | None = None
        self.ended: float | None = None
        self._on_sent, self._on_through, self._throttle, self._clock = on_sent, on_through, throttle, clock
        self._segments = list(self._lay_out(fields, files, sized=sized))
        self._length = sum(segment.length for segment in self._segments)
        self._taken = self._given = self._wanted = 0
        self._reading = self._read_all()
        self._buffer = bytearray(0)
        self._marks = _Marks(self._segments)
        self._reported = 0.0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        while piece := self.read(1 << 20):
            yield piece

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= self._length

    @property
    def seconds(self) -> float:
        """From the first byte to the last (or to now)."""
        if self.began is None:
            return 0.0
        return (self.ended if self.ended is not None else self._clock()) - self.began

    def read(self, amount: int) -> memoryview:
        """Up to `amount` bytes, valid until the next call; empty at the end. Raises `FileError`."""
        self.started = True
        if self.began is None:
            self.began = self._clock()
        if len(self._buffer) < amount:
            self._buffer = bytearray(amount)
        self._wanted = self._throttle(min(amount, self._length - self._given))
        piece = next(self._reading, memoryview(b""))
        self._given += len(piece)
        return piece

    def taken(self, count: int) -> None:
        """The kernel took `count` more bytes: tell whose they are."""
        self._taken += count
        now = self._clock()
        due = now - self._reported >= REPORT_EVERY
        for file, sent, whole in self._marks.advance(self._taken, due=due):
            self._on_sent(file, sent)
            if not whole:
                self._reported = now
        if self.through and self.ended is None:
            self.ended = now
            self._on_through()

    def close(self) -> None:
        """Close the file being read."""
        self._reading.close()

    def _lay_out(
        self, fields: Sequence[tuple[str, str]], files: Sequence[LocalFile], *, sized: bool
    ) -> Iterator[_Segment]:
        for name, value in fields:
            part = f'--{self.boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
            data = part.encode() + value.encode() + b"\r\n"
            yield _Segment(len(data), data)
        for file in files:
            length = f"Content-Length: {file.size}\r\n" if sized else ""
            head = (
                f"--{self.boundary}\r\n"
                f'Content-Disposition: form-data; name="files"; filename="{wire_name(file.name)}"\r\n'
                f"Content-Type: {content_type(file.name)}\r\n{length}\r\n"
            ).encode()
            yield _Segment(len(head), head)
            yield _Segment(file.size, file=file)
            yield _Segment(2, b"\r\n")
        tail = f"--{self.boundary}--\r\n".encode()
        yield _Segment(len(tail), tail)

    def _read_all(self) -> Generator[memoryview, None, None]:
        filled = 0
        for segment in self._segments:
            if segment.file is None:
                source: IO[bytes] | None = None
            else:
                source = open_unchanged(segment.file)
            try:
                done = 0
                while done < segment.length:
                    space = memoryview(self._buffer)[filled : min(self._wanted, filled + segment.length - done)]
                    count = _fill(space, segment, done, source)
                    done += count
                    filled += count
                    if filled == self._wanted:
                        yield memoryview(self._buffer)[:filled]
                        filled = 0
                if segment.file is not None and source is not None:
                    check_unchanged(segment.file, source)
            finally:
                if source is not None:
                    source.close()
        if filled:
            yield memoryview(self._buffer)[:filled]


class _Marks:
    """Which file's bytes a position in the body belongs to. Positions only grow, so does the pointer."""

    def __init__(self, segments: Sequence[_Segment]) -> None:
        self._files: list[tuple[int, int, LocalFile]] = []
        position = 0
        for segment in segments:
            if segment.file is not None:
                self._files.append((position, position + segment.length, segment.file))
            position += segment.length
        self._next = 0

    def advance(self, position: int, *, due: bool) -> Iterator[tuple[LocalFile, int, bool]]:
        """Files whose last byte is now through, and (where a report is `due`) the one under way."""
        while self._next < len(self._files):
            start, end, file = self._files[self._next]
            if position >= end:
                self._next += 1
                yield file, file.size, True
                continue
            if due and position > start:
                yield file, position - start, False
            return


def _fill(space: memoryview, segment: _Segment, done: int, source: IO[bytes] | None) -> int:
    if source is None or segment.file is None:
        piece = segment.data[done : done + len(space)]
        space[: len(piece)] = piece
        return len(piece)
    try:
        count: int = source.readinto(space)  # type: ignore[attr-defined]  # an unbuffered file has it
    except OSError as error:
        raise _unreadable(segment.file, error) from error
    if not count:
        raise _changed(segment.file)
    return count


def open_unchanged(file: LocalFile) -> IO[bytes]:
    """The file, open and as it was when it was selected. Raises `FileError` (vanished, unreadable, changed)."""
    try:
        source = open(file.path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    except FileNotFoundError as error:
        raise FileError(f"{file.path} is gone", path=file.path, code=FailureCode.VANISHED) from error
    except OSError as error:
        raise _unreadable(file, error) from error
    try:
        check_unchanged(file, source)
    except FileError:
        source.close()
        raise
    return source


def check_unchanged(file: LocalFile, source: IO[bytes]) -> None:
    """Raise `FileError` (changed) where size or mtime are not those of the selection."""
    info = os.fstat(source.fileno())
    if (info.st_size, info.st_mtime_ns) != (file.size, file.mtime_ns):
        raise _changed(file)


def _unreadable(file: LocalFile, error: OSError) -> FileError:
    return FileError(f"{file.path} can't be read: {error.strerror}", path=file.path, code=FailureCode.UNREADABLE)


def _changed(file: LocalFile) -> FileError:
    return FileError(
        f"{file.path} changed while it was being read",
        path=file.path,
        code=FailureCode.CHANGED,
        hint="upload it again when nothing writes to it any more",
    )


def content_type(name: str) -> str:
    """The media type by extension; servers that check it know these."""
    import mimetypes

    known = {".avi": "video/x-msvideo", ".mp4": "video/mp4", ".mkv": "video/x-matroska", ".mov": "video/quicktime"}
    suffix = os.path.splitext(name)[1].lower()
    return known.get(suffix) or mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"
