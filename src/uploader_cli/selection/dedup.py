"""A set of names in bounded memory: beyond a cache SQLite keeps it in a temporary file of its own."""

from __future__ import annotations

import os
import sqlite3


class SeenNames:
    """What was met before. To be used in one thread at a time; the file is gone when this is."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -8192;"  # KiB
            "CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        )

    def add(self, name: str) -> bool:
        """True for a name that was not met before."""
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (os.fsencode(name),)).rowcount == 1
