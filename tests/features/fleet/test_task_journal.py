"""The journal of a task, which its driver keeps; `test_upload_journal` has what it shares with others."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from features.fleet.task_journals import SECRET, a_task, of_task
from unit.transfer.journal_fakes import a_file

from uploader_cli.core.presence import ClaimState
from uploader_cli.features.fleet.outcomes import Creating, Journaled
from uploader_cli.features.fleet.run_secret import upload_key
from uploader_cli.features.fleet.task_journal import TaskJournal
from uploader_cli.transfer.journal.reading import PendingUpload
from uploader_cli.transfer.journal.receipts import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = a_file("/data/a", file=0), a_file("/data/b", file=1)


def test_task_makes_the_keys_of_its_run() -> None:
    """Another task for the same file finds its upload at the server, and asks first what the server has."""
    first, second = of_task(a_task()), of_task(a_task(again=True))
    assert not first.tried_before
    assert second.tried_before
    (new,), (known,) = first.claim([A]), second.claim([A])
    assert (new.state, known.state) == (ClaimState.NEW, ClaimState.RESUME)
    assert new.upload.upload_key == known.upload.upload_key == upload_key(SECRET, A)


def test_task_has_the_receipts_of_earlier_runs_and_sends_nevertheless() -> None:
    earlier = Stored(A, "id")
    run = of_task(a_task(receipts={0: earlier}))
    assert run.receipts([A, B]) == [earlier, None]
    assert run.claim([A])[0].state is ClaimState.NEW


def test_each_note_of_a_task_at_an_endpoint_is_told_before_the_next_request() -> None:
    told, turns = list[Any](), list[str]()

    @contextmanager
    def turn() -> Iterator[None]:
        turns.append("begins")
        yield
        turns.append("ends")

    known = PendingUpload("k", "http://here:1/a")
    run = TaskJournal(a_task(uploads={0: known}), told.append, turn)
    assert [(claim.state, claim.upload) for claim in run.claim([A])] == [(ClaimState.RESUME, known)]
    (new,) = run.claim([B])
    with run.creation(B):
        assert new.upload is not None
        assert (told, turns) == ([Creating(1, new.upload)], ["begins"])
        run.update(B, url="http://here:1/b")
    assert turns == ["begins", "ends"]
    there = PendingUpload(new.upload.upload_key, "http://here:1/b")
    run.update(A, checked_until=1)
    assert told[1:] == [Journaled(1, there), Journaled(0, PendingUpload("k", "http://here:1/a", checked_until=1))]


def test_task_elsewhere_tells_nothing() -> None:
    told = list[Any]()
    run = TaskJournal(a_task(), told.append, lambda: nullcontext(told.append("turn")))
    run.claim([A])
    with run.creation(A):
        run.update(A, url="http://here:1/a")
    assert told == []
