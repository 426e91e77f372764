"""Removes rows of files that are gone, a few at a time, so that the database doesn't grow with what was deleted."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterable

from uploader_server.storage.categories import Categories
from uploader_server.storage.database import Database
from uploader_server.storage.paths import UnsafePathError

AT_ONCE = 1000  # maximum rows that one transaction checks or deletes, and pages that it gives back
SPARE_PAGES = 256  # free pages that stay in the database, since it will use them again (1 MiB)

_PATHS = {table: f"SELECT path FROM {table} WHERE path > ? ORDER BY path LIMIT ?" for table in ("files", "digests")}  # noqa: S608 - our own
_FORGET = {
    "files": "UPDATE files SET path = NULL WHERE path IN (SELECT value FROM json_each(?))"
    " AND session NOT IN (SELECT id FROM sessions)",
    "digests": "DELETE FROM digests WHERE path IN (SELECT value FROM json_each(?))",
}
# The files of a pack whose answer is kept have the ids from `first` to `last`; no other id lies between them.
_DELETE = (
    "DELETE FROM files WHERE rowid IN (SELECT rowid FROM files WHERE path IS NULL"
    " AND session NOT IN (SELECT id FROM sessions)"
    " AND id > coalesce((SELECT last FROM packs WHERE first <= files.id ORDER BY first DESC LIMIT 1), '') LIMIT ?)"
)


class Pruner:
    """Deletes rows that nothing needs any more.

    - The row of a file is needed while the file exists (it can be deleted by its id), for the progress of its session,
      and for the answer to its pack.
    - A digest is needed while its file exists.
    """

    def __init__(self, categories: Categories, database: Database) -> None:
        self._categories = categories
        self._database = database
        self._checked = dict.fromkeys(_PATHS, "")  # last path checked of each table; empty at the beginning

    async def run(self) -> None:
        """Check the next paths of each table, delete all rows that became useless, and give back free pages.

        Raises sqlite3.Error, OSError.
        """
        for table in _PATHS:
            await self._forget_missing(table)
        while await self._database.transaction(_delete, frees=True) == AT_ONCE:
            pass  # other transactions run in between
        await self._database.transaction(_give_back, frees=True)

    async def _forget_missing(self, table: str) -> None:
        """Forget the paths at which no file is, among the next AT_ONCE ones."""
        values = (self._checked[table], AT_ONCE)
        rows = await self._database.read(lambda db: db.execute(_PATHS[table], values).fetchall())
        paths = [str(row["path"]) for row in rows]
        self._checked[table] = paths[-1] if len(paths) == AT_ONCE else ""
        gone = await asyncio.to_thread(self.missing, paths)
        if gone:  # asked again in the transaction: a file may have been stored there meanwhile
            await self._database.transaction(
                lambda db: db.execute(_FORGET[table], (json.dumps(self.missing(gone)),)), frees=True
            )

    def missing(self, paths: Iterable[str]) -> list[str]:
        gone = [path for path in paths if not self._has(path)]
        return [path for path in gone if self._categories.is_there(path)]  # else its disk is not mounted

    def _has(self, path: str) -> bool:
        try:
            return self._categories.status(path) is not None
        except (OSError, UnsafePathError):  # it can't be known, or a link took the place of its directory
            return True


def _delete(db: sqlite3.Connection) -> int:
    return db.execute(_DELETE, (AT_ONCE,)).rowcount


def _give_back(db: sqlite3.Connection) -> None:
    """Move free pages to the end of the database file, which becomes shorter with the next checkpoint."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free - SPARE_PAGES, AT_ONCE)):
        db.execute("PRAGMA incremental_vacuum")  # Python's `execute` ends after one page
