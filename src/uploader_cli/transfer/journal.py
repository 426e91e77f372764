"""The durable journal: what a run has under way and what it has done, so that kill -9 loses nothing.

One SQLite file in WAL mode in the user's state directory, for all runs and all processes. Keys are server,
destination, absolute path, size and mtime (ns), never content. `synchronous=NORMAL`: a commit survives the death of
the process at any moment; after a power cut the last commits may be missing, never half there.

No token, header or password is stored. Upload URLs are, as the server gave them: to some servers they are
capabilities, which is why the file is 0600 and a directory made for it 0700.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from typing import TYPE_CHECKING

from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.transfer.journal_history import History
from uploader_cli.transfer.journal_rows import ListedRun, RunRow, listed_runs
from uploader_cli.transfer.journal_run import RunHandle
from uploader_cli.transfer.journal_schema import KEPT_SECONDS, MOST_UNFINISHED, prune_receipts, prune_runs
from uploader_cli.transfer.journal_store import Store
from uploader_cli.transfer.run_lock import FileLock, is_held

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from uploader_cli.transfer.journal_records import RunInfo, Target

LIST = "`uploader resume --list` shows them"


class Journal:
    """The journal in `directory`, made where there is none, migrated where it is older, and pruned.

    `notices` are sentences for the user: a journal that can't be read (damaged, or of a newer version) was set aside,
    or interrupted runs are too old or too many to be kept.
    Raises `UsageError`, naming --state-dir, where nothing can be written. `now` is the time in seconds.
    """

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._now = now
        self._handles: list[RunHandle] = []
        self._store = Store(directory, now())
        try:
            self._prune()
        except UploaderError:  # damage that came out only now: opened again, the journal is set aside
            self._store.close()
            self._store = Store(directory, now())
            self._prune()
        self.notices = tuple(self._store.notices)

    def close(self) -> None:
        """Let go; a run that was not finished counts as interrupted."""
        for handle in self._handles:
            handle.release()
        self._store.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(
        self,
        target: Target,
        arguments: Mapping[str, object],
        *,
        identity: object = None,
        run_id: str | None = None,
        fresh: bool = False,
    ) -> RunHandle:
        """Start a run, or go on with the newest unfinished one of the same target and identity that no process holds.

        `arguments` (JSON-able, no secrets) is what `resume` needs to run it again. `identity` (JSON-able) is what makes
        two commands the same, `arguments` by default: paths and cwd, say, without --jobs. `run_id` must be new; it is
        random by default. `fresh` (--no-resume) goes on with nothing, neither run nor file, and retires such runs.
        """
        digest = _digest(arguments if identity is None else identity)
        name = run_id or secrets.token_hex(8)
        with self._store.write() as db:
            number = _target_number(db, target)
            free = self._interrupted(db, number, digest)
            if free and not fresh:
                return self._go_on(db, free[0], name, _json(arguments))
            # What they had under way stays until a file is claimed: its upload can then be terminated.
            db.executemany("DELETE FROM run WHERE number = ?", [(item.row.number,) for item in free])
            row = self._insert(db, name, number, digest, _json(arguments), fresh=fresh)
            return self._hold(row)

    def history(self, target: Target, identity: object, *, fresh: bool = False) -> History:
        """What is known of files before such a run begins; `begin` says what the arguments are. Nothing is changed."""
        oldest = self._now() - KEPT_SECONDS
        with self._store.read() as db:
            number = _known_target(db, target)
            free = [] if number is None or fresh else self._interrupted(db, number, _digest(identity))
        return History(self._store, number, free[0].row.since if free else None, oldest)

    def resume(self, run_id: str, *, new_id: str | None = None) -> RunHandle:
        """Go on with this very run (a unique prefix will do); `new_id` is as `run_id` of `begin`.

        Raises `UsageError` if there is none, if it is finished, or if a live process holds it.
        """
        with self._store.write() as db:
            found = self._find(db, run_id)
            if found.info.state == "finished":
                raise UsageError(f"run {found.row.id} is finished: nothing is left to resume", hint=LIST)
            _refuse_alive(found)
            return self._go_on(db, found, new_id or secrets.token_hex(8), _json(found.info.arguments))

    def runs(self) -> list[RunInfo]:
        """All that is remembered, the one that wrote last first."""
        with self._store.read() as db:
            return [item.info for item in listed_runs(db, self._is_alive)]

    def run(self, run_id: str) -> RunInfo:
        """The run with this id, or a unique prefix of it, or of an id that it had before it was resumed.

        Raises `UsageError` where that is none or several.
        """
        with self._store.read() as db:
            return self._find(db, run_id).info

    def newest_unfinished(self) -> RunInfo | None:
        """The run to resume by default: the newest that is unfinished and that no live process holds."""
        return next((info for info in self.runs() if info.state == "interrupted"), None)

    def forget(self, run_id: str) -> None:
        """Drop a run and what it has under way; its receipts stay. Raises `UsageError` as `run`, or if it is alive."""
        with self._store.write() as db:
            found = self._find(db, run_id)
            _refuse_alive(found)
            db.execute("DELETE FROM run WHERE number = ?", (found.row.number,))
            prune_runs(db, self._now())

    def _interrupted(self, db: sqlite3.Connection, target: int, identity: str) -> list[ListedRun]:
        """The runs that the same command would go on with, the newest first."""
        wanted = (target, identity, "interrupted")
        listed = listed_runs(db, self._is_alive)
        return [item for item in listed if (item.row.target, item.identity, item.info.state) == wanted]

    def _find(self, db: sqlite3.Connection, run_id: str) -> ListedRun:
        listed = list(listed_runs(db, self._is_alive))
        exact = [item for item in listed if run_id in (item.row.id, *item.earlier)]
        found = exact or [
            item for item in listed if any(name.startswith(run_id) for name in (item.row.id, *item.earlier))
        ]
        if not found:
            raise UsageError(f"the journal knows no run {run_id}", hint=LIST)
        if len(found) > 1:
            raise UsageError(f"{len(found)} runs begin with {run_id}", hint=LIST)
        return found[0]

    def _insert(
        self, db: sqlite3.Connection, name: str, target: int, identity: str, arguments: str, *, fresh: bool
    ) -> RunRow:
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'receipt'").fetchone()
        since = last[0] if last else 0
        number = db.execute(
            "INSERT INTO run (id, target, identity, arguments, started_at, updated_at, since)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
            (name, target, identity, arguments, self._now(), self._now(), since),
        ).fetchone()[0]
        return RunRow(name, number, target, since, fresh=fresh)

    def _go_on(self, db: sqlite3.Connection, found: ListedRun, name: str, arguments: str) -> RunHandle:
        old = found.row
        db.execute(
            "UPDATE run SET id = ?, earlier = ?, arguments = ?, updated_at = ? WHERE number = ?",
            (name, " ".join((*found.earlier, old.id)), arguments, self._now(), old.number),
        )
        return self._hold(RunRow(name, old.number, old.target, old.since, resumed_from=old.id))

    def _hold(self, row: RunRow) -> RunHandle:
        """Lock the run, in the transaction that makes it known: before it ends nobody asks whether the run lives."""
        try:
            lock = FileLock(self._lock_path(row.id), wait=1.0)
        except OSError as error:
            raise UploaderError(f"run {row.id} can't be locked: {error}", hint="see --state-dir") from error
        handle = RunHandle(self._store, row, lock, self._now, self._is_alive)
        self._handles.append(handle)
        return handle

    def _prune(self) -> None:
        with self._store.write() as db:  # locks are made in transactions as well: none is swept away half made
            for path in self._directory.glob("run-*.lock"):
                if not is_held(path):
                    path.unlink(missing_ok=True)
            stale = [(number,) for number, name in prune_runs(db, self._now()) if not self._is_alive(name)]
            db.executemany("DELETE FROM run WHERE number = ?", stale)
        if stale:
            self._store.notices.append(
                f"interrupted runs forgotten by the journal: {len(stale)}, untouched for 90 days or beyond the newest"
                f" {MOST_UNFINISHED}"
            )
        more = True
        while more:
            with self._store.write() as db:
                more = prune_receipts(db, self._now())

    def _is_alive(self, run_id: str) -> bool:
        return is_held(self._lock_path(run_id))

    def _lock_path(self, run_id: str) -> Path:
        return self._directory / f"run-{run_id}.lock"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)  # ASCII: paths that are no text pass as escapes


def _digest(identity: object) -> str:
    return hashlib.sha256(_json(identity).encode()).hexdigest()


def _known_target(db: sqlite3.Connection, target: Target) -> int | None:
    names = (target.server, target.destination)
    row = db.execute("SELECT id FROM target WHERE server = ? AND destination = ?", names).fetchone()
    return None if row is None else int(row[0])


def _target_number(db: sqlite3.Connection, target: Target) -> int:
    names = (target.server, target.destination)
    db.execute("INSERT OR IGNORE INTO target (server, destination) VALUES (?, ?)", names)
    number: int = db.execute("SELECT id FROM target WHERE server = ? AND destination = ?", names).fetchone()[0]
    return number


def _refuse_alive(found: ListedRun) -> None:
    if found.info.alive:
        raise UsageError(f"run {found.row.id} is under way in another process", hint="wait for it, or stop it first")
