"""What the sending of files relies on, of each journal: the one on disk, and those of the tasks of an import."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest
from unit.transfer.journal_fakes import HERE, a_file

from uploader_cli.core.presence import ClaimState
from uploader_cli.fleet.outcomes import Creating, Journaled
from uploader_cli.fleet.run_secret import upload_key
from uploader_cli.fleet.task_journal import TaskJournal
from uploader_cli.fleet.tasks import TaskInput
from uploader_cli.transfer.journal import Journal, PendingUpload, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from uploader_cli.transfer.journal import UploadJournal

SECRET = b"s" * 32
A, B = a_file("/data/a", file=0), a_file("/data/b", file=1)


def a_task(
    *, again: bool = False, uploads: Mapping[int, PendingUpload] | None = None, receipts: Mapping[int, Stored] = {}
) -> TaskInput:
    return TaskInput("run", 1, "process", {}, SECRET, again, (), uploads, receipts)


def of_task(task: TaskInput) -> TaskJournal:
    return TaskJournal(task, lambda _news: None, nullcontext)


@pytest.fixture(params=["on disk", "task", "task at an endpoint"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UploadJournal]:
    if request.param != "on disk":
        yield of_task(a_task(uploads=None if request.param == "task" else {}))
        return
    with Journal(tmp_path) as journal:
        yield journal.begin(HERE, {})


def state(run: UploadJournal) -> str:
    return run.claim([A])[0].state


def test_claimed_file_is_resumed_with_what_was_noted(run: UploadJournal) -> None:
    (first,) = run.claim([A])
    assert first.state is ClaimState.NEW
    run.update(A, url="http://here:1/u", checked_until=3)
    (again,) = run.claim([A])
    assert (again.state, again.upload) == (
        ClaimState.RESUME,
        PendingUpload(first.upload.upload_key, "http://here:1/u", checked_until=3),
    )


def test_file_that_may_be_stored_is_unknown_until_it_is_certain(run: UploadJournal) -> None:
    run.claim([A, B], pack=True)
    run.uncertain([A])
    assert [claim.state for claim in run.claim([A, B])] == [ClaimState.UNKNOWN, ClaimState.RESUME]
    run.certain([A])
    assert state(run) is ClaimState.RESUME


def test_file_is_done_with_its_receipt_until_that_is_forgotten(run: UploadJournal) -> None:
    run.claim([A])
    stored = Stored(A, "id", "/uploads/a", "0a" * 32, verified=True)
    run.completed([stored])
    assert run.receipts([A, B]) == [stored, None]
    (claim,) = run.claim([A])
    assert (claim.state, claim.receipt) == (ClaimState.DONE, stored)
    run.forget([A], receipts=False)
    assert state(run) is ClaimState.DONE
    run.forget([A])
    assert run.receipts([A]) == [None]
    assert state(run) is ClaimState.NEW


def test_notes_of_a_released_file_are_dropped_until_it_is_claimed_again(run: UploadJournal) -> None:
    (first,) = run.claim([A])
    run.release([A])
    run.update(A, url="http://here:1/u")
    (again,) = run.claim([A])
    assert (again.state, again.upload) == (ClaimState.RESUME, first.upload)


def test_files_of_a_pack_share_a_key_and_get_a_new_one_together(run: UploadJournal) -> None:
    keys = [claim.upload.upload_key for claim in run.claim([A, B], pack=True)]
    assert keys == [f"{keys[0].partition(':')[0]}:{position}" for position in range(2)]
    new = run.packed([A, B])
    assert new not in keys[0]
    assert [claim.upload.upload_key for claim in run.claim([A, B])] == [f"{new}:0", f"{new}:1"]


def test_each_new_creation_has_a_key_of_its_own(run: UploadJournal) -> None:
    (first,) = run.claim([A])
    second = run.creating(A, "session", replaced=("http://here:1/old",))
    parts = run.split(A, [3, 4])
    third = run.creating_part(A, 1, replaced=("http://here:1/p",))
    (claim,) = run.claim([A])
    known = claim.upload
    assert (known.upload_key, known.session, known.replaced) == (second.upload_key, "session", ("http://here:1/p",))
    assert [(part.offset, part.size, part.upload_key) for part in known.parts] == [
        (0, 3, parts[0].upload_key),
        (3, 4, third),
    ]
    assert len({first.upload.upload_key, second.upload_key, parts[0].upload_key, parts[1].upload_key, third}) == 5


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
    assert state(run) is ClaimState.NEW


def test_each_note_of_a_task_at_an_endpoint_is_told_before_the_next_request() -> None:
    told, turns = list[object](), list[str]()

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
        assert (told, turns) == ([Creating(1, new.upload)], ["begins"])
        run.update(B, url="http://here:1/b")
    assert turns == ["begins", "ends"]
    there = PendingUpload(new.upload.upload_key, "http://here:1/b")
    run.update(A, checked_until=1)
    assert told[1:] == [Journaled(1, there), Journaled(0, PendingUpload("k", "http://here:1/a", checked_until=1))]


def test_task_elsewhere_tells_nothing() -> None:
    told = list[object]()
    run = TaskJournal(a_task(), told.append, lambda: nullcontext(told.append("turn")))
    run.claim([A])
    with run.creation(A):
        run.update(A, url="http://here:1/a")
    assert told == []
