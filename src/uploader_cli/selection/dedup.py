"""A set of names in bounded memory: SQLite stores it in a temporary file beyond its cache."""

from __future__ import annotations

import os
import sqlite3


class SeenNames:
    """The names seen before. Not for concurrent use; the temporary file is deleted with the object."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -8192;"  # KiB
            "CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        )

    def add(self, name: str) -> bool:
        """Add a name; return True if it is new."""
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (os.fsencode(name),)).rowcount == 1
