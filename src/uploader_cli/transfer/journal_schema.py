"""The journal's tables, their versions and what is pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

VERSION = 3
DAY = 86_400.0
KEPT_SECONDS = 90 * DAY
"""How long receipts, and runs that nobody goes on with, are remembered."""
MOST_FINISHED = 50
"""Finished runs in the list."""
MOST_UNFINISHED = 1000
"""Unfinished runs in the list; the oldest beyond these are forgotten."""
MOST_RECEIPTS = 1_000_000
"""Receipts kept (some 400 bytes each); those that an unfinished run may ask for come on top."""
_BATCH = 10_000

# run.number is a run's for life, run.id is new each time it is gone on with. receipt.serial only grows, so that
# `serial > run.since` means "since this run began" whatever the clock did. Paths are bytes: they need not be text.
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
  checked_until INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (target, path)
) WITHOUT ROWID;
CREATE TABLE receipt (
  serial INTEGER PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, run TEXT NOT NULL, server_id TEXT, location TEXT, checksum TEXT,
  verified INTEGER NOT NULL, completed_at REAL NOT NULL,
  UNIQUE (target, path)
);
CREATE TABLE session (run INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (run, id));
"""
_PARTS = """
CREATE TABLE part (
  target INTEGER NOT NULL, path BLOB NOT NULL, number INTEGER NOT NULL, start INTEGER NOT NULL,
  size INTEGER NOT NULL, upload_key TEXT NOT NULL, url TEXT, checked_until INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (target, path, number)
) WITHOUT ROWID;
"""
_PLEDGES = """
ALTER TABLE pending ADD COLUMN pledged_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE part ADD COLUMN pledged_until INTEGER NOT NULL DEFAULT 0;
"""
_STEPS = {
    0: _TABLES + _PARTS + _PLEDGES,
    # Version 1 knew neither parts nor what had been checked.
    1: "ALTER TABLE pending ADD COLUMN checked_until INTEGER NOT NULL DEFAULT 0;" + _PARTS,
    2: _PLEDGES,  # nor did version 2 know what was under way
}
_NAMES = frozenset({"target", "run", "pending", "part", "receipt", "session"})


class Unreadable(Exception):
    """The file is no journal of this version or an older one; `str(error)` says why, to follow "it"."""


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
    db.execute("DELETE FROM part WHERE (target, path) NOT IN (SELECT target, path FROM pending)")
    db.execute(
        "DELETE FROM target WHERE id NOT IN (SELECT target FROM run) AND id NOT IN (SELECT target FROM pending)"
        " AND NOT EXISTS (SELECT 1 FROM receipt WHERE receipt.target = target.id)"
    )
    return db.execute(
        "SELECT number, id FROM run WHERE NOT finished AND (updated_at < ? OR number NOT IN"
        " (SELECT number FROM run WHERE NOT finished ORDER BY updated_at DESC, number DESC LIMIT ?))",
        (now - KEPT_SECONDS, MOST_UNFINISHED),
    ).fetchall()


def prune_receipts(db: sqlite3.Connection, now: float) -> bool:
    """Delete some receipts that are too old or too many; True while there are more: others may write in between.

    Serials stand in for ages, so that no more is looked at than is deleted.
    """
    last, wanted = db.execute(
        "SELECT coalesce(max(serial), 0), (SELECT min(since) FROM run WHERE NOT finished) FROM receipt"
    ).fetchone()
    beyond = last - MOST_RECEIPTS
    if wanted is not None:
        beyond = min(beyond, wanted)
    row = db.execute(
        "SELECT serial FROM receipt WHERE completed_at >= ? ORDER BY serial LIMIT 1", (now - KEPT_SECONDS,)
    ).fetchone()
    beyond = max(beyond, row[0] - 1 if row else last)
    chunk = "SELECT serial FROM receipt WHERE serial <= ? ORDER BY serial LIMIT ?"
    return db.execute(f"DELETE FROM receipt WHERE serial IN ({chunk})", (beyond, _BATCH)).rowcount == _BATCH  # noqa: S608
