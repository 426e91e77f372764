"""The body of a chunk, read from disk, and checksums that are computed ahead."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import google_crc32c
import pytest
from fakes import Clock
from time_limits import PATIENCE
from unit.transfer.tus_model import file_of

from uploader_cli.core.bottleneck import Waits
from uploader_cli.core.events import FailureCode
from uploader_cli.errors import FileError, Interrupted
from uploader_cli.sources import checksums, content
from uploader_cli.sources import chunks as chunks_module
from uploader_cli.sources.chunks import LEAST_AHEAD, Buffers, HashedChunks
from uploader_cli.sources.content import PIECE, hash_range, read_at, read_block
from uploader_cli.sources.unchanged import open_unchanged
from uploader_cli.transfer.bodies import Body, Piece
from uploader_cli.transfer.pacer import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile

DATA = os.urandom(3 * PIECE + 17)


@pytest.fixture
def file(tmp_path: Path) -> LocalFile:
    return file_of(tmp_path / "a.bin", DATA)


class Reading:
    """A chunk of a file, and the counts of sent bytes that it reports."""

    def __init__(self, file: LocalFile, start: int, length: int, data: memoryview | None = None, **how: Any) -> None:
        self.clock, self.stop, self.told = Clock(), Stop(), list[int]()
        self.source = open_unchanged(file)
        how = {
            "clock": self.clock,
            "checkpoint": self.stop.checkpoint,
            "on_sent": lambda _, sent: self.told.append(sent),
            **how,
        }
        self.body = Body("", [Piece(length, data, file, start, self.source)], **how)

    def all(self, amount: int = 1 << 20) -> bytes:
        data = b""
        while piece := self.body.read(amount):
            data += piece
            self.body.taken(len(piece))
        return data


@pytest.fixture
def reading(file: LocalFile) -> Iterator[Any]:
    opened: list[Reading] = []

    def read(start: int, length: int, **options: Any) -> Reading:
        opened.append(Reading(file, start, length, **options))
        return opened[-1]

    yield read
    for item in opened:
        item.source.close()


@pytest.mark.parametrize(
    ("start", "length"), [(0, len(DATA)), (5, 1), (PIECE - 1, PIECE + 2), (len(DATA) - 9, 9), (0, PIECE)]
)
@pytest.mark.parametrize("amount", [1 << 20, 65_537])
def test_body_has_the_bytes_of_its_range(reading: Any, start: int, length: int, amount: int) -> None:
    item = reading(start, length)
    assert len(item.body) == length
    assert item.all(amount) == DATA[start : start + length]
    assert item.body.through
    assert item.told[-1] == length


def test_large_reads_share_one_buffer_of_a_mebibyte(reading: Any) -> None:
    body = reading(0, len(DATA)).body
    first, second = body.read(1 << 30), body.read(1 << 30)
    assert first.obj is second.obj
    assert len(first) == PIECE


def test_bytes_in_memory_are_not_read_from_disk(reading: Any, file: LocalFile) -> None:
    item = reading(10, 50, data=memoryview(b"x" * 50))
    assert item.all(20) == b"x" * 50
    item.body.rewind()
    os.utime(file.path, ns=(1, 1))
    with pytest.raises(FileError):
        item.all(50)


def test_taken_bytes_are_reported_at_most_twenty_times_a_second(reading: Any) -> None:
    item = reading(0, 100)
    item.body.read(100)
    item.body.taken(10)
    item.clock.pass_(0.1)
    item.body.taken(10)
    item.body.taken(10)
    item.body.taken(70)
    assert item.told == [20, 100]


def test_body_after_rewind_has_the_same_bytes_and_reports_none_twice(reading: Any) -> None:
    item = reading(10, 100)
    item.all()
    item.body.rewind()
    assert not item.body.through
    assert item.all() == DATA[10:110]
    assert item.told == [100]


def test_read_after_stop_raises_interrupted(reading: Any) -> None:
    item = reading(0, 100)
    item.stop.set()
    with pytest.raises(Interrupted):
        item.body.read(100)
    with pytest.raises(Interrupted):
        item.body.checkpoint()


def test_throttle_is_asked_before_each_piece(reading: Any) -> None:
    asked: list[int] = []

    def throttle(wanted: int) -> int:
        asked.append(wanted)
        return min(wanted, 40)

    assert reading(0, 100, throttle=throttle).all() == DATA[:100]
    assert asked == [100, 60, 20, 0]


class TestChangedFile:
    """The last piece of a changed file is never read out: no chunk of it is complete."""

    def end(self, item: Reading) -> FileError:
        data = bytes(item.body.read(50))
        with pytest.raises(FileError) as caught:
            item.all()
        assert len(data) == 50
        assert not item.body.through
        return caught.value

    def test_change_in_place_fails_the_chunk(self, reading: Any, file: LocalFile) -> None:
        item = reading(0, 100)
        with open(file.path, "r+b") as other:
            other.write(b"x")
        os.utime(file.path, ns=(1, 1))
        assert self.end(item).code is FailureCode.CHANGED

    def test_longer_file_fails_the_chunk(self, reading: Any, file: LocalFile) -> None:
        item = reading(0, 100)
        with open(file.path, "ab") as other:
            other.write(b"x")
        assert self.end(item).code is FailureCode.CHANGED

    def test_shorter_file_fails_the_chunk(self, reading: Any, file: LocalFile) -> None:
        item = reading(0, 100)
        os.truncate(file.path, 70)
        error = self.end(item)
        assert error.code is FailureCode.CHANGED
        assert not error.retryable
        assert file.path in str(error)

    def test_change_while_it_is_hashed_fails_the_digest(self, file: LocalFile) -> None:
        def change() -> None:
            os.truncate(file.path, PIECE + 5)

        with pytest.raises(FileError) as caught:
            hash_range(file, 0, len(DATA), "sha256", change)
        assert caught.value.code is FailureCode.CHANGED

    def test_change_before_it_is_hashed_fails_the_digest(self, file: LocalFile) -> None:
        os.utime(file.path, ns=(1, 1))
        with pytest.raises(FileError):
            hash_range(file, 0, 5, "sha256", Stop().checkpoint)


def test_failing_disk_is_an_unreadable_file(file: LocalFile) -> None:
    class Broken:
        def seek(self, _position: int) -> None:
            raise OSError(5, "Input/output error")

    with pytest.raises(FileError, match="Input/output error") as caught:
        read_at(file, Broken(), 0, memoryview(bytearray(5)))  # type: ignore[arg-type]
    assert caught.value.code is FailureCode.UNREADABLE


@pytest.mark.parametrize("algorithm", ["crc32c", "sha1", "sha256"])
def test_digest_covers_the_range(file: LocalFile, algorithm: str) -> None:
    chunk, memory = DATA[7 : 7 + 2 * PIECE], bytearray(2 * PIECE)
    known = google_crc32c.Checksum(chunk) if algorithm == "crc32c" else hashlib.new(algorithm, chunk)
    digest, _ = hash_range(file, 7, 2 * PIECE, algorithm, Stop().checkpoint, into=memoryview(memory))
    assert digest == checksums.of(algorithm, memoryview(chunk)) == known.digest()
    assert memory == chunk


class Helper(ThreadPoolExecutor):
    """A worker's executor, and how often it was used."""

    used = 0

    def submit(self, *what: Any, **how: Any) -> Future[Any]:  # type: ignore[override]
        self.used += 1
        return super().submit(*what, **how)

    def finish(self) -> None:
        """Wait until all that was submitted is done."""
        self.submit(lambda: None).result(PATIENCE)


