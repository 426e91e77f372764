"""The journal's file: tables and their versions, opening and setting aside, transactions, pruning."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.transfer.journal.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

NAME = "journal.sqlite3"
VERSION = 4
DAY = 86_400.0
KEPT_SECONDS = 90 * DAY
"""How long receipts, and runs that nobody resumes, are remembered."""
MOST_FINISHED = 50
"""Finished runs in the list."""
MOST_UNFINISHED = 1000
"""Unfinished runs in the list; the oldest beyond these are forgotten."""
MOST_RECEIPTS = 1_000_000
"""Receipts kept, give or take a period; those that an unfinished run may ask for come on top."""
PERIOD_RECEIPTS = 100_000
"""Receipts after which a new period begins."""
BUSY_SECONDS = 60.0
"""How long a transaction waits for other processes: they hold the file for milliseconds at a time."""
MOST_ASIDE = 5
"""Journals set aside that are kept."""

_BATCH = 10_000
_PAUSE = 0.01
_WAL_PAGES = 128
_WAL_BYTES = 512 * 1024
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_ELSEWHERE = "free space or rights there, or name another directory with --state-dir"

# run.number stays the same for a run's life, run.id is new each time it is resumed. A period begins with each run, and
# after PERIOD_RECEIPTS: periods only grow, so that `period > run.since` means "since this run began" whatever the clock
# did, and pruning finds the oldest receipts without an index, which would hold each path a second time.
# period.receipts is an upper bound: a receipt that is replaced moves to a new period. Paths are bytes: they need not be
# text. A receipt's location is text, or the number of bytes at the end of its path that follow target.prefix.
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
  id INTEGER PRIMARY KEY, server TEXT NOT NULL, destination TEXT NOT NULL, prefix TEXT, UNIQUE (server, destination)
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
_STEP_1 = """
ALTER TABLE pending ADD COLUMN checked_until INTEGER NOT NULL DEFAULT 0;
CREATE TABLE part (
  target INTEGER NOT NULL, path BLOB NOT NULL, number INTEGER NOT NULL, start INTEGER NOT NULL,
  size INTEGER NOT NULL, upload_key TEXT NOT NULL, url TEXT, checked_until INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (target, path, number)
) WITHOUT ROWID;
"""
_STEP_2 = """
ALTER TABLE pending ADD COLUMN pledged_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE part ADD COLUMN pledged_until INTEGER NOT NULL DEFAULT 0;
"""
# Version 3 had a table of parts, and receipts with the run's id and a serial number. run.since was a serial.
_STEP_3 = """
ALTER TABLE target ADD COLUMN prefix TEXT;
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
    1: _STEP_1,
    2: _STEP_2,
    3: "ALTER TABLE receipt RENAME TO old;" + _RECEIPTS + _STEP_3,
}
_NAMES = frozenset({"target", "run", "pending", "receipt", "period", "session"})


class Unreadable(Exception):
    """The file is no journal of this version or an older one; `str(error)` says why, to follow "it"."""


