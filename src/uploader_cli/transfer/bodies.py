"""Local files as request bodies, and what requests say of them."""

from __future__ import annotations

import os
import secrets
import time
from collections import deque
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple

from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import utf8, wire_name
from uploader_cli.settings.values import FIELD, Metadata
from uploader_cli.sources.content import (
    PIECE,
    ignore_read,
    read_at,
    sha256_of,
)
from uploader_cli.sources.unchanged import check_unchanged, ignore_doubt, open_unchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from uploader_cli.sources.content import OnRead
    from uploader_cli.sources.unchanged import OnDoubt

    Content = LocalFile | Iterable[bytes | bytearray]

REPORT_EVERY, COUNT_EVERY = 0.05, 0.25  # seconds between two reports of a file's sent bytes, or of those of a body


def content_type(name: str) -> str:
    return _content_type(os.path.splitext(name)[1].lower())


@cache
def _content_type(suffix: str) -> str:
    import mimetypes

    known = {".avi": "video/x-msvideo", ".mp4": "video/mp4", ".mkv": "video/x-matroska", ".mov": "video/quicktime"}
    guess = mimetypes.guess_type(f"name{suffix}", strict=False)[0]
    return known.get(suffix) or guess or "application/octet-stream"


def metadata_of(file: LocalFile, templates: Iterable[Metadata], checkpoint: Callable[[], None]) -> dict[str, str]:
    """Return each key of `--metadata` with its value in the list, else that of the template.

    `checkpoint` raises to stop.
    """
    listed = dict(file.metadata)
    return {
        item.name: listed[item.name]
        if item.name in listed
        else FIELD.sub(lambda match: _field(file, match[1], checkpoint), item.template or "")
        for item in templates
    }


def named(file: LocalFile) -> dict[str, str]:
    """Return the metadata that names a file to servers that get keys."""
    return {"filename": utf8(file.name), "filetype": content_type(file.name), "relativePath": utf8(file.relative_path)}


def _field(file: LocalFile, name: str, checkpoint: Callable[[], None]) -> str:
    stem, dot, ext = file.name.rpartition(".")
    match name:
        case "path":
            return utf8(file.relative_path)
        case "name":
            return utf8(file.name)
        case "stem":
            return utf8(stem if dot and stem else file.name)
        case "ext":
            return utf8(ext if dot and stem else "")
        case "type":
            return content_type(file.name)
        case "size":
            return str(file.size)
        case "sha256":
            return file.sha256 or sha256_of(file, checkpoint)
    return datetime.fromtimestamp(file.mtime_ns / 1e9, UTC).date().isoformat()  # date


class Piece(NamedTuple):
    """Bytes of a body: `data`, or those of `file` from `start` on, read from `source` if it is open."""

    length: int
    data: memoryview | None = None
    file: LocalFile | None = None
    start: int = 0
    source: IO[bytes] | None = None


