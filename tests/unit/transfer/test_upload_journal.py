"""What the sending of files relies on, of each journal: the one on disk, and those of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import feature_samples
import pytest
from unit.transfer.journal_fakes import HERE, a_file

from uploader_cli.core.presence import ClaimState
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import PendingUpload
from uploader_cli.transfer.journal.receipts import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uploader_cli.transfer.journal.upload_journal import UploadJournal

A, B = a_file("/data/a", file=0), a_file("/data/b", file=1)


@pytest.fixture(params=["on disk", *feature_samples.JOURNALS])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UploadJournal]:
    if request.param != "on disk":
        yield feature_samples.JOURNALS[request.param]()
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
