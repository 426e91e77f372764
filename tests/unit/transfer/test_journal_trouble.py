"""A journal that can't be written during a run, that stays locked, or that many processes open together."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from time_limits import PATIENCE
from unit.transfer.journal_fakes import HERE, a_file, begin, claimed, complete, open_sessions, receipt

from uploader_cli.errors import Interrupted, UsageError
from uploader_cli.transfer.journal import locking, run_handle, schema, unwritten
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.receipts import Stored
from uploader_cli.transfer.journal.run_handle import RunHandle

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_handle, "RETRY_SECONDS", 0.0)


class Trouble:
    """A run, what it said of its journal, and a way to fill the journal's disk."""

    def __init__(self, journal: Journal) -> None:
        self.run, self.told = begin(journal), list[str]()
        self.run.on_trouble = self.told.append
        self._db = journal.db

    def fill(self) -> None:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        self._db.execute(f"PRAGMA max_page_count = {pages}")

    def free(self) -> None:
        self._db.execute("PRAGMA max_page_count = 1000000")


def many(count: int) -> list:
    return [a_file(f"/data/{number:05}", file=number) for number in range(count)]


def states(run: RunHandle, files: list) -> list[str]:
    return [claim.state for claim in run.claim(files)]


def test_full_disk_warns_once_and_the_journal_stays_in_memory(tmp_path: Path) -> None:
    before, files = a_file("/data/before"), many(2000)
    with Journal(tmp_path) as journal:
        trouble = Trouble(journal)
        run = trouble.run
        run.claim([before])
        run.update(before, url="http://here:1/u")
        trouble.fill()
        assert set(states(run, files)) == {"new"}
        run.completed([Stored(file, server_id="id") for file in files[:1500]])
        (text,) = trouble.told
        assert "can't be written: no space left" in text
        assert "--state-dir" in text
        again = states(run, [files[0], files[1999], a_file(files[1999].path, file=-1), before])
        assert again == ["done", "resume", "busy", "resume"]
        assert run.claim([before])[0].upload.url == "http://here:1/u"
        assert receipt(run, files[0]).server_id == "id"
        run.session_opened("s")
        assert open_sessions(run) == ("s",)
        run.finish(ok=False)
    assert len(trouble.told) == 1
    with Journal(tmp_path) as journal:
        run = begin(journal)
        assert states(run, [before, files[0]]) == ["resume", "new"], "what was written before stays"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, PermissionError])
