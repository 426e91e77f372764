"""Runs: which one is resumed, which are listed, and what is pruned."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from unit.transfer.journal_fakes import (
    DAY,
    HERE,
    Clock,
    a_file,
    begin,
    claimed,
    complete,
    names,
    open_sessions,
    receipt,
)

from uploader_cli.errors import UsageError
from uploader_cli.transfer.journal import receipts, schema
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget
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


def test_same_command_resumes_under_a_new_id(journal: Journal) -> None:
    first = begin(journal, "a")
    assert first.resumed_from is None
    first.finish(ok=False)
    second = begin(journal, "a")
    second.finish(ok=False)
    third = begin(journal, "a")
    assert (second.resumed_from, third.resumed_from) == (first.id, second.id)
    assert [info.id for info in journal.runs()] == [third.id]
    assert journal.run(first.id).id == journal.run(second.id).id == third.id


def test_another_command_or_target_is_another_run(journal: Journal) -> None:
    begin(journal, "a").finish(ok=False)
    assert begin(journal, "b").resumed_from is None
    assert journal.begin(RunTarget(HERE.server, "scenic"), {"paths": ["a"]}).resumed_from is None
    assert journal.begin(RunTarget("http://there:1", "personal"), {"paths": ["a"]}).resumed_from is None


def test_journal_explains_what_identifies_a_command(journal: Journal) -> None:
    one = journal.begin(HERE, {"jobs": 1, "paths": ["a"]}, identity=["a"])
    one.finish(ok=False)
    run = journal.begin(HERE, {"jobs": 2, "paths": ["a"]}, identity=["a"])
    assert run.resumed_from == one.id
    assert journal.run(run.id).arguments == {"jobs": 2, "paths": ["a"]}


def test_live_run_is_not_resumed(journal: Journal, tmp_path: Path) -> None:
    one = begin(journal)
    with Journal(tmp_path) as other:
        two = begin(other)
        assert two.resumed_from is None
        assert {info.state for info in other.runs()} == {"running"}
        assert other.newest_unfinished() is None
        for refused in (other.resume, other.forget):
            with pytest.raises(UsageError, match="under way in another process"):
                refused(one.id)
    assert journal.newest_unfinished().id == two.id, "closed without a word: interrupted"
    assert begin(journal).resumed_from == two.id


def test_a_finished_run_takes_interrupted_ones_of_the_same_command_along(journal: Journal) -> None:
    one, two, elsewhere = begin(journal), begin(journal), begin(journal, "b")
    claimed(one, a_file())
    one.finish(ok=False)
    two.finish(ok=True)
    elsewhere.finish(ok=False)
    assert [(info.id, info.state) for info in journal.runs()] == [
        (elsewhere.id, "interrupted"), (two.id, "finished")
    ]  # fmt: skip
    assert claimed(begin(journal), a_file()).state == "new"


def test_a_finished_run_leaves_a_live_one_of_the_same_command_alone(journal: Journal) -> None:
    one, two = begin(journal), begin(journal)
    begun = claimed(one, a_file()).upload
    one.session_opened("s")
    two.finish(ok=True)
    assert claimed(one, a_file()).upload == begun
    one.finish(ok=False)
    again = begin(journal)
    assert (again.resumed_from, open_sessions(again)) == (one.id, ("s",))


def test_the_list_shows_what_is_done_and_open(journal: Journal, clock: Clock) -> None:
    started = clock.at
    run = begin(journal, "a", "b")
    for number, path in enumerate(("/a", "/b", "/c"), 1):
        claimed(run, a_file(path, file=number, size=number * 10))
    run.session_opened("s1")
    run.session_opened("s2")
    run.session_opened("s2")
    run.session_closed("s1")
    clock.at += 5
    for _ in range(2):
        complete(run, a_file("/b", file=2, size=20))
    (info,) = journal.runs()
    assert (info.id, info.server, info.destination) == (run.id, HERE.server, HERE.destination)
    assert (info.arguments, info.sessions) == ({"paths": ["a", "b"]}, ("s2",))
    assert (info.started_at, info.updated_at) == (started, clock.at)
    assert (info.completed_files, info.completed_bytes, info.open_files) == (1, 20, 2)
    run.finish(ok=False)
    assert open_sessions(begin(journal, "a", "b")) == ("s2",)


def test_a_finished_run_keeps_nothing_under_way_and_is_not_resumed(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file())
    run.session_opened("s")
    run.finish(ok=True)
    (info,) = journal.runs()
    assert (info.state, info.open_files, info.sessions) == ("finished", 0, ())
    assert journal.newest_unfinished() is None
    with pytest.raises(UsageError, match="is finished"):
        journal.resume(run.id)


def test_resume_by_a_prefix_takes_that_very_run(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["aa11", "ab22", "key", "cc"])
    monkeypatch.setattr("secrets.token_hex", lambda _bytes: next(ids))
    older = journal.begin(HERE, {"n": 1})
    newer = journal.begin(HERE, {"n": 1})
    claimed(older, a_file())
    older.finish(ok=False)
    newer.finish(ok=False)
    with pytest.raises(UsageError, match="2 runs begin with a"):
        journal.resume("a")
    with pytest.raises(UsageError, match="no such run: x"):
        journal.run("x")
    run = journal.resume("aa")
    assert (run.id, run.resumed_from) == ("cc", "aa11")
    assert claimed(run, a_file()).state == "resume"


def test_a_forgotten_run_leaves_its_receipts_only(journal: Journal) -> None:
    run = begin(journal)
    claimed(run, a_file("/a"))
    claimed(run, a_file("/b"))
    complete(run, a_file("/b"))
    run.finish(ok=False)
    journal.forget(run.id)
    assert journal.runs() == []
    again = begin(journal)
    assert claimed(again, a_file("/a")).state == "new"
    assert receipt(again, a_file("/b")) == Stored(a_file("/b"))


def test_locks_and_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "run-0123.lock").touch()
    with Journal(tmp_path) as journal:
        begin(journal, "a").finish(ok=False)
        run = begin(journal, "a")
        assert [path.name for path in tmp_path.glob("run-*")] == [f"run-{run.id}.lock"]
    assert names(tmp_path) == {"journal.sqlite3"}


def test_old_runs_are_pruned_at_the_next_start_and_leave_receipts(tmp_path: Path) -> None:
    clock = Clock()
    with Journal(tmp_path, now=clock) as journal:
        run = journal.begin(RunTarget("http://old:1", "personal"), {})
        claimed(run, a_file("/a"))
        complete(run, a_file("/b"))
        run.session_opened("s")
        clock.at += 89 * DAY
        complete(begin(journal), a_file("/c"))
    clock.at += 2 * DAY
    with Journal(tmp_path, now=clock) as journal:
        assert [info.server for info in journal.runs()] == [HERE.server]
        assert journal.notices == (
            "interrupted runs removed from the journal: 1, untouched for 90 days or beyond the newest 1000",
        )
    Journal(tmp_path, now=clock).close()
    with sqlite3.connect(tmp_path / "journal.sqlite3") as db:
        tables = ("target", "run", "pending", "receipt", "session")
        counts = [db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]
    db.close()
    assert counts == [2, 1, 0, 2, 0]


def kept(state: Path, clock: Clock, count: int) -> list[int]:
    """Open the journal, which prunes it, and return which of the files /0, /1, … it has receipts of."""
    with Journal(state, now=clock) as journal:
        run = begin(journal, "later")
        return [number for number in range(count) if receipt(run, a_file(f"/{number}"))]


def test_receipt_is_kept_for_90_days_and_longer_among_the_newest(tmp_path: Path, monkeypatch) -> None:
    """A file that is sent again is one of the newest."""
    monkeypatch.setattr(receipts, "MOST_RECEIPTS", 2)
    clock = Clock()
    with Journal(tmp_path, now=clock) as journal:
        run = begin(journal)
        for day, number in enumerate([0, 1, 2, 3, 4, 1]):
            complete(run, a_file(f"/{number}"))
            clock.at = Clock().at + (day + 1) * DAY
        run.finish(ok=True)
    left = []
    for days in (89.5, 91, 92.5, 1000):
        clock.at = Clock().at + days * DAY
        left.append(kept(tmp_path, clock, 5))
    assert left == [[0, 1, 2, 3, 4], [1, 2, 3, 4], [1, 3, 4], [1, 4]]


def test_a_live_run_is_never_pruned_however_old(journal: Journal, tmp_path: Path, clock: Clock) -> None:
    run = begin(journal)
    clock.at += 1000 * DAY
    Journal(tmp_path, now=clock).close()
    assert [info.id for info in journal.runs()] == [run.id]


def test_the_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MOST_FINISHED", 3)
    monkeypatch.setattr(schema, "MOST_UNFINISHED", 2)
    clock = Clock()
    with Journal(tmp_path, now=clock) as journal:
        for number in range(30):
            run = begin(journal, str(number))
            complete(run, a_file(f"/{number}"))
            run.finish(ok=True)
        for number in range(4):
            begin(journal, f"open {number}").finish(ok=False)
    clock.at += 2 * DAY
    with Journal(tmp_path, now=clock) as journal:
        assert [info.arguments["paths"] for info in journal.runs()] == [
            ["open 3"], ["open 2"], ["29"], ["28"], ["27"]
        ]  # fmt: skip


def test_receipts_that_an_unfinished_run_needs_are_kept_beyond_the_bound(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(receipts, "MOST_RECEIPTS", 2)
    clock = Clock()
    with Journal(tmp_path, now=clock) as journal:
        before = begin(journal, "before")
        complete(before, a_file("/before"))
        before.finish(ok=True)
        run = begin(journal)
        for number in range(10):
            complete(run, a_file(f"/{number}"))
        clock.at += 60 * DAY
        run.finish(ok=False)
    clock.at += 60 * DAY
    with Journal(tmp_path, now=clock) as journal:
        run = journal.resume(run.id)
        assert {claimed(run, a_file(f"/{number}")).state for number in range(10)} == {"done"}
        assert receipt(run, a_file("/before")) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("arguments", "'[]'"),
        ("arguments", "'{\"paths\": 5}'"),
        ("arguments", '\'{"options": {"jobs": {}}}\''),
        ("arguments", "x'ff'"),
        ("arguments", "7"),
        ("outcome", "'no JSON'"),
        ("outcome", "'{\"failures\": [{}]}'"),
        ("outcome", '\'{"done": "x"}\''),
        ("started_at", "'long ago'"),
        ("updated_at", "9e999"),
        ("files", "'some'"),
    ],
)
def test_run_of_odd_shape_is_left_out_and_named(journal: Journal, column: str, value: str) -> None:
    first, second = begin(journal, "a"), begin(journal, "b")
    for run in (first, second):
        run.close()
    journal.db.execute(f"UPDATE run SET {column} = {value} WHERE id = ?", (first.id,))
    assert [info.id for info in journal.runs()] == [second.id]
    assert journal.runs()
    (notice,) = journal.notices
    assert f"run {first.id} is left out: its journal entry is damaged" in notice
    with pytest.raises(UsageError, match=f"run {first.id} can't be read") as told:
        journal.resume(first.id[:8])
    assert first.id in told.value.hint
    journal.forget(first.id)
    assert [info.id for info in journal.runs()] == [second.id]


@pytest.mark.parametrize("value", ["'long ago'", "x'ff'"])
def test_receipt_with_an_odd_time_counts(tmp_path: Path, value: str) -> None:
    with Journal(tmp_path) as journal:
        complete(begin(journal), a_file())
        journal.db.execute(f"UPDATE receipt SET completed_at = {value}")
    with Journal(tmp_path) as journal:
        assert claimed(begin(journal), a_file()).state == "done"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("'../x'", "../x"),
        ("x'302f78'", "0/x"),
        ("hex(zeroblob(2500))", "0" * 5000),
        ("'a' || char(0)", None),
        ("CAST(x'ff' AS TEXT)", None),
    ],
    ids=["path", "bytes", "long", "NUL", "no UTF-8"],
)
def test_run_with_an_odd_id_is_left_out_and_can_be_forgotten(tmp_path: Path, value: str, name: str | None) -> None:
    """The ID is a part of the name of the file that tells whether a run is alive."""
    with Journal(tmp_path) as journal:
        first, second = begin(journal, "a"), begin(journal, "b")
        for run in (first, second):
            run.close()
        journal.db.execute(f"UPDATE run SET id = {value} WHERE id = ?", (first.id,))
    with Journal(tmp_path) as journal:
        assert [info.id for info in journal.runs()] == [second.id]
        (notice,) = journal.notices
        assert f"run {name or ''}" in notice
        assert "is left out" in notice
        assert begin(journal, "a").resumed_from is None
        if name is not None:
            journal.forget(name)
            assert len(journal.db.execute("SELECT id FROM run").fetchall()) == 2


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("parts", "'{}'"),
        ("parts", "'[[1, \"x\"]]'"),
        ("checked_until", "'x'"),
        ("replaced", "'7'"),
        ("upload_key", "'key:x'"),
        ("server_id", "CAST(x'ff' AS TEXT)"),
    ],
)
def test_upload_of_odd_shape_is_left_out_and_named(journal: Journal, column: str, value: str) -> None:
    run, told = begin(journal), list[str]()
    claimed(run, a_file())
    run.close()
    journal.db.execute(f"UPDATE pending SET {column} = {value}")
    again = begin(journal)
    again.on_trouble = told.append
    assert claimed(again, a_file()).state == "new"
    assert told == ["the journal's entry of /data/a.bin is damaged and left out: the file is sent anew"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("secret", "'caf\u00e9'"),
        ("secret", "'a' || char(10)"),
        ("secret", "x'ff'"),
        ("category", "x'ff'"),
        ("category", "CAST(x'ff' AS TEXT)"),
    ],
)
def test_session_of_odd_shape_is_left_out_and_named(journal: Journal, column: str, value: str) -> None:
    run = begin(journal)
    run.session_opened("good", secret="s" * 22)
    run.session_opened("odd", secret="s" * 22)
    run.close()
    journal.db.execute(f"UPDATE session SET {column} = {value} WHERE id = 'odd'")
    again = begin(journal)
    assert list(again.sessions()) == ["good"]
    assert again.notices == ("the journal's entry of session odd is damaged and left out",)
    assert [journal.session_secret(session, HERE.server) for session in ("good", "odd")] == ["s" * 22, ""]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("location", "x'00ff'"),
        ("location", "CAST(x'ff' AS TEXT)"),
        ("size", "'x'"),
        ("checksum", "x'ff'"),
        ("link", "x'ff'"),
        ("identity", "'x'"),
    ],
)
def test_receipt_of_odd_shape_is_left_out(journal: Journal, column: str, value: str) -> None:
    run = begin(journal)
    claimed(run, a_file())
    run.completed([Stored(a_file(), "id", "/uploads/personal/a.bin", "ab" * 32)])
    assert run.receipts([a_file()]) != [None]
    run.close()
    journal.db.execute(f"UPDATE receipt SET {column} = {value}")
    again = begin(journal)
    assert again.receipts([a_file()]) == [None]
    assert claimed(again, a_file()).state == "new"
