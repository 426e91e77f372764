"""Claims and receipts: a file is begun once, gone on with, and never sent twice."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from journal_fakes import DAY, HERE, Clock, a_file, begin

from uploader_cli.errors import UploaderError
from uploader_cli.transfer.journal import Journal
from uploader_cli.transfer.journal_records import PendingUpload, Target

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
    claim = run.claim(a_file(), "s1")
    assert (claim.state, claim.receipt, claim.outdated) == ("new", None, None)
    assert claim.upload == PendingUpload(claim.upload.upload_key, session="s1")
    assert len(claim.upload.upload_key) == 32
    run.finish(ok=False)
    assert begin(other).claim(a_file(), "s2").upload == claim.upload


def test_what_was_learnt_of_an_upload_is_there_to_resume(journal: Journal, other: Journal) -> None:
    run = begin(journal)
    run.claim(a_file(size=100))
    run.created(a_file(), "http://here:1/u/1", chunk_size=8)
    run.checked(a_file(), 64)
    run.pledged(a_file(), 72)
    run.created(a_file(), "http://here:1/u/2")
    run.finish(ok=False)
    claim = begin(other).claim(a_file(size=100))
    assert claim.state == "resume"
    assert (claim.upload.url, claim.upload.chunk_size) == ("http://here:1/u/2", 8)
    assert (claim.upload.checked_until, claim.upload.pledged_until) == (64, 72)
    assert claim.upload.urls == ("http://here:1/u/2",)


def test_parts_are_kept_each_with_its_key_url_and_progress(journal: Journal, other: Journal) -> None:
    run = begin(journal)
    run.claim(a_file(size=10))
    run.split(a_file(), [5, 5])
    parts = run.split(a_file(), [4, 4, 2])
    assert [(part.index, part.offset, part.size) for part in parts] == [(0, 0, 4), (1, 4, 4), (2, 8, 2)]
    assert len({part.upload_key for part in parts}) == 3
    run.created(a_file(), "http://here:1/p", part=1)
    run.checked(a_file(), 3, part=1)
    run.pledged(a_file(), 4, part=1)
    run.finish(ok=False)
    upload = begin(other).claim(a_file(size=10)).upload
    assert [part.upload_key for part in upload.parts] == [part.upload_key for part in parts]
    told = [(part.url, part.checked_until, part.pledged_until) for part in upload.parts]
    assert told == [(None, 0, 0), ("http://here:1/p", 3, 4), (None, 0, 0)]
    assert upload.urls == ("http://here:1/p",)


def test_a_part_that_is_gone_on_the_server_gets_a_new_key(journal: Journal) -> None:
    run = begin(journal)
    run.claim(a_file(size=10))
    first, second = run.split(a_file(), [6, 4])
    run.created(a_file(), "http://here:1/p", part=1)
    run.checked(a_file(), 3, part=1)
    run.pledged(a_file(), 4, part=1)
    key = run.creating_part(a_file(), 1)
    assert key != second.upload_key
    assert run.claim(a_file(size=10)).upload.parts == (first, replace(second, upload_key=key))
    run.completed(a_file(size=10))
    with journal._store.read() as db:
        assert db.execute("SELECT count(*) FROM part").fetchone() == (0,)


def test_a_creation_afresh_forgets_url_parts_and_key(journal: Journal) -> None:
    run = begin(journal)
    first = run.claim(a_file(), "s1").upload
    run.split(a_file(), [5, 5])
    run.created(a_file(), "http://here:1/u", chunk_size=8)
    again = run.creating(a_file(), "s2")
    assert again == PendingUpload(again.upload_key, session="s2")
    assert again.upload_key != first.upload_key
    assert run.claim(a_file()).upload == again


def test_a_completed_file_is_done_for_this_run_and_the_one_that_goes_on(journal: Journal, clock: Clock) -> None:
    run = begin(journal)
    run.claim(a_file())
    clock.at += 3
    run.completed(a_file(), server_id="id", location="http://here:1/f", checksum="sha256 x", verified=True)
    claim = run.claim(a_file())
    assert (claim.state, claim.upload) == ("done", None)
    found = claim.receipt
    assert (found.run, found.path, found.size, found.mtime_ns) == (run.id, "/data/a.bin", 10, 5)
    assert (found.server_id, found.location, found.checksum) == ("id", "http://here:1/f", "sha256 x")
    assert (found.verified, found.completed_at) == (True, clock.at)
    run.finish(ok=False)
    assert begin(journal).claim(a_file()).receipt == found


def test_a_run_after_a_finished_one_sends_again_and_skips_only_when_asked(journal: Journal) -> None:
    run = begin(journal)
    run.claim(a_file())
    run.completed(a_file())
    run.finish(ok=True)
    again = begin(journal)
    assert again.resumed_from is None
    assert again.receipt(a_file()).run == run.id
    assert again.claim(a_file()).state == "new"


def test_receipts_speak_of_one_content_one_target_and_ninety_days(journal: Journal, clock: Clock) -> None:
    run = begin(journal)
    run.completed(a_file())
    assert run.receipt(a_file()) is not None
    assert run.receipt(a_file(size=11)) is None
    assert run.receipt(a_file(mtime_ns=6)) is None
    assert journal.begin(Target(HERE.server, "scenic"), {}).receipt(a_file()) is None
    clock.at += 90 * DAY + 1
    assert run.receipt(a_file()) is None


@pytest.mark.parametrize("now", [a_file(size=11), a_file(mtime_ns=6)])
def test_a_changed_file_is_started_anew_and_the_old_upload_told(journal: Journal, other: Journal, now) -> None:
    run = begin(journal)
    old = run.claim(a_file())
    run.split(a_file(), [10])
    run.created(a_file(), "http://here:1/p", part=0)
    run.finish(ok=False)
    claim = begin(other).claim(now)
    assert claim.state == "changed"
    assert claim.upload == PendingUpload(claim.upload.upload_key)
    assert claim.upload.upload_key != old.upload.upload_key
    assert claim.outdated.urls == ("http://here:1/p",)


def test_a_file_that_changed_after_it_was_completed_is_told_too(journal: Journal) -> None:
    run = begin(journal)
    run.claim(a_file())
    run.completed(a_file())
    claim = run.claim(a_file(size=11))
    assert (claim.state, claim.outdated) == ("changed", None)


def test_a_file_that_another_live_run_sends_is_busy_then_resumed_or_done(journal: Journal, other: Journal) -> None:
    one, two = begin(journal, "a"), begin(other, "b")
    assert one.claim(a_file()).state == "new"
    assert two.claim(a_file()).state == "busy"
    one.completed(a_file())
    assert two.claim(a_file()).state == "done", "sent since this run began"
    begun = one.claim(a_file("/data/b.bin")).upload
    one.finish(ok=False)
    claim = two.claim(a_file("/data/b.bin"))
    assert (claim.state, claim.upload) == ("resume", begun)
    two.finish(ok=False)
    assert begin(journal, "a").claim(a_file("/data/b.bin")).state == "resume", "whoever took it last"


def test_the_same_path_selected_twice_is_sent_once(journal: Journal) -> None:
    run = begin(journal)
    assert run.claim(a_file(file=1)).state == "new"
    assert run.claim(a_file(file=2)).state == "busy"
    assert run.claim(a_file(file=1)).state == "resume", "a retry"
    run.completed(a_file(file=1))
    assert run.claim(a_file(file=2)).state == "done"


def test_a_dropped_file_starts_anew(journal: Journal) -> None:
    run = begin(journal)
    old = run.claim(a_file())
    run.dropped(a_file())
    claim = run.claim(a_file(file=2))
    assert claim.state == "new"
    assert claim.upload.upload_key != old.upload.upload_key


def test_no_resume_begins_every_file_anew_and_tells_what_was_begun(journal: Journal) -> None:
    run = begin(journal)
    run.claim(a_file())
    run.created(a_file(), "http://here:1/u")
    run.finish(ok=False)
    fresh = begin(journal, fresh=True)
    assert fresh.resumed_from is None
    claim = fresh.claim(a_file())
    assert claim.state == "new"
    assert claim.outdated.urls == ("http://here:1/u",)
    assert fresh.claim(a_file()).state == "resume", "its own"
    assert [info.id for info in journal.runs()] == [fresh.id]


def test_paths_that_are_no_text_and_relative_ones_are_kept(journal: Journal, tmp_path: Path, monkeypatch) -> None:
    name = os.fsdecode(b"\xff\xfe \xe2\x82.bin")
    monkeypatch.chdir(tmp_path)
    run = journal.begin(HERE, {"paths": [name]})
    run.claim(a_file(name))
    run.completed(a_file(name))
    run.finish(ok=False)
    again = journal.begin(HERE, {"paths": [name]})
    assert again.resumed_from == run.id
    assert journal.run(again.id).arguments == {"paths": [name]}
    assert again.claim(a_file(str(tmp_path / name))).receipt.path == str(tmp_path / name)


def test_a_run_that_was_let_go_writes_receipts_only(journal: Journal) -> None:
    run = begin(journal)
    run.claim(a_file())
    run.finish(ok=False)
    run.finish(ok=True)
    assert journal.runs()[0].state == "interrupted", "the first word counts"
    assert run.claim(a_file()).state == "busy"
    with pytest.raises(UploaderError, match="let go"):
        run.created(a_file(), "http://here:1/u")
    run.completed(a_file())
    assert begin(journal).claim(a_file()).state == "done"
