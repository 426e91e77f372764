"""The events of each file: exactly one end, counted attempts, and what the journal keeps of a failure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock, local_files
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.core.plan import Refusal
from uploader_cli.transfer.ledger import Ledger
from uploader_cli.transfer.results import FileResult, failed

if TYPE_CHECKING:
    from uploader_cli.core.plan import LocalFile


class FakeRun:
    """Records which files the journal forgets and which claims are released."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []
        self.released: list[int] = []

    def forget(self, files: list[LocalFile]) -> None:
        self.forgotten += [file.file for file in files]

    def release(self, files: list[LocalFile]) -> None:
        self.released += [file.file for file in files]


class Book:
    """A ledger of a few files, and the events that it emitted."""

    def __init__(self, words: str = "a.mp4 b.mp4 c.mp4", *, named: bool = False) -> None:
        self.files = local_files(words, named=named)
        self.told: list[ev.Event] = []
        self.clock = Clock()
        self.run = FakeRun()
        self.ledger = Ledger(self.told.append, self.run, str, self.clock)  # type: ignore[arg-type]
        for file in self.files:
            self.ledger.admit(file)

    def complete(self, file: LocalFile) -> None:
        self.ledger.end([FileResult(file)])

    def fail(self, file: LocalFile, error: errors.UploaderError) -> None:
        self.ledger.end([FileResult(file, error)])

    def ends(self) -> Counter[int]:
        counted: Counter[int] = Counter()
        for event in self.told:
            if isinstance(event, ev.FileCompleted | ev.FileFailed | ev.FileSkipped):
                counted[event.file] += 1
            elif isinstance(event, ev.FilesCancelled):
                counted.update(event.files)
        return counted


def test_completed_file_has_its_attempts_and_the_time_since_the_first() -> None:
    book = Book()
    file, ledger = book.files[0], book.ledger
    ledger.start(file, "s", "wire%22name")
    book.clock.pass_(2)
    ledger.retry([file], errors.ConnectionLost("lost"), delay=0.12345)
    ledger.start(file, "s2", "wire%22name")
    assert ledger.attempt(file) == 2
    book.clock.pass_(3)
    ledger.end([FileResult(file, server_id="id", location="personal/a.mp4")])
    assert book.told == [
        ev.FileStarted(0, "a.mp4", 10, "s", 0, 1, "wire%22name"),
        ev.FileRetry(0, 2, 0.123, FailureCode.NETWORK, "lost"),
        ev.FileStarted(0, "a.mp4", 10, "s2", 0, 2, "wire%22name"),
        ev.FileCompleted(
            0, "a.mp4", 10, "id", "personal/a.mp4", verified=False, attempts=2, seconds=5.0, url="personal/a.mp4"
        ),
    ]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.TimedOut("late"), FailureCode.TIMEOUT, "late"),
        (errors.RateLimited("slow down", status=429), FailureCode.RATE_LIMITED, "slow down"),
        (errors.FileFailure("odd", code=FailureCode.SERVER_FAILED), FailureCode.SERVER_FAILED, "odd"),
    ],
)
def test_retry_has_the_code_and_message_of_the_error(
    error: errors.UploaderError, code: FailureCode, message: str
) -> None:
    book = Book()
    for file in book.files[:2]:
        book.ledger.start(file, "s", file.name)
    book.ledger.retry(book.files[:2], error)
    assert book.told[-2:] == [ev.FileRetry(0, 2, 0.0, code, message), ev.FileRetry(1, 2, 0.0, code, message)]


def test_checksum_makes_a_file_verified() -> None:
    book = Book()
    book.ledger.end([FileResult(book.files[0], checksum="ab" * 32)])
    (done,) = book.told
    assert isinstance(done, ev.FileCompleted)
    assert (done.verified, done.checksum) == (True, "sha256:" + "ab" * 32)
    assert (done.attempts, done.seconds) == (1, 0.0)  # found on the server: it was never sent


def test_failure_has_the_code_and_message_of_the_error() -> None:
    book = Book()
    broken = FileResult(book.files[0], errors.ServerFault("broken", status=500))
    book.ledger.end([broken, failed(book.files[1], FailureCode.SERVER_FAILED, "the disk is full")])
    assert book.told == [
        ev.FileFailed(0, "a.mp4", FailureCode.SERVER_ERROR, "broken", retryable=True),
        ev.FileFailed(1, "b.mp4", FailureCode.SERVER_FAILED, "the disk is full", retryable=False),
    ]
    assert book.ledger.has_failures
    assert list(book.ledger.open) == [2]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (FailureCode.REFUSED_TYPE, SkipReason.TYPE),
        (FailureCode.REFUSED_SIZE, SkipReason.SIZE),
        (FailureCode.EMPTY, SkipReason.EMPTY),
    ],
)
def test_refused_file_fails_if_it_was_named_and_is_skipped_if_it_was_found(
    code: FailureCode, reason: SkipReason
) -> None:
    named, found = Book("a.mov", named=True), Book("a.mov")
    for book in (named, found):
        book.ledger.refuse(book.files[0], Refusal(code, "no"))
    assert named.told == [ev.FileFailed(0, "a.mov", code, "no", retryable=False)]
    assert found.told == [ev.FileSkipped(0, "a.mov", reason)]
    assert (named.ledger.has_failures, found.ledger.has_failures) == (True, False)


