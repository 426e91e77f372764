"""What a run writes down: `Journal` begins and resumes runs, `RunHandle` is one run's hold on its files."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from dataclasses import dataclass, replace
from itertools import accumulate, chain, repeat
from typing import TYPE_CHECKING, Any

from uploader_cli.errors import Interrupted, UploaderError, UsageError
from uploader_cli.transfer.journal import rows, schema
from uploader_cli.transfer.journal.lock import FileLock
from uploader_cli.transfer.journal.records import (
    Claim,
    ClaimState,
    Pending,
    PendingPart,
    PendingUpload,
    Receipt,
    is_of,
    new_key,
    packed_uploads,
    path_key,
)
from uploader_cli.transfer.journal.schema import JournalError, Store

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal.records import RunInfo, Stored, Target
    from uploader_cli.transfer.journal.rows import Run, RunRow

    _Known = tuple[Pending | None, Receipt | None]

LIST = "`uploader resume --list` shows them"
RETRY_SECONDS = 5.0
"""How often a journal that could not be written is tried again."""
LAST_SECONDS = 1.0
"""How long the last transaction of a run waits for other processes after an interrupt."""
MOST_UNWRITTEN = 50_000
"""Files that are remembered in memory while the journal can't be written; the oldest beyond these are forgotten."""


class Journal:
    """The journal in `directory`, made where there is none, migrated where it is older, and pruned.

    `notices` are sentences for the user: a journal that can't be read (damaged, or of a newer version) was set aside,
    or interrupted runs are too old or too many to be kept. `now` is the time in seconds. `check` is called while other
    processes hold the journal, and raises `Interrupted` to end the waiting.
    Raises `UsageError`, naming --state-dir, where nothing can be written.
    """

    def __init__(
        self, directory: Path, *, now: Callable[[], float] = time.time, check: Callable[[], None] = lambda: None
    ) -> None:
        self._now = now
        self._handles: list[RunHandle] = []
        self._store = Store(directory, now(), check)
        self.notices = tuple(self._store.notices)

    def close(self) -> None:
        """Close the file; a run that was not finished counts as interrupted."""
        for handle in self._handles:
            handle.close()
        self._store.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
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
        run_id = run_id or secrets.token_hex(8)
        with self._store.write() as db:
            number = rows.add_target(db, target)
            free = _interrupted(db, number, digest)
            if free and not fresh:
                return self._hold(db, rows.rename_run(db, free[0], run_id, _json(arguments), self._now()))
            rows.delete_runs(db, [run.number for run in free])  # their uploads stay: a claim terminates them
            row = rows.add_run(db, run_id, number, digest, _json(arguments), self._now())
            return self._hold(db, row._replace(fresh=fresh))

    def history(self, target: Target, identity: object, *, fresh: bool = False) -> History:
        """Return what is known of files before such a run begins, with the arguments of `begin`. Changes nothing."""
        with self._store.read() as db:
            number = rows.find_target(db, target)
            free = [] if number is None or fresh else _interrupted(db, number, _digest(identity))
        return History(self._store, number, free[0].since if free else None, self._now() - rows.KEPT_SECONDS)

    def resume(self, run_id: str, *, new_id: str | None = None) -> RunHandle:
        """Resume this very run (a unique prefix will do); `new_id` is as `run_id` of `begin`.

        Raises `UsageError` if there is none, if it is finished, or if a live process holds it.
        """
        with self._store.write() as db:
            run = _find(db, run_id)
            if run.info.state == "finished":
                raise UsageError(f"run {run.info.id} is finished: nothing is left to resume", hint=LIST)
            _refuse_alive(run)
            arguments = _json(run.info.arguments)
            return self._hold(db, rows.rename_run(db, run, new_id or secrets.token_hex(8), arguments, self._now()))

    def runs(self) -> list[RunInfo]:
        """Return all runs that are remembered, the one that wrote last first."""
        with self._store.read() as db:
            return [run.info for run in rows.get_runs(db)]

    def run(self, run_id: str) -> RunInfo:
        """Return the run with this id, or a unique prefix of it, or of an id that it had before it was resumed.

        Raises `UsageError` where that is none or several.
        """
        with self._store.read() as db:
            return _find(db, run_id).info

    def newest_unfinished(self) -> RunInfo | None:
        """Return the run to resume by default: the newest that is unfinished and that no live process holds."""
        return next((info for info in self.runs() if info.state == "interrupted"), None)

    def forget(self, run_id: str) -> None:
        """Drop a run and what it has under way; its receipts stay. Raises `UsageError` as `run`, or if it is alive."""
        with self._store.write() as db:
            run = _find(db, run_id)
            _refuse_alive(run)
            rows.delete_runs(db, [run.number])
            rows.delete_open(db, [run.number])

    def _hold(self, db: sqlite3.Connection, row: RunRow) -> RunHandle:
        """Lock the run in the transaction that adds it: before that ends no process asks whether the run is alive."""
        try:
            lock = FileLock(self._store.run_lock(row.id), wait=1.0)
        except OSError as error:
            raise UploaderError(f"run {row.id} can't be locked: {error}", hint="see --state-dir") from error
        self._handles.append(RunHandle(self._store, row, lock, self._now, rows.get_sessions(db, row.number)))
        return self._handles[-1]


