"""The journal's file: its tables and their versions, opening it and setting it aside, transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.transfer.journal import rows
from uploader_cli.transfer.journal.lock import FileLock, is_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

T = TypeVar("T")

NAME = "journal.sqlite3"
VERSION = 4
BUSY_SECONDS = 60.0
"""How long a transaction waits for other processes: they hold the file for milliseconds at a time."""
MOST_ASIDE = 5
"""Journals set aside that are kept."""

_PAUSE = 0.01
# A checkpoint costs two fsyncs. The WAL is written over, not cut, so that an fsync need not write its size; half-size
# pages hold it under 1 MB with as few checkpoints as pages of 4 KiB and twice the bytes.
_PAGE_BYTES = 2048
_CHECKPOINT_BYTES = 768 * 1024
_WAL_BYTES = 1_000_000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_ELSEWHERE = "free space or rights there, or name another directory with --state-dir"

# run.number stays the same for a run's life, run.id is new each time it is resumed. A period begins with each run, and
# after some receipts: periods only grow, so that `period > run.since` means "since this run began" whatever the clock
# did, and pruning finds the oldest receipts without an index, which would hold each path a second time.
# period.receipts and last_at are upper bounds: runs reserve 1000 receipts and the rest of the day, and a receipt that
# is replaced moves to a new period.
_RECEIPTS = """
CREATE TABLE period (number INTEGER PRIMARY KEY, receipts INTEGER NOT NULL DEFAULT 0, last_at INTEGER);
CREATE TABLE receipt (
  target INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, run INTEGER NOT NULL,
  period INTEGER NOT NULL, server_id, location, checksum, verified INTEGER NOT NULL, completed_at INTEGER NOT NULL,
  PRIMARY KEY (target, path)
) WITHOUT ROWID;
"""
_TABLES = """
CREATE TABLE target (
  id INTEGER PRIMARY KEY, server TEXT NOT NULL, destination TEXT NOT NULL, UNIQUE (server, destination)
);
CREATE TABLE run (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, earlier TEXT NOT NULL DEFAULT '',
  target INTEGER NOT NULL, identity TEXT NOT NULL, arguments TEXT NOT NULL,
  started_at REAL NOT NULL, updated_at REAL NOT NULL, finished INTEGER NOT NULL DEFAULT 0,
  since INTEGER NOT NULL, files INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE pending (
  target INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
  run INTEGER NOT NULL, upload_key TEXT NOT NULL, url TEXT, session TEXT, chunk_size INTEGER,
  checked_until INTEGER NOT NULL DEFAULT 0, pledged_until INTEGER NOT NULL DEFAULT 0,
  uncertain INTEGER NOT NULL DEFAULT 0, parts TEXT NOT NULL DEFAULT '[]',
  PRIMARY KEY (target, path)
) WITHOUT ROWID;
CREATE TABLE session (run INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (run, id));
INSERT INTO period (number) VALUES (0);
"""
# Version 3 had a table of parts, and receipts with the run's id and a serial number; run.since was such a number.
_FROM_3 = """
ALTER TABLE pending ADD COLUMN uncertain INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pending ADD COLUMN parts TEXT NOT NULL DEFAULT '[]';
UPDATE pending SET parts = (
  SELECT json_group_array(json_array(number, start, size, upload_key, url, checked_until, pledged_until))
  FROM (SELECT * FROM part WHERE part.target = pending.target AND part.path = pending.path ORDER BY number)
);
DROP TABLE part;
CREATE INDEX by_since ON run (since, number);
INSERT INTO receipt
  SELECT target, path, size, mtime_ns, coalesce((SELECT number FROM run WHERE id = old.run), 0),
    coalesce((SELECT number FROM run WHERE since < old.serial ORDER BY since DESC, number DESC LIMIT 1), 0),
    server_id, location, checksum, verified, CAST(completed_at AS INTEGER) FROM old ORDER BY target, path;
DROP TABLE old;
DROP INDEX by_since;
UPDATE run SET since = number - 1;
INSERT INTO period SELECT period, count(*), max(completed_at) FROM receipt GROUP BY period;
INSERT INTO period (number) SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'run';
"""
_STEPS = {
    0: _RECEIPTS + _TABLES,
    1: "ALTER TABLE pending ADD COLUMN checked_until INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE part (target, path, number, start, size, upload_key, url, checked_until);",
    2: "ALTER TABLE pending ADD COLUMN pledged_until INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE part ADD COLUMN pledged_until INTEGER NOT NULL DEFAULT 0;",
    3: "ALTER TABLE receipt RENAME TO old;" + _RECEIPTS + _FROM_3,
}


class Unreadable(Exception):
    """The file is no journal of this version or an older one; `str(error)` says why, to follow "it"."""


class JournalError(UploaderError):
    """The journal could not be read or written. `damaged`: what is in the file makes no sense."""

    def __init__(self, message: str, *, hint: str, damaged: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.damaged = damaged


class Store:
    """One connection for all threads, behind a lock: SQLite has one writer anyway. Opening it migrates and prunes.

    `check` is called between tries while others hold the file, and may raise. `notices` are sentences for the user.
    Raises `UsageError` where the journal can't be made or read.
    """

    def __init__(self, directory: Path, now: float, check: Callable[[], None]) -> None:
        self.path = directory / NAME
        self.check = check
        self.notices: list[str] = []
        self._mutex = threading.Lock()
        self._marker = directory / f"{NAME}.damaged"  # damage came out in use; looking for it reads the whole file
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # one that is there keeps its mode
            with FileLock(directory / "journal.lock", check=check):
                self._db = self._open_or_replace(now)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"the journal can't be written in {directory}: {_words(error)}; without it nothing could be resumed",
                hint=_ELSEWHERE,
            ) from error

    def close(self) -> None:
        """Close the file. A second call changes nothing."""
        with self._mutex, suppress(sqlite3.Error):
            self._db.close()

    def run_lock(self, run_id: str) -> Path:
        """Return the file that the live process of a run has locked."""
        return self.path.with_name(f"run-{run_id}.lock")

    def patient(self, waited: float) -> bool:
        """Return whether to wait on for other processes after `waited` seconds. Raises what `check` raises."""
        self.check()
        return waited < BUSY_SECONDS

    @contextmanager
    def write(
        self, wait: Callable[[float], bool] | None = None, begin: str = "BEGIN IMMEDIATE"
    ) -> Iterator[sqlite3.Connection]:
        """Open a transaction: on disk when the block ends, undone when it raises. Raises `JournalError`.

        `wait` is asked between tries as `patient` is. SQLite's write lock is taken at once: a read that becomes a write
        could fail with "database is locked".
        """
        with self._mutex:
            try:
                _persist(lambda: self._db.execute(begin), wait or self.patient)
                with self._db:
                    yield self._db
            except (sqlite3.Error, OSError) as error:
                raise self._explained(error) from error

    def read(self, wait: Callable[[float], bool] | None = None) -> AbstractContextManager[sqlite3.Connection]:
        """Open one consistent view. Raises `JournalError`."""
        return self.write(wait, "BEGIN")

    def _explained(self, error: Exception) -> JournalError:
        if _code(error) in _DAMAGED:
            with suppress(OSError):
                self._marker.touch(mode=0o600)
            hint = "run the same command again: the damaged journal is set aside, and a new one begun"
            return JournalError(f"the journal {self.path} is damaged ({error})", hint=hint, damaged=True)
        return JournalError(f"the journal {self.path} can't be written: {_words(error)}", hint=_ELSEWHERE)

    def _open_or_replace(self, now: float) -> sqlite3.Connection:
        if self._marker.exists():
            self._set_aside("is damaged", now)
        try:
            return _persist(lambda: self._open(now), self.patient)
        except Unreadable as error:
            self._set_aside(str(error), now)
        except sqlite3.DatabaseError as error:
            if _code(error) not in (*_DAMAGED, sqlite3.SQLITE_ERROR):
                raise  # a full disk, a read-only one: the file itself may be well
            self._set_aside(f"is damaged ({error})", now)
        return self._open(now)

    def _open(self, now: float) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its -wal and -shm the same mode
        # SQLite waits in C, where no signal handler runs: a short time only, `_persist` waits for the rest.
        db = sqlite3.connect(self.path, timeout=0.1, isolation_level=None, check_same_thread=False)
        try:
            db.create_function("alive", 1, lambda run_id: run_id is not None and is_held(self.run_lock(run_id)))
            db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
            db.execute(
                "PRAGMA journal_mode = WAL"
            )  # where a file system can't, SQLite keeps a slower, equally safe one
            db.execute("PRAGMA synchronous = NORMAL")
            (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_BYTES // page_bytes}")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            _migrate(db)
            self._prune(db, now)
        except BaseException:
            db.close()
            raise
        return db

    def _prune(self, db: sqlite3.Connection, now: float) -> None:
        with db:
            db.execute("BEGIN IMMEDIATE")  # runs are locked in transactions as well: none is removed half made
            for path in self.path.parent.glob("run-*.lock"):
                if not is_held(path):
                    path.unlink(missing_ok=True)
            stale = rows.prune_runs(db, now)
        if stale:
            self.notices.append(
                f"interrupted runs forgotten by the journal: {stale}, untouched for 90 days or beyond the newest"
                f" {rows.MOST_UNFINISHED}"
            )
        rows.prune_receipts(db, now)

    def _set_aside(self, why: str, now: float) -> None:
        """Rename the journal and what belongs to it, with a notice; delete all but `MOST_ASIDE` of those before."""
        aside = f"{NAME}.aside-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S.%fZ}"
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(NAME + suffix).rename(self.path.with_name(aside + suffix))
        self._marker.unlink(missing_ok=True)
        for old in sorted(self.path.parent.glob(f"{NAME}.aside-*Z"))[:-MOST_ASIDE]:
            for path in old.parent.glob(f"{old.name}*"):
                path.unlink(missing_ok=True)
        self.notices.append(f"the journal {self.path} {why}: it was set aside as {aside}; runs in it can't be resumed")


def _migrate(db: sqlite3.Connection) -> None:
    """Bring the file to `VERSION`, from nothing too. Raises `Unreadable`, and what SQLite raises."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise Unreadable("was written by a newer version of uploader")
    if version == 0 and _tables(db):
        raise Unreadable("is not uploader's")
    while version < VERSION:
        following = version + 1 if version else VERSION
        db.executescript(f"BEGIN IMMEDIATE;{_STEPS[version]}PRAGMA user_version = {following};COMMIT;")
        version = following
    if not _tables(db) >= {"target", "run", "pending", "receipt", "period", "session"}:
        raise Unreadable("lacks tables")


def _tables(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _persist(action: Callable[[], T], wait: Callable[[float], bool]) -> T:
    """Try `action` until others leave the file, while `wait(seconds waited)` says so."""
    began = time.monotonic()
    while True:
        try:
            return action()
        except sqlite3.Error as error:
            if _code(error) not in _BUSY or not wait(time.monotonic() - began):
                raise
        time.sleep(_PAUSE)


def _code(error: BaseException) -> int:
    """Return SQLite's primary code of an error (extended ones add bits above), 0 where it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _words(error: BaseException) -> str:
    if _code(error) == sqlite3.SQLITE_FULL:
        return "no space left"
    if _code(error) in _BUSY or isinstance(error, TimeoutError):
        return f"other programs kept it locked for {BUSY_SECONDS:.0f} s"
    return str(error)
