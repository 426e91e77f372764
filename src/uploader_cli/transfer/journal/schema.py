"""The journal's file: tables, opening, setting aside, transactions, pruning, locks."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.private_files import check_directory, check_file
from uploader_cli.settings.places import STATE_IN_MEMORY
from uploader_cli.transfer.journal import receipts
from uploader_cli.transfer.journal.locking import OURS, error_code, is_locked, locked, persist, words
from uploader_cli.transfer.journal.migrations import MIGRATED, changes
from uploader_cli.transfer.journal.run_rows import is_run_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from sqlite3 import Connection

    from uploader_cli.transfer.journal.locking import Checkpoint

NAME = "journal.sqlite3"
VERSION = 14
KEPT_SECONDS = 90 * 86_400.0  # for unfinished runs, and for receipts beyond the newest ones
MOST_FINISHED = 50  # runs in the list
MOST_UNFINISHED = 1000
MOST_ASIDE = 5  # kept journals that were set aside
# A checkpoint costs two fsyncs. Half-size pages keep the WAL under 1 MB without more checkpoints. It is overwritten,
# not truncated: then an fsync does not write its size.
_PAGE_BYTES = 2048
_CHECKPOINT_BYTES = 768 * 1024
_WAL_BYTES = 1_000_000
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_ELSEWHERE = "free space or rights there, or name another directory with --state-dir"
_FILES = ("", "-wal", "-shm", "-journal")  # the journal, and what SQLite opens with it

# run.number stays the same for a run's life, run.id is new each time it is resumed; run.since is the number of the last
# receipt before it began.
_RUNS = """
CREATE TABLE target (
  id INTEGER PRIMARY KEY, server TEXT NOT NULL, destination TEXT NOT NULL, UNIQUE (server, destination)
);
CREATE TABLE run (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, earlier TEXT NOT NULL DEFAULT '',
  target INTEGER NOT NULL, identity TEXT NOT NULL, arguments TEXT NOT NULL, started_at REAL NOT NULL,
  updated_at REAL NOT NULL, finished INTEGER NOT NULL DEFAULT 0, since INTEGER NOT NULL,
  files INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, outcome TEXT NOT NULL DEFAULT '{}'
);
CREATE TABLE pending (
  target INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, run INTEGER NOT NULL,
  upload_key TEXT NOT NULL, url TEXT, session TEXT, checked_until INTEGER NOT NULL DEFAULT 0,
  pledged_until INTEGER NOT NULL DEFAULT 0, uncertain INTEGER NOT NULL DEFAULT 0, parts TEXT NOT NULL DEFAULT '[]',
  server_id TEXT, sent_until INTEGER, ending TEXT NOT NULL DEFAULT '', replaced TEXT NOT NULL DEFAULT '[]',
  awaited TEXT, identity BLOB, PRIMARY KEY (target, path)
) WITHOUT ROWID;
CREATE TABLE session (
  run INTEGER NOT NULL, id TEXT NOT NULL, category TEXT NOT NULL DEFAULT '', secret TEXT NOT NULL DEFAULT '',
  open INTEGER NOT NULL DEFAULT 1, UNIQUE (run, id)
);
"""
_OUTDATED_RUNS = """
DELETE FROM run WHERE number IN (
  SELECT number FROM (
    SELECT *, row_number() OVER (PARTITION BY finished ORDER BY updated_at DESC, number DESC) AS place FROM run
  ) WHERE CASE WHEN finished THEN place > ? ELSE (place > ? OR updated_at < ?) AND NOT alive(CAST(id AS BLOB)) END
) RETURNING finished
"""


class Unreadable(Exception):
    """The file is no journal of this version; `str(error)` follows "it"."""


class JournalError(UploaderError):
    """The journal could not be read or written."""


class Store:
    """The journal's file in `directory`: created, set aside if unreadable, and pruned. Raise `UsageError`.

    All files are private, or nothing is opened (`private_files`): a row chooses where files are sent.

    With `STATE_IN_MEMORY` it is SQLite's own `:memory:`: no other process sees it, and `close` deletes it. `notices`
    are sentences for the user. `now` returns seconds since the epoch. `checkpoint` is called while other processes
    use the journal, and raises `Interrupted`. All threads share one connection and a lock.
    """

    def __init__(
        self, directory: Path, *, now: Callable[[], float] = time.time, checkpoint: Checkpoint = lambda: None
    ) -> None:
        self.now, self.checkpoint = now, checkpoint
        self.notices: tuple[str, ...] = ()
        self.damaged = False
        self._raised: BaseException | None = None
        self.at_close = ExitStack()
        self._mutex = threading.Lock()
        self._in_memory = directory == STATE_IN_MEMORY
        if self._in_memory:
            self._path = self._marker = Path(":memory:")
            self.db = self._open()
            return
        self._path = directory / NAME
        self._marker = directory / f"{NAME}.damaged"  # damage found in use
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # an existing one keeps its mode
            check_directory(directory, OURS)
            with locked(directory / "journal.lock", checkpoint):
                self.db = self._open_or_replace()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"the journal can't be written in {directory}: {words(error)}; without it nothing could be resumed",
                hint=_ELSEWHERE,
            ) from error

    def close(self) -> None:
        """Close the file; an unfinished run counts as interrupted."""
        self.at_close.close()
        with self._mutex, suppress(sqlite3.Error):
            self.db.close()

    @contextmanager
    def live(self, run_id: str) -> Iterator[None]:
        """Lock a run, so that other processes see that it is alive. Raise `OSError`."""
        if self._in_memory:
            yield
            return
        with locked(self._run_lock(run_id), self.checkpoint, 1.0):
            yield
        with suppress(OSError):  # a deleted directory
            self._run_lock(run_id).unlink()

    def _run_lock(self, run_id: str) -> Path:
        return self._path.with_name(f"run-{run_id}.lock")

    @contextmanager
    def transaction(
        self, kind: str, checkpoint: Checkpoint | None = None, seconds: float | None = None
    ) -> Iterator[Connection]:
        """Open a transaction: committed at the end of the block, undone on errors. Raise `JournalError`."""
        with self._mutex:
            try:
                persist(lambda: self._begin(kind), checkpoint or self.checkpoint, seconds)
                with self.db:
                    yield self.db
            except (sqlite3.Error, OSError) as error:
                what, hint = f"can't be written: {words(error)}", _ELSEWHERE
                if error_code(error) in _DAMAGED:
                    self.damaged = True
                    with suppress(OSError):
                        self._marker.touch(mode=0o600)
                    hint = "run the same command again: the damaged journal is set aside, and a new one is created"
                    what = f"is damaged ({error})"
                failure = JournalError(f"the journal {self._path} {what}", hint=hint)
                raise failure if isinstance(self._raised, Exception | None) else self._raised from error

    def _begin(self, kind: str) -> None:
        """Begin a transaction that has its lock: a deferred one takes none, and the first query could be refused."""
        self.db.execute(f"BEGIN {kind}")
        if kind != "DEFERRED":
            return
        try:
            self.db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except sqlite3.Error:
            self.db.rollback()
            raise

    read = partialmethod(transaction, "DEFERRED")
    write = partialmethod(transaction, "IMMEDIATE")  # upgrading a read could fail

    def _open_or_replace(self) -> Connection:
        if self._marker.exists():
            self._set_aside("is damaged")
        try:
            return persist(self._open, self.checkpoint)
        except Unreadable as error:
            self._set_aside(str(error))
        except sqlite3.DatabaseError as error:
            if self._raised is not None or error_code(error) not in (*_DAMAGED, sqlite3.SQLITE_ERROR):
                raise (self._raised or error) from None  # full or read-only disk: the file may be intact
            self._set_aside(f"is damaged ({error})")
        return self._open()

    def _set_aside(self, why: str) -> None:
        aside = f"{NAME}.aside-{datetime.fromtimestamp(self.now(), UTC):%Y%m%dT%H%M%S.%fZ}"
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._path.with_name(NAME + suffix).rename(self._path.with_name(aside + suffix))
        self._marker.unlink(missing_ok=True)
        for old in sorted(self._path.parent.glob(f"{NAME}.aside-*Z"))[:-MOST_ASIDE]:
            for path in old.parent.glob(f"{old.name}*"):
                path.unlink(missing_ok=True)
        self.notices += (f"the journal {self._path} {why}: it was set aside as {aside}; runs in it can't be resumed",)

    def _open(self) -> Connection:
        if not self._in_memory:
            with suppress(FileExistsError):  # SQLite gives -wal and -shm its mode
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._check_files()
        # Short, because no signal handler runs while SQLite waits; `persist` repeats.
        db = sqlite3.connect(self._path, timeout=0.1, isolation_level=None, check_same_thread=False)
        try:
            db.create_function("alive", 1, self._is_alive)
            db.text_factory = _text
            # For new files. File systems without WAL use a slower, safe mode.
            db.executescript(
                f"PRAGMA page_size = {_PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
            )
            (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
            pages = _CHECKPOINT_BYTES // page_bytes
            db.executescript(f"PRAGMA wal_autocheckpoint = {pages}; PRAGMA journal_size_limit = {_WAL_BYTES}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if not self._in_memory:
                self._check_files()  # again: in a sticky directory another user may have been quicker
            if version == 0 and db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                raise Unreadable("is not uploader's")
            if version not in (0, MIGRATED, VERSION):
                raise Unreadable(f"was written by {'a newer' if version > VERSION else 'an early'} version of uploader")
            if version != VERSION:
                needed = changes(db) if version else _RUNS + receipts.TABLE
                db.executescript(f"BEGIN IMMEDIATE;{needed}PRAGMA user_version = {VERSION};COMMIT;")
            if not self._in_memory:
                self._prune(db)
        except BaseException:
            db.close()
            raise
        return db

    def _check_files(self) -> None:
        """Raise `UsageError` if a file that SQLite opens is not private."""
        for suffix in _FILES:
            check_file(self._path.with_name(NAME + suffix), OURS)

    def _is_alive(self, written: bytes | None) -> bool:
        """Return whether a process has locked a run; not so for an ID of another shape, or none."""
        run_id = (written or b"").decode(errors="replace")
        try:
            return is_run_id(run_id) is not None and is_locked(self._run_lock(run_id))
        except BaseException as error:  # as of a signal: SQLite turns it into an error of its own
            self._raised = error
            raise

    def _prune(self, db: Connection) -> None:
        with db:
            db.execute("BEGIN IMMEDIATE")  # runs are also locked in transactions
            for path in self._path.parent.glob("run-*.lock"):
                if not is_locked(path):
                    path.unlink(missing_ok=True)
            old = self.now() - KEPT_SECONDS
            deleted = db.execute(_OUTDATED_RUNS, (MOST_FINISHED, MOST_UNFINISHED, old)).fetchall()
            receipts.prune_receipts(db, old)
            db.execute("DELETE FROM pending WHERE run NOT IN (SELECT number FROM run)")
            db.execute("DELETE FROM session WHERE run NOT IN (SELECT number FROM run)")
            db.execute(
                "DELETE FROM target WHERE id NOT IN (SELECT target FROM run)"
                " AND NOT EXISTS (SELECT 1 FROM receipt WHERE receipt.target = target.id)"
            )
        if stale := deleted.count((0,)):
            reason = f"untouched for 90 days or beyond the newest {MOST_UNFINISHED}"
            self.notices += (f"interrupted runs removed from the journal: {stale}, {reason}",)


def _text(written: bytes) -> str | bytes:
    """Return a text; one of another program that is not UTF-8 stays bytes, as a value of another shape."""
    try:
        return written.decode()
    except UnicodeDecodeError:
        return written