class History:
    """What is known of files before a run begins. `target` is None where nothing was ever sent there, `since` where no
    run is resumed. Receipts from before `oldest` (seconds since the epoch) do not count.
    """

    def __init__(self, store: Store, target: int | None, since: int | None, oldest: float) -> None:
        self._store, self._target, self._since, self._oldest = store, target, since, oldest

    def done(self, file: LocalFile) -> bool:
        """Return whether the run that would be resumed has sent this very file."""
        return self._since is not None and self._has(file, self._since)

    def sent_before(self, file: LocalFile) -> bool:
        """Return whether any run has sent it, as --skip-existing asks."""
        return self._has(file, -1)

    def _has(self, file: LocalFile, since: int) -> bool:
        if self._target is None:
            return False
        with self._store.read() as db:
            found = rows.get_receipt(db, self._target, path_key(file), since)
        return found is not None and is_of(file, found) and found.completed_at >= self._oldest


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
    (a full disk, an I/O error, another program that keeps it locked for a minute) `on_trouble`, which must not block or
    call the run, is called once with a sentence for the user; changes are kept in memory, and written when that works
    again. `check` is called while other processes hold the journal, and raises `Interrupted` to end the waiting. Calls
    that concern an upload before its end raise it, all others don't.

    `id` is the run's; `resumed_from` is the id under which it was last known, None for a new run.
    """

    def __init__(
        self, store: Store, row: RunRow, lock: FileLock, now: Callable[[], float], sessions: Sequence[str]
    ) -> None:
        self.id, self._number, self._target, self._since, self.resumed_from, self._fresh = row
        self.check = store.check
        self.on_trouble: Callable[[str], None] = lambda _text: None
        self._store, self._lock, self._now = store, lock, now
        self._mutex = threading.Lock()
        self._held: dict[bytes, tuple[LocalFile, Pending]] = {}
        self._sessions = dict.fromkeys(sessions)
        self._reserved = rows.Reserved()
        self._over = False
        # what is not written yet
        self._changes: dict[bytes, _Change] = {}
        self._counted: list[int] = []  # sizes of completed files
        self._sessions_changed = False
        self._trouble: JournalError | None = None
        self._retry_at = 0.0
        self._was_troubled = False

    # --- files --------------------------------------------------------------------------------------------------------

    def claim(self, files: Sequence[LocalFile], *, pack: bool = False) -> list[Claim]:
        """Take `files` for this run, atomically among all processes; return what is known of each, in order.

        With `pack` the new ones share one key, with the position of each (`pack_position`).

        NEW and CHANGED have a new random `upload.upload_key`, durable before this returns: POST it. Claiming a file
        again that this run holds gives RESUME (a retry); another LocalFile with the same path gets BUSY. After `finish`
        all are BUSY. Raises `Interrupted`.
        """
        claims: list[Claim] = []
        keys = [path_key(file) for file in files]
        uploads = packed_uploads() if pack else iter(PendingUpload, None)

        def take(db: sqlite3.Connection) -> None:
            known = [self._look(db, key) for key in keys]
            claims.extend(map(self._take, files, keys, known, repeat(uploads)))
            self._write(db)

        with self._mutex:
            if self._over:
                return [Claim(ClaimState.BUSY) for _ in files]
            self._save(take, begins=True)
            return claims or list(map(self._take, files, keys, self._look_only(keys), repeat(uploads)))

    def packed(self, files: Sequence[LocalFile]) -> str:
        """Give claimed files that travel in one pack a new key, in one transaction, and return it."""
        uploads = packed_uploads()
        first = next(uploads)
        given = chain([first], uploads)
        self._update(files, lambda old: replace(old, upload=next(given)))
        return first.upload_key.partition(":")[0]

    def receipts(self, files: Sequence[LocalFile]) -> list[Receipt | None]:
        """Return for each file the newest receipt of any run for its size and mtime, not older than 90 days."""
        oldest = self._now() - rows.KEPT_SECONDS
        with self._mutex:
            keys = [path_key(file) for file in files]
            try:
                with self._store.read(self._wait) as db:
                    found = [rows.get_receipt(db, self._target, key) for key in keys]
            except JournalError as error:
                self._troubled(error)
                found = [None] * len(files)
            found = [self._overlaid(key, None, row)[1] for key, row in zip(keys, found, strict=True)]
        return [
            row if row is not None and is_of(file, row) and row.completed_at >= oldest else None
            for file, row in zip(files, found, strict=True)
        ]

    def creating(self, file: LocalFile, session: str | None = None) -> PendingUpload:
        """Forget what was created for a claimed file, and return a new upload: call it before another creation.

        For an upload that is gone on the server (404, 410) or whose session had to be made anew.
        """
        upload = PendingUpload(session=session)
        self._update([file], lambda old: replace(old, upload=upload))
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
        """Record the `url` of the upload, or of its part `part`. A file in one request needs no such call."""
        more = {"chunk_size": chunk_size, "session": session}
        self._set(file, part, url=url, **{name: value for name, value in more.items() if value is not None})

    def checked(self, file: LocalFile, until: int, *, part: int | None = None) -> None:
        """Record that bytes up to `until` (of the file, or of its part) lay in chunks whose checksum was accepted."""
        self._set(file, part, checked_until=until)

    def pledged(self, file: LocalFile, until: int, *, part: int | None = None) -> None:
        """Record that a chunk with its checksum follows checked bytes and ends at `until`; 0: the next has none."""
        self._set(file, part, pledged_until=until)

    def split(self, file: LocalFile, sizes: Sequence[int]) -> tuple[PendingPart, ...]:
        """Cut a claimed file into parts of these sizes (bytes), each with its own key: before they are created.

        Parts that it had are forgotten. The key of the file itself is for the upload that joins them.
        """
        starts = accumulate(sizes, initial=0)
        ranges = zip(starts, sizes, strict=False)  # the last start is the end
        parts = tuple(PendingPart(index, start, size, new_key()) for index, (start, size) in enumerate(ranges))
        self._set(file, None, parts=parts)
        return parts

    def creating_part(self, file: LocalFile, part: int) -> str:
        """Forget what was created for one part, and return its new key: call it before another creation."""
        key = new_key()
        self._set(file, part, upload_key=key, url=None, checked_until=0, pledged_until=0)
        return key

    def completed(self, stored: Sequence[Stored]) -> None:
        """Record that the server has these files: receipts replace what was under way, in one transaction.

        A second call for a file updates its receipt. Recorded after `finish` too: it is true whenever it comes.
        """
        at = int(self._now())
        with self._mutex:
            for item in stored:
                file, key = item.file, path_key(item.file)
                path = os.fsdecode(rows.plain_path(key))
                fields = (item.server_id, item.location, item.checksum, item.verified, at)
                self._plan(key, _Change(file, receipt=Receipt(self.id, path, file.size, file.mtime_ns, *fields)))
                if self._held.pop(key, None) is not None:
                    self._counted.append(file.size)
            self._save()

    def uncertain(self, files: Sequence[LocalFile]) -> None:
        """Record that the whole request with these files is sent, and its outcome is unknown: they may be stored."""
        self._update(files, lambda old: replace(old, uncertain=True), begins=False)

    def certain(self, files: Sequence[LocalFile]) -> None:
        """Record that the server has answered after all: these files are not stored."""
        self._update(files, lambda old: replace(old, uncertain=False), begins=False)

    def forget(self, files: Sequence[LocalFile]) -> None:
        """Forget files that were refused for good, or have changed on disk, and receipts for their size and mtime."""
        with self._mutex:
            self._refuse_over()
            for file in files:
                key = path_key(file)
                self._held.pop(key, None)
                self._plan(key, _Change(file, refused=file))
            self._save()

    def release(self, files: Sequence[LocalFile]) -> None:
        """Stop sending these files in this run; what is known of them stays for the next one."""
        with self._mutex:
            for file in files:
                self._held.pop(path_key(file), None)

    # --- sessions and the run -----------------------------------------------------------------------------------------

    def session_opened(self, session: str) -> None:
        """Record that a session of this run is open on the server."""
        self._set_sessions(lambda: self._sessions.setdefault(session))

    def session_closed(self, session: str) -> None:
        """Record that the session has ended, or that the server does not know it any more."""
        self._set_sessions(lambda: self._sessions.pop(session, None))

    def open_sessions(self) -> tuple[str, ...]:
        """Return sessions to join again or to finish, oldest first: this run's, and those of the run it resumes."""
        with self._mutex:
            return tuple(self._sessions)

    def finish(self, *, ok: bool) -> None:
        """End the run. `ok`: every file is on the server; what was under way is pruned, and so are interrupted runs of
        the very same command. Otherwise the run is interrupted, and everything can be resumed.

        A second call changes nothing.
        """

        def end(db: sqlite3.Connection) -> None:
            self._write(db)
            rows.end_run(db, self._number, ok=ok, now=self._now())

        with self._mutex:
            if self._over:
                return
            self._over = True
            self._save(end, last=True)
        self.close()

    def close(self) -> None:
        """Stop holding the run; it counts as interrupted unless it is finished."""
        with self._mutex:
            if self._changes or self._counted or self._sessions_changed:
                self._save(last=True)
            self._over = True
            self._lock.release(remove=True)

    # --- what a file is -----------------------------------------------------------------------------------------------

    def _look(self, db: sqlite3.Connection, key: bytes) -> _Known:
        pending = rows.get_pending(db, self._target, key, self._number)
        return pending, rows.get_receipt(db, self._target, key, self._since)

    def _look_only(self, keys: Sequence[bytes]) -> list[_Known]:
        """As `_look` while nothing can be written; of a journal that can't be read either, nothing is known."""
        try:
            with self._store.read(self._wait) as db:
                return [self._look(db, key) for key in keys]
        except JournalError:
            return [(None, None)] * len(keys)

    def _overlaid(self, key: bytes, pending: Pending | None, receipt: Receipt | None) -> _Known:
        """What is written for a path, and what is not written yet in its place."""
        change = self._changes.get(key)
        if change is None:
            return pending, receipt
        if receipt is not None and change.refused is not None and is_of(change.refused, receipt):
            receipt = None
        return change.pending, change.receipt or receipt

    def _take(self, file: LocalFile, key: bytes, known: _Known, uploads: Iterator[PendingUpload]) -> Claim:
        held = self._held.get(key)
        pending, receipt = self._overlaid(key, *known)
        if (pending is not None and pending.busy) or (held is not None and held[0].file != file.file):
            return Claim(ClaimState.BUSY)
        if receipt is not None and is_of(file, receipt):
            return Claim(ClaimState.DONE, receipt=receipt)
        old = held[1] if held is not None else pending
        outdated = old.upload if old is not None else None
        if old is None:
            state = ClaimState.NEW if receipt is None else ClaimState.CHANGED
        elif self._fresh and old.run != self._number:
            state = ClaimState.NEW
        elif not is_of(file, old):
            state = ClaimState.CHANGED
        else:
            state = ClaimState.UNKNOWN if old.uncertain else ClaimState.RESUME
        if old is not None and state in (ClaimState.UNKNOWN, ClaimState.RESUME):
            new, outdated = replace(old, run=self._number), None
        else:
            new = Pending(file.size, file.mtime_ns, self._number, next(uploads))
        self._hold(key, file, new, old)
        return Claim(state, new.upload, outdated=outdated)

    # --- changes ------------------------------------------------------------------------------------------------------

    def _set(self, file: LocalFile, part: int | None, **values: Any) -> None:
        """Set fields of the upload of a claimed file, or of one of its parts."""

        def changed(old: Pending) -> Pending:
            now = values
            if part is not None:
                now = {"parts": tuple(replace(p, **values) if p.index == part else p for p in old.upload.parts)}
            return replace(old, upload=replace(old.upload, **now))

        self._update([file], changed)

    def _update(
        self, files: Sequence[LocalFile], changed: Callable[[Pending], Pending], *, begins: bool = True
    ) -> None:
        """Change what is under way for files, where this run holds them."""
        with self._mutex:
            self._refuse_over()
            for key in map(path_key, files):
                if key in self._held:
                    file, old = self._held[key]
                    self._hold(key, file, changed(old), old)
            self._save(begins=begins)

    def _hold(self, key: bytes, file: LocalFile, new: Pending, old: Pending | None) -> None:
        self._held[key] = (file, new)
        if new != old:
            unwritten = self._changes.get(key)
            if unwritten is None:
                self._changes[key] = _Change(file, new)
            else:
                self._plan(key, replace(unwritten, file=file, pending=new))

    def _plan(self, key: bytes, change: _Change) -> None:
        """Write `change` with the next transaction, as the last."""
        self._changes.pop(key, None)
        self._changes[key] = change

    def _set_sessions(self, change: Callable[[], object]) -> None:
        with self._mutex:
            self._refuse_over()
            change()
            self._sessions_changed = True
            self._save()

    def _refuse_over(self) -> None:
        if self._over:
            raise UploaderError(f"run {self.id} has ended: the journal takes no more of it")

    # --- transactions -------------------------------------------------------------------------------------------------

    def _save(
        self, action: Callable[[sqlite3.Connection], None] | None = None, *, begins: bool = False, last: bool = False
    ) -> None:
        """Write in one transaction what has changed, or what `action` does; where that fails, it is written later.

        Raises `Interrupted` with `begins`.
        """
        if self._trouble is None or (not self._trouble.damaged and (last or time.monotonic() >= self._retry_at)):
            try:
                try:
                    self._transact(action or self._write, self._wait)
                except Interrupted:
                    if begins:
                        raise
                    if last:
                        self._transact(action or self._write, lambda waited: waited < LAST_SECONDS)
            except JournalError as error:
                self._troubled(error)
        while len(self._changes) > MOST_UNWRITTEN:
            oldest = next((key for key in self._changes if key not in self._held), None)
            if oldest is None:
                break
            del self._changes[oldest]

    def _transact(self, action: Callable[[sqlite3.Connection], None], wait: Callable[[float], bool]) -> None:
        with self._store.write(wait) as db:
            action(db)
        self._changes.clear()
        self._counted.clear()
        self._sessions_changed = False
        self._trouble = None

    def _wait(self, waited: float) -> bool:
        self.check()
        return waited < schema.BUSY_SECONDS and self._trouble is None

    def _troubled(self, error: JournalError) -> None:
        self._trouble = error
        self._reserved = rows.Reserved()
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self._was_troubled:
            self._was_troubled = True
            self.on_trouble(f"{error}; the upload goes on, but a resume may send files again: {error.hint}")

    def _write(self, db: sqlite3.Connection) -> None:
        """Write what has changed, but not what is under way where another run has taken the file meanwhile."""
        target, number, changes = self._target, self._number, self._changes.items()
        mine = [(key, change.pending) for key, change in changes if not self._trouble or not self._is_busy(db, key)]
        rows.put_pending(db, target, mine)
        for key, change in changes:
            if change.refused is not None:
                rows.delete_receipt(db, target, key, change.refused)
        receipts = [(key, change.file, change.receipt) for key, change in changes if change.receipt is not None]
        if receipts:
            rows.put_receipts(db, target, number, receipts, self._reserved)
        if self._counted:
            rows.count_files(db, number, self._counted, self._now())
        if self._sessions_changed:
            rows.put_sessions(db, number, self._sessions)

    def _is_busy(self, db: sqlite3.Connection, key: bytes) -> bool:
        pending = rows.get_pending(db, self._target, key, self._number)
        return pending is not None and pending.busy


def _interrupted(db: sqlite3.Connection, target: int, identity: str) -> list[Run]:
    """Return the runs that the same command would resume, the newest first."""
    wanted = (target, identity, "interrupted")
    return [run for run in rows.get_runs(db) if (run.target, run.identity, run.info.state) == wanted]


def _find(db: sqlite3.Connection, run_id: str) -> Run:
    runs = {name: run for run in rows.get_runs(db) for name in (run.info.id, *run.earlier)}
    found = {run.number: run for name, run in runs.items() if name.startswith(run_id)}
    if run_id in runs:
        return runs[run_id]
    if not found:
        raise UsageError(f"the journal knows no run {run_id}", hint=LIST)
    if len(found) > 1:
        raise UsageError(f"{len(found)} runs begin with {run_id}", hint=LIST)
    return found.popitem()[1]


def _refuse_alive(run: Run) -> None:
    if run.info.alive:
        raise UsageError(f"run {run.info.id} is under way in another process", hint="wait for it, or stop it first")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)  # ASCII: paths that are no text pass as escapes


def _digest(identity: object) -> str:
    return hashlib.sha256(_json(identity).encode()).hexdigest()