def test_cancel_all_ends_the_open_files() -> None:
    book = Book()
    book.complete(book.files[1])
    book.ledger.cancel_all()
    assert book.told[-1] == ev.FilesCancelled((0, 2))
    last: Any = book.told[-1]
    assert last.local == (book.files[0], book.files[2])
    assert not book.ledger.open


def test_fail_all_fails_started_files_and_skips_the_others() -> None:
    book = Book()
    book.ledger.start(book.files[1], "s", "b.mp4")
    book.ledger.fail_all(errors.Unauthorized("no", status=401))
    started, failed, *skipped = book.told
    assert [event.type for event in (started, failed)] == ["file.started", "file.failed"]
    assert {event.reason for event in skipped} == {SkipReason.NOT_TRIED}  # type: ignore[attr-defined]
    assert not book.ledger.open


def test_end_reports_files_in_their_order() -> None:
    book = Book()
    book.ledger.end(
        [FileResult(book.files[2]), failed(book.files[0], FailureCode.EMPTY, "empty"), FileResult(book.files[1])]
    )
    assert [(event.type, event.file) for event in book.told] == [  # type: ignore[attr-defined]
        ("file.completed", 2),
        ("file.failed", 0),
        ("file.completed", 1),
    ]


def test_changed_file_with_a_listed_sha256_is_a_mismatch() -> None:
    """It is no longer the listed file."""
    book = Book()
    changed = errors.FileError("changed", path="a.mp4", code=FailureCode.CHANGED)
    book.fail(replace(book.files[0], sha256="ab" * 32), changed)
    book.fail(book.files[1], changed)
    assert [(event.code, event.message) for event in book.told] == [  # type: ignore[attr-defined]
        (FailureCode.MISMATCH, "changed"),  # without the path, which the event has beside it
        (FailureCode.CHANGED, "changed"),
    ]


@pytest.mark.parametrize(
    ("error", "forgotten"),
    [
        (errors.TooLarge("no", status=413), True),
        (errors.AnswerError("no", status=415), True),
        (errors.AnswerError("no", status=422), True),
        (errors.AnswerError("no", status=400), False),
        (errors.Unauthorized("no", status=403), False),
        (errors.NotFound("no", status=404), False),
        (errors.ServerFault("no", status=503), False),
        (errors.ConnectionLost("no"), False),
        (errors.FileError("no", path="a.mp4", code=FailureCode.CHANGED), True),
        (errors.FileError("no", path="a.mp4", code=FailureCode.VANISHED), True),
        (errors.FileError("no", path="a.mp4", code=FailureCode.UNREADABLE), False),
        (errors.ChecksumMismatch("no", status=460), False),
        (errors.FileFailure("no", code=FailureCode.INTEGRITY), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, errors.UploaderError) else str(value),
)
def test_journal_forgets_only_files_that_can_never_be_resumed(error: errors.UploaderError, forgotten: bool) -> None:
    """Other refusals may come from a proxy, a captive portal, an expired token or a redeployment."""
    book = Book()
    book.ledger.end([FileResult(book.files[0]), FileResult(book.files[1], error)])
    assert book.run.forgotten == ([1] if forgotten else [])
    assert book.run.released == [1]


STEPS = {
    "start": lambda book, file: book.ledger.start(file, "s", file.name),
    "complete": lambda book, file: book.complete(file),
    "fail": lambda book, file: book.fail(file, errors.ConnectionLost("lost")),
    "skip": lambda book, file: book.ledger.skip(FileResult(file), SkipReason.FAIL_FAST),
    "refuse": lambda book, file: book.ledger.refuse(file, Refusal(FailureCode.EMPTY, "empty")),
    "cancel": lambda book, _file: book.ledger.cancel_all(),
    "fail all": lambda book, _file: book.ledger.fail_all(errors.ConnectionLost("lost")),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2))), st.booleans())
def test_any_order_of_calls_ends_each_file_once(steps: list[tuple[str, int]], named: bool) -> None:
    book = Book(named=named)
    for step, number in steps:
        STEPS[step](book, book.files[number])
        assert set(book.ends().values()) <= {1}
        assert set(book.ends()) == {0, 1, 2} - set(book.ledger.open)
    book.ledger.fail_all(errors.ConnectionLost("lost"))
    assert book.ends() == {0: 1, 1: 1, 2: 1}
    assert book.ledger.has_failures == any(isinstance(event, ev.FileFailed) for event in book.told)
