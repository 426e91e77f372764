"""Database rows of packs: their files, and the idempotency keys with the saved responses.

File ids of one pack differ in the last 12 digits, in manifest order, so that the first and the last id select them all.
`packed` is NULL for files that were not sent in a pack. `session` is empty for a file that its session doesn't count: a
retryable failure, or a file counted before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from uploader_server.batch.manifest import Entry
from uploader_server.batch.unpack import Packed

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from uploader_server.storage.store import Store

_FILE = "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0.0, ?, ?, ?, ?, ?)"
_UNCOUNTED = "DELETE FROM files WHERE id BETWEEN ? AND ? AND session = '' AND status = 'failed'"
_DIGEST = "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)"

PLAIN, EXISTING, RETRYABLE = 0, 1, 2  # the values of `packed`

Key = tuple[str, str]  # owner and Idempotency-Key


class KnownPack(NamedTuple):
    """A pack whose response is saved."""

    session: str
    manifest: bytes  # SHA-256 of its manifest
    files: list[Packed]


class PackRows:
    """Reads and writes the rows of packs. Responses are kept for `ttl` seconds."""

    def __init__(self, store: Store, ttl: float) -> None:
        self._store = store
        self._ttl = ttl

    async def save(
        self, key: Key, manifest: bytes, session: dict[str, Any], position: int, files: Sequence[Packed]
    ) -> None:
        """Save a pack, its files and its session in one transaction. Raises sqlite3.Error.

        `manifest` is the digest of the manifest, `position` the index of the first file in the session.
        """

        def change(db: sqlite3.Connection) -> None:
            db.executemany(_FILE, [_row(session["id"], position + n, file) for n, file in enumerate(files)])
            stored = [file for file in files if file.path is not None]
            db.executemany(_DIGEST, [(f.path, f.entry.size, f.changed, bytes.fromhex(f.entry.sha256)) for f in stored])
            row = (*key, manifest, session["id"], files[0].id, files[-1].id, time.time())
            db.execute("INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?, ?)", row)

        await self._store.save(change, self._store.session_saved(session))

    async def find(self, key: Key) -> KnownPack | None:
        """Return the saved pack, or None if there is none or it has expired."""
        values = (*key, time.time() - self._ttl)

        def look(db: sqlite3.Connection) -> KnownPack | None:
            pack = db.execute("SELECT * FROM packs WHERE owner = ? AND key = ? AND touched >= ?", values).fetchone()
            if pack is None:
                return None
            rows = db.execute("SELECT * FROM files WHERE id BETWEEN ? AND ? ORDER BY id", (pack["first"], pack["last"]))
            return KnownPack(pack["session"], pack["manifest"], [_packed(row) for row in rows])

        return await self._store.database.read(look)

    async def forget_old(self) -> None:
        """Delete responses older than `ttl` and their uncounted failures. Raises sqlite3.Error."""
        before = time.time() - self._ttl

        def change(db: sqlite3.Connection) -> None:
            old = db.execute("SELECT first, last FROM packs WHERE touched < ?", (before,)).fetchall()
            db.executemany(_UNCOUNTED, old)
            db.execute("DELETE FROM packs WHERE touched < ?", (before,))

        await self._store.save(change)


def _row(session: str, position: int, file: Packed) -> tuple[object, ...]:
    entry, stored = file.entry, file.path is not None
    return (
        file.id,
        session if file.counted else "",
        position,
        file.name,
        entry.path,
        entry.size,
        "completed" if stored else "failed",
        100 if stored else 0,
        file.path,
        file.message or None,
        file.error or None,
        bytes.fromhex(entry.sha256),
        RETRYABLE if file.retryable else EXISTING if file.existing else PLAIN,
    )


def _packed(row: sqlite3.Row) -> Packed:
    return Packed(
        Entry(row["relative_path"], row["size"], row["sha256"].hex(), 0),
        row["id"],
        row["path"],
        existing=row["packed"] == EXISTING,
        error=row["error_code"] or "",
        message=row["error"] or "",
        retryable=row["packed"] == RETRYABLE,
        counted=bool(row["session"]),
    )
