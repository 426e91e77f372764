"""The SQLite database of a root: one connection on its own thread, which runs all transactions."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from uploader_server.storage.disk import Reserve, no_space

T = TypeVar("T")

VERSION = 10
"""`PRAGMA user_version` of this schema."""
RELEASED = 6
"""That of 1.0.0rc1, which is upgraded: the versions between were never released."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
  id TEXT PRIMARY KEY, category TEXT NOT NULL, expected INTEGER NOT NULL, status TEXT NOT NULL,
  progress INTEGER NOT NULL, created TEXT NOT NULL, touched REAL NOT NULL, given_up INTEGER NOT NULL DEFAULT 0,
  owner TEXT NOT NULL DEFAULT '', secret BLOB NOT NULL DEFAULT x'', holder TEXT NOT NULL DEFAULT '',
  expected_bytes INTEGER NOT NULL DEFAULT 0, finished TEXT NOT NULL DEFAULT '',
  completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, stored_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS files (
  id TEXT PRIMARY KEY, session TEXT NOT NULL, position INTEGER NOT NULL, original_name TEXT NOT NULL,
  relative_path TEXT, size INTEGER NOT NULL, status TEXT NOT NULL, progress INTEGER NOT NULL, speed REAL NOT NULL,
  path TEXT, error TEXT, error_code TEXT, sha256 BLOB, packed INTEGER,
  owner TEXT NOT NULL DEFAULT '', owns INTEGER NOT NULL DEFAULT 1, modified INTEGER, inode INTEGER
);
CREATE INDEX IF NOT EXISTS files_of_session ON files (session, position);
CREATE INDEX IF NOT EXISTS files_of_path ON files (path) WHERE path IS NOT NULL;
CREATE INDEX IF NOT EXISTS files_without_path ON files (session) WHERE path IS NULL;
CREATE TABLE IF NOT EXISTS digests (
  path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, sha256 BLOB NOT NULL,
  changed INTEGER, inode INTEGER
);
CREATE TABLE IF NOT EXISTS tus_uploads (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, upload_key TEXT, session TEXT NOT NULL, category TEXT NOT NULL,
  metadata TEXT, concat TEXT, length INTEGER, status TEXT NOT NULL, touched REAL NOT NULL, counted INTEGER,
  path TEXT, sha256 BLOB NOT NULL, data TEXT, file_id TEXT, holder TEXT NOT NULL DEFAULT '',
  completes INTEGER
);
CREATE INDEX IF NOT EXISTS tus_uploads_of_session ON tus_uploads (session);
CREATE UNIQUE INDEX IF NOT EXISTS tus_upload_keys ON tus_uploads (owner, upload_key);
CREATE UNIQUE INDEX IF NOT EXISTS tus_uploads_of_file ON tus_uploads (file_id);
CREATE TABLE IF NOT EXISTS packs (
  owner TEXT NOT NULL, key TEXT NOT NULL, manifest BLOB NOT NULL, session TEXT NOT NULL,
  first TEXT NOT NULL, last TEXT NOT NULL, touched REAL NOT NULL, PRIMARY KEY (owner, key)
);
CREATE INDEX IF NOT EXISTS packs_touched ON packs (touched);
CREATE INDEX IF NOT EXISTS packs_of_files ON packs (first, last);
CREATE TABLE IF NOT EXISTS place (inode INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS clock (id INTEGER PRIMARY KEY CHECK (id = 1), now REAL NOT NULL);
"""

# Which of several uploads had linked a file was not recorded: the first one has. `packed` is that of `EXISTING`.
_FROM_RELEASED = """
ALTER TABLE digests ADD COLUMN changed INTEGER;
ALTER TABLE digests ADD COLUMN inode INTEGER;
ALTER TABLE files ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE files ADD COLUMN owns INTEGER NOT NULL DEFAULT 1;
ALTER TABLE files ADD COLUMN modified INTEGER;
ALTER TABLE files ADD COLUMN inode INTEGER;
ALTER TABLE sessions ADD COLUMN completed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN failed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE files SET owner = coalesce(
  (SELECT owner FROM tus_uploads WHERE file_id = files.id), (SELECT owner FROM sessions WHERE id = files.session), ''
);
UPDATE files SET owns = 0 WHERE packed = 1;
UPDATE files SET owns = 0 WHERE owns AND EXISTS (
  SELECT 1 FROM files AS first WHERE first.path = files.path AND first.owns AND first.rowid < files.rowid
);
UPDATE sessions SET (completed, failed, stored_bytes) = (
  SELECT count(*) FILTER (WHERE status = 'completed'), count(*) FILTER (WHERE status = 'failed'),
    coalesce(sum(size) FILTER (WHERE status = 'completed'), 0)
  FROM files WHERE session = sessions.id
);
"""
EXISTING = 1  # the value of `files.packed` for an equal file that was stored before
MOST_TOGETHER = 500  # maximum actions in one transaction


class VersionError(Exception):
    """The database was created by another version of the server."""


class _Job(NamedTuple):
    action: Callable[[sqlite3.Connection], Any]
    writes: bool
    frees: bool
    done: Future[Any]


class Database:
    """Runs actions on the database at `path`; actions that queue during a commit share the next transaction.

    An action gets the connection and returns the result for its caller. It may run twice: if one action of a group
    fails, the group is rolled back and each action runs in its own transaction, so only the caller of the failed one
    gets its error. An error that means a full disk or a used quota is raised as OSError (ENOSPC, EDQUOT).

    What frees space doesn't wait for space: on a full disk an action with `frees` is repeated with the space of a
    reserve, which is filled again afterwards.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        """Open the database. Raises OSError, sqlite3.Error, VersionError.

        With `durable` commits survive a power loss.
        """
        self._directory = path.parent
        self._reserve = Reserve(path.parent / "server.reserve")
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._serve, args=(path, durable, opened), name="uploader-database", daemon=True
        )
        self._thread.start()
        opened.result()

    async def transaction(self, action: Callable[[sqlite3.Connection], T], *, frees: bool = False) -> T:
        """Run an action that writes, and commit. Raises the action's error after a rollback.

        With `frees` the action removes data, so it may use the reserve.
        """
        return await asyncio.wrap_future(self.submit(action, writes=True, frees=frees))

    async def read(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run an action that only reads. Raises the action's error."""
        return await asyncio.wrap_future(self.submit(action, writes=False))

    def wait(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run `transaction` and block until it is done; not for use on an event loop."""
        return self.submit(action, writes=True).result()

    def close(self) -> None:
        """Finish queued actions, then close. May be called twice."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def submit(self, action: Callable[[sqlite3.Connection], T], *, writes: bool, frees: bool = False) -> Future[T]:
        if self._closed:
            raise sqlite3.ProgrammingError("the database is closed")
        done: Future[T] = Future()
        self._jobs.put(_Job(action, writes, frees, done))
        return done

    def _serve(self, path: Path, durable: bool, opened: Future[None]) -> None:
        """Run queued actions; only this thread uses the connection."""
        try:
            connection = self._open(path, durable)
        except Exception as error:  # noqa: BLE001 - re-raised in the constructor
            opened.set_exception(error)
            return
        self._reserve.fill()
        opened.set_result(None)
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            while len(jobs) < MOST_TOGETHER and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    self._jobs.put(None)
                    break
                jobs.append(following)
            self._run(connection, [job for job in jobs if job.done.set_running_or_notify_cancel()])
        connection.close()

    def _open(self, path: Path, durable: bool) -> sqlite3.Connection:
        """Open the database, on a full disk with the space of the reserve: files can then be deleted."""
        try:
            return _open(path, durable)
        except sqlite3.Error as error:
            if no_space(error, self._directory) is None:
                raise
            self._reserve.release()
            return _open(path, durable)

    def _run(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """Run jobs in one transaction or, if that fails, each in its own, and set their results."""
        if not jobs:
            return
        try:
            results = self._commit(connection, jobs)
        except Exception as error:  # noqa: BLE001 - re-raised in the caller
            if len(jobs) == 1:
                jobs[0].done.set_exception(error)
                return
            for job in jobs:
                self._run(connection, [job])
        else:
            for job, result in zip(jobs, results, strict=True):
                job.done.set_result(result)

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[Any]:
        """Run jobs in one transaction; a single one with `frees` again with the space of the reserve if necessary."""
        actions, writes = [job.action for job in jobs], any(job.writes for job in jobs)
        try:
            results = run_together(connection, actions, writes=writes)
            if any(job.frees for job in jobs):
                self._reserve.fill()
            return results
        except sqlite3.Error as error:
            full = no_space(error, self._directory)
            if full is None:
                raise
            if len(jobs) > 1 or not jobs[0].frees:
                raise full from error
        self._reserve.release()
        try:
            _checkpoint(connection)
            return run_together(connection, actions, writes=writes)
        except sqlite3.Error as error:
            raise no_space(error, self._directory) or error from None
        finally:  # the reserve is there again before the caller continues
            _checkpoint(connection)
            self._reserve.fill()


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the database, and free its space."""
    with contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _open(path: Path, durable: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=10)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first page is written
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, RELEASED, VERSION):  # 0: it is new, or was not finished
            raise VersionError(f"its database has version {version}, and this server reads {RELEASED} and {VERSION}")
        connection.executescript(_SCHEMA)
        if version < VERSION:
            changes = _FROM_RELEASED if version else ""
            connection.executescript(f"BEGIN IMMEDIATE;{changes}PRAGMA user_version = {VERSION};COMMIT;")
    except BaseException:
        connection.close()
        raise
    return connection


def _without_cursor(result: Any) -> Any:
    """Return None for a cursor: freed by another thread, it would reset a statement that this one is running."""
    return None if isinstance(result, sqlite3.Cursor) else result


def run_together(
    connection: sqlite3.Connection, actions: list[Callable[[sqlite3.Connection], Any]], *, writes: bool
) -> list[Any]:
    """Run actions in one transaction. Raises the error of an action or of the commit, after a rollback."""
    connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        results = [_without_cursor(action(connection)) for action in actions]
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return results
