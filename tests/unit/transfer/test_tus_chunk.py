"""A chunk's body straight from disk, and checksums computed ahead."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock
from patience import PATIENCE
from tus_model import file_of

from uploader_cli.core.events import FailureCode
from uploader_cli.errors import FileError, Interrupted
from uploader_cli.transfer import chunk
from uploader_cli.transfer.chunk import PIECE, ChunkBody, Digests, hash_range
from uploader_cli.transfer.multipart import open_unchanged
from uploader_cli.transfer.stop import Stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile

DATA = os.urandom(3 * PIECE + 17)


@pytest.fixture
def file(tmp_path: Path) -> LocalFile:
    return file_of(tmp_path / "a.bin", DATA)


class Reading:
    """A body over a file, and what it tells."""

    def __init__(self, file: LocalFile, start: int, length: int, **options: Any) -> None:
        self.clock, self.stop, self.told = Clock(), Stop(), []
        self.source = open_unchanged(file)
        options = {"clock": self.clock, "check": self.stop.check, "on_sent": self.told.append, **options}
        self.body = ChunkBody(file, self.source, start, length, **options)

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
def test_the_bytes_of_the_range(reading: Any, start: int, length: int, amount: int) -> None:
    item = reading(start, length)
    assert len(item.body) == length
    assert not item.body.started
    assert item.all(amount) == DATA[start : start + length]
    assert item.body.started
    assert item.body.through
    assert item.told[-1] == length


def test_as_requests_would_iterate_it(reading: Any) -> None:
    assert b"".join(bytes(piece) for piece in reading(3, 2 * PIECE).body) == DATA[3 : 3 + 2 * PIECE]


def test_one_buffer_of_a_mebibyte_at_most(reading: Any) -> None:
    body = reading(0, len(DATA)).body
    first, second = body.read(1 << 30), body.read(1 << 30)
    assert first.obj is second.obj
    assert len(first) == PIECE


def test_sent_is_told_as_the_kernel_takes_it_and_not_too_often(reading: Any) -> None:
    item = reading(0, 100)
    item.body.read(100)
    item.body.taken(10)
    item.clock.pass_(0.1)
    item.body.taken(10)
    item.body.taken(10)
    item.body.taken(70)
    assert item.told == [20, 100]


def test_once_more_from_the_start(reading: Any) -> None:
    """A redirect; what was told as sent is not told again."""
    item = reading(10, 100)
    item.all()
    item.body.rewind()
    assert not item.body.started
    assert item.all() == DATA[10:110]
    assert item.told == [100]


def test_an_interrupt(reading: Any) -> None:
    item = reading(0, 100)
    item.stop.set()
    with pytest.raises(Interrupted):
        item.body.read(100)
    with pytest.raises(Interrupted):
        item.body.check()


def test_the_limiter_is_asked_before_each_piece(reading: Any) -> None:
    asked: list[int] = []

    def throttle(wanted: int) -> int:
        asked.append(wanted)
        return min(wanted, 40)

    assert reading(0, 100, throttle=throttle).all() == DATA[:100]
    assert asked == [100, 60, 20, 0]


class TestAFileThatChanges:
    """Its last piece is never given out: no chunk of it is complete."""

    def end(self, item: Reading) -> FileError:
        data = bytes(item.body.read(50))
        with pytest.raises(FileError) as caught:
            item.all()
        assert len(data) == 50
        assert not item.body.through
        return caught.value

    def test_in_place(self, reading: Any, file: LocalFile) -> None:
        item = reading(0, 100)
        with open(file.path, "r+b") as other:
            other.write(b"x")
        os.utime(file.path, ns=(1, 1))
        assert self.end(item).code is FailureCode.CHANGED

    def test_by_getting_longer(self, reading: Any, file: LocalFile) -> None:
        item = reading(0, 100)
        with open(file.path, "ab") as other:
            other.write(b"x")
        assert self.end(item).code is FailureCode.CHANGED

    def test_by_getting_shorter(self, reading: Any, file: LocalFile) -> None:
        item = reading(0, 100)
        os.truncate(file.path, 70)
        error = self.end(item)
        assert error.code is FailureCode.CHANGED
        assert not error.retryable
        assert file.path in str(error)

    def test_while_it_is_hashed(self, file: LocalFile) -> None:
        def change() -> None:
            os.truncate(file.path, PIECE + 5)

        with pytest.raises(FileError) as caught:
            hash_range(file, 0, len(DATA), "sha256", check=change)
        assert caught.value.code is FailureCode.CHANGED

    def test_before_it_is_hashed(self, file: LocalFile) -> None:
        os.utime(file.path, ns=(1, 1))
        with pytest.raises(FileError):
            hash_range(file, 0, 5, "sha256")


def test_a_disk_that_fails(file: LocalFile) -> None:
    class Broken:
        def seek(self, _position: int) -> None:
            raise OSError(5, "Input/output error")

    with pytest.raises(FileError, match="Input/output error") as caught:
        chunk.read_at(file, Broken(), 0, memoryview(bytearray(5)))  # type: ignore[arg-type]
    assert caught.value.code is FailureCode.UNREADABLE


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_digest_of_a_range(file: LocalFile, algorithm: str) -> None:
    assert hash_range(file, 7, 2 * PIECE, algorithm) == hashlib.new(algorithm, DATA[7 : 7 + 2 * PIECE]).digest()


class TestDigests:
    @pytest.fixture
    def digests(self, file: LocalFile) -> Iterator[Digests]:
        digests = Digests(file, "sha256", lambda: None)
        yield digests
        digests.close()
        assert helpers() == []

    def test_no_thread_for_one_chunk(self, digests: Digests) -> None:
        assert digests.of(0, 10) == hashlib.sha256(DATA[:10]).digest()
        digests.prepare(10, 0)
        assert helpers() == []

    def test_the_prepared_one_is_not_read_again(self, digests: Digests, file: LocalFile) -> None:
        digests.prepare(10, 20)
        digests.prepare(10, 20)
        assert len(helpers()) == 1
        digests._ahead[2].result()  # type: ignore[index]
        os.unlink(file.path)
        assert digests.of(10, 20) == hashlib.sha256(DATA[10:30]).digest()

    def test_another_one_than_was_prepared(self, digests: Digests) -> None:
        """The server's offset was not where it was expected."""
        digests.prepare(10, 20)
        assert digests.of(5, 20) == hashlib.sha256(DATA[5:25]).digest()
        digests.prepare(25, 9)
        assert digests.of(25, 20) == hashlib.sha256(DATA[25:45]).digest()
        digests.prepare(25, 20)
        assert digests.of(25, 20) == hashlib.sha256(DATA[25:45]).digest()

    def test_what_goes_wrong_ahead_is_told_when_it_is_asked_for(self, digests: Digests, file: LocalFile) -> None:
        os.utime(file.path, ns=(1, 1))
        digests.prepare(0, 20)
        with pytest.raises(FileError):
            digests.of(0, 20)

    def test_the_end_does_not_wait_for_a_long_one(self, file: LocalFile) -> None:
        at = threading.Event()
        go = threading.Event()
        looks = 0

        def check() -> None:
            nonlocal looks
            looks += 1
            at.set()
            go.wait(PATIENCE)

        digests = Digests(file, "sha256", check)
        digests.prepare(0, len(DATA))
        assert at.wait(PATIENCE)
        closing = threading.Thread(target=digests.close)
        closing.start()
        while not digests._closed:
            pass
        go.set()
        closing.join(PATIENCE)
        assert not closing.is_alive()
        assert looks <= 2


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("checksum")]
