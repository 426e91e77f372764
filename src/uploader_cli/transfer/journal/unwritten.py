"""Changes of a run that are not in the journal's file yet, and writing them."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from uploader_cli.transfer.journal.file_keys import is_same
from uploader_cli.transfer.journal.reading import Pending, SavedSession, pending_row
from uploader_cli.transfer.journal.receipts import Stored, delete_receipts, write_receipts

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from sqlite3 import Connection

    from uploader_cli.core.plan import LocalFile

MOST_UNWRITTEN = 50_000  # files kept in memory while writing fails; the oldest are dropped
_WITHOUT_URL = "UPDATE run SET arguments = json_remove(arguments, '$.options.upload_url') WHERE number = ?"


class _Change(Struct):
    """What has changed at a path: the upload, the receipt, the file whose receipt is deleted."""

    pending: Pending | None = None
    receipt: Stored | None = None
    refused: LocalFile | None = None


class RunEnd(NamedTuple):
    """How a run has ended; one that is `dropped` leaves nothing."""

    ok: bool
    outcome: Mapping[str, object]
    dropped: bool


class Unwritten:
    """Changes of a run since the last transaction. `sessions` are all of the run, if they have changed."""

    def __init__(self) -> None:
        self.sessions: Mapping[str, SavedSession] | None = None
        self.ended: RunEnd | None = None
        self._changes: dict[bytes, _Change] = {}
        self._sizes: list[int] = []  # of the files that count as completed by the run

    def __bool__(self) -> bool:
        return bool(self._changes or self._sizes) or self.sessions is not None or self.ended is not None

    def claim(self, key: bytes, pending: Pending) -> None:
        self._changes.setdefault(key, _Change()).pending = pending

    def store(self, key: bytes, receipt: Stored, *, counted: bool) -> None:
        self._changes[key] = _Change(receipt=receipt)
        if counted:
            self._sizes.append(receipt.file.size)

    def forget(self, key: bytes, refused: LocalFile | None) -> None:
        """Forget the upload of a path, and the receipt for the size and mtime of `refused`."""
        self._changes[key] = _Change(refused=refused)

    def pending(self, key: bytes, written: Pending | None) -> Pending | None:
        """Return the upload of a path, `written` if it has not changed."""
        change = self._changes.get(key)
        return written if change is None else change.pending

    def receipt(self, key: bytes, written: Stored | None) -> Stored | None:
        """Return the receipt of a path, an unwritten one first."""
        change = self._changes.get(key)
        if change is None:
            return written
        is_refused = written and change.refused and is_same(change.refused, written.file)
        return change.receipt or (None if is_refused else written)

    def shorten(self, claimed: Container[bytes]) -> None:
        """Drop the oldest changes beyond `MOST_UNWRITTEN`, except those of `claimed` paths."""
        excess = max(0, len(self._changes) - MOST_UNWRITTEN)
        for key in list(islice((key for key in self._changes if key not in claimed), excess)):
            del self._changes[key]

    def write(self, db: Connection, target: int, run: int, now: float) -> None:
        """Write everything in the open transaction of `db`."""
        self._write_changes(db, target, run, int(now))
        if self._sizes:
            counts = (len(self._sizes), sum(self._sizes), now, run)
            db.execute("UPDATE run SET files = files + ?, bytes = bytes + ?, updated_at = ? WHERE number = ?", counts)
        if self.sessions is not None:
            db.execute("DELETE FROM session WHERE run = ?", (run,))
            rows = [(run, name, *known) for name, known in self.sessions.items()]
            db.executemany("INSERT INTO session (run, id, category, secret, open) VALUES (?, ?, ?, ?, ?)", rows)
        if self.ended is not None:
            _end(db, run, now, self.ended)

    def _write_changes(self, db: Connection, target: int, run: int, now: int) -> None:
        changes = self._changes.items()
        db.executemany(
            "DELETE FROM pending WHERE target = ? AND path = ?"
            " AND (run = ? OR NOT alive((SELECT CAST(id AS BLOB) FROM run WHERE number = pending.run)))",
            [(target, key, run) for key in self._changes],
        )
        db.executemany(
            "INSERT OR IGNORE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [pending_row(target, run, key, change.pending) for key, change in changes if change.pending],
        )
        delete_receipts(db, target, [(key, change.refused) for key, change in changes if change.refused])
        write_receipts(db, target, [(key, change.receipt) for key, change in changes if change.receipt], now)


def _end(db: Connection, run: int, now: float, ended: RunEnd) -> None:
    """Record how a run has ended. One that stored everything also ends the idle runs of the same command."""
    if ended.dropped:
        db.execute("DELETE FROM run WHERE number = ?", (run,))
        delete_open(db, [(run,)])
        return
    values = (ended.ok, as_json(ended.outcome), now, run)
    db.execute("UPDATE run SET finished = ?, outcome = ?, updated_at = ? WHERE number = ?", values)
    if ended.ok:
        # An upload URL is kept only as long as the run can be resumed.
        db.execute(_WITHOUT_URL, (run,))
        same = db.execute(
            "DELETE FROM run WHERE NOT finished AND NOT alive(CAST(id AS BLOB))"
            " AND (target, identity) = (SELECT target, identity FROM run WHERE number = ?) RETURNING number",
            (run,),
        ).fetchall()
        delete_open(db, [(run,), *same])


def delete_open(db: Connection, runs: Sequence[tuple[int]]) -> None:
    """Delete the uploads in progress and the sessions of runs."""
    db.executemany("DELETE FROM pending WHERE run = ?", runs)
    db.executemany("DELETE FROM session WHERE run = ?", runs)


def as_json(value: object) -> str:
    return json.dumps(value, sort_keys=True)  # ASCII: escapes undecodable paths
