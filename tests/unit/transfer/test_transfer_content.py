"""Streams and file objects as content."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from uploader_cli.core.plan import LocalFile
from uploader_cli.errors import FileError, UsageError
from uploader_cli.sources.content import (
    Digests,
    FileObject,
    Stream,
    content_of,
    read_at,
    read_range,
)
from uploader_cli.sources.unchanged import open_unchanged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Source:
    """An object with `read` only, which returns `pieces`; `given` counts the bytes."""

    def __init__(self, *pieces: Any) -> None:
        self._pieces, self.given = list(pieces), 0

    def read(self, most: int = -1) -> Any:
        piece = self._pieces.pop(0) if self._pieces else b""
        if piece is None:
            return None
        taken, rest = piece[:most], piece[most:]
        self._pieces[:0] = [rest] if rest else []
        self.given += len(taken)
        return taken


def never() -> None:
    """Do not stop."""


def stream_of(*pieces: Any) -> Stream:
    content = content_of(Source(*pieces), "in")  # type: ignore[arg-type]
    assert isinstance(content, Stream)
    return content


def test_chunks_of_a_stream_and_its_end() -> None:
    stream = stream_of(b"abc", b"defg", b"h")
    assert (bytes(stream.chunk(0, 4, never)), stream.length) == (b"abcd", None)
    assert bytes(stream.chunk(0, 4, never)) == b"abcd", "again"
    assert bytes(stream.chunk(2, 4, never)) == b"cdef", "from the middle"
    assert bytes(stream.chunk(2, 3, never)) == b"cde", "smaller chunks after a 413"
    assert (bytes(stream.chunk(6, 4, never)), stream.length) == (b"gh", 8)
    assert bytes(stream.chunk(8, 4, never)) == b""
    with pytest.raises(FileError, match="needs its bytes from 5 on, which can't be read again"):
        stream.chunk(5, 4, never)


def test_stream_reads_no_further_than_one_byte_beyond_the_chunk() -> None:
    source = Source(bytes(1 << 20))
    stream = Stream(source, "in", None)  # type: ignore[arg-type]
    for offset in range(0, 500_000, 1000):
        assert len(stream.chunk(offset, 1000, never)) == 1000
        assert source.given == offset + 1001
        assert len(stream.window) == 1001


def test_slow_stream_sends_a_part_of_a_chunk() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as source, open(writer, "wb", buffering=0) as sink:
        stream = content_of(source, "in")
        assert isinstance(stream, Stream)
        sink.write(b"ab")
        assert bytes(stream.chunk(0, 10, never, patience=0.0)) == b"ab"
        threading.Timer(0.05, sink.write, (b"c",)).start()
        assert bytes(stream.chunk(2, 10, never, patience=0.0)) == b"c", "waits for the first byte"


class Stopped(Exception):
    """Raised by `checks`."""


def checks(count: int) -> Callable[[], None]:
    """A check that stops after `count` calls."""
    left = iter(range(count))

    def checkpoint() -> None:
        if next(left, None) is None:
            raise Stopped

    return checkpoint


@pytest.mark.parametrize("buffered", [0, -1])
def test_wait_for_a_pipe_can_be_stopped(buffered: int) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=buffered) as source:
        stream = content_of(source, "in")
        assert isinstance(stream, Stream)
        os.write(writer, b"ab")
        with pytest.raises(Stopped):
            stream.chunk(0, 10, checks(3))
    os.close(writer)


def test_peeked_pipe_that_stays_open_has_bytes_that_select_does_not_see() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as source, open(writer, "wb", buffering=0) as sink:
        sink.write(b"ab")
        assert source.peek(1) == b"ab"
        stream = content_of(source, "in")
        assert isinstance(stream, Stream)
        assert bytes(stream.chunk(0, 10, checks(3), patience=0.0)) == b"ab"


def test_readers_of_a_file_object_take_turns() -> None:
    """Its position is that of one reader from the seek to the end of the read."""

    class Shared(io.BytesIO):
        both = threading.Barrier(2, timeout=0.1)

        def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
            position = super().seek(offset, whence)
            if threading.current_thread() is not threading.main_thread():
                with suppress(threading.BrokenBarrierError):
                    self.both.wait()
            return position

    content = content_of(Shared(b"abcd"), "object")
    assert isinstance(content, FileObject)

    def read(position: int) -> bytes:
        reader = content.open()
        reader.seek(position)
        return reader.read(2)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, (0, 2))) == [b"ab", b"cd"]


def test_file_object_begins_at_its_position_and_has_several_readers() -> None:
    source = io.BytesIO(b"12abcdef")
    source.seek(2)
    content = content_of(source, "object")
    assert isinstance(content, FileObject)
    first, second = content.open(), content.open()
    assert content.length == 6
    first.seek(3)
    assert second.read(2) == b"ab"
    assert first.read(10) == b"def"


def test_file_object_of_short_reads_is_read_whole() -> None:
    class Short(io.BytesIO):
        def read(self, most: int | None = -1) -> bytes:
            return super().read(min(most or 3, 3))

    file = LocalFile(0, "in", "in", 10, 0, content=content_of(Short(b"0123456789"), "in"))  # type: ignore[arg-type]
    piece = bytearray(10)
    read_at(file, open_unchanged(file), 0, memoryview(piece))
    assert bytes(piece) == b"0123456789"
    assert list(read_range(file, 1, 9, never)) == [(1, b"123456789")]


def test_digest_of_bytes_read_by_two_threads() -> None:
    class Slow(bytes):
        both = threading.Barrier(2, timeout=0.1)

        def __getitem__(self, key: Any) -> Any:
            with suppress(threading.BrokenBarrierError):
                self.both.wait()
            return super().__getitem__(key)

    file, digests = LocalFile(0, "in", "in", 9, 0), Digests(never)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(digests.read, [file] * 2, (0, 4), map(Slow, (b"0123", b"45678"))))
    digests.read(file, 4, b"45678")
    assert digests.known(file) == hashlib.sha256(b"012345678").hexdigest()


@pytest.mark.parametrize("position", [0, 4, 5])
def test_bytes_that_are_read_again_replace_those_of_the_digest(position: int, tmp_path: Path) -> None:
    """Those before them that no state of the digest ends with are read from the file."""
    path = tmp_path / "in"
    path.write_bytes(b"012345678")
    info = path.stat()
    file, digests = LocalFile(0, str(path), "in", 9, info.st_mtime_ns), Digests(never)
    digests.read(file, 0, b"0123")
    digests.read(file, 4, b"xxxxx")
    digests.read(file, position, b"012345678"[position:])
    known = hashlib.sha256(b"012345678").hexdigest()
    assert (digests.known(file), digests.sent(file)) == (known, known if position < 5 else None)


@pytest.mark.parametrize("source", [io.StringIO("text"), object()])
def test_other_objects_are_refused(source: object) -> None:
    with pytest.raises(UsageError, match="not a binary file object"):
        content_of(source, "object")  # type: ignore[arg-type]


def test_closed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with (tmp_path / "a").open("rb") as source:
        pass
    with pytest.raises(UsageError, match=r"object: can't be read: .*closed file"):
        content_of(source, "object")


def test_source_that_has_nothing_yet_is_asked_again() -> None:
    stream = stream_of(None, b"ab", None, b"c")
    assert (bytes(stream.chunk(0, 10, never)), stream.length) == (b"abc", 3)


def test_source_of_text_is_named() -> None:
    with pytest.raises(FileError, match=r"in: its read\(\) returned str"):
        stream_of("text").chunk(0, 10, never)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), ValueError("I/O operation on closed file.")])
def test_stream_that_fails_is_unreadable(error: Exception) -> None:
    class Broken:
        def read(self, _most: int) -> bytes:
            raise error

    stream = Stream(Broken(), "in", None)  # type: ignore[arg-type]
    with pytest.raises(FileError, match="in: it can't be read: I"):
        stream.chunk(0, 1, never)
