"""What the journal has of files before a run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unit.transfer.journal_fakes import DAY, HERE, Clock, a_file, begin, claimed, complete

from uploader_cli.transfer.journal import receipts
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

A = {"paths": ["a"]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    with Journal(tmp_path, now=clock) as journal:
        yield journal


def sent(journal: Journal, *paths: str, ok: bool) -> None:
    """A run of the command `a`."""
    run = begin(journal, "a")
    for path in paths:
        claimed(run, a_file(path))
        complete(run, a_file(path))
    run.finish(ok=ok)


def test_history_is_empty_at_first(journal: Journal) -> None:
    history = journal.history(HERE, A)
    assert not history.done(a_file())
    assert not history.sent_before(a_file())
    assert journal.runs() == []


def test_history_of_an_interrupted_run(journal: Journal) -> None:
    """By the same command, the same target, and only while the file is the same."""
    sent(journal, "/data/1", ok=False)
    history = journal.history(HERE, A)
    assert history.done(a_file("/data/1"))
    assert not history.done(a_file("/data/1", size=11))
    assert not history.done(a_file("/data/2"))
    assert not journal.history(HERE, {"paths": ["b"]}).done(a_file("/data/1"))
    assert not journal.history(RunTarget(HERE.server, "scenic"), A).done(a_file("/data/1"))
    assert not journal.history(HERE, A, fresh=True).done(a_file("/data/1"))


def test_finished_run_is_not_resumed(journal: Journal, tmp_path: Path, clock: Clock, monkeypatch) -> None:
    """Its receipts are what --skip-existing asks for, as long as they are kept."""
    sent(journal, "/data/1", ok=True)
    history = journal.history(HERE, A)
    assert not history.done(a_file("/data/1"))
    assert history.sent_before(a_file("/data/1"))
    sent(journal, "/data/2", ok=True)
    monkeypatch.setattr(receipts, "MOST_RECEIPTS", 1)
    clock.at += 91 * DAY
    Journal(tmp_path, now=clock).close()
    assert not journal.history(HERE, A).sent_before(a_file("/data/1"))


def test_history_lookup_changes_nothing(journal: Journal) -> None:
    """The run can still be resumed, and keeps its id."""
    sent(journal, "/data/1", ok=False)
    before = journal.runs()
    journal.history(HERE, A).done(a_file("/data/1"))
    assert journal.runs() == before
    assert begin(journal, "a").resumed_from == before[0].id
