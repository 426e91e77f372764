"""Parsing the multipart body of a batch while it arrives; files are written to temporary names."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)
from starlette.types import Receive

from uploader_server.config import Limits
from uploader_server.errors import Refusal
from uploader_server.http.errors import ApiError, pieces
from uploader_server.http.memory import Held
from uploader_server.pace import Pace
from uploader_server.storage.file_state import FileState
from uploader_server.storage.writing import Appender
from uploader_server.wire import extension

MAX_TEXT = 64 << 10  # maximum bytes of a text part
MAX_TEXTS = 8 << 20  # maximum bytes of all text parts of a request
FILE = 1 << 10  # bytes of memory for each file besides its names
PART = 128  # bytes added for each text part to the total
_PARAMETER = re.compile(r';\s*(?P<name>[\w*.-]+)\s*=\s*(?:"(?P<quoted>[^"]*)"|(?P<token>[^;"\s]*))\s*')


class BatchReader:
    """Reads one batch request.

    With `eager` an error is raised at once, else after the whole body, as the reference backend does
    (docs/protocol.md, section 3.12). `text`, `started` and `arriving` may raise ApiError to reject the request.
    """

    def __init__(self, limits: Limits, incoming: Callable[[], Path], held: Held, *, eager: bool) -> None:
        self.files: list[FileState] = []
        self.texts: dict[str, str] = {}  # the last text part of each name
        self.received = 0
        self._limits, self._incoming, self._held, self._eager = limits, incoming, held, eager
        self._refusal: Refusal | None = None
        self._file: FileState | None = None  # the file being received; None during a text part
        self._name = ""
        self._text = bytearray()
        self._text_bytes = 0
        self._names: set[str] = set()  # names of the received text parts
        self._writing: Appender | None = None
        self._digest = hashlib.sha256()
        self._began = 0.0  # start of the file

    async def text(self, name: str, value: str) -> None:
        self.texts[name] = value

    async def started(self, file: FileState) -> None:
        """Handle the headers of a file."""

    async def arriving(self, file: FileState) -> None:
        """Handle more bytes of a file."""

    async def read(self, receive: Receive, content_type: str, pace: Pace) -> None:
        """Read the whole body.

        Raises ApiError for an invalid request, OSError if the disk failed, and as `pieces` and `Held.add`. Call
        `discard` afterwards.
        """
        kind, options = parse_options_header(content_type)
        if kind != "multipart/form-data" or not options.get("boundary"):
            message = "A batch is multipart/form-data with a boundary"
            raise ApiError(400, "VALIDATION_ERROR", message, details=content_type)
        parser = PushMultipartParser(options["boundary"], max_header_size=16 << 10, max_header_count=16)
        try:
            async for piece in pieces(receive, pace):
                if piece and not parser.closed:
                    await self._take(parser, piece)
                    self.received += len(piece)
            parser.close()
        except MultipartError as error:
            raise ApiError(400, "VALIDATION_ERROR", "The multipart body is malformed", details=str(error)) from error
        if self._refusal is not None:
            raise self._refusal

    async def discard(self) -> None:
        if self._writing is not None:
            with contextlib.suppress(OSError):
                await self._writing.close()
        names = [file.data for file in self.files if file.data]
        if names:
            await asyncio.to_thread(_unlink, names)

    async def _take(self, parser: PushMultipartParser, piece: bytes) -> None:
        for event in parser.parse(piece):
            if isinstance(event, MultipartSegment):
                await self._begin(event)
            elif event is None:
                await self._end()
            else:
                await self._data(bytes(event))
        if self._file is not None and self._refusal is None:
            await self.arriving(self._file)

    async def _begin(self, segment: MultipartSegment) -> None:
        self._name, self._text = segment.name or "", bytearray()
        name = self._file_name(segment)
        if name is None:
            if self._eager and self._name in self._names and self._name != "relativePath":  # it is sent once per file
                self._refuse(400, "VALIDATION_ERROR", f"The part {self._name!r} was sent twice")
            self._names.add(self._name)
            self._text_bytes += len(self._name) + PART
            self._held.add(len(self._name) + PART)
            if self._text_bytes > MAX_TEXTS:
                self._refuse(413, "VALIDATION_ERROR", "There are too many text parts")
            return
        self._began = time.monotonic()
        length = segment.header("Content-Length") or ""
        file = FileState(name, announced=int(length) if length.isascii() and length.isdigit() else None)
        self._held.add(FILE + sys.getsizeof(name))
        self.files.append(file)
        self._file = file
        self._check(file, segment.name)
        if self._refusal is None:
            file.data = self._incoming()
            self._digest = hashlib.sha256()
            self._writing = Appender(file.data, 0, [self._digest])
            await self.started(file)

    def _file_name(self, segment: MultipartSegment) -> str | None:
        """Return the file name as sent, or None for a text part.

        Percent-escapes are not decoded; `filename*` is rejected (docs/protocol.md, section 3.13).
        """
        disposition = segment.header("Content-Disposition", "")
        parameters: dict[str, str] = {}
        end = len(disposition.partition(";")[0])
        for match in _PARAMETER.finditer(disposition, end):
            if match.start() != end:
                break
            end = match.end()
            parameters[match["name"].lower()] = match["quoted"] if match["quoted"] is not None else match["token"]
        if end != len(disposition) or "filename*" in parameters:
            message = 'Send the file name as plain UTF-8 in filename="…", with %22 for a quote'
            self._refuse(400, "VALIDATION_ERROR", message, details=disposition)
        return parameters.get("filename", "" if "filename*" in parameters else None)

    def _check(self, file: FileState, field: str | None) -> None:
        limits = self._limits
        if field != "files":
            self._refuse(400, "VALIDATION_ERROR", "Files are sent in parts named 'files'", details=field)
        elif len(self.files) > limits.max_files:
            message = f"A batch has at most {limits.max_files} files"
            self._refuse(400, "TOO_MANY_FILES", message, number=limits.max_files)
        else:
            try:
                limits.check(file.original_name, extension(self.files[0].original_name))
            except Refusal as refusal:
                if self._eager:
                    raise
                self._refusal = self._refusal or refusal.with_traceback(None)
            else:
                self._check_size(file, file.announced or 0)

    def _check_size(self, file: FileState, size: int) -> None:
        if size > self._limits.max_size:
            self._refuse(413, "FILE_TOO_LARGE", f"{file.original_name} is larger than {self._limits.max_size} bytes")

    def _refuse(self, status: int, code: str, message: str, **extra: Any) -> None:
        """Raise an error now, or save the first one until the body is read."""
        if self._eager:
            raise ApiError(status, code, message, **extra)  # a variable would refer to its own traceback
        self._refusal = self._refusal or ApiError(status, code, message, **extra)

    async def _data(self, piece: bytes) -> None:
        file = self._file
        if file is None:
            self._held.add(len(piece))
            self._text += piece
            self._text_bytes += len(piece)
            if len(self._text) > MAX_TEXT or self._text_bytes > MAX_TEXTS:
                self._text.clear()
                self._refuse(413, "VALIDATION_ERROR", f"The text part {self._name!r} is too long")
            return
        file.size += len(piece)
        self._check_size(file, file.size)
        if self._refusal is None and self._writing is not None:
            await self._writing.write(piece)

    async def _end(self) -> None:
        file, self._file = self._file, None
        if file is None:
            try:
                value = self._text.decode("utf-8")
            except UnicodeDecodeError:
                self._refuse(400, "VALIDATION_ERROR", f"The text part {self._name!r} is not UTF-8")
                value = ""
            self._held.add(sys.getsizeof(value) - len(self._text))
            await self.text(self._name, value)
            return
        file.speed = file.size / max(time.monotonic() - self._began, 1e-6)
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing.close()
            file.sha256 = self._digest.digest()
        if self._refusal is None:
            file.announced = file.size
            await self.arriving(file)


def _unlink(paths: list[str | Path]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)
