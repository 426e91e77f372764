"""Writing the journal: what one run records."""

from __future__ import annotations

import math
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from msgspec.structs import replace

from uploader_cli.core.presence import ClaimState
from uploader_cli.errors import Interrupted, UploaderError, UsageError
from uploader_cli.transfer.journal import reading, schema
from uploader_cli.transfer.journal.file_keys import is_same, path_key, written_identity
from uploader_cli.transfer.journal.reading import Claim, Pending, PendingUpload
from uploader_cli.transfer.journal.receipts import Stored, find_receipts
from uploader_cli.transfer.journal.unwritten import RunEnd, Unwritten
from uploader_cli.transfer.journal.upload_journal import OF_NO_FILE, UploadJournal, packed_uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from sqlite3 import Connection

    from uploader_cli.core.plan import LocalFile

RETRY_SECONDS = 5.0  # until the next try to write
LAST_SECONDS = 1.0  # wait of the last try
MOST_CLOSED = 100  # ended sessions whose secrets are kept, the newest


class RunHandle(UploadJournal):
    """A run of this process. Thread-safe; each call is on disk when it returns.

    Where the journal can't be written, `on_trouble(text)` is called once (it must not block), and changes are kept in
    memory until writing works again. Calls before the end of an upload raise `Interrupted` from `checkpoint`.
    `resumed_from` is the previous id of the run, `number` stays the same when it is resumed.
    """

    def __init__(
        self, store: schema.Store, db: Connection, run_id: str, *, fresh: bool = False, lasting: bool = True
    ) -> None:
        """Lock the run in the transaction that adds it: no process sees it without its lock."""
        self.id, self._store, self._fresh, self._lasting = run_id, store, fresh, lasting
        self.checkpoint, self.notices = store.checkpoint, store.notices
        self._lock = ExitStack()
        try:
            self._lock.enter_context(store.live(run_id))
        except OSError as error:
            why = error.strerror or error
            raise UploaderError(f"run {run_id} can't be locked: {why}", hint="see --state-dir") from error
        found = db.execute("SELECT number, target, since, earlier FROM run WHERE id = ?", (run_id,)).fetchone()
        self.number, self._target, self._since, earlier = found
        self.resumed_from: str | None = earlier.split()[-1] if isinstance(earlier, str) and earlier.strip() else None
        self.on_trouble: Callable[[str], None] = lambda _text: None
        self._mutex = threading.Lock()
        self._claimed: dict[bytes, Pending] = {}
        odd = list[object]()
        self._sessions = reading.get_sessions(db, self.number, odd.append)
        self.notices += tuple(f"the journal's entry of session {one} is damaged and left out" for one in odd)
        self._over = False
        self._unwritten = Unwritten()
        self._retry_at = 0.0  # 0: the journal works, inf: it is damaged
        self._warned = False
        store.at_close.callback(self.close)

    def __enter__(self) -> RunHandle:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the run; a usage error before its end leaves nothing of it."""
        if kind is not None and issubclass(kind, UsageError):
            self.finish(ok=False, keep=False)
        self.close()

    def claim(self, files: Sequence[LocalFile], *, pack: bool = False) -> list[Claim]:
        """Take `files` for this run; see `UploadJournal`. All are BUSY after `finish`."""
        if not files:
            return []
        paths = [path_key(file) for file in files]
        by_path = dict(zip(paths, files, strict=True))
        uploads = packed_uploads(reading.new_key()) if pack else None
        pending, receipts, claims = dict[bytes, Pending](), dict[bytes, Stored](), list[Claim]()
        odd = list[str]()

        def look(db: Connection) -> None:  # keeps what precedes damage
            pending.update(reading.find_pending(db, self._target, self.number, by_path, odd.append))
            receipts.update(find_receipts(db, self._target, by_path, self._since, odd.append))

        def take(db: Connection | None) -> None:
            if db is not None:
                look(db)
            for key, file in zip(paths, files, strict=True):
                claims.append(self._take(key, file, pending.get(key), receipts.get(key), uploads))

        with self._mutex:
            if self._over:
                return [Claim(ClaimState.BUSY) for _ in files]
            self._save(take, begins=True)
            if not claims:
                self._read(look)
                take(None)
        for path in dict.fromkeys(odd):
            self.on_trouble(f"the journal's entry of {path} is damaged and left out: the file is sent anew")
        return claims

    def receipts(self, files: Sequence[LocalFile], *, own: bool = False) -> list[Stored | None]:
        """Return the newest receipt for each file's size and mtime, with `own` only of this run."""
        paths, since = [path_key(file) for file in files], self._since if own else -1
        by_path, found = dict(zip(paths, files, strict=True)), dict[bytes, Stored]()
        with self._mutex:
            self._read(lambda db: found.update(find_receipts(db, self._target, by_path, since)))
            known = [self._unwritten.receipt(key, found.get(key)) for key in paths]
        return [row if row and is_same(file, row.file) else None for file, row in zip(files, known, strict=True)]

    def is_stored(self, file: LocalFile) -> bool:
        """Return whether this run, or the one that it resumes, has stored a file of this path."""
        key, found = path_key(file), dict[bytes, Stored]()
        with self._mutex:
            self._read(lambda db: found.update(find_receipts(db, self._target, {key: file}, self._since)))
            return self._unwritten.receipt(key, found.get(key)) is not None

    def change(
        self, files: Sequence[LocalFile], change: Callable[[PendingUpload], PendingUpload], *, begins: bool = True
    ) -> None:
        with self._changing(begins=begins):
            for file in files:
                if (old := self._claimed.get(key := path_key(file))) is not None:
                    self._put(key, replace(old, upload=change(old.upload)))

    def put(self, uploads: Iterable[tuple[LocalFile, PendingUpload]]) -> None:
        with self._changing():
            for file, upload in uploads:
                if (old := self._claimed.get(key := path_key(file))) is not None:
                    self._put(key, replace(old, upload=upload))

    def completed(self, stored: Sequence[Stored]) -> None:
        """Record stored files; see `UploadJournal`. Allowed after `finish`."""
        with self._mutex:
            for item in stored:
                key = path_key(item.file)
                self._unwritten.store(key, item, counted=self._claimed.pop(key, None) is not None)
            self._save()

    def forget(self, files: Sequence[LocalFile], *, receipts: bool = True) -> None:
        with self._changing():
            for file in files:
                key = path_key(file)
                self._claimed.pop(key, None)
                self._unwritten.forget(key, file if receipts else None)

    def release(self, files: Sequence[LocalFile]) -> None:
        with self._mutex:
            for file in files:
                self._claimed.pop(path_key(file), None)

    def session_opened(self, session: str, category: str = "", secret: str = "") -> None:
        with self._changing():
            self._sessions[session] = reading.SavedSession(category, secret)
            self._unwritten.sessions = self._sessions

    def session_closed(self, session: str, *, failed: bool = False) -> None:
        with self._changing():
            known = self._sessions.pop(session, None)
            if failed and known is not None and known.secret:
                self._sessions[session] = known._replace(open=False)
                closed = [name for name, one in self._sessions.items() if not one.open]
                for oldest in closed[:-MOST_CLOSED]:
                    del self._sessions[oldest]
            self._unwritten.sessions = self._sessions

    def sessions(self) -> dict[str, reading.SavedSession]:
        with self._mutex:
            return dict(self._sessions)

    def finish(self, *, ok: bool, outcome: Mapping[str, object] | None = None, keep: bool = True) -> None:
        """End the run once. `ok`: all files are stored; delete its uploads and runs of the same command.

        `outcome` (JSON, no secrets) is for the list of runs. Without `keep` no run remains that has not resumed one.
        """
        with self._mutex:
            if self._over:
                return
            self._over = True
            dropped = not keep and self.resumed_from is None
            self._unwritten.ended = RunEnd(ok or not self._lasting, outcome or {}, dropped)
            self._save()
        self.close()

    def close(self) -> None:
        """Unlock the run; it counts as interrupted unless it is finished."""
        with self._mutex:
            if self._unwritten:
                self._save(last=True)
            self._over = True
            self._lock.close()

    def _take(
        self,
        key: bytes,
        file: LocalFile,
        pending: Pending | None,
        receipt: Stored | None,
        uploads: Iterator[PendingUpload] | None,
    ) -> Claim:
        receipt, own = self._unwritten.receipt(key, receipt), self._claimed.get(key)
        pending = self._unwritten.pending(key, pending)
        if (pending and pending.busy) or (own and own.file.file != file.file):
            return Claim(ClaimState.BUSY)
        if receipt and is_same(file, receipt.file):
            return Claim(ClaimState.DONE, receipt=receipt)
        old = own or pending
        # An upload whose URL was given can't be replaced by a new one.
        if old and is_same(file, old.file) and (old.own or not self._fresh or file.upload_url):
            self._put(key, replace(old, file=file, own=True))
            state, mine = ClaimState.UNKNOWN if old.upload.uncertain else ClaimState.RESUME, written_identity(file)
            return Claim(state, old.upload, doubtful=None not in (old.identity, mine) and old.identity != mine)
        upload = PendingUpload() if uploads is None else next(uploads)
        new = Pending(file, upload, identity=written_identity(file))
        self._put(key, new)
        earlier = receipt is not None and receipt.file.mtime_ns != OF_NO_FILE
        is_new = self._fresh and not old.own if old else not earlier
        return Claim(ClaimState.NEW if is_new else ClaimState.CHANGED, new.upload, outdated=old.upload if old else None)

    def _put(self, key: bytes, new: Pending) -> None:
        self._claimed[key] = new
        self._unwritten.claim(key, new)

    @contextmanager
    def _changing(self, *, begins: bool = False) -> Iterator[None]:
        with self._mutex:
            if self._over:
                raise UploaderError(f"run {self.id} has ended: the journal accepts no more entries")
            yield
            self._save(begins=begins)

    def _save(
        self, first: Callable[[Connection], None] | None = None, *, begins: bool = False, last: bool = False
    ) -> None:
        """Write all changes in one transaction, after `first`; keep them where that fails.

        Raise `Interrupted` with `begins`. `last` ignores the time of the next try.
        """
        if time.monotonic() >= self._retry_at or (last and self._retry_at < math.inf):
            try:
                seconds = LAST_SECONDS if last else 0.0 if self._retry_at else None
                with self._store.write((lambda: None) if last else self.checkpoint, seconds) as db:
                    if first is not None:
                        first(db)
                    self._unwritten.write(db, self._target, self.number, self._store.now())
            except Interrupted:
                if begins:
                    raise
            except schema.JournalError as error:
                self._troubled(error)
            else:
                self._unwritten = Unwritten()
                self._retry_at = 0.0
        self._unwritten.shorten(self._claimed)

    def _read(self, action: Callable[[Connection], None]) -> None:
        try:
            with self._store.read(self.checkpoint, 0.0 if self._retry_at else None) as db:
                action(db)
        except schema.JournalError as error:
            self._troubled(error)

    def _troubled(self, error: schema.JournalError) -> None:
        if time.monotonic() >= self._retry_at:
            self._retry_at = math.inf if self._store.damaged else time.monotonic() + RETRY_SECONDS
        if not self._warned:
            self._warned = True
            self.on_trouble(f"{error}; the upload continues, but a resume may resend files: {error.hint}")
