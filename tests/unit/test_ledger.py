"""What is told of each file: exactly one end, and attempts that are counted."""

from __future__ import annotations

from collections import Counter

import pytest
from fakes import Clock, local_files
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.core.plan import Refusal
from uploader_cli.transfer.ledger import Ledger


class Book:
    """A ledger of a few files, and what it told."""

    def __init__(self, words: str = "a.mp4 b.mp4 c.mp4", *, named: bool = False) -> None:
        self.files = local_files(words, named=named)
        self.told: list[ev.Event] = []
        self.clock = Clock()
        self.ledger = Ledger(self.files, self.told.append, self.clock)

    def ends(self) -> Counter[int]:
        counted: Counter[int] = Counter()
        for event in self.told:
            if isinstance(event, ev.FileCompleted | ev.FileFailed | ev.FileSkipped):
                counted[event.file] += 1
            elif isinstance(event, ev.FilesCancelled):
                counted.update(event.files)
        return counted


def test_attempts_are_counted_from_1_and_the_time_from_the_first() -> None:
    book = Book()
    file, ledger = book.files[0], book.ledger
    ledger.start(file, "s", "wire%22name")
    book.clock.pass_(2)
    ledger.again([file], errors.ConnectionLost("lost"), delay=0.12345)
    ledger.start(file, "s2", "wire%22name")
    assert ledger.attempt(file) == 2
    book.clock.pass_(3)
    ledger.complete(file, "id", "personal/a.mp4")
    assert book.told == [
        ev.FileStarted(0, "a.mp4", 10, "s", 0, 1, "wire%22name"),
        ev.FileRetry(0, 2, 0.123, FailureCode.NETWORK, "lost"),
        ev.FileStarted(0, "a.mp4", 10, "s2", 0, 2, "wire%22name"),
        ev.FileCompleted(0, "a.mp4", 10, "id", "personal/a.mp4", verified=False, attempts=2, seconds=5.0),
    ]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.TimedOut("late"), FailureCode.TIMEOUT, "late"),
        (errors.RateLimited("slow down", status=429), FailureCode.RATE_LIMITED, "slow down"),
        (OSError("odd"), FailureCode.NETWORK, "odd"),
        (None, FailureCode.NETWORK, "None"),
    ],
)
def test_another_attempt_says_why(error: BaseException | None, code: FailureCode, message: str) -> None:
    book = Book()
    for file in book.files[:2]:
        book.ledger.start(file, "s", file.name)
    book.ledger.again(book.files[:2], error)
    assert book.told[-2:] == [ev.FileRetry(0, 2, 0.0, code, message), ev.FileRetry(1, 2, 0.0, code, message)]


def test_verified_means_that_bytes_were_compared() -> None:
    book = Book()
    book.ledger.complete(book.files[0], None, None, checksum="ab" * 32)
    (done,) = book.told
    assert isinstance(done, ev.FileCompleted)
    assert (done.verified, done.checksum) == (True, "sha256:" + "ab" * 32)
    assert (done.attempts, done.seconds) == (1, 0.0)  # found on the server: it was never sent


def test_a_failure_has_the_errors_code_and_words() -> None:
    book = Book()
    book.ledger.fail(book.files[0], errors.ServerFault("broken", status=500))
    book.ledger.fail_with(book.files[1], FailureCode.SERVER_FAILED, "no room")
    assert book.told == [
        ev.FileFailed(0, "a.mp4", FailureCode.SERVER_ERROR, "broken", retryable=True),
        ev.FileFailed(1, "b.mp4", FailureCode.SERVER_FAILED, "no room", retryable=False),
    ]
    assert book.ledger.failures == 2
    assert list(book.ledger.open) == [2]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (FailureCode.REFUSED_TYPE, SkipReason.TYPE),
        (FailureCode.REFUSED_SIZE, SkipReason.SIZE),
        (FailureCode.EMPTY, SkipReason.EMPTY),
    ],
)
def test_a_refused_file_fails_where_it_was_named_and_is_skipped_where_it_was_found(
    code: FailureCode, reason: SkipReason
) -> None:
    named, found = Book("a.mov", named=True), Book("a.mov")
    for book in (named, found):
        book.ledger.refuse(book.files[0], Refusal(code, "no"))
    assert named.told == [ev.FileFailed(0, "a.mov", code, "no", retryable=False)]
    assert found.told == [ev.FileSkipped(0, "a.mov", reason)]
    assert (named.ledger.failures, found.ledger.failures) == (1, 0)


def test_an_interrupt_ends_what_is_open() -> None:
    book = Book()
    book.ledger.complete(book.files[1], None, None)
    book.ledger.cancel_all()
    assert book.told[-1] == ev.FilesCancelled((0, 2))
    assert book.told[-1].local == (book.files[0], book.files[2])
    assert not book.ledger.open


def test_an_error_that_ends_the_run_fails_what_is_open() -> None:
    book = Book()
    book.ledger.skip(book.files[0], SkipReason.FAIL_FAST)
    book.ledger.fail_all(errors.Unauthorized("no", status=401))
    assert [event.type for event in book.told] == ["file.skipped", "file.failed", "file.failed"]


STEPS = {
    "start": lambda book, file: book.ledger.start(file, "s", file.name),
    "complete": lambda book, file: book.ledger.complete(file, None, None),
    "fail": lambda book, file: book.ledger.fail(file, errors.ConnectionLost("lost")),
    "skip": lambda book, file: book.ledger.skip(file, SkipReason.FAIL_FAST),
    "refuse": lambda book, file: book.ledger.refuse(file, Refusal(FailureCode.EMPTY, "empty")),
    "cancel": lambda book, _file: book.ledger.cancel_all(),
    "fail all": lambda book, _file: book.ledger.fail_all(errors.ConnectionLost("lost")),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2))), st.booleans())
def test_whatever_happens_each_file_has_one_end(steps: list[tuple[str, int]], named: bool) -> None:
    book = Book(named=named)
    for step, number in steps:
        STEPS[step](book, book.files[number])
        assert set(book.ends().values()) <= {1}
        assert set(book.ends()) == {0, 1, 2} - set(book.ledger.open)
    book.ledger.fail_all(errors.ConnectionLost("lost"))
    assert book.ends() == {0: 1, 1: 1, 2: 1}
    assert book.ledger.failures == sum(isinstance(event, ev.FileFailed) for event in book.told)
