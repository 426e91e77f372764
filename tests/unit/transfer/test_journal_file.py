"""The journal's file: its rights, its versions, damage, and places where it can't be written."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from old_journals import recorded
from unit.transfer.journal_fakes import HERE, Clock, a_file, begin, claimed, names, open_sessions, receipt

from uploader_cli import private_files
from uploader_cli.core.plan import Identity
from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.settings.places import STATE_IN_MEMORY
from uploader_cli.transfer.journal import locking
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.migrations import MIGRATED
from uploader_cli.transfer.journal.reading import Awaited, PendingPart, PendingUpload
from uploader_cli.transfer.journal.receipts import Stored
from uploader_cli.transfer.journal.schema import VERSION

OPEN = [
    replace(a_file("/data/whole"), identity=Identity(1, 1 << 63, 10, 5, -8)),
    a_file("/data/parts", file=2, size=7),
    a_file("/data/waits", file=3),
]
"""Files in progress in the recorded journal, which has no ctimes and inodes."""
STORED = [
    Stored(
        a_file("/data/sub/a b.jpg", file=4),
        "01234567-89ab-cdef-0123-456789abcdef",
        "/uploads/personal/a%20b.jpg",
        "0b" * 32,
        True,
    ),
    Stored(a_file("/data/ü.bin", file=5), "0123456789abcdef", "/uploads/x/%C3%BC.bin"),
    Stored(a_file("/data/c", file=6), "file_12", "http://here:1/files/c", None, True),
    Stored(a_file("/data/d", file=7), None, "/files/other", "0C" * 32),
    Stored(a_file("/data/e", file=8)),
]
"""Receipts in it."""


def run_sql(directory: Path, sql: str) -> None:
    db = sqlite3.connect(directory / "journal.sqlite3")
    db.executescript(sql)
    db.close()


def aside(directory: Path) -> list[Path]:
    return sorted(directory.glob("journal.sqlite3.aside-*"))


def test_the_file_is_the_owners_alone_and_so_is_a_directory_made_for_it(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "here"
    before = os.umask(0)
    try:
        with Journal(directory) as journal:
            claimed(begin(journal), a_file())
            modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
            assert {path.suffix for path in directory.iterdir()} == {
                ".lock",
                ".sqlite3",
                ".sqlite3-wal",
                ".sqlite3-shm",
            }
    finally:
        os.umask(before)
    assert modes == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Journal(tmp_path).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("mode", [0o755, 0o775, 0o1777])
def test_journal_of_this_user_with_a_wide_mode_is_narrowed(tmp_path: Path, mode: int) -> None:
    """A directory may be group-writable (umask 002) where the group is the user's own, or sticky."""
    tmp_path.chmod(mode)
    Journal(tmp_path).close()
    (tmp_path / "journal.sqlite3").chmod(0o664)
    Journal(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "journal.sqlite3").stat().st_mode) == 0o600
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


