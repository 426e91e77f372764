"""The journal of version 8, with which the program began; later versions change it in place."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = """
CREATE TABLE period (number INTEGER PRIMARY KEY, receipts INTEGER NOT NULL DEFAULT 0, last_at INTEGER);
CREATE TABLE receipt (
  target INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, run INTEGER NOT NULL,
  period INTEGER NOT NULL, server_id, location, checksum, verified INTEGER NOT NULL, completed_at INTEGER NOT NULL,
  PRIMARY KEY (target, path)
) WITHOUT ROWID;
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
  server_id TEXT,
  PRIMARY KEY (target, path)
) WITHOUT ROWID;
CREATE TABLE session (run INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (run, id));
"""


def downgrade(path: Path) -> None:
    """Make the journal at `path` one of version 8, with the same rows."""
    old = path.with_name("old.sqlite3")
    path.rename(old)
    with sqlite3.connect(path) as db:
        db.executescript(f"PRAGMA journal_mode = WAL; {SCHEMA} ATTACH '{old}' AS old")
        for (table,) in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall():
            columns = ", ".join(name for _, name, *_ in db.execute(f"PRAGMA main.table_info({table})"))
            if table != "sqlite_sequence":
                db.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM old.{table}")
        for key, parts in db.execute("SELECT path, parts FROM main.pending").fetchall():
            known = json.dumps([part[:7] for part in json.loads(parts)])
            db.execute("UPDATE main.pending SET parts = ? WHERE path = ?", (known, key))
        db.execute("PRAGMA user_version = 8")
    db.close()
    old.unlink()
