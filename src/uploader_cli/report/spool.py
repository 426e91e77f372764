"""Store the rows of a report on disk, so that a million of them need no memory."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Row: TypeAlias = dict[str, Any]  # a file as in the JSON report, see `report.document.row_of`

_TABLE = """
CREATE TABLE files (
    number INTEGER PRIMARY KEY, key TEXT, session TEXT, outcome TEXT NOT NULL, seconds REAL NOT NULL, row TEXT NOT NULL
);
CREATE UNIQUE INDEX by_key ON files (key) WHERE key IS NOT NULL;
"""
_SUITES = """
SELECT session, SUM(seconds), COUNT(*), SUM(outcome = 'failed'), SUM(outcome = 'cancelled'), SUM(outcome = 'skipped')
FROM files GROUP BY session ORDER BY MIN(number)
"""


class Spool:
    """One row per file, by its number, in a nameless temporary file that disappears even after a kill."""

    def __init__(self) -> None:
        """Raises sqlite3.Error if there is no space for a temporary file, as all methods do."""
        self._db = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_TABLE)
        self._db.execute("BEGIN")  # never committed

    def put(self, row: Row, key: str | None = None) -> None:
        """Store the row, replacing one with the same `file`; `find` finds it by `key`."""
        text = json.dumps(row, ensure_ascii=True, separators=(",", ":"))
        values = (row["file"], key, row.get("session"), row["outcome"], row.get("seconds", 0.0), text)
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)

    def find(self, key: str) -> Row | None:
        """Return the row stored under `key`."""
        found = self._db.execute("SELECT row FROM files WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found is not None else None

    def rows(self) -> Iterator[Row]:
        """Yield all rows in the order of their numbers."""
        for (text,) in self._db.execute("SELECT row FROM files ORDER BY number"):
            yield json.loads(text)

    def suites(self) -> Iterator[tuple[str | None, float, tuple[int, int, int, int], Iterator[Row]]]:
        """Yield the sessions in the order of their first files, None for files without one.

        Each has the sum of its seconds, its numbers of files, of failed, cancelled and skipped ones, and its rows.
        """
        self._db.execute("CREATE INDEX IF NOT EXISTS by_session ON files (session, number)")
        for session, seconds, *counts in self._db.execute(_SUITES):
            found = self._db.execute("SELECT row FROM files WHERE session IS ? ORDER BY number", (session,))
            yield session, seconds, tuple(counts), (json.loads(text) for (text,) in found)

    def close(self) -> None:
        """Free the disk space."""
        self._db.close()