class TestHashedChunks:
    @pytest.fixture
    def helper(self) -> Iterator[Helper]:
        with Helper(1) as helper:
            yield helper

    @pytest.fixture
    def chunks(self, file: LocalFile, helper: Helper) -> HashedChunks:
        return HashedChunks(file, "sha256", lambda: None, helper, Buffers())

    def test_single_chunk_does_not_start_the_helper(self, chunks: HashedChunks, helper: Helper) -> None:
        assert chunks.of(0, 10).digest == hashlib.sha256(DATA[:10]).digest()
        chunks.prepare(10, 0)
        assert helper.used == 0

    def test_prepared_chunk_is_not_read_again(self, chunks: HashedChunks, file: LocalFile, helper: Helper) -> None:
        chunks.prepare(10, 20)
        helper.finish()
        os.unlink(file.path)
        assert chunks.of(10, 20).digest == hashlib.sha256(DATA[10:30]).digest()

    def test_chunk_prepared_twice_is_the_same(self, chunks: HashedChunks) -> None:
        chunks.prepare(10, 20)
        chunks.prepare(10, 20)
        assert chunks.of(10, 20).digest == hashlib.sha256(DATA[10:30]).digest()

    def test_prepared_chunk_is_used_where_chunks_have_another_size_now(self, chunks: HashedChunks) -> None:
        """Not where they were halved, and not elsewhere in the file."""
        chunks.prepare(10, 20)
        assert [chunks.prepared(10, length) for length in (30, 20, 11, 10)] == [20, 20, 20, 10]
        assert chunks.prepared(9, 30) == 30

    def test_chunk_of_an_open_file_is_hashed_only_unless_it_is_small(self, file: LocalFile, helper: Helper) -> None:
        """Also the one that is prepared: to read it again from the page cache costs less than memory."""
        with open_unchanged(file) as source:
            chunks = HashedChunks(file, "crc32c", lambda: None, helper, Buffers(), source=source)
            for start, length, is_kept in [(0, 10, True), (10, PIECE, True), (10 + PIECE, PIECE + 1, False)]:
                chunk = chunks.of(start, length)
                assert chunk.digest == google_crc32c.Checksum(DATA[start : start + length]).digest()
                assert (chunk.data is not None) == is_kept
                chunks.prepare(10 + PIECE, PIECE + 1)
            chunks.close()

    def test_small_chunk_of_an_open_file_is_hashed_without_the_helper(self, file: LocalFile, helper: Helper) -> None:
        with open_unchanged(file) as source:
            chunks = HashedChunks(file, "crc32c", lambda: None, helper, Buffers(), source=source)
            chunks.prepare(0, LEAST_AHEAD - 1)
            assert chunks.helpers_source is None
            assert chunks.of(0, 10).digest == google_crc32c.Checksum(DATA[:10]).digest()
            chunks.close()

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="lists descriptors")
    def test_file_stays_open_until_the_helper_has_read(self, file: LocalFile, helper: Helper) -> None:
        """A descriptor that is closed in a read may be that of another file when the read begins."""
        reading, over = threading.Event(), threading.Event()

        def checkpoint() -> None:
            reading.set()
            over.wait(PATIENCE)

        with open_unchanged(file) as source:
            chunks = HashedChunks(file, "crc32c", checkpoint, helper, Buffers(), source=source)
            chunks.prepare(0, LEAST_AHEAD)
            assert reading.wait(PATIENCE)
            chunks.close()
            links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
            still = sum(os.readlink(link) == file.path for link in links if os.path.lexists(link))
            over.set()
            helper.finish()
            assert (still, chunks.helpers_source.closed) == (2, True)

    def test_other_chunk_than_prepared_is_recomputed(self, chunks: HashedChunks) -> None:
        """The server's offset is not the expected one, or the chunks have become smaller."""
        chunks.prepare(10, 20)
        assert chunks.of(5, 20).digest == hashlib.sha256(DATA[5:25]).digest()
        chunks.prepare(25, 9)
        assert chunks.of(25, 20).digest == hashlib.sha256(DATA[25:45]).digest()
        chunks.prepare(25, 20)
        assert chunks.of(25, 20).digest == hashlib.sha256(DATA[25:45]).digest()

    def test_failure_of_the_prepared_chunk_is_raised_when_it_is_used(self, file: LocalFile, helper: Helper) -> None:
        """Its memory is free for others then."""
        buffers = Buffers(40)
        chunks = HashedChunks(file, "sha256", lambda: None, helper, buffers)
        data: Any = chunks.of(0, 20).data
        assert data == DATA[:20]
        os.utime(file.path, ns=(1, 1))
        chunks.prepare(0, 20)
        with pytest.raises(FileError):
            chunks.of(0, 20)
        assert buffers.take(40) is not None

    def test_close_ends_the_prepared_chunk_after_one_piece_and_does_not_wait(
        self, file: LocalFile, helper: Helper
    ) -> None:
        at, go = threading.Event(), threading.Event()
        looks = 0

        def checkpoint() -> None:
            nonlocal looks
            looks += 1
            at.set()
            assert go.wait(PATIENCE)

        chunks = HashedChunks(file, "sha256", checkpoint, helper, Buffers())
        chunks.prepare(0, len(DATA))
        assert at.wait(PATIENCE)
        chunks.close()
        go.set()
        helper.finish()
        assert looks == 1

    def test_chunk_in_memory_has_its_bytes_until_the_next_one(self, chunks: HashedChunks, helper: Helper) -> None:
        chunks.prepare(10, 20)
        helper.finish()
        for start, length in [(10, 20), (30, 7)]:
            data = chunks.of(start, length).data
            assert data is not None
            assert bytes(data) == DATA[start : start + length]
            chunks.prepare(start + length, 7)

    def test_buffers_are_used_again_and_given_back_at_the_end(self, file: LocalFile, helper: Helper) -> None:
        buffers = Buffers(2 * PIECE)
        for _ in range(3):
            chunks = HashedChunks(file, "sha256", lambda: None, helper, buffers)
            assert chunks.of(0, PIECE).data is not None
            chunks.prepare(PIECE, PIECE)
            assert chunks.of(PIECE, PIECE).data is not None
            chunks.prepare(2 * PIECE, PIECE)
            helper.finish()
            chunks.close()

    def test_chunk_beyond_the_memory_of_all_workers_is_hashed_only(self, file: LocalFile, helper: Helper) -> None:
        chunks = HashedChunks(file, "sha256", lambda: None, helper, Buffers(PIECE))
        assert chunks.of(5, PIECE + 1)[:2] == (hashlib.sha256(DATA[5 : PIECE + 6]).digest(), None)