def links(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


OTHERS = os.geteuid() + 1
"""The user whose command opens what this user has made, with the rights of root where that is needed."""


@pytest.mark.parametrize("name", ["journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm", "journal.lock", ""])
@pytest.mark.parametrize("spoil", ["other user", "link", "no file", "mode"])
def test_file_that_another_user_may_have_chosen_is_refused(
    tmp_path: Path, name: str, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner is compared at one place, so that no second user is needed."""
    directory = tmp_path / "state"
    Journal(directory).close()
    path = directory / name
    if name and not path.exists():
        path.touch()
    owners = {os.stat(path).st_ino: OTHERS} if spoil == "other user" else {}
    if spoil == "link" and name:
        links(path)
    elif spoil == "no file" and name:
        path.unlink()
        os.mkfifo(path)
    elif spoil != "other user":
        path.chmod(0o777)
    monkeypatch.setattr(private_files, "owner_of", lambda known: owners.get(known.st_ino, known.st_uid))
    with pytest.raises(UsageError, match=f"{directory / name} is not private: ") as told:
        Journal(directory)
    assert "--state-dir" in told.value.hint


def test_a_journal_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run-0123.lock").touch()
    for _ in range(2):
        with Journal(STATE_IN_MEMORY) as journal:
            assert journal.runs() == []
            run = begin(journal)
            assert claimed(run, a_file("/a")).state == "new"
            assert names(tmp_path) == {"run-0123.lock"}
    assert names(tmp_path) == {"run-0123.lock"}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_bytes(b"no journal at all" * 100), "is damaged"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000), "is damaged"),
        (lambda path: os.truncate(path, 4096), "is damaged"),
        (lambda path: run_sql(path.parent, f"PRAGMA user_version = {VERSION + 1}"), "was written by a newer version"),
        (lambda path: run_sql(path.parent, "PRAGMA user_version = 0"), "is not uploader's"),
        (lambda path: run_sql(path.parent, "DROP TABLE receipt"), "is damaged"),
        (lambda path: run_sql(path.parent, "DROP TABLE session"), "is damaged"),
        (lambda path: run_sql(path.parent, f"PRAGMA user_version = {MIGRATED - 1}"), "was written by an early version"),
    ],
)
def test_unreadable_journal_is_set_aside_and_reported(tmp_path: Path, spoil, why: str) -> None:
    with Journal(tmp_path) as journal:
        claimed(begin(journal), a_file())
    spoil(tmp_path / "journal.sqlite3")
    damaged = (tmp_path / "journal.sqlite3").read_bytes()
    with Journal(tmp_path, now=Clock(1.7e9)) as journal:
        (notice,) = journal.notices
        assert notice.startswith(f"the journal {tmp_path / 'journal.sqlite3'} {why}")
        assert "set aside as journal.sqlite3.aside-20231114T221320.000000Z" in notice
        assert journal.runs() == []
        assert claimed(begin(journal), a_file()).state == "new"
    assert aside(tmp_path)[0].read_bytes() == damaged
    assert Journal(tmp_path, now=Clock(1.7e9)).notices == ()


def test_journal_of_the_released_version_is_changed_in_place(tmp_path: Path) -> None:
    """A run that was begun there resumes, and every receipt is as it was written."""
    recorded(tmp_path / "journal.sqlite3")
    with Journal(tmp_path, now=Clock(1.7e9 + 200)) as journal:
        assert journal.notices == ()
        assert [info.arguments["paths"] for info in journal.runs()] == [["b"], ["a"], ["before"]]
        arguments = {"paths": ["a"], "options": {"server": "http://here:1"}}
        run = journal.begin(HERE, arguments)
        assert open_sessions(run) == ("s1",)
        assert run.sessions()["s1"].secret == "the-secret-of-a-session"
        claims = run.claim(OPEN)
        assert [claim.doubtful for claim in claims] == [False] * 3
        whole, parts, waits = (claim.upload for claim in claims)
        assert whole == PendingUpload(
            *(whole.upload_key, "http://here:1/u", "s1", 4, 6),
            server_id="i",
            sent_until=6,
            replaced=("http://here:1/old",),
        )
        assert parts.parts == (PendingPart(0, 0, 3, "p0", "http://here:1/p0", 2, 3, 3), PendingPart(1, 3, 4, "p1"))
        assert waits.awaited == Awaited({"url": "http://here:1/w"}, "w", sha256="0a" * 32)
        assert [claimed(run, row.file).receipt for row in STORED] == STORED
        before = a_file("/data/zero")
        assert receipt(run, before) == Stored(before, "id", "/uploads/personal/zero")
        assert claimed(run, before).state == "new", "an earlier run has sent it"
        run.close()
    with Journal(tmp_path, now=Clock(1.7e9 + 200)) as journal:
        again = replace(OPEN[0], identity=Identity(1, 1 << 63, 10, 5, -7))
        claim = claimed(journal.begin(HERE, arguments), again)
        assert (claim.upload, claim.doubtful) == (whole, False)


@pytest.mark.parametrize(
    "change",
    [
        f"location = CAST('{'9' * 5000} x' AS BLOB)",
        *(f"{column} = CAST(x'ff61' AS TEXT)" for column in ("server_id", "location", "checksum")),
    ],
)
def test_receipt_of_odd_shape_in_an_older_journal_is_left_out(tmp_path: Path, change: str) -> None:
    """The others are as in a journal without it."""
    recorded(tmp_path / "journal.sqlite3")
    odd, kept = STORED[0], STORED[1]
    run_sql(tmp_path, f"UPDATE receipt SET {change} WHERE path = CAST('{odd.file.path}' AS BLOB)")
    with Journal(tmp_path, now=Clock(1.7e9 + 200)) as journal:
        run = journal.begin(HERE, {"paths": ["a"], "options": {"server": "http://here:1"}})
        assert (receipt(run, odd.file), receipt(run, kept.file)) == (None, kept)
    assert not aside(tmp_path)


def test_an_empty_file_is_a_new_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").touch()
    with Journal(tmp_path) as journal:
        assert journal.notices == ()
        assert journal.runs() == []


def test_damage_found_in_use_is_reported_and_set_aside_at_next_start(tmp_path: Path) -> None:
    files = [a_file(f"/data/{number:04}") for number in range(2000)]
    with Journal(tmp_path) as journal:
        run = begin(journal)
        run.completed([Stored(file) for file in files])
        run.finish(ok=False)
    path = tmp_path / "journal.sqlite3"
    content = bytearray(path.read_bytes())
    third = len(content) // 3 // 4096 * 4096
    content[2 * third :] = os.urandom(len(content) - 2 * third)  # what a start looks at is in the first pages
    path.write_bytes(content)
    with Journal(tmp_path) as journal:
        assert journal.notices == ()
        run, told = begin(journal), list[str]()
        run.on_trouble = told.append
        states = {claim.state for claim in run.claim(files)}
        run.completed([Stored(file) for file in files])
        assert states == {"done", "new"}, "what can be read counts"
        run.finish(ok=False)
    assert len(told) == 1
    assert "is damaged" in told[0]
    with Journal(tmp_path) as journal:
        assert "is damaged: it was set aside" in journal.notices[0]
        assert begin(journal).resumed_from is None
    assert names(tmp_path) == {"journal.sqlite3", aside(tmp_path)[0].name}


def test_damaged_journal_is_set_aside_at_the_start(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        claimed(begin(journal), a_file())
    path = tmp_path / "journal.sqlite3"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)  # all but the schema
    path.write_bytes(content)
    with Journal(tmp_path) as journal:
        assert "set aside" in journal.notices[0]
        assert claimed(begin(journal), a_file()).state == "new"


def test_only_the_newest_journals_set_aside_are_kept(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / "journal.sqlite3").write_bytes(b"damaged" * 1000)
        Journal(tmp_path, now=Clock(1.7e9 + number)).close()
    assert len(aside(tmp_path)) == 5
    assert aside(tmp_path)[-1].name.endswith("221327.000000Z")


def test_unwritable_journal_error_names_state_dir(subtests: pytest.Subtests, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with subtests.test(directory=directory):
            with pytest.raises(UsageError, match="the journal can't be written in") as told:
                Journal(directory)
            assert "--state-dir" in told.value.hint
            assert "Errno" not in str(told.value)
    (tmp_path / "journal.sqlite3").mkdir()
    with pytest.raises(UsageError, match="the journal can't be written in"):
        Journal(tmp_path)


def test_a_directory_that_may_not_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so the refusal is the system's answer put in its place."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="Permission denied"):
        Journal(tmp_path / "state")


def test_locked_journal_error_has_a_readable_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "BUSY_SECONDS", 0.05)
    with Journal(tmp_path) as journal:
        holder = sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UploaderError, match="other programs locked it") as told:
            journal.begin(HERE, {})
        holder.close()
        assert "database is locked" not in str(told.value)


def test_opening_waits_for_others_that_open_but_not_forever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "BUSY_SECONDS", 0.05)
    held = locking.locked(tmp_path / "journal.lock", lambda: None)
    with held, pytest.raises(UsageError, match="other programs locked it"):
        Journal(tmp_path)
    Journal(tmp_path).close()