def test_error_in_a_function_of_a_statement_damages_nothing(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal may arrive there, when the journal is opened or while it is used."""
    with Journal(tmp_path) as journal:
        begin(journal)

    def fail(path: Any, *how: int) -> int:
        if "run-" in str(path):
            raise error
        return open_(path, *how)

    open_ = os.open
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        with pytest.raises(UsageError if error is PermissionError else error):
            Journal(tmp_path)
    with Journal(tmp_path) as journal:
        assert [info.state for info in journal.runs()] == ["interrupted"]
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", fail)
            with pytest.raises(schema.JournalError if error is PermissionError else error):
                journal.runs()
        assert (len(journal.runs()), journal.notices) == (1, ())


def test_pending_entries_are_written_when_the_disk_has_space(tmp_path: Path) -> None:
    files = many(2000)
    with Journal(tmp_path) as journal:
        trouble = Trouble(journal)
        run = trouble.run
        trouble.fill()
        run.claim(files)
        run.completed([Stored(file) for file in files[:1000]])
        run.uncertain(files[1000:1001])
        run.session_opened("s")
        trouble.free()
        run.update(files[1001], url="http://here:1/u")
        assert (journal.runs()[0].completed_files, journal.runs()[0].open_files) == (1000, 1000)
        run.finish(ok=False)
    assert len(trouble.told) == 1
    with Journal(tmp_path) as journal:
        run = begin(journal)
        assert states(run, files[:1002:500]) == ["done", "done", "unknown"]
        assert claimed(run, files[1001]).upload.url == "http://here:1/u"
        assert open_sessions(run) == ("s",)


def test_finish_writes_what_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_handle, "RETRY_SECONDS", 1e6)
    files = many(2000)
    with Journal(tmp_path) as journal:
        trouble = Trouble(journal)
        trouble.fill()
        trouble.run.claim(files)
        trouble.run.completed([Stored(file) for file in files])
        trouble.free()
        trouble.run.finish(ok=True)
        assert [(info.state, info.completed_files) for info in journal.runs()] == [("finished", 2000)]


def test_memory_for_what_is_not_written_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unwritten, "MOST_UNWRITTEN", 100)
    files = many(2000)
    with Journal(tmp_path) as journal:
        trouble = Trouble(journal)
        trouble.fill()
        trouble.run.claim(files)
        trouble.run.completed([Stored(file) for file in files])
        assert states(trouble.run, [files[1899], files[1900]]) == ["new", "done"]


def test_a_file_that_another_run_took_meanwhile_stays_its_own(tmp_path: Path) -> None:
    files = many(2000)
    with Journal(tmp_path) as journal, Journal(tmp_path) as elsewhere:
        trouble = Trouble(journal)
        trouble.fill()
        trouble.run.claim(files)
        other = begin(elsewhere, "b")
        (theirs,) = other.claim(files[:1])
        assert theirs.state == "new"
        trouble.free()
        trouble.run.update(files[1], checked_until=5)
        assert other.claim(files[:1])[0].upload == theirs.upload
        assert states(other, files[1:2]) == ["busy"]


def test_sqlite_errors_are_reported_and_not_raised(tmp_path: Path) -> None:
    """As of a disk that is read-only or broken; here the connection is closed."""
    with Journal(tmp_path) as journal:
        trouble = Trouble(journal)
        trouble.run.claim([a_file()])
        journal.db.close()
        complete(trouble.run, a_file())
        assert states(trouble.run, [a_file(), a_file("/data/b")]) == ["done", "new"]
        assert receipt(trouble.run, a_file("/data/c")) is None
        trouble.run.finish(ok=True)
    assert len(trouble.told) == 1


LIMITED = """
import resource, signal, sys
from pathlib import Path
from uploader_cli.core.plan import LocalFile
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.journal.receipts import Stored
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told = []
with Journal(Path(sys.argv[1])) as journal:
    run = journal.begin(RunTarget("http://here:1", "personal"), {})
    run.on_trouble = told.append
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    for start in range(0, 4000, 100):
        files = [LocalFile(n, f"/data/{n:05}", "x", 10, 5) for n in range(start, start + 100)]
        assert all(claim.state == "new" for claim in run.claim(files))
        run.completed([Stored(file) for file in files])
    assert run.claim(files[:1])[0].state == "done"
    run.finish(ok=True)
print(len(told), "can't be written" in told[0], "--state-dir" in told[0])
"""


@pytest.mark.thorough
def test_file_size_limit_is_reported_and_not_raised(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ended.stdout, ended.stderr) == ("1 True True\n", "")
    with Journal(tmp_path) as journal:
        assert journal.notices == ()
        assert states(journal.begin(HERE, {}), many(1)) == ["done"]


# --- locked by another program ----------------------------------------------------------------------------------------


class Stopped:
    """A stop that is set after some calls of `checkpoint`."""

    def __init__(self, calls: int = 0) -> None:
        self.calls = calls

    def __call__(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Interrupted("interrupted")


def exclusive(directory: Path) -> closing[sqlite3.Connection]:
    holder = sqlite3.connect(directory / "journal.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return closing(holder)


def test_interrupt_ends_the_wait_for_a_locked_journal(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        run, told = begin(journal), list[str]()
        run.on_trouble = told.append
        run.claim([a_file()])
        with exclusive(tmp_path):
            began = time.monotonic()
            run.checkpoint = Stopped(2)
            with pytest.raises(Interrupted):
                run.claim([a_file("/data/b")])
            complete(run, a_file())
            run.finish(ok=False)
            assert time.monotonic() - began < locking.BUSY_SECONDS, "not a minute for each"
    with Journal(tmp_path) as journal:
        assert states(begin(journal), [a_file("/data/b")]) == ["new"]


def test_completed_after_an_interrupt_is_written_once_the_journal_is_free(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        run = begin(journal)
        run.claim([a_file()])
        run.checkpoint = Stopped()
        with exclusive(tmp_path):
            complete(run, a_file())
        run.finish(ok=False)
        assert states(begin(journal), [a_file()]) == ["done"]


def test_locked_journal_is_reported_as_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "BUSY_SECONDS", 0.05)
    with Journal(tmp_path) as journal:
        run, told = begin(journal), list[str]()
        run.on_trouble = told.append
        with exclusive(tmp_path):
            assert states(run, [a_file()]) == ["new"]
            complete(run, a_file())
            run.finish(ok=False)
    assert len(told) == 1
    assert "other programs locked it" in told[0]


def test_reading_waits_for_a_locked_journal(tmp_path: Path) -> None:
    """A file system without WAL, where a write excludes reads: their first query waits, not `BEGIN`."""
    with Journal(tmp_path) as journal:
        begin(journal)
        journal.db.execute("PRAGMA journal_mode = DELETE")
        holder = exclusive(tmp_path)
        with holder as held:
            journal.checkpoint = held.close
            assert len(journal.runs()) == 1


def test_interrupt_ends_the_wait_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(tmp_path).close()
    with exclusive(tmp_path):
        with pytest.raises(Interrupted):
            Journal(tmp_path, checkpoint=Stopped(1))
        monkeypatch.setattr(locking, "BUSY_SECONDS", 0.05)
        with pytest.raises(UsageError, match="other programs locked it") as told:
            Journal(tmp_path)
        assert "--state-dir" in told.value.hint


# --- size, and many at once -------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_wal_stays_under_1_mb_with_a_second_process(tmp_path: Path) -> None:
    """The second one has looked, and keeps the journal open."""
    most, wal = 0, tmp_path / "journal.sqlite3-wal"
    with Journal(tmp_path) as journal, Journal(tmp_path) as other:
        run, watcher = begin(journal), begin(other, "b")
        for start in range(0, 20_000, 400):
            files = [a_file(f"/data/{number:05}", file=number) for number in range(start, start + 400)]
            run.claim(files)
            run.completed([Stored(file, checksum="0" * 64, location=f"/uploads/{file.name}") for file in files])
            most = max(most, wal.stat().st_size)
            if start % 2000 == 0:
                watcher.receipts(files[:1])
                watcher.claim([a_file(f"/other/{start}")])
    assert most < 1_000_000


def uuid(file: LocalFile) -> str:
    return f"{file.file:08x}-0000-4000-8000-0123456789ab"


def test_receipts_take_at_most_230_bytes_beside_the_path(tmp_path: Path) -> None:
    files = [a_file(f"/data/pictures/{n // 500:04}/image-{n:05}.jpg", file=n, size=10**6) for n in range(5000)]
    with Journal(tmp_path) as journal:
        run = journal.begin(HERE, {})
        for at in range(0, 5000, 100):
            group = files[at : at + 100]
            run.completed([Stored(file, uuid(file), f"/uploads/personal/{file.name}", "a" * 64) for file in group])
        found = receipt(run, files[77])
        assert (found.server_id, found.checksum) == (uuid(files[77]), "a" * 64)
        assert found.location == "/uploads/personal/image-00077.jpg"
    size = (tmp_path / "journal.sqlite3").stat().st_size - 10 * 4096
    assert size / 5000 < len(files[0].path) + 230


@pytest.mark.parametrize(
    ("path", "location", "server_id"),
    [
        ("/data/a b.bin", "/uploads/x/a%20b.bin", "0" * 32),
        ("/data/a b.bin", "/uploads/x/a b.bin", "ABCDEF"),
        ("/data/ü.bin", "/uploads/x/%C3%BC.bin", "abc"),
        ("/data/ü.bin", "/uploads/x/%c3%bc.bin", "file_12"),
        ("/data/a.bin", "/uploads/x/", "01234567-89ab-cdef-0123-456789abcdeF"),
        ("/data/a.bin", "/uploads/x/b.bin", ""),
        ("/data/a.bin", "/uploads/a.bin", ""),
        ("/data/a.bin", "/files/a.bin", ""),
        ("/data/a.bin", "http://here:1/uploads/a.bin", ""),
        ("/data/a.bin", "elsewhere/a.bin", "12 34"),
        ("/data/a.bin", None, "----"),
    ],
)
def test_locations_and_ids_come_back_exactly(tmp_path: Path, path: str, location: str | None, server_id: str) -> None:
    with Journal(tmp_path) as journal:
        run = begin(journal)
        complete(run, a_file("/data/first.bin"), location="/uploads/x/first.bin")
        complete(run, a_file(path), location=location, server_id=server_id, checksum=server_id)
        found = receipt(run, a_file(path))
        assert (found.location, found.server_id, found.checksum) == (location, server_id, server_id)


def test_four_first_starts_at_once_all_succeed(tmp_path: Path) -> None:
    failed: list[UsageError] = []

    def start(directory: Path, together: threading.Barrier) -> None:
        together.wait()
        try:
            Journal(directory).close()
        except UsageError as error:
            failed.append(error)

    for number in range(8):
        together = threading.Barrier(4)
        directory = tmp_path / str(number) / "state" / "uploader"
        threads = [threading.Thread(target=start, args=(directory, together)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
