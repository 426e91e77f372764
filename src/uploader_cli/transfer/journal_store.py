"""The journal's file: opening, setting aside, transactions, and SQLite's errors in words."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.transfer.journal_schema import Unreadable, migrate
from uploader_cli.transfer.run_lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "journal.sqlite3"
BUSY_SECONDS = 60.0
"""How long a write waits for other processes: they hold the file for less than a millisecond at a time."""
MOST_ASIDE = 5
"""Journals set aside that are kept."""
_WAL_BYTES = 8 * 1024 * 1024
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_ELSEWHERE = "free space or rights there, or name another directory with --state-dir"


class Store:
    """One connection for all threads, behind a lock: SQLite has one writer anyway, and this way none ever waits
    in SQLite's own way, by sleeping. `notices` are sentences about a journal that was set aside.

    Raises `UsageError` where the journal can't be made or read.
    """

    def __init__(self, directory: Path, now: float) -> None:
        self.path = directory / NAME
        self.notices: list[str] = []
        self._lock = threading.RLock()
        try:
            if not directory.exists():
                directory.mkdir(parents=True, mode=0o700)  # one that is there stays as its owner wants it
            with locked(directory / "journal.lock"):
                self._db = self._open_or_replace(now)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"the journal can't be written in {directory}: {_words(error)}; without it nothing could be resumed",
                hint=_ELSEWHERE,
            ) from error

    def close(self) -> None:
        """Give the file back. A second call changes nothing."""
        with self._lock, suppress(sqlite3.Error):
            self._db.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: on disk when the block ends, undone when it raises. Raises `UploaderError`.

        It takes SQLite's write lock at once: a read that becomes a write could fail with "database is locked".
        """
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view. Raises `UploaderError`."""
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute(begin)
                yield self._db
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise self._told(error) from error
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _told(self, error: sqlite3.Error) -> UploaderError:
        if _code(error) in _DAMAGED:
            with suppress(OSError):
                self._damaged.touch(mode=0o600)
            return UploaderError(
                f"the journal {self.path} is damaged ({error})",
                hint="run the same command again: the damaged journal is set aside, and a new one begun",
            )
        return UploaderError(
            f"the journal {self.path} can't be written: {_words(error)}", hint=f"{_ELSEWHERE}; then `uploader resume`"
        )

    @property
    def _damaged(self) -> Path:
        """Marks a journal whose damage came out in use: a full check at each start would read all of it."""
        return self.path.with_name(f"{NAME}.damaged")

    def _open_or_replace(self, now: float) -> sqlite3.Connection:
        if self._damaged.exists():
            self._set_aside("is damaged", now)
        try:
            return self._open()
        except Unreadable as error:
            self._set_aside(str(error), now)
        except sqlite3.DatabaseError as error:
            if _code(error) not in (*_DAMAGED, sqlite3.SQLITE_ERROR):
                raise  # a full disk, a read-only one: the file itself may be well
            self._set_aside(f"is damaged ({error})", now)
        return self._open()

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite gives its -wal and -shm the same mode
        db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.execute(
                "PRAGMA journal_mode = WAL"
            )  # where a file system can't, SQLite keeps a slower, equally safe one
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, why: str, now: float) -> None:
        """Rename the journal and what belongs to it; say so. The oldest such files beyond `MOST_ASIDE` go."""
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


def _code(error: BaseException) -> int:
    """SQLite's primary code of an error (extended ones add bits above); 0 where it has none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _words(error: BaseException) -> str:
    if _code(error) == sqlite3.SQLITE_FULL:
        return "no space left"
    if _code(error) in _BUSY or isinstance(error, TimeoutError):
        return f"other runs kept it to themselves for {BUSY_SECONDS:.0f} s"
    return str(error)
