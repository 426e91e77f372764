"""One run's hold on the journal: claims, what is under way, receipts, sessions."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

from uploader_cli.errors import UploaderError
from uploader_cli.transfer.journal_records import Claim, ClaimState, PendingPart, path_key
from uploader_cli.transfer.journal_rows import (
    delete_pending,
    fresh_key,
    is_of,
    pending_row,
    put_pending,
    receipt_row,
    session_ids,
)
from uploader_cli.transfer.journal_schema import KEPT_SECONDS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal_records import PendingUpload, Receipt
    from uploader_cli.transfer.journal_rows import PendingRow, RunRow
    from uploader_cli.transfer.journal_store import Store
    from uploader_cli.transfer.run_lock import FileLock


class RunHandle:
    """A run that this process holds; its methods may be called from any thread. Made by `Journal`.

    Each call is on disk when it returns (a process killed after that loses nothing) and raises `UploaderError` when it
    could not be written. `id` is the run's; `resumed_from` is the id under which it was last known, None for a new run.
    """

    def __init__(
        self, store: Store, row: RunRow, lock: FileLock, now: Callable[[], float], is_alive: Callable[[str], bool]
    ) -> None:
        self.id = row.id
        self.resumed_from = row.resumed_from
        self._store = store
        self._row = row
        self._lock = lock
        self._now = now
        self._is_alive = is_alive
        self._held: dict[bytes, int] = {}  # path → LocalFile.file of what is under way here
        self._over = False

    def claim(self, file: LocalFile, session: str | None = None) -> Claim:
        """Take `file` for this run, atomically among all processes; say what is known of it.

        NEW and CHANGED have a fresh random `upload.upload_key`, durable before this returns: POST it. Claiming a file
        again that this run holds gives RESUME (a retry); another LocalFile with the same path gets BUSY. A RESUME
        keeps the session that it was created in; `session` is for a new one. After `finish` all is BUSY.
        """
        key = path_key(file)
        with self._store.write() as db:
            if self._over or self._held.get(key, file.file) != file.file:
                return Claim(ClaimState.BUSY)
            pending = pending_row(db, self._row.target, key)
            if pending is not None and self._is_anothers(db, pending):
                return Claim(ClaimState.BUSY)
            receipt = receipt_row(db, self._row.target, key, self._row.since)
            if receipt is not None and is_of(file, receipt):
                return Claim(ClaimState.DONE, receipt=receipt)
            claim = self._take(db, file, key, session, pending, is_changed=receipt is not None)
            self._held[key] = file.file
        return claim

    def receipt(self, file: LocalFile) -> Receipt | None:
        """The newest receipt of any run for this very file (size and mtime too), not older than 90 days."""
        with self._store.read() as db:
            found = receipt_row(db, self._row.target, path_key(file))
        current = found is not None and is_of(file, found) and found.completed_at >= self._now() - KEPT_SECONDS
        return found if current else None

    def creating(self, file: LocalFile, session: str | None = None) -> PendingUpload:
        """Forget what was created for a claimed file, and give it a new key: call it before a creation afresh.

        For an upload that is gone on the server (404, 410) or whose session had to be made anew.
        """
        with self._writing() as db:
            return put_pending(db, self._row, file, path_key(file), session)

    def created(self, file: LocalFile, url: str, *, part: int | None = None, chunk_size: int | None = None) -> None:
        """The server gave `url` to the upload, or to its part `part`. A file in one request needs no such call."""
        self._update(file, part, {"url": url} if chunk_size is None else {"url": url, "chunk_size": chunk_size})

    def checked(self, file: LocalFile, until: int, *, part: int | None = None) -> None:
        """Bytes up to `until` (of the file, or of its part `part`) lay in chunks whose checksum was accepted."""
        self._update(file, part, {"checked_until": until})

    def pledged(self, file: LocalFile, until: int, *, part: int | None = None) -> None:
        """A chunk that follows checked bytes goes out with its checksum and ends at `until`; 0: the next has none."""
        self._update(file, part, {"pledged_until": until})

    def split(self, file: LocalFile, sizes: Sequence[int]) -> tuple[PendingPart, ...]:
        """Cut a claimed file into parts of these sizes (bytes), each with its own key: before they are created.

        Parts that it had are forgotten. The key of the file itself is for the upload that joins them.
        """
        key = path_key(file)
        starts = accumulate(sizes, initial=0)
        parts = tuple(
            PendingPart(index, start, size, fresh_key())
            for index, (start, size) in enumerate(zip(starts, sizes, strict=False))  # the last start is the end
        )
        with self._writing() as db:
            db.execute("DELETE FROM part WHERE target = ? AND path = ?", (self._row.target, key))
            db.executemany(
                "INSERT INTO part (target, path, number, start, size, upload_key) VALUES (?, ?, ?, ?, ?, ?)",
                [(self._row.target, key, part.index, part.offset, part.size, part.upload_key) for part in parts],
            )
        return parts

    def creating_part(self, file: LocalFile, part: int) -> str:
        """Forget what was created for one part, and give it a new key, which is returned: before a creation afresh."""
        key = fresh_key()
        self._update(file, part, {"upload_key": key, "url": None, "checked_until": 0, "pledged_until": 0})
        return key

    def completed(
        self,
        file: LocalFile,
        *,
        server_id: str | None = None,
        location: str | None = None,
        checksum: str | None = None,
        verified: bool = False,
    ) -> None:
        """The server has the file: its receipt takes the place of what was under way, in one transaction.

        Recorded after `finish` too: it is true whenever it comes.
        """
        key, now = path_key(file), self._now()
        row = (self._row.target, key, file.size, file.mtime_ns, self.id, server_id, location, checksum, verified, now)
        with self._store.write() as db:
            known = delete_pending(db, self._row.target, key)
            db.execute(
                "INSERT OR REPLACE INTO receipt (target, path, size, mtime_ns, run, server_id, location, checksum,"
                " verified, completed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            if known:  # a second call for one file counts once
                db.execute(
                    "UPDATE run SET files = files + 1, bytes = bytes + ?, updated_at = ? WHERE number = ?",
                    (file.size, now, self._row.number),
                )
            self._held.pop(key, None)

    def dropped(self, file: LocalFile) -> None:
        """The file will not be gone on with: failed for good, or cancelled."""
        key = path_key(file)
        with self._writing() as db:
            delete_pending(db, self._row.target, key)
            self._held.pop(key, None)

    def let_go(self, file: LocalFile) -> None:
        """The file is not sent on in this run; what is known of it stays for the next one."""
        self._held.pop(path_key(file), None)

    def session_opened(self, session: str) -> None:
        """A session of this run is open on the server."""
        with self._writing() as db:
            db.execute("INSERT OR IGNORE INTO session (run, id) VALUES (?, ?)", (self._row.number, session))

    def session_closed(self, session: str) -> None:
        """The session has ended, or the server does not know it any more."""
        with self._writing() as db:
            db.execute("DELETE FROM session WHERE run = ? AND id = ?", (self._row.number, session))

    def open_sessions(self) -> tuple[str, ...]:
        """Sessions to re-join or to finish, oldest first: this run's, and those of the run it goes on with."""
        with self._store.read() as db:
            return session_ids(db, self._row.number)

    def finish(self, *, ok: bool) -> None:
        """Let the run go. `ok`: nothing is left to resume (failures for good included): what was under way is pruned,
        and so are interrupted runs of the very same command. Otherwise it is interrupted, and can be gone on with.

        A second call changes nothing.
        """
        number, now = self._row.number, self._now()
        with self._store.write() as db:
            if self._over:
                return
            db.execute("UPDATE run SET finished = ?, updated_at = ? WHERE number = ?", (ok, now, number))
            if ok:
                same = db.execute(
                    "SELECT other.number, other.id FROM run JOIN run AS other USING (target, identity)"
                    " WHERE run.number = ? AND NOT other.finished",
                    (number,),
                ).fetchall()
                over = [(other,) for other, name in same if not self._is_alive(name)]
                db.executemany("DELETE FROM run WHERE number = ?", over)
                for table in ("pending", "session"):
                    db.executemany(f"DELETE FROM {table} WHERE run = ?", [*over, (number,)])  # noqa: S608
        self.release()

    def release(self) -> None:
        """Stop holding the run, without a word about how it ended: it counts as interrupted unless it is finished."""
        self._over = True
        self._lock.release(remove=True)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of a run that is held: what is under way may be another process's once it was let go."""
        with self._store.write() as db:
            if self._over:
                raise UploaderError(f"run {self.id} was let go of")
            yield db

    def _is_anothers(self, db: sqlite3.Connection, pending: PendingRow) -> bool:
        """Whether a live run other than this one holds the file."""
        if pending.run == self._row.number:
            return False
        owner = db.execute("SELECT id FROM run WHERE number = ?", (pending.run,)).fetchone()
        return owner is not None and self._is_alive(owner[0])

    def _take(
        self,
        db: sqlite3.Connection,
        file: LocalFile,
        key: bytes,
        session: str | None,
        pending: PendingRow | None,
        *,
        is_changed: bool,
    ) -> Claim:
        if pending is None:
            state = ClaimState.CHANGED if is_changed else ClaimState.NEW
            return Claim(state, put_pending(db, self._row, file, key, session))
        mine = pending.run == self._row.number
        if self._row.fresh and not mine:
            return Claim(ClaimState.NEW, put_pending(db, self._row, file, key, session), outdated=pending.upload)
        if not is_of(file, pending):
            return Claim(ClaimState.CHANGED, put_pending(db, self._row, file, key, session), outdated=pending.upload)
        if not mine:
            db.execute(
                "UPDATE pending SET run = ? WHERE target = ? AND path = ?", (self._row.number, self._row.target, key)
            )
        return Claim(ClaimState.RESUME, pending.upload)

    def _update(self, file: LocalFile, part: int | None, values: Mapping[str, str | int | None]) -> None:
        table, column, number = ("pending", "run", self._row.number) if part is None else ("part", "number", part)
        changes = ", ".join(f"{name} = ?" for name in values)
        with self._writing() as db:
            db.execute(
                f"UPDATE {table} SET {changes} WHERE target = ? AND path = ? AND {column} = ?",  # noqa: S608  # own names
                (*values.values(), self._row.target, path_key(file), number),
            )
