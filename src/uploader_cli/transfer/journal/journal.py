"""The runs in the journal: beginning, resuming and listing them."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from msgspec.structs import astuple

from uploader_cli.errors import UsageError
from uploader_cli.transfer.journal.file_keys import is_same, path_key
from uploader_cli.transfer.journal.reading import SavedSession, get_sessions, saved_sessions
from uploader_cli.transfer.journal.receipts import Stored, find_receipts
from uploader_cli.transfer.journal.run_handle import RunHandle
from uploader_cli.transfer.journal.run_rows import RunInfo, is_run_id, run_info
from uploader_cli.transfer.journal.schema import Store
from uploader_cli.transfer.journal.unwritten import as_json, delete_open

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from sqlite3 import Connection

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal.reading import RunTarget

LIST = "`uploader resume --list` shows them"


class History:
    """Files known before a run begins that resumes the one of `since` (None: none)."""

    def __init__(self, store: Store, target: int, since: int | None) -> None:
        self._store, self._target, self._since = store, target, since

    def done(self, file: LocalFile) -> bool:
        return self._since is not None and self.receipts([file], self._since) != [None]

    def sent_before(self, file: LocalFile) -> bool:
        """Return whether any run has sent it (`--skip-existing`)."""
        return self.receipts([file]) != [None]

    def is_stored(self, file: LocalFile) -> bool:
        """Return whether the run that is resumed has stored a file of this path, whatever its size and time."""
        if self._since is None:
            return False
        with self._store.read() as db:
            return any(find_receipts(db, self._target, {path_key(file): file}, self._since))

    def receipts(self, files: Sequence[LocalFile], since: int = -1) -> list[Stored | None]:
        """Return the newest receipt for each file's size and mtime."""
        paths = [path_key(file) for file in files]
        with self._store.read() as db:
            by_path = dict(zip(paths, files, strict=True))
            found = dict(find_receipts(db, self._target, by_path, since))
        known = [found.get(path) for path in paths]
        return [row if row and is_same(file, row.file) else None for file, row in zip(files, known, strict=True)]


class Journal(Store):
    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(
        self,
        target: RunTarget,
        arguments: Mapping[str, object],
        *,
        identity: object = None,
        fresh: bool = False,
        lasting: bool = True,
    ) -> RunHandle:
        """Begin a run, or resume the newest interrupted one of the same target and identity.

        `arguments` (JSON, no secrets but an upload URL) is what `resume` needs; `identity` (JSON, default: `arguments`)
        is what makes commands equal. `fresh` (--no-resume) resumes nothing and deletes such runs.
        A run that is not `lasting` is never resumed.
        """
        run_id, now = secrets.token_hex(8), self.now()
        digest = _digest(run_id if not lasting else arguments if identity is None else identity)
        with self.write() as db:
            db.execute("INSERT OR IGNORE INTO target (server, destination) VALUES (?, ?)", astuple(target))
            number, free = _find_resumable(db, target, digest)
            if free and not fresh:
                return self._resume(db, free[0][0], as_json(arguments))
            # their uploads stay until a claim deletes them
            db.executemany("DELETE FROM run WHERE id = ?", [(name,) for name, _since in free])
            db.execute(
                "INSERT INTO run (id, target, identity, arguments, started_at, updated_at, finished, since)"
                " SELECT ?, ?, ?, ?, ?, ?, ?, coalesce(max(number), 0) FROM receipt",
                (run_id, number, digest, as_json(arguments), now, now, not lasting),
            )
            return RunHandle(self, db, run_id, fresh=fresh, lasting=lasting)

    def history(self, target: RunTarget, identity: object, *, fresh: bool = False) -> History:
        """Return what is known before such a run begins. Changes nothing."""
        with self.read() as db:
            number, free = _find_resumable(db, target, _digest(identity))
        return History(self, number, free[0][1] if free and not fresh else None)

    def resume(self, run_id: str) -> RunHandle:
        """Resume a run by id or unique prefix. Raise `UsageError` if it is unknown, finished or alive."""
        with self.write() as db:
            info = _find_idle(db, run_id)
            if info.state == "finished":
                raise UsageError(f"run {info.id} is finished: nothing is left to resume", hint=LIST)
            return self._resume(db, info.id, as_json(info.arguments))

    def runs(self) -> list[RunInfo]:
        """Return the runs, newest first. A row of another shape is left out, and named in `notices`."""
        with self.read() as db:
            runs, odd = _get_runs(db)
        again = "its journal entry is damaged (to delete it: uploader resume --forget"
        texts = (f"run {name} is left out: {again} {name})" for name in odd)
        self.notices += tuple(text for text in texts if text not in self.notices)
        return runs

    def run(self, run_id: str) -> RunInfo:
        """Return the run with this id, earlier id or unique prefix. Raise `UsageError`."""
        with self.read() as db:
            return _find_run(db, run_id)

    def newest_unfinished(self) -> RunInfo | None:
        """Return the newest run that resuming helps."""
        return next((info for info in self.runs() if info.is_offered), None)

    def session_secret(self, session: str, server: str) -> str:
        """Return the secret of a session of any run on this server; empty if it is unknown."""
        with self.read() as db:
            rows = db.execute(
                "SELECT session.id, category, secret, open FROM session JOIN run ON run.number = session.run"
                " JOIN target ON target.id = run.target WHERE session.id = ? AND server = ? AND secret != ''",
                (session, server),
            )
            return saved_sessions(rows).get(session, SavedSession()).secret

    def forget(self, run_id: str) -> object:
        """Delete a run and its uploads in progress, not its receipts; return its list. Raise `UsageError` as `resume`.

        A run whose row can't be read is deleted by its whole id.
        """
        with self.write() as db:
            info = None if run_id in _get_runs(db, f"{run_id} ")[1] else _find_idle(db, run_id)
            run = (run_id if info is None else info.id,)
            delete_open(db, db.execute("DELETE FROM run WHERE CAST(id AS TEXT) = ? RETURNING number", run).fetchall())
        return info.arguments.get("list") if info is not None else None

    def _resume(self, db: Connection, old_id: str, arguments: str) -> RunHandle:
        run_id = secrets.token_hex(8)
        db.execute(
            "UPDATE run SET id = ?, earlier = ltrim(earlier || ' ' || id), arguments = ?, outcome = '{}',"
            " updated_at = ? WHERE id = ?",
            (run_id, arguments, self.now(), old_id),
        )
        return RunHandle(self, db, run_id)