class JournalError(UploaderError):
    """The journal could not be read or written. `damaged`: what is in the file makes no sense."""

    def __init__(self, message: str, *, hint: str, damaged: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.damaged = damaged


class Store:
    """One connection for all threads, behind a lock: SQLite has one writer anyway.

    `check` is called between tries while others hold the file, and may raise. `notices` are sentences about a journal
    that was set aside. Raises `UsageError` where the journal can't be made or read.
    """

    def __init__(self, directory: Path, now: float, check: Callable[[], None] = lambda: None) -> None:
        self.path = directory / NAME
        self.check = check
        self.notices: list[str] = []
        self._mutex = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # one that is there keeps its mode
            with locked(directory / "journal.lock", check):
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

    def patient(self, waited: float) -> bool:
        """Whether to wait on for other processes after `waited` seconds. Raises what `check` raises."""
        self.check()
        return waited < BUSY_SECONDS

    @contextmanager
    def write(self, wait: Callable[[float], bool] | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction: on disk when the block ends, undone when it raises. Raises `JournalError`.

        `wait` is asked between tries as `patient` is. SQLite's write lock is taken at once: a read that becomes a write
        could fail with "database is locked".
        """
        with self._transaction("BEGIN IMMEDIATE", wait) as db:
            yield db

    @contextmanager
    def read(self, wait: Callable[[float], bool] | None = None) -> Iterator[sqlite3.Connection]:
        """One consistent view. Raises `JournalError`."""
        with self._transaction("BEGIN", wait) as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str, wait: Callable[[float], bool] | None) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            try:
                _persist(lambda: self._db.execute(begin), wait or self.patient)
                yield self._db
                self._db.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                self._undo()
                raise self._explained(error) from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _explained(self, error: Exception) -> JournalError:
        if _code(error) in _DAMAGED:
            with suppress(OSError):
                self._damaged.touch(mode=0o600)
            hint = "run the same command again: the damaged journal is set aside, and a new one begun"
            return JournalError(f"the journal {self.path} is damaged ({error})", hint=hint, damaged=True)
        return JournalError(f"the journal {self.path} can't be written: {_words(error)}", hint=_ELSEWHERE)

    @property
    def _damaged(self) -> Path:
        """Marks a journal whose damage came out in use: a full check at each start would read all of it."""
        return self.path.with_name(f"{NAME}.damaged")

    def _open_or_replace(self, now: float) -> sqlite3.Connection:
        if self._damaged.exists():
            self._set_aside("is damaged", now)
        try:
            return _persist(self._open, self.patient)
        except Unreadable as error:
            self._set_aside(str(error), now)
        except sqlite3.DatabaseError as error:
            if _code(error) not in (*_DAMAGED, sqlite3.SQLITE_ERROR):
                raise  # a full disk, a read-only one: the file itself may be well
            self._set_aside(f"is damaged ({error})", now)
        return self._open()

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its -wal and -shm the same mode
        # SQLite waits in C, where no signal handler runs: a short time only, the rest is waited for in `_persist`.
        db = sqlite3.connect(self.path, timeout=0.1, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                "journal_mode = WAL",  # where a file system can't, SQLite keeps a slower, equally safe one
                "synchronous = NORMAL",
                f"wal_autocheckpoint = {_WAL_PAGES}",
                f"journal_size_limit = {_WAL_BYTES}",
            ):
                db.execute(f"PRAGMA {pragma}")
            migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, why: str, now: float) -> None:
        """Rename the journal and what belongs to it, with a notice. The oldest such files beyond `MOST_ASIDE` go."""
        aside = self.path.with_name(f"{NAME}.aside-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S.%fZ}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self.path.with_name(NAME + suffix).rename(aside.with_name(aside.name + suffix))
        self._damaged.unlink(missing_ok=True)
        old = sorted(path for path in self.path.parent.glob(f"{NAME}.aside-*Z"))[:-MOST_ASIDE]
        for path in (path.with_name(path.name + suffix) for path in old for suffix in ("", "-wal", "-shm")):
            path.unlink(missing_ok=True)
        self.notices.append(
            f"the journal {self.path} {why}: it was set aside as {aside.name}; runs in it can't be resumed"
        )


def migrate(db: sqlite3.Connection) -> None:
    """Bring the file behind `db` to `VERSION`, from nothing too. Raises `Unreadable`, and what SQLite raises."""
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise Unreadable("was written by a newer version of uploader")
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if version == 0 and names:
        raise Unreadable("is not uploader's")
    while version < VERSION:
        following = VERSION if version == 0 else version + 1
        db.executescript(f"BEGIN IMMEDIATE;{_STEPS[version]}PRAGMA user_version = {following};COMMIT;")
        version = following
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not names >= _NAMES:
        raise Unreadable("lacks tables")


def prune_runs(db: sqlite3.Connection, now: float) -> list[tuple[int, str]]:
    """Forget finished runs beyond the bound, and what belonged to runs that are gone.

    Returns (number, id) of unfinished runs that are too old or too many: the caller knows which are alive.
    """
    db.execute(
        "DELETE FROM run WHERE finished AND number NOT IN"
        " (SELECT number FROM run WHERE finished ORDER BY updated_at DESC, number DESC LIMIT ?)",
        (MOST_FINISHED,),
    )
    for table in ("pending", "session"):
        db.execute(f"DELETE FROM {table} WHERE run NOT IN (SELECT number FROM run)")  # noqa: S608  # names from here
    db.execute(
        "DELETE FROM target WHERE id NOT IN (SELECT target FROM run) AND id NOT IN (SELECT target FROM pending)"
        " AND NOT EXISTS (SELECT 1 FROM receipt WHERE receipt.target = target.id)"
    )
    return db.execute(
        "SELECT number, id FROM run WHERE NOT finished AND (updated_at < ? OR number NOT IN"
        " (SELECT number FROM run WHERE NOT finished ORDER BY updated_at DESC, number DESC LIMIT ?))",
        (now - KEPT_SECONDS, MOST_UNFINISHED),
    ).fetchall()


def prune_receipts(store: Store, now: float) -> None:
    """Delete the receipts of periods that are too old (a day late) or too many, some at a time: others may write.

    All receipts are read for that, so it is done only when a period is to go.
    """
    with store.write() as db:
        last = max(_outdated(db, now), _surplus(db))
    after: tuple[int, bytes] | None = (0, b"") if last >= 0 else None
    while after is not None:
        with store.write() as db:
            rows = db.execute(
                "SELECT target, path, period FROM receipt WHERE (target, path) > (?, ?) ORDER BY target, path LIMIT ?",
                (*after, _BATCH),
            ).fetchall()
            old = [row[:2] for row in rows if row[2] <= last]
            db.executemany("DELETE FROM receipt WHERE target = ? AND path = ?", old)
            after = rows[-1][:2] if len(rows) == _BATCH else None
    with store.write() as db:
        db.execute("UPDATE period SET receipts = 0 WHERE number <= ?", (last,))
        db.execute("DELETE FROM period WHERE NOT receipts AND number < (SELECT max(number) FROM period)")


def _outdated(db: sqlite3.Connection, now: float) -> int:
    """The last period that is older than `KEPT_SECONDS`, -1 for none: also while the oldest is not a day older."""
    (oldest,) = db.execute("SELECT min(last_at) FROM period WHERE receipts").fetchone()
    if oldest is None or oldest > now - KEPT_SECONDS - DAY:
        return -1
    young = db.execute("SELECT min(number) FROM period WHERE receipts AND last_at >= ?", (now - KEPT_SECONDS,))
    (first,) = young.fetchone()
    return int(first - 1 if first is not None else db.execute("SELECT max(number) FROM period").fetchone()[0])


def _surplus(db: sqlite3.Connection) -> int:
    """The last period beyond `MOST_RECEIPTS` that no unfinished run asks for, -1 for none."""
    if _beyond(db) < 0:
        return -1
    counted = db.execute("SELECT count(*), period FROM receipt GROUP BY period").fetchall()
    db.execute("UPDATE period SET receipts = 0")
    db.executemany("UPDATE period SET receipts = ? WHERE number = ?", counted)
    return _beyond(db)


def _beyond(db: sqlite3.Connection) -> int:
    (wanted,) = db.execute("SELECT min(since) FROM run WHERE NOT finished").fetchone()
    kept = 0
    for number, receipts in db.execute("SELECT number, receipts FROM period WHERE receipts ORDER BY number DESC"):
        if kept >= MOST_RECEIPTS and (wanted is None or number <= wanted):
            return int(number)
        kept += receipts
    return -1


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
    """SQLite's primary code of an error (extended ones add bits above); 0 where it has none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _words(error: BaseException) -> str:
    if _code(error) == sqlite3.SQLITE_FULL:
        return "no space left"
    if _code(error) in _BUSY or isinstance(error, TimeoutError):
        return f"other programs kept it locked for {BUSY_SECONDS:.0f} s"
    return str(error)
