"""What the driver of an import makes of the news of its tasks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock, local_files

from uploader_cli import Settings
from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, PauseReason, SkipReason, WarningCode
from uploader_cli.core.presence import ClaimState
from uploader_cli.features.fleet.events import WORKERS
from uploader_cli.features.fleet.members import Member
from uploader_cli.features.fleet.outcomes import Creating, FileEnd, Journaled
from uploader_cli.features.fleet.task_news import Task, TaskNews
from uploader_cli.settings.places import STATE_IN_MEMORY
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import PendingUpload, RunTarget
from uploader_cli.transfer.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.features.fleet.outcomes import News

START = 1000.0


class Import:
    """A run with three files and a task for them, at a worker with the name `one`."""

    def __init__(self, journal: Journal) -> None:
        self.clock, self.files = Clock(START), local_files("a=10 b=20 c=30")
        self.told: list[ev.Event] = []
        self.pauses: list[float] = []
        self.overloads = 0
        self.run = journal.begin(RunTarget("https://h", "personal"), {})
        self.run.claim(self.files)
        self.ledger = Ledger(self.told.append, self.run, str, self.clock)
        for file in self.files:
            self.ledger.admit(file)
        context: Any = SimpleNamespace(settings=Settings(), ledger=self.ledger, emit=self.told.append)
        self.news = TaskNews(context, self.run, pause=self.pauses.append, overloaded=self._overloaded, clock=self.clock)
        self.member = Member("tcp://h:1", "one", 1, START, START)
        self.task = self.submitted()

    def submitted(self) -> Task:
        future: Any = None
        return Task({number: self.ledger.open[number] for number in self.ledger.open}, 1, future, self.member, START)

    def apply(self, *news: News) -> list[ev.Event]:
        """Return the events that these news cause."""
        before = len(self.told)
        self.news.apply(self.task, news)
        return self.told[before:]

    def _overloaded(self) -> None:
        self.overloads += 1


@pytest.fixture
def run() -> Iterator[Import]:
    with Journal(STATE_IN_MEMORY) as journal:
        yield Import(journal)


def completed(number: int, attempts: int = 1) -> ev.FileCompleted:
    return ev.FileCompleted(
        number, "", 10, "id", "/at", verified=True, attempts=attempts, seconds=1.0, checksum="sha256:0a"
    )


def limited(seconds: float) -> tuple[ev.Event, ...]:
    """What a worker reports that is paused for so long."""
    text = f"rate limited: waiting {seconds:.0f} s as the server asked"
    return ev.Paused(seconds, PauseReason.RATE_LIMIT), ev.RunWarning(WarningCode.RATE_LIMITED, text)


def test_pause_after_a_429_is_passed_to_all_workers_and_reported_once(run: Import) -> None:
    """The others name the rest of it, some of them late."""
    assert run.apply(*limited(30)) == [*limited(30)]
    run.clock.pass_(0.5)
    assert run.apply(*limited(29.5)) == []
    assert run.apply(*limited(30.4)) == []
    assert run.pauses == [30]
    run.clock.pass_(2.5)
    assert run.apply(*limited(29)) == [*limited(29)][:1]
    assert run.pauses == [30, 29]
    assert run.news.paused_until == START + 32
    run.clock.pass_(29)
    assert run.apply(*limited(5)) == [*limited(5)], "a new pause"
    assert run.apply(*limited(8)) == [*limited(8)], "a longer one"
    assert run.pauses == [30, 29, 5, 8]


def test_warning_of_all_workers_is_reported_once(run: Import) -> None:
    """Another one with the code of a rate limit, too."""
    share = ev.RunWarning(WarningCode.RATE_LIMITED, "this client holds its share of the server")
    outage = ev.RunWarning(WarningCode.UNREACHABLE, "server unreachable: waiting up to 600 s for it")
    assert run.apply(*limited(30), share, outage) == [*limited(30), share, outage]
    assert run.apply(*limited(30), share, outage) == []
    waits = ev.Paused(3.0, PauseReason.UNREACHABLE)
    assert run.apply(waits, waits) == [waits, waits]
    assert run.pauses == [30]


@pytest.mark.parametrize(("status", "times"), [(200, 0), (429, 1), (500, 0), (503, 1), (None, 0)])
def test_429_and_503_reduce_the_number_of_tasks(run: Import, status: int | None, times: int) -> None:
    call = ev.CallMade("POST", "https://h/", None, status, 0.1, None)
    assert run.apply(call) == [call]
    assert run.overloads == times


def test_file_that_ends_is_journaled_counted_and_reported_with_its_path(run: Import) -> None:
    """Of a small one only the end is reported. A second report of an end has no effect."""
    started = ev.FileStarted(0, "/x/a", 10, "s", 0, 1)
    told = run.apply(started, ev.BytesSent(0, 1, 7), FileEnd("s", 1, completed(0)), FileEnd("s", 1, completed(1)))
    assert [type(event) for event in told] == [
        *(ev.FileStarted, ev.BytesSent, ev.FileCompleted),
        *(ev.FileStarted, ev.FileCompleted),
    ]
    assert "".join(event.path for event in told if isinstance(event, ev.FileStarted | ev.FileCompleted)) == "aabb"
    assert run.apply(FileEnd("s", 1, completed(0))) == []
    assert (run.member.files, run.member.bytes, run.member.sending) == (2, 30, {})
    assert [*run.task.files] == [2]
    first, second, none = run.run.receipts(run.files)
    assert (first and first.checksum, second and second.verified, none) == ("0a", True, None)
    failed = ev.FileFailed(2, "", FailureCode.REFUSED_TYPE, "it is refused", retryable=False)
    run.apply(ev.BytesSent(2, 1, 5))
    assert run.member.sent == 35
    run.apply(FileEnd("", 0, failed))
    assert run.told[-1] == ev.FileFailed(
        2, "c", FailureCode.REFUSED_TYPE, "it is refused (worker one)", False, run.files[2]
    )
    assert (run.member.files, run.member.bytes, run.member.sent) == (3, 30, 30)
    assert run.ledger.has_failures
    assert run.run.claim([replace(run.files[2], file=3)])[0].state is ClaimState.RESUME, "another may send it"


def test_link_of_a_processed_file_is_in_its_receipt(run: Import) -> None:
    run.apply(FileEnd("s", 1, replace(completed(0), url="/watch/1", link="/watch/1")), FileEnd("s", 1, completed(1)))
    first, second, _ = run.run.receipts(run.files)
    assert (first and first.link, second and second.link) == ("/watch/1", None)


def test_news_of_a_file_that_has_ended_are_not_reported(run: Import) -> None:
    """As of one that two workers send, where the first one seemed to hang."""
    run.apply(FileEnd("s", 0, ev.FileSkipped(0, "", SkipReason.PRESENT)))
    retry = ev.FileRetry(0, 2, 0.5, FailureCode.NETWORK, "lost")
    assert run.apply(ev.FileStarted(0, "a", 10, "s", 0, 1), retry, Journaled(0, PendingUpload())) == []
    assert 0 not in run.news.uploads


def test_attempts_of_a_lost_task_count(run: Import) -> None:
    """Each started file gets a retry; the number of attempts goes on in the next task."""
    run.apply(ev.FileStarted(0, "a", 10, "s", 0, 1), ev.FileRetry(1, 3, 0.0, FailureCode.NETWORK, "lost"))
    assert [event for event in run.told if isinstance(event, ev.FileStarted)] == [
        ev.FileStarted(0, "a", 10, "s", 0, 1),
        ev.FileStarted(1, "b", 20, "", 0, 2, packed=True),
    ]
    before = len(run.told)
    run.news.lost(run.task, "worker one died")
    assert run.told[before:] == [
        ev.RunWarning(WORKERS, "worker one died: its task with 3 unfinished files runs again"),
        ev.FileRetry(0, 2, 0.0, FailureCode.NETWORK, "worker one died"),
        ev.FileRetry(1, 3, 0.0, FailureCode.NETWORK, "worker one died"),
    ]
    run.task = run.submitted()
    told = run.apply(ev.FileStarted(0, "a", 10, "s", 5, 1), ev.BytesSent(0, 1, 7), ev.BytesConfirmed(0, 1, 6))
    assert told == [ev.FileStarted(0, "a", 10, "s", 5, 2), ev.BytesSent(0, 2, 7), ev.BytesConfirmed(0, 2, 6)]
    for number, attempts in ((0, 2), (1, 3), (2, 1)):
        (*_, end) = run.apply(FileEnd("s", 1, completed(number)))
        assert isinstance(end, ev.FileCompleted)
        assert end.attempts == attempts


def test_task_that_had_not_begun_is_lost_without_a_word(run: Import) -> None:
    run.news.lost(run.task, "worker one died")
    assert run.told == []


def test_upload_whose_creation_a_lost_worker_did_not_report_is_named(run: Import) -> None:
    """Those that it did report are journaled: the next task continues them."""
    begun = [PendingUpload(f"k{number}") for number in range(3)]
    run.apply(*(Creating(number, upload) for number, upload in enumerate(begun)))
    assert run.news.uploads == dict(enumerate(begun)), "with the keys of their creations"
    assert [claim.upload for claim in run.run.claim(run.files)] == begun
    there = PendingUpload(url="https://h/u1")
    run.apply(Journaled(0, there), FileEnd("", 1, completed(1)))
    assert {number: upload.url for number, upload in run.news.uploads.items()} == {0: "https://h/u1", 2: None}
    assert run.run.claim(run.files[:1])[0].upload == there
    before = len(run.told)
    run.news.lost(run.task, "worker one died")
    text = "worker one died while it created the upload of c: one may be left on the server"
    assert run.told[before] == ev.RunWarning(WORKERS, text)
    assert len([event for event in run.told[before:] if isinstance(event, ev.RunWarning)]) == 2


def test_session_of_a_task_is_left_at_its_end(run: Import) -> None:
    end = ev.SessionFinished("s", "completed")
    assert run.apply(end) == [end, ev.SessionLeft("s")]


def test_news_are_a_sign_of_life(run: Import) -> None:
    run.clock.pass_(7)
    run.apply()
    assert (run.task.begun, run.task.heard, run.member.heard) == (True, START + 7, START + 7)