class Body:
    """A request body of known length, which is read while it is sent."""

    def __init__(
        self,
        content_type: str,
        parts: Sequence[Piece],
        *,
        checkpoint: Callable[[], None],
        throttle: Callable[[int], int] = lambda wanted: wanted,
        on_sent: Callable[[LocalFile, int], None] = lambda _file, _sent: None,
        on_count: Callable[[int], None] = lambda _sent: None,
        on_last: Callable[[], None] = lambda: None,
        on_through: Callable[[], None] = lambda: None,
        on_read: OnRead = ignore_read,
        on_doubt: OnDoubt = ignore_doubt,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`checkpoint` raises to stop; `throttle` waits and returns how many bytes may be sent.

        `on_sent(file, bytes)` is called as the kernel takes bytes, `on_count(bytes)` with those of the body so far,
        `on_last()` before the last piece is read (no server has the whole request before), `on_through()` after the
        last byte, `on_read` with what is read from a file, `on_doubt` as by `check_unchanged`.
        """
        self.content_type, self.checkpoint = content_type, checkpoint
        self._parts, self._throttle, self._clock = parts, throttle, clock
        self._on_sent, self._on_count, self._on_last = on_sent, on_count, on_last
        self._on_through, self._on_read, self._on_doubt = on_through, on_read, on_doubt
        self._began: float | None = None
        self._ended: float | None = None
        self._unsent: deque[tuple[int, int, LocalFile]] = deque()
        """Files not sent completely, each with its end in the body and its length."""
        self._length = 0
        for part in parts:
            self._length += part.length
            if part.file is not None:
                self._unsent.append((self._length, part.length, part.file))
        self._reported_at, self._reported = clock(), 0
        self._counted_at = self._reported_at
        self._given = self._wanted = 0
        self.sent = 0  # bytes that the kernel has taken
        self._pieces = self._read_parts()

    def __len__(self) -> int:
        return self._length

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self.sent >= self._length

    @property
    def given_out(self) -> bool:
        """True once the last piece was read: the server may have the whole request."""
        return self._given >= self._length

    @property
    def seconds(self) -> float:
        if self._began is None:
            return 0.0
        return (self._clock() if self._ended is None else self._ended) - self._began

    def read(self, amount: int) -> memoryview:
        """Return up to `amount` bytes, valid until the next call; empty at the end. Raise `FileError`."""
        self.checkpoint()
        if self._began is None:
            self._began = self._clock()
        self._wanted = self._throttle(min(amount, PIECE, self._length - self._given))
        piece = next(self._pieces, memoryview(b""))
        self._given += len(piece)
        if piece and self.given_out:
            self._on_last()
        return piece

    def taken(self, count: int) -> None:
        """Count bytes that the kernel took, and report them."""
        self.sent += count
        now = self._clock()
        while self._unsent and self.sent >= self._unsent[0][0]:
            _, length, file = self._unsent.popleft()
            self._on_sent(file, length)
            self._reported = 0
        if self._unsent and now - self._reported_at >= REPORT_EVERY:
            end, length, file = self._unsent[0]
            sent = self.sent - (end - length)
            if sent > self._reported:
                self._reported_at, self._reported = now, sent
                self._on_sent(file, sent)
        if now - self._counted_at >= COUNT_EVERY:
            self._counted_at = now
            self._on_count(self.sent)
        if self.through and self._ended is None:
            self._ended = now
            self._on_through()

    def rewind(self) -> None:
        """Start again after a redirect. Reported bytes stay reported."""
        self._given = self.sent = 0
        self._pieces = self._read_parts()

    def close(self) -> None:
        self._pieces.close()

    def _read_parts(self) -> Generator[memoryview, None, None]:
        """Yield pieces of `_wanted` bytes; a piece of one part in memory is not copied."""
        buffer, filled = memoryview(b""), 0
        for length, data, file, start, opened in self._parts:
            unread = file is not None and opened is None and data is None
            with open_unchanged(file) if file is not None and unread else nullcontext(opened) as source:
                done = 0
                while done < length:
                    size = min(self._wanted - filled, length - done)
                    if data is not None and size == self._wanted:
                        piece = data[done : done + size]
                    else:
                        buffer = buffer or memoryview(bytearray(min(PIECE, self._length)))
                        piece = buffer[: filled + size]
                        if data is not None:
                            piece[filled:] = data[done : done + size]
                        elif file is not None and source is not None:
                            read_at(file, source, start + done, piece[filled:])
                            self._on_read(file, start + done, piece[filled:])
                    done, filled = done + size, len(piece)
                    if done == length and file is not None and source is not None:
                        check_unchanged(file, source, self._on_doubt)
                    if filled == self._wanted:
                        filled = 0
                        yield piece


def multipart(items: Iterable[tuple[str, Content]]) -> tuple[str, list[Piece]]:
    """Return type and parts of a multipart/form-data body (docs/protocol.md, section 3.13).

    Each item is the rest of its header after `name=`, and a file or pieces of bytes.
    """
    boundary = f"uploader-{secrets.token_hex(12)}"
    parts, lead = list[Piece](), list[bytes | bytearray]()
    for head, content in items:
        lead.append(f"--{boundary}\r\nContent-Disposition: form-data; name={head}\r\n\r\n".encode())
        if isinstance(content, LocalFile):
            parts += [_in_memory(lead), Piece(content.size, file=content)]
            lead = [b"\r\n"]
        else:
            lead += [*content, b"\r\n"]
    return f"multipart/form-data; boundary={boundary}", [*parts, _in_memory([*lead, f"--{boundary}--\r\n".encode()])]


def pack_form(manifest: bytes, data: Content) -> tuple[str, list[Piece]]:
    """Return type and parts of the body of a pack; `data` are the bytes of its files (docs/extensions.md)."""
    return multipart(
        [
            ('"manifest"\r\nContent-Type: application/json', [manifest]),
            ('"data"\r\nContent-Type: application/octet-stream', data),
        ]
    )


def _in_memory(pieces: Iterable[bytes | bytearray]) -> Piece:
    data = b"".join(pieces)
    return Piece(len(data), memoryview(data))


def upload_form(
    fields: Iterable[tuple[str, str]], files: Iterable[LocalFile], *, sized: bool = False
) -> Iterator[tuple[str, Content]]:
    """Yield the items of a batch request. `sized` adds a Content-Length to each file."""
    for name, value in fields:
        yield f'"{name}"', [value.encode()]
    for file in files:
        length = f"\r\nContent-Length: {file.size}" if sized else ""
        yield f'"files"; filename="{wire_name(file.name)}"\r\nContent-Type: {content_type(file.name)}{length}', file
