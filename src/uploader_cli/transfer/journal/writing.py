"""What a run writes down: `Journal` begins and resumes runs, `RunHandle` is one run's hold on its files."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from uploader_cli.errors import Interrupted, UploaderError, UsageError
from uploader_cli.transfer.journal import schema
from uploader_cli.transfer.journal.lock import FileLock, is_held
from uploader_cli.transfer.journal.reading import (
    Claim,
    ClaimState,
    History,
    ListedRun,
    Pending,
    PendingPart,
    PendingUpload,
    Receipt,
    RunRow,
    is_of,
    listed_runs,
    location_prefix,
    new_key,
    path_key,
    pending_columns,
    pending_row,
    plain_path,
    receipt_columns,
    receipt_row,
    session_ids,
)
from uploader_cli.transfer.journal.schema import JournalError, Store

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal.reading import RunInfo, Stored, Target

LIST = "`uploader resume --list` shows them"
RETRY_SECONDS = 5.0
"""How often a journal that could not be written is tried again."""
LAST_SECONDS = 1.0
"""How long the last transaction of a run waits for other processes after an interrupt."""
MOST_UNWRITTEN = 50_000
"""Files that are remembered in memory while the journal can't be written; the oldest beyond these are forgotten."""


def _nothing() -> None:
    """Let the journal wait: the default of `check`."""


class Journal:
    """The journal in `directory`, made where there is none, migrated where it is older, and pruned.

    `notices` are sentences for the user: a journal that can't be read (damaged, or of a newer version) was set aside,
    or interrupted runs are too old or too many to be kept. `now` is the time in seconds. `check` is called while other
    processes hold the journal, and raises `Interrupted` to end the waiting.
    Raises `UsageError`, naming --state-dir, where nothing can be written.
    """

    def __init__(
        self, directory: Path, *, now: Callable[[], float] = time.time, check: Callable[[], None] = _nothing
    ) -> None:
        self._directory = directory
        self._now = now
        self._handles: list[RunHandle] = []
        self._store = Store(directory, now(), check)
        try:
            self._prune()
        except JournalError as error:
            self._store.close()
            if not error.damaged:
                raise UsageError(str(error), hint=error.hint) from error
            self._store = Store(directory, now(), check)  # the damage came out only now: it is set aside
            self._prune()
        self.notices = tuple(self._store.notices)

    def close(self) -> None:
        """Close the file; a run that was not finished counts as interrupted."""
        for handle in self._handles:
            handle.close()
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
        """Begin a run, or resume the newest unfinished one of the same target and identity that no process holds.

        `arguments` (JSON-able, no secrets) is what `resume` needs to run it again. `identity` (JSON-able) is what makes
        two commands the same, `arguments` by default: paths and cwd, say, without --jobs. `run_id` must be new; it is
        random by default. `fresh` (--no-resume) resumes neither run nor file, and retires such runs.
        """
        digest = _digest(arguments if identity is None else identity)
        name = run_id or secrets.token_hex(8)
        with self._store.write() as db:
            (number,) = db.execute(
                "INSERT INTO target (server, destination) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET server = excluded.server RETURNING id",
                (target.server, target.destination),
            ).fetchone()
            free = self._interrupted(db, number, digest)
            if free and not fresh:
                return self._resume(db, free[0], name, _json(arguments))
            # What these runs had under way stays until a file is claimed: its upload can then be terminated.
            db.executemany("DELETE FROM run WHERE number = ?", [(item.row.number,) for item in free])
            (since,) = db.execute("SELECT max(number) FROM period").fetchone()
            db.execute("INSERT INTO period DEFAULT VALUES")
            now = self._now()
            (run,) = db.execute(
                "INSERT INTO run (id, target, identity, arguments, started_at, updated_at, since)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
                (name, number, digest, _json(arguments), now, now, since),
            ).fetchone()
            return self._hold(db, RunRow(name, run, number, since, fresh=fresh))

    def history(self, target: Target, identity: object, *, fresh: bool = False) -> History:
        """What is known of files before such a run begins; `begin` says what the arguments are. Nothing is changed."""
        with self._store.read() as db:
            row = db.execute(
                "SELECT id FROM target WHERE server = ? AND destination = ?", (target.server, target.destination)
            ).fetchone()
            number = None if row is None else int(row[0])
            free = [] if number is None or fresh else self._interrupted(db, number, _digest(identity))
        return History(self._store, number, free[0].row.since if free else None, self._now() - schema.KEPT_SECONDS)

    def resume(self, run_id: str, *, new_id: str | None = None) -> RunHandle:
        """Resume this very run (a unique prefix will do); `new_id` is as `run_id` of `begin`.

        Raises `UsageError` if there is none, if it is finished, or if a live process holds it.
        """
        with self._store.write() as db:
            found = self._find(db, run_id)
            if found.info.state == "finished":
                raise UsageError(f"run {found.row.id} is finished: nothing is left to resume", hint=LIST)
            _refuse_alive(found)
            return self._resume(db, found, new_id or secrets.token_hex(8), _json(found.info.arguments))

    def runs(self) -> list[RunInfo]:
        """All runs that are remembered, the one that wrote last first."""
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
            schema.prune_runs(db, self._now())

    def _interrupted(self, db: sqlite3.Connection, target: int | None, identity: str) -> list[ListedRun]:
        """The runs that the same command would resume, the newest first."""
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

    def _resume(self, db: sqlite3.Connection, found: ListedRun, name: str, arguments: str) -> RunHandle:
        old = found.row
        db.execute(
            "UPDATE run SET id = ?, earlier = ?, arguments = ?, updated_at = ? WHERE number = ?",
            (name, " ".join((*found.earlier, old.id)), arguments, self._now(), old.number),
        )
        return self._hold(db, replace(old, id=name, resumed_from=old.id))

    def _hold(self, db: sqlite3.Connection, row: RunRow) -> RunHandle:
        """Lock the run in the transaction that adds it: before that ends no process asks whether the run is alive."""
        try:
            lock = FileLock(self._lock_path(row.id), wait=1.0)
        except OSError as error:
            raise UploaderError(f"run {row.id} can't be locked: {error}", hint="see --state-dir") from error
        handle = RunHandle(self._store, row, lock, self._now, self._is_alive, session_ids(db, row.number))
        self._handles.append(handle)
        return handle

    def _prune(self) -> None:
        with self._store.write() as db:  # locks are made in transactions as well: none is removed half made
            for path in self._directory.glob("run-*.lock"):
                if not is_held(path):
                    path.unlink(missing_ok=True)
            stale = [(number,) for number, name in schema.prune_runs(db, self._now()) if not self._is_alive(name)]
            db.executemany("DELETE FROM run WHERE number = ?", stale)
        if stale:
            self._store.notices.append(
                f"interrupted runs forgotten by the journal: {len(stale)}, untouched for 90 days or beyond the newest"
                f" {schema.MOST_UNFINISHED}"
            )
        schema.prune_receipts(self._store, self._now())

    def _is_alive(self, run_id: str) -> bool:
        return is_held(self._lock_path(run_id))

    def _lock_path(self, run_id: str) -> Path:
        return self._directory / f"run-{run_id}.lock"


