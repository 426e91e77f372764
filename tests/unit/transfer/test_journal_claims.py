"""Claims and receipts: a file is started once, resumed, and never sent twice."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from unit.transfer.journal_fakes import HERE, Clock, a_file, begin, claimed, complete, open_sessions, receipt

from uploader_cli.errors import UploaderError
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import PendingUpload, RunTarget
from uploader_cli.transfer.journal.receipts import Stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    with Journal(tmp_path, now=clock) as journal:
        yield journal


@pytest.fixture
def other(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    """The same journal as another process sees it."""
    with Journal(tmp_path, now=clock) as journal:
        yield journal


def test_a_new_file_gets_a_random_key_that_is_on_disk(journal: Journal, other: Journal) -> None:
    run = begin(journal)
    claim = claimed(run, a_file())
    assert (claim.state, claim.receipt, claim.outdated) == ("new", None, None)
    assert claim.upload == PendingUpload(claim.upload.upload_key)
    assert len(claim.upload.upload_key) == 32
    run.finish(ok=False)
    assert claimed(begin(other), a_file()).upload == claim.upload


def test_file_at_the_path_of_one_that_was_removed_is_new(journal: Journal, other: Journal) -> None:
    """As after a restore: it has not changed, and nothing of it was sent."""
    run = begin(journal)
    claimed(run, a_file())
    run.consumed(Stored(a_file()))
    run.finish(ok=False)
    assert claimed(begin(other), a_file()).state == "new"


def test_journal_keeps_upload_state_for_a_resume(journal: Journal, other: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file(size=100))
    run.update(a_file(), url="http://here:1/u/1")
    run.update(a_file(), checked_until=64)
    run.update(a_file(), pledged_until=72)
    run.update(a_file(), url="http://here:1/u/2")
    run.finish(ok=False)
    claim = claimed(begin(other), a_file(size=100))
    assert claim.state == "resume"
    assert claim.upload.url == "http://here:1/u/2"
    assert (claim.upload.checked_until, claim.upload.pledged_until) == (64, 72)
    assert claim.upload.urls == ("http://here:1/u/2",)


def test_parts_are_kept_each_with_its_key_url_and_progress(journal: Journal, other: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file(size=10))
    run.split(a_file(), [5, 5])
    parts = run.split(a_file(), [4, 4, 2])
    assert [(part.index, part.offset, part.size) for part in parts] == [(0, 0, 4), (1, 4, 4), (2, 8, 2)]
    assert len({part.upload_key for part in parts}) == 3
    run.update(a_file(), part=1, url="http://here:1/p")
    run.update(a_file(), part=1, checked_until=3)
    run.update(a_file(), part=1, pledged_until=4)
    run.finish(ok=False)
    upload = claimed(begin(other), a_file(size=10)).upload
    assert [part.upload_key for part in upload.parts] == [part.upload_key for part in parts]
    told = [(part.url, part.checked_until, part.pledged_until) for part in upload.parts]
    assert told == [(None, 0, 0), ("http://here:1/p", 3, 4), (None, 0, 0)]
    assert upload.urls == ("http://here:1/p",)


def test_part_deleted_on_the_server_gets_a_new_key(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file(size=10))
    first, second = run.split(a_file(), [6, 4])
    run.update(a_file(), part=1, url="http://here:1/p")
    run.update(a_file(), part=1, checked_until=3)
    run.update(a_file(), part=1, pledged_until=4)
    key = run.creating_part(a_file(), 1)
    assert key != second.upload_key
    assert claimed(run, a_file(size=10)).upload.parts == (first, replace(second, upload_key=key))
    complete(run, a_file(size=10))
    assert journal.runs()[0].open_files == 0


def test_new_creation_deletes_url_parts_and_key(journal: Journal) -> None:
    run = begin(journal)
    first = claimed(run, a_file()).upload
    run.split(a_file(), [5, 5])
    run.update(a_file(), url="http://here:1/u")
    again = run.creating(a_file(), "s2")
    assert again == PendingUpload(again.upload_key, session="s2")
    assert again.upload_key != first.upload_key
    assert claimed(run, a_file()).upload == again


def test_completed_file_is_done_for_the_run_and_its_resume(journal: Journal, clock: Clock) -> None:
    run = begin(journal)
    claimed(run, a_file())
    clock.at += 3
    complete(run, a_file(), server_id="id", location="http://here:1/f", checksum="sha256 x", verified=True)
    claim = claimed(run, a_file())
    assert (claim.state, claim.upload) == ("done", None)
    found = claim.receipt
    assert found == Stored(a_file(), "id", "http://here:1/f", "sha256 x", verified=True)
    assert journal.runs()[0].updated_at == clock.at
    run.finish(ok=False)
    assert claimed(begin(journal), a_file()).receipt == found


def test_a_run_after_a_finished_one_sends_again_and_skips_only_when_asked(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file())
    complete(run, a_file())
    run.finish(ok=True)
    again = begin(journal)
    assert again.resumed_from is None
    assert receipt(again, a_file()) == Stored(a_file())
    assert claimed(again, a_file()).state == "new"


def test_receipt_is_for_one_content_and_target(journal: Journal) -> None:
    run = begin(journal)
    complete(run, a_file())
    assert receipt(run, a_file()) is not None
    assert receipt(run, a_file(size=11)) is None
    assert receipt(run, a_file(mtime_ns=6)) is None
    assert receipt(journal.begin(RunTarget(HERE.server, "scenic"), {}), a_file()) is None


@pytest.mark.parametrize("now", [a_file(size=11), a_file(mtime_ns=6)])
def test_changed_file_is_restarted_and_its_old_upload_reported(journal: Journal, other: Journal, now) -> None:
    run = begin(journal)
    old = claimed(run, a_file())
    run.split(a_file(), [10])
    run.update(a_file(), part=0, url="http://here:1/p")
    run.finish(ok=False)
    claim = claimed(begin(other), now)
    assert claim.state == "changed"
    assert claim.upload == PendingUpload(claim.upload.upload_key)
    assert claim.upload.upload_key != old.upload.upload_key
    assert claim.outdated.urls == ("http://here:1/p",)


def test_file_changed_after_its_completion_is_reported(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file())
    complete(run, a_file())
    claim = claimed(run, a_file(size=11))
    assert (claim.state, claim.outdated) == ("changed", None)


def test_a_file_that_another_live_run_sends_is_busy_then_resumed_or_done(journal: Journal, other: Journal) -> None:
    one, two = begin(journal, "a"), begin(other, "b")
    assert claimed(one, a_file()).state == "new"
    assert claimed(two, a_file()).state == "busy"
    complete(one, a_file())
    assert claimed(two, a_file()).state == "done", "sent since this run began"
    begun = claimed(one, a_file("/data/b.bin")).upload
    one.finish(ok=False)
    claim = claimed(two, a_file("/data/b.bin"))
    assert (claim.state, claim.upload) == ("resume", begun)
    two.finish(ok=False)
    assert claimed(begin(journal, "a"), a_file("/data/b.bin")).state == "resume", "whoever took it last"


def test_the_same_path_selected_twice_is_sent_once(journal: Journal) -> None:
    run = begin(journal)
    assert claimed(run, a_file(file=1)).state == "new"
    assert claimed(run, a_file(file=2)).state == "busy"
    assert claimed(run, a_file(file=1)).state == "resume", "a retry"
    complete(run, a_file(file=1))
    assert claimed(run, a_file(file=2)).state == "done"


def test_dropped_file_is_restarted(journal: Journal) -> None:
    run = begin(journal)
    old = claimed(run, a_file())
    run.forget([a_file()])
    claim = claimed(run, a_file(file=2))
    assert claim.state == "new"
    assert claim.upload.upload_key != old.upload.upload_key


def test_no_resume_restarts_files_and_reports_old_uploads(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file())
    run.update(a_file(), url="http://here:1/u")
    run.finish(ok=False)
    fresh = begin(journal, fresh=True)
    assert fresh.resumed_from is None
    claim = claimed(fresh, a_file())
    assert claim.state == "new"
    assert claim.outdated.urls == ("http://here:1/u",)
    assert claimed(fresh, a_file()).state == "resume", "its own"
    assert [info.id for info in journal.runs()] == [fresh.id]


def test_paths_that_are_no_text_and_relative_ones_are_kept(journal: Journal, tmp_path: Path, monkeypatch) -> None:
    name = os.fsdecode(b"\xff\xfe \xe2\x82.bin")
    monkeypatch.chdir(tmp_path)
    run = journal.begin(HERE, {"paths": [name]})
    claimed(run, a_file(name))
    complete(run, a_file(name))
    run.finish(ok=False)
    again = journal.begin(HERE, {"paths": [name]})
    assert again.resumed_from == run.id
    assert journal.run(again.id).arguments == {"paths": [name]}
    assert claimed(again, a_file(str(tmp_path / name))).state == "done"


def test_released_run_writes_receipts_only(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file())
    run.finish(ok=False)
    run.finish(ok=True)
    assert journal.runs()[0].state == "interrupted", "the first word counts"
    assert claimed(run, a_file()).state == "busy"
    with pytest.raises(UploaderError, match="has ended"):
        run.update(a_file(), url="http://here:1/u")
    complete(run, a_file())
    assert claimed(begin(journal), a_file()).state == "done"


def test_uncertain_survives_resume_and_the_same_command_until_certain(journal: Journal, other: Journal) -> None:
    run = begin(journal)
    begun = claimed(run, a_file()).upload
    run.uncertain([a_file()])
    claim = claimed(run, a_file())
    assert (claim.state, claim.upload) == ("unknown", replace(begun, uncertain=True))
    run.finish(ok=False)
    run = other.resume(run.id)
    assert claimed(run, a_file()).state == "unknown"
    run.release([a_file()])
    run.finish(ok=False)
    run = begin(journal)
    assert claimed(run, a_file()).state == "unknown"
    run.certain([a_file()])
    assert claimed(run, a_file()).state == "resume"


def test_an_uncertain_file_that_changed_is_changed(journal: Journal) -> None:
    run = begin(journal)
    begun = claimed(run, a_file()).upload
    run.uncertain([a_file()])
    claim = claimed(run, a_file(size=11))
    assert (claim.state, claim.outdated) == ("changed", replace(begun, uncertain=True))
    assert claimed(run, a_file(size=11)).state == "resume", "the new content was never sent"


def test_groups_are_answered_in_order(journal: Journal) -> None:
    run = begin(journal)
    files = [a_file(f"/data/{number}", file=number) for number in range(4)]
    run.completed([Stored(files[2], server_id="id")])
    claims = run.claim([*files, a_file("/data/1", file=9)])
    assert [claim.state for claim in claims] == ["new", "new", "done", "new", "busy"]
    assert [found and found.server_id for found in run.receipts(files)] == [None, None, "id", None]


def test_claim_of_no_file_leaves_the_journal_usable(journal: Journal) -> None:
    """With --skip-existing the server may have all files of a group."""
    run, trouble = begin(journal), list[str]()
    run.on_trouble = trouble.append
    assert run.claim([]) == []
    assert (claimed(run, a_file()).state, trouble) == ("new", [])


def test_a_second_receipt_replaces_the_first_and_counts_once(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file())
    complete(run, a_file())
    complete(run, a_file(), checksum="ab" * 32, verified=True)
    assert (receipt(run, a_file()).checksum, receipt(run, a_file()).verified) == ("ab" * 32, True)
    assert journal.runs()[0].completed_files == 1


def test_forget_deletes_the_receipt_of_the_same_content_only(subtests: pytest.Subtests, journal: Journal) -> None:
    run = begin(journal)
    for forgotten, kept in ((a_file(), False), (a_file(size=11), True)):
        with subtests.test(forgotten=forgotten, kept=kept):
            complete(run, a_file())
            run.forget([forgotten])
            assert (receipt(run, a_file()) is not None) is kept
    assert claimed(run, a_file()).state == "done"


def test_finish_without_success_keeps_everything(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file())
    run.creating(a_file(), "s1")
    run.update(a_file(), url="http://here:1/u")
    run.release([a_file()])
    run.session_opened("s1")
    run.finish(ok=False)
    run = begin(journal)
    assert open_sessions(run) == ("s1",)
    upload = claimed(run, a_file()).upload
    assert (upload.url, upload.session) == ("http://here:1/u", "s1")
