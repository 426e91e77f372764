"""Rows of the journal ⇄ values: every SELECT that more than one caller needs."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli.transfer.journal_records import PendingPart, PendingUpload, Receipt, RunInfo

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

    from uploader_cli.core.plan import LocalFile


@dataclass(frozen=True, slots=True)
class RunRow:
    """What a handle needs of its run. `number` is its for life; receipts above `since` are newer than it."""

    id: str
    number: int
    target: int
    since: int
    resumed_from: str | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A file under way: of which size and mtime, and for which run (its number)."""

    size: int
    mtime_ns: int
    run: int
    upload: PendingUpload


def is_of(file: LocalFile, row: PendingRow | Receipt) -> bool:
    """Whether `row` speaks of `file` as it is now."""
    return (row.size, row.mtime_ns) == (file.size, file.mtime_ns)


def pending_row(db: sqlite3.Connection, target: int, path: bytes) -> PendingRow | None:
    """What is under way for `path`, in whatever run."""
    row = db.execute(
        "SELECT size, mtime_ns, run, upload_key, url, session, chunk_size, checked_until, pledged_until"
        " FROM pending WHERE target = ? AND path = ?",
        (target, path),
    ).fetchone()
    if row is None:
        return None
    parts = db.execute(
        "SELECT number, start, size, upload_key, url, checked_until, pledged_until"
        " FROM part WHERE target = ? AND path = ? ORDER BY number",
        (target, path),
    )
    size, mtime_ns, run, upload_key, url, session, chunk_size, checked, pledged = row
    known = tuple(PendingPart(*part) for part in parts)
    upload = PendingUpload(upload_key, url, session, chunk_size, checked, known, pledged)
    return PendingRow(size, mtime_ns, run, upload)


def put_pending(
    db: sqlite3.Connection, run: RunRow, file: LocalFile, path: bytes, session: str | None
) -> PendingUpload:
    """Put `file` under way for `run` with a fresh random key; what was there for its path is forgotten."""
    upload = PendingUpload(fresh_key(), session=session)
    db.execute("DELETE FROM part WHERE target = ? AND path = ?", (run.target, path))
    db.execute(
        "INSERT OR REPLACE INTO pending (target, path, size, mtime_ns, run, upload_key, session)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (run.target, path, file.size, file.mtime_ns, run.number, upload.upload_key, session),
    )
    return upload


def delete_pending(db: sqlite3.Connection, target: int, path: bytes) -> bool:
    """Forget what is under way for `path`; whether anything was."""
    db.execute("DELETE FROM part WHERE target = ? AND path = ?", (target, path))
    return db.execute("DELETE FROM pending WHERE target = ? AND path = ?", (target, path)).rowcount > 0


def fresh_key() -> str:
    """An `uploadKey` (wire contract 5): random, so that nobody guesses another's."""
    return secrets.token_hex(16)


def receipt_row(db: sqlite3.Connection, target: int, key: bytes, since: int = 0) -> Receipt | None:
    """The receipt for `key` (see `path_key`) with a serial above `since`."""
    row = db.execute(
        "SELECT run, path, size, mtime_ns, server_id, location, checksum, verified, completed_at"
        " FROM receipt WHERE target = ? AND path = ? AND serial > ?",
        (target, key, since),
    ).fetchone()
    if row is None:
        return None
    run, raw, size, mtime_ns, server_id, location, checksum, verified, at = row
    path = os.fsdecode(raw.partition(b"\0")[0])  # without the destination, see path_key
    return Receipt(run, path, size, mtime_ns, server_id, location, checksum, bool(verified), at)


def session_ids(db: sqlite3.Connection, run: int) -> tuple[str, ...]:
    """The open sessions of the run with this number, oldest first."""
    return tuple(name for (name,) in db.execute("SELECT id FROM session WHERE run = ? ORDER BY rowid", (run,)))


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run with what only the journal uses: its row, the ids it had before, what makes it the same as another."""

    row: RunRow
    earlier: tuple[str, ...]
    identity: str
    info: RunInfo


def listed_runs(db: sqlite3.Connection, is_alive: Callable[[str], bool]) -> Iterator[ListedRun]:
    """All runs, the one that wrote last first."""
    rows = db.execute(
        "SELECT number, run.id, target, since, earlier, identity, finished, server, destination, arguments, started_at,"
        " updated_at, files, bytes, coalesce(open_files, 0) FROM run JOIN target ON target.id = run.target"
        " LEFT JOIN (SELECT run AS owner, count(*) AS open_files FROM pending GROUP BY run) ON owner = number"
        " ORDER BY updated_at DESC, number DESC"
    ).fetchall()
    for number, name, target, since, earlier, identity, finished, server, destination, arguments, *rest in rows:
        started_at, updated_at, files, size, open_files = rest
        alive = not finished and is_alive(name)
        info = RunInfo(
            id=name,
            server=server,
            destination=destination,
            arguments=json.loads(arguments),
            started_at=started_at,
            updated_at=updated_at,
            state="finished" if finished else "running" if alive else "interrupted",
            alive=alive,
            completed_files=files,
            completed_bytes=size,
            open_files=open_files,
            sessions=session_ids(db, number),
        )
        yield ListedRun(RunRow(name, number, target, since), tuple(earlier.split()), identity, info)