@dataclass(frozen=True, slots=True)
class _Known:
    """What the journal has of a file; `busy`: another live run sends it."""

    pending: Pending | None = None
    receipt: Receipt | None = None
    busy: bool = False


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to be written for a path: what is under way, its receipt, and of which file a receipt goes."""

    file: LocalFile
    pending: Pending | None = None
    receipt: Receipt | None = None
    refused: LocalFile | None = None


class RunHandle:
    """A run that this process holds; its methods may be called from any thread. Made by `Journal`.

    Each call is on disk when it returns: a process killed after that loses nothing. Where the journal can't be written
    (a full disk, an I/O error, another program that keeps it locked for a minute) `on_trouble` is called once with a
    sentence for the user, what happens is kept in memory, and it is written when that works again. `check` is called
    while other processes hold the journal, and raises `Interrupted` to end the waiting: calls that begin something
    raise it, those that note what has happened don't.

    `id` is the run's; `resumed_from` is the id under which it was last known, None for a new run.
    """

    def __init__(
        self,
        store: Store,
        row: RunRow,
        lock: FileLock,
        now: Callable[[], float],
        is_alive: Callable[[str], bool],
        sessions: Sequence[str],
    ) -> None:
        self.id = row.id
        self.resumed_from = row.resumed_from
        self.check = store.check
        self.on_trouble: Callable[[str], None] = lambda _text: None
        self._store = store
        self._row = row
        self._lock = lock
        self._now = now
        self._is_alive = is_alive
        self._mutex = threading.Lock()
        self._held: dict[bytes, tuple[LocalFile, Pending]] = {}
        self._changes: dict[bytes, _Change] = {}  # not written yet
        self._counted: list[int] = []  # sizes of completed files that the run's row does not count yet
        self._sessions = dict.fromkeys(sessions)
        self._sessions_changed = False
        self._over = False
        self._trouble: JournalError | None = None
        self._retry_at = 0.0
        self._sentence = ""
        self._is_told = False

    # --- files --------------------------------------------------------------------------------------------------------

    def claim(self, files: Sequence[LocalFile]) -> list[Claim]:
        """Take `files` for this run, atomically among all processes; say what is known of each, in order.

        NEW and CHANGED have a new random `upload.upload_key`, durable before this returns: POST it. Claiming a file
        again that this run holds gives RESUME (a retry); another LocalFile with the same path gets BUSY. After `finish`
        all are BUSY. Raises `Interrupted`.
        """
        claims: list[Claim] = []
        with self._calling():
            if self._over:
                return [Claim(ClaimState.BUSY) for _ in files]
            try:
                with self._writing() as db:
                    known = [self._look(db, file) for file in files]
                    claims = [self._take(file, found) for file, found in zip(files, known, strict=True)]
                    self._write(db)
            except JournalError as error:
                self._troubled(error)
                if not claims:
                    claims = [self._take(*pair) for pair in zip(files, self._look_without(files), strict=True)]
        return claims

    def receipts(self, files: Sequence[LocalFile]) -> list[Receipt | None]:
        """For each file the newest receipt of any run for its size and mtime, not older than 90 days."""
        keys = [path_key(file) for file in files]
        with self._calling():
            try:
                with self._store.read(self._wait) as db:
                    found = [receipt_row(db, self._row.target, key) for key in keys]
            except JournalError as error:
                self._troubled(error)
                found = [None] * len(files)
            found = [self._overlaid(key, _Known(receipt=row)).receipt for key, row in zip(keys, found, strict=True)]
        oldest = self._now() - schema.KEPT_SECONDS
        current = [
            row is not None and is_of(file, row) and row.completed_at >= oldest
            for file, row in zip(files, found, strict=True)
        ]
        return [row if is_current else None for row, is_current in zip(found, current, strict=True)]

    def creating(self, file: LocalFile, session: str | None = None) -> PendingUpload:
        """Forget what was created for a claimed file, and give it a new key: call it before another creation.

        For an upload that is gone on the server (404, 410) or whose session had to be made anew.
        """
        upload = PendingUpload(session=session)
        self._change(file, lambda _old: upload)
        return upload

    def created(
        self,
        file: LocalFile,
        url: str,
        *,
        part: int | None = None,
        chunk_size: int | None = None,
        session: str | None = None,
    ) -> None:
        """The server gave `url` to the upload, or to its part `part`. A file in one request needs no such call."""
        more = {"chunk_size": chunk_size, "session": session}
        self._set(file, part, url=url, **{name: value for name, value in more.items() if value is not None})

    def checked(self, file: LocalFile, until: int, *, part: int | None = None) -> None:
        """Bytes up to `until` (of the file, or of its part `part`) lay in chunks whose checksum was accepted."""
        self._set(file, part, checked_until=until)

    def pledged(self, file: LocalFile, until: int, *, part: int | None = None) -> None:
        """A chunk that follows checked bytes is sent with its checksum and ends at `until`; 0: the next has none."""
        self._set(file, part, pledged_until=until)

    def split(self, file: LocalFile, sizes: Sequence[int]) -> tuple[PendingPart, ...]:
        """Cut a claimed file into parts of these sizes (bytes), each with its own key: before they are created.

        Parts that it had are forgotten. The key of the file itself is for the upload that joins them.
        """
        starts = accumulate(sizes, initial=0)
        parts = tuple(
            PendingPart(index, start, size, new_key())
            for index, (start, size) in enumerate(zip(starts, sizes, strict=False))  # the last start is the end
        )
        self._change(file, lambda old: replace(old, parts=parts))
        return parts

    def creating_part(self, file: LocalFile, part: int) -> str:
        """Forget what was created for one part, and return its new key: call it before another creation."""
        key = new_key()
        self._set(file, part, upload_key=key, url=None, checked_until=0, pledged_until=0)
        return key

    def completed(self, stored: Sequence[Stored]) -> None:
        """The server has these files: receipts take the place of what was under way, in one transaction.

        A second call for a file updates its receipt. Recorded after `finish` too: it is true whenever it comes.
        """
        at = int(self._now())
        with self._calling():
            for item in stored:
                file, key = item.file, path_key(item.file)
                path = os.fsdecode(plain_path(key))
                fields = (item.server_id, item.location, item.checksum, item.verified, at)
                self._plan(key, _Change(file, receipt=Receipt(self.id, path, file.size, file.mtime_ns, *fields)))
                if self._held.pop(key, None) is not None:
                    self._counted.append(file.size)
            self._record()

    def uncertain(self, files: Sequence[LocalFile]) -> None:
        """The whole request with these files is sent, and its outcome is not known: they may be stored."""
        self._mark(files, uncertain=True)

    def certain(self, files: Sequence[LocalFile]) -> None:
        """The server has answered after all: these files are not stored."""
        self._mark(files, uncertain=False)

    def forget(self, files: Sequence[LocalFile]) -> None:
        """These files were refused for good, or have changed on disk: no run resumes them.

        A receipt for the same size and mtime goes too.
        """
        with self._calling():
            self._refuse_over()
            for file in files:
                key = path_key(file)
                self._held.pop(key, None)
                self._plan(key, _Change(file, refused=file))
            self._record()

    def release(self, files: Sequence[LocalFile]) -> None:
        """These files are not sent any further in this run; what is known of them stays for the next one."""
        with self._mutex:
            for file in files:
                self._held.pop(path_key(file), None)

    # --- sessions and the run -----------------------------------------------------------------------------------------

    def session_opened(self, session: str) -> None:
        """A session of this run is open on the server."""
        with self._calling():
            self._refuse_over()
            self._sessions[session] = None
            self._sessions_changed = True
            self._record()

    def session_closed(self, session: str) -> None:
        """The session has ended, or the server does not know it any more."""
        with self._calling():
            self._refuse_over()
            self._sessions.pop(session, None)
            self._sessions_changed = True
            self._record()

    def open_sessions(self) -> tuple[str, ...]:
        """Sessions to join again or to finish, oldest first: this run's, and those of the run it resumes."""
        with self._mutex:
            return tuple(self._sessions)

    def finish(self, *, ok: bool) -> None:
        """End the run. `ok`: every file is on the server; what was under way is pruned, and so are interrupted runs of
        the very same command. Otherwise the run is interrupted, and everything can be resumed.

        A second call changes nothing.
        """
        with self._calling():
            if self._over:
                return
            self._over = True
            try:
                with self._writing(last=True) as db:
                    self._write(db)
                    self._finish(db, ok=ok)
            except JournalError as error:
                self._troubled(error)
        self.close()

    def close(self) -> None:
        """Stop holding the run; it counts as interrupted unless it is finished."""
        with self._calling():
            if self._changes or self._counted or self._sessions_changed:
                self._record(last=True)
            self._over = True
            self._lock.release(remove=True)

    def _finish(self, db: sqlite3.Connection, *, ok: bool) -> None:
        number = self._row.number
        db.execute("UPDATE run SET finished = ?, updated_at = ? WHERE number = ?", (ok, self._now(), number))
        if not ok:
            return
        same = db.execute(
            "SELECT other.number, other.id FROM run JOIN run AS other USING (target, identity)"
            " WHERE run.number = ? AND NOT other.finished",
            (number,),
        ).fetchall()
        over = [(other,) for other, name in same if not self._is_alive(name)]
        db.executemany("DELETE FROM run WHERE number = ?", over)
        for table in ("pending", "session"):
            db.executemany(f"DELETE FROM {table} WHERE run = ?", [*over, (number,)])  # noqa: S608

    # --- what a file is -----------------------------------------------------------------------------------------------

    def _look(self, db: sqlite3.Connection, file: LocalFile) -> _Known:
        key, target = path_key(file), self._row.target
        pending = pending_row(db, target, key)
        if self._is_anothers(db, pending):
            return _Known(busy=True)
        return _Known(pending, receipt_row(db, target, key, self._row.since))

    def _look_without(self, files: Sequence[LocalFile]) -> list[_Known]:
        """As `_look` while nothing can be written; of a journal that can't be read either, nothing is known."""
        try:
            with self._store.read(self._wait) as db:
                return [self._look(db, file) for file in files]
        except JournalError:
            return [_Known() for _ in files]

    def _overlaid(self, key: bytes, known: _Known) -> _Known:
        """`known`, and what is not written yet."""
        change = self._changes.get(key)
        if change is None:
            return known
        old = known.receipt
        if old is not None and change.refused is not None and is_of(change.refused, old):
            old = None
        return _Known(change.pending, change.receipt or old)

    def _take(self, file: LocalFile, known: _Known) -> Claim:
        key = path_key(file)
        held, known = self._held.get(key), self._overlaid(key, known)
        if known.busy or (held is not None and held[0].file != file.file):
            return Claim(ClaimState.BUSY)
        if known.receipt is not None and is_of(file, known.receipt):
            return Claim(ClaimState.DONE, receipt=known.receipt)
        pending = held[1] if held is not None else known.pending
        outdated = pending.upload if pending is not None else None
        new = Pending(file.size, file.mtime_ns, self._row.number, PendingUpload())
        if pending is None:
            state = ClaimState.NEW if known.receipt is None else ClaimState.CHANGED
        elif self._row.fresh and pending.run != self._row.number:
            state = ClaimState.NEW
        elif not is_of(file, pending):
            state = ClaimState.CHANGED
        else:
            new, outdated = replace(pending, run=self._row.number), None
            state = ClaimState.UNKNOWN if pending.uncertain else ClaimState.RESUME
        self._hold(key, file, new, written=pending)
        return Claim(state, new.upload, outdated=outdated)

    def _is_anothers(self, db: sqlite3.Connection, pending: Pending | None) -> bool:
        """Whether a live run other than this one sends the file."""
        if pending is None or pending.run == self._row.number:
            return False
        owner = db.execute("SELECT id FROM run WHERE number = ?", (pending.run,)).fetchone()
        return owner is not None and self._is_alive(owner[0])

    # --- changes ------------------------------------------------------------------------------------------------------

    def _set(self, file: LocalFile, part: int | None, **values: Any) -> None:
        def changed(old: PendingUpload) -> PendingUpload:
            if part is None:
                return replace(old, **values)
            return replace(
                old, parts=tuple(replace(item, **values) if item.index == part else item for item in old.parts)
            )

        self._change(file, changed)

    def _change(self, file: LocalFile, changed: Callable[[PendingUpload], PendingUpload]) -> None:
        key = path_key(file)
        with self._calling():
            self._refuse_over()
            if key in self._held:
                held, old = self._held[key]
                self._hold(key, held, replace(old, upload=changed(old.upload)), written=old)
                self._record(begins=True)

    def _mark(self, files: Sequence[LocalFile], *, uncertain: bool) -> None:
        with self._calling():
            self._refuse_over()
            for key in map(path_key, files):
                if key in self._held:
                    held, old = self._held[key]
                    self._hold(key, held, replace(old, uncertain=uncertain), written=old)
            self._record()

    def _hold(self, key: bytes, file: LocalFile, pending: Pending, *, written: Pending | None) -> None:
        self._held[key] = (file, pending)
        if pending != written:
            self._plan(key, replace(self._changes.get(key) or _Change(file), file=file, pending=pending))

    def _plan(self, key: bytes, change: _Change) -> None:
        """Write `change` with the next transaction, at last in its order."""
        self._changes.pop(key, None)
        self._changes[key] = change

    def _refuse_over(self) -> None:
        if self._over:
            raise UploaderError(f"run {self.id} has ended: the journal takes no more of it")

    # --- transactions -------------------------------------------------------------------------------------------------

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """One call at a time; afterwards, with nothing locked, the sentence about trouble."""
        with self._mutex:
            yield
            sentence, self._sentence = self._sentence, ""
        if sentence:
            self.on_trouble(sentence)

    def _record(self, *, begins: bool = False, last: bool = False) -> None:
        """Write what has changed. Raises `Interrupted` for a call that begins something; others are written later."""
        try:
            with self._writing(last=last) as db:
                self._write(db)
        except JournalError as error:
            self._troubled(error)
        except Interrupted:
            if begins:
                raise

    @contextmanager
    def _writing(self, *, last: bool = False) -> Iterator[sqlite3.Connection]:
        """A transaction that writes all changes; raises the old trouble where it is not time to try again."""
        if self._trouble is not None and (self._trouble.damaged or not (last or time.monotonic() >= self._retry_at)):
            raise self._trouble.with_traceback(None)
        with self._store.write(self._wait_at_last if last else self._wait) as db:
            yield db
        self._changes.clear()
        self._counted.clear()
        self._sessions_changed = False
        self._trouble = None

    def _wait(self, waited: float) -> bool:
        self.check()
        return waited < schema.BUSY_SECONDS and self._trouble is None

    def _wait_at_last(self, waited: float) -> bool:
        try:
            return self._wait(waited)
        except Interrupted:
            return waited < LAST_SECONDS

    def _troubled(self, error: JournalError) -> None:
        """Go on in memory."""
        if error is not self._trouble:
            self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self._is_told:
            self._is_told = True
            self._sentence = f"{error}; the upload goes on, but a resume may send files again: {error.hint}"
        self._trouble = error.with_traceback(None)
        while len(self._changes) > MOST_UNWRITTEN:
            oldest = next((key for key in self._changes if key not in self._held), None)
            if oldest is None:
                break
            del self._changes[oldest]

    def _write(self, db: sqlite3.Connection) -> None:
        """Write all changes, but not what is under way where another run has taken the file meanwhile."""
        target, number, changes = self._row.target, self._row.number, list(self._changes.items())
        if self._trouble is None:
            mine = changes
        else:
            under_way = {key: pending_row(db, target, key) for key, _ in changes}
            mine = [(key, change) for key, change in changes if not self._is_anothers(db, under_way[key])]
        over = [(target, key) for key, change in mine if change.pending is None]
        db.executemany("DELETE FROM pending WHERE target = ? AND path = ?", over)
        db.executemany(
            "INSERT OR REPLACE INTO pending (target, path, size, mtime_ns, run, uncertain, upload_key, url,"
            " session, chunk_size, checked_until, parts, pledged_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(target, key, *pending_columns(change.pending)) for key, change in mine if change.pending is not None],
        )
        refused = [
            (target, key, change.refused.size, change.refused.mtime_ns) for key, change in changes if change.refused
        ]
        db.executemany("DELETE FROM receipt WHERE target = ? AND path = ? AND size = ? AND mtime_ns = ?", refused)
        self._write_receipts(db, [(key, change.file, change.receipt) for key, change in changes if change.receipt])
        if self._counted:
            db.execute(
                "UPDATE run SET files = files + ?, bytes = bytes + ?, updated_at = ? WHERE number = ?",
                (len(self._counted), sum(self._counted), self._now(), number),
            )
        if self._sessions_changed:
            db.execute("DELETE FROM session WHERE run = ?", (number,))
            rows = [(number, session) for session in self._sessions]
            db.executemany("INSERT INTO session (run, id) VALUES (?, ?)", rows)

    def _write_receipts(self, db: sqlite3.Connection, receipts: Sequence[tuple[bytes, LocalFile, Receipt]]) -> None:
        if not receipts:
            return
        target = self._row.target
        period, count = db.execute("SELECT number, receipts FROM period ORDER BY number DESC LIMIT 1").fetchone()
        if count >= schema.PERIOD_RECEIPTS:
            period += 1
            db.execute("INSERT INTO period (number) VALUES (?)", (period,))
        (prefix,) = db.execute("SELECT prefix FROM target WHERE id = ?", (target,)).fetchone()
        if prefix is None:
            found = (location_prefix(row.location, file) for _, file, row in receipts)
            prefix = next((item for item in found if item is not None), None)
            if prefix is not None:
                db.execute("UPDATE target SET prefix = ? WHERE id = ?", (prefix, target))
        db.executemany(
            "INSERT OR REPLACE INTO receipt (target, path, run, period, size, mtime_ns, server_id, location, checksum,"
            " verified, completed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(target, key, self._row.number, period, *receipt_columns(key, row, prefix)) for key, _, row in receipts],
        )
        last_at = max(row.completed_at for _, _, row in receipts)
        db.execute(
            "UPDATE period SET receipts = receipts + ?, last_at = ? WHERE number = ?", (len(receipts), last_at, period)
        )


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)  # ASCII: paths that are no text pass as escapes


def _digest(identity: object) -> str:
    return hashlib.sha256(_json(identity).encode()).hexdigest()


def _refuse_alive(found: ListedRun) -> None:
    if found.info.alive:
        raise UsageError(f"run {found.row.id} is under way in another process", hint="wait for it, or stop it first")