def test_small_free_buffers_make_place_for_a_large_one() -> None:
    buffers = Buffers(100)
    for buffer in [buffers.take(40), buffers.take(60)]:
        assert buffer is not None
        buffers.give(buffer)
    assert len(buffers.take(100) or b"") == 100
    assert buffers.take(1) is None


def test_wait_for_the_read_of_a_prepared_chunk_counts_as_reading(
    file: LocalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow disk; reading that is over before the chunk is needed costs nothing."""
    clock, asked, worker = Clock(), threading.Event(), threading.current_thread()

    def now() -> float:
        if threading.current_thread() is worker:
            asked.set()
        return clock()

    def slowly(*args: Any) -> bytes:
        assert asked.wait(PATIENCE)
        clock.pass_(1.0)
        return read_block(*args)

    monkeypatch.setattr(chunks_module, "time", SimpleNamespace(monotonic=now))
    monkeypatch.setattr(content, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(content, "read_block", slowly)
    waits, helper = Waits(), Helper(1)
    chunks = HashedChunks(file, "sha256", lambda: None, helper, Buffers(), waits=waits)
    chunks.prepare(10, 20)
    chunks.of(10, 20)
    assert waits.reading == 1.0
    chunks.prepare(30, 20)
    helper.finish()
    chunks.of(30, 20)
    assert waits.reading == 1.0
    helper.shutdown()