def _find_resumable(db: Connection, target: RunTarget, identity: str) -> tuple[int, list[tuple[str, int]]]:
    """Return the number of `target` (0: new), and id and `since` of resumable runs, newest first."""
    found = db.execute("SELECT id FROM target WHERE server = ? AND destination = ?", astuple(target)).fetchone()
    number = found[0] if found is not None else 0
    runs = db.execute(
        "SELECT id, since FROM run WHERE target = ? AND identity = ? AND NOT finished AND NOT alive(CAST(id AS BLOB))"
        " ORDER BY updated_at DESC, number DESC",
        (number, identity),
    )
    return number, [(name, since) for name, since in runs if isinstance(name, str) and is_run_id(name)]


def _get_runs(db: Connection, named: str = "") -> tuple[list[RunInfo], list[str]]:
    """Return the runs whose present or earlier id begins with `named`, newest first, and the ids of unreadable rows."""
    found = db.execute(
        "SELECT CAST(run.id AS BLOB), CAST(server AS BLOB), CAST(destination AS BLOB), CAST(arguments AS BLOB),"
        " CAST(outcome AS BLOB), started_at, updated_at, files, bytes, coalesce(open_files, 0), number,"
        " CASE WHEN alive(CAST(run.id AS BLOB)) THEN 'running' WHEN finished THEN 'finished' ELSE 'interrupted' END"
        " FROM run JOIN target ON target.id = run.target"
        " LEFT JOIN (SELECT run AS owner, count(*) AS open_files FROM pending GROUP BY run) ON owner = number"
        " WHERE instr(' ' || earlier || ' ' || run.id || ' ', ' ' || ?) ORDER BY updated_at DESC, number DESC",
        (named,),
    ).fetchall()
    runs, odd = list[RunInfo](), list[str]()
    for *known, number, state in found:
        try:
            runs.append(run_info(known[:5], known[5:], state, _open(get_sessions(db, number))))
        except (ValueError, RecursionError):
            odd.append(known[0].decode(errors="replace"))
    return runs, odd


def _find_run(db: Connection, run_id: str) -> RunInfo:
    """Return the run with this id or unique prefix. Raise `UsageError`."""
    found, odd = next(filter(any, (_get_runs(db, f"{run_id} "), _get_runs(db, run_id))), ([], []))
    if not found and odd:
        words = f"run {odd[0]} can't be read: its journal entry is damaged"
        raise UsageError(words, hint=f"delete it with: uploader resume --forget {odd[0]}")
    if not found:
        raise UsageError(f"no such run: {run_id}", hint=LIST)
    if len(found) > 1:
        raise UsageError(f"{len(found)} runs begin with {run_id}", hint=LIST)
    return found[0]


def _open(sessions: Mapping[str, SavedSession]) -> tuple[str, ...]:
    return tuple(session for session, known in sessions.items() if known.open)


def _find_idle(db: Connection, run_id: str) -> RunInfo:
    info = _find_run(db, run_id)
    if info.state == "running":
        raise UsageError(f"run {info.id} is under way in another process", hint="wait for it, or stop it first")
    return info


def _digest(identity: object) -> str:
    return hashlib.sha256(as_json(identity).encode()).hexdigest()
