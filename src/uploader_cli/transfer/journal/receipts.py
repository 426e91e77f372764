"""Receipts: what the journal has of stored files. They outlive the runs that wrote them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, convert
from msgspec.structs import replace

from uploader_cli.core.record import Record
from uploader_cli.transfer.journal.file_keys import is_same, paths_in, written_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from sqlite3 import Connection

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal.file_keys import Files

MOST_RECEIPTS = 1_000_000  # of any age; approximate, and without those that unfinished runs need
# Each change of a receipt gives it a new number: `number > run.since` means "since the run began", without a clock.
TABLE = """
CREATE TABLE receipt (
  number INTEGER PRIMARY KEY AUTOINCREMENT, target INTEGER NOT NULL, path BLOB NOT NULL, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, server_id TEXT, location TEXT, checksum TEXT, verified INTEGER NOT NULL,
  completed_at INTEGER NOT NULL, link TEXT, identity BLOB, UNIQUE (target, path)
);
"""
_FOUND = """
SELECT path, size, mtime_ns, verified, server_id, location, checksum, link, identity
FROM receipt WHERE target = ?1 AND number > ?2"""
_WRITE = """
INSERT OR REPLACE INTO receipt
  (target, path, size, mtime_ns, server_id, location, checksum, verified, completed_at, link, identity)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# A time that another program has written as a text counts as 0.
_OLDEST = "SELECT number, CAST(completed_at AS INTEGER) < ? FROM receipt ORDER BY number LIMIT 1"
_SPARE = """
DELETE FROM receipt WHERE CAST(completed_at AS INTEGER) < ?
  AND number <= (SELECT number FROM receipt ORDER BY number DESC LIMIT 1 OFFSET ?)
  AND number <= coalesce((SELECT min(since) FROM run WHERE NOT finished), number)
"""
_Known = tuple[
    str | None, str | None, str | None, str | None, Annotated[bytes, Meta(min_length=16, max_length=16)] | None
]


class Stored(Record, frozen=True):
    """A stored file. `checksum` is a hex SHA-256; `verified`: it was compared; `link` is that of `FileResult`.

    `identity` is that of the file then (see `written_identity`).
    """

    file: LocalFile
    server_id: str | None = None
    location: str | None = None
    checksum: str | None = None
    verified: bool = False
    link: str | None = None
    identity: bytes | None = None


def is_recorded(file: LocalFile, receipt: Stored) -> bool:
    """Return whether the digest of a receipt counts for a file: size, mtime, ctime and inode are those of then.

    Otherwise the file has to be read. Of a file at a URL only size and mtime are known (see `RemoteStatus`); receipts
    of early versions of the journal have no identity, so they do not count for a local file.
    """
    return is_same(file, receipt.file) and written_identity(file) == receipt.identity


def is_doubtful(file: LocalFile, receipt: Stored) -> bool:
    """Return whether a file has another ctime or inode than that of its receipt, so that only its bytes can tell."""
    return receipt.identity is not None and not is_recorded(file, receipt)


def find_receipts(
    db: Connection, target: int, files: Files, since: int, on_odd: Callable[[str], None] = lambda _path: None
) -> Iterator[tuple[bytes, Stored]]:
    """Yield receipts for the paths of `files` with numbers after `since`.

    A row of another shape is left out; `on_odd` gets the path of its file.
    """
    for key, size, mtime_ns, verified, *known in db.execute(_FOUND + paths_in(files), (target, since, *files)):
        try:
            server_id, location, checksum, link, identity = convert(known, _Known)
            file = replace(files[key], size=convert(size, int), mtime_ns=convert(mtime_ns, int))
        except (ValueError, TypeError):
            on_odd(files[key].path)
            continue
        yield key, Stored(file, server_id, location, checksum, bool(verified), link, identity)


def write_receipts(db: Connection, target: int, receipts: Sequence[tuple[bytes, Stored]], at: int) -> None:
    """Write receipts of paths, in place of older ones; `at` is the time in seconds since the epoch."""
    if receipts:  # an empty executemany costs 2 µs
        db.executemany(_WRITE, [_row(target, key, one, at) for key, one in receipts])


def delete_receipts(db: Connection, target: int, files: Sequence[tuple[bytes, LocalFile]]) -> None:
    """Delete the receipts of paths for the size and mtime of their files."""
    if files:
        rows = [(target, key, file.size, file.mtime_ns) for key, file in files]
        db.executemany("DELETE FROM receipt WHERE target = ? AND path = ? AND size = ? AND mtime_ns = ?", rows)


def prune_receipts(db: Connection, before: float) -> None:
    """Delete the receipts from `before` (seconds since the epoch) that have more than `MOST_RECEIPTS` newer ones.

    It reads all receipts, so only where the oldest one may be one of them.
    """
    oldest = db.execute(_OLDEST, (before,)).fetchone()
    if oldest is None or not oldest[1]:
        return
    (newest,) = db.execute("SELECT max(number) FROM receipt").fetchone()
    if newest - oldest[0] >= MOST_RECEIPTS:
        db.execute(_SPARE, (before, MOST_RECEIPTS))


def _row(target: int, key: bytes, row: Stored, at: int) -> tuple[Any, ...]:
    known = (row.server_id, row.location, row.checksum, row.verified)
    return (target, key, row.file.size, row.file.mtime_ns, *known, at, row.link, row.identity)
