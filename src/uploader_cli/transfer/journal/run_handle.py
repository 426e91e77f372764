"""Writing the journal: what one run records."""

from __future__ import annotations

import hmac
import math
import threading
import time
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import accumulate, count
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from uploader_cli.core.presence import ClaimState
from uploader_cli.errors import Interrupted, UploaderError, UsageError
from uploader_cli.transfer.journal import reading, schema
from uploader_cli.transfer.journal.reading import (
    Claim,
    Pending,
    PendingUpload,
    Stored,
    is_same,
    path_key,
    written_identity,
)
from uploader_cli.transfer.journal.unwritten import RunEnd, Unwritten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from sqlite3 import Connection

    from uploader_cli.core.plan import LocalFile

RETRY_SECONDS = 5.0  # until the next try to write
LAST_SECONDS = 1.0  # wait of the last try
OF_NO_FILE = -1  # the mtime (ns) in the receipt of a file that was removed
MOST_CLOSED = 100  # ended sessions whose secrets are kept, the newest


class RunHandle:
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
        self.resumed_from: str | None = earlier.split()[-1] if earlier else None
        self.on_trouble: Callable[[str], None] = lambda _text: None
        self.secret: bytes | None = None  # other processes with it give the same file the same upload key
        self.again = False  # another process may have created uploads under these keys
        # another process keeps the journal of the uploads: it also needs the URLs of files in one request
        self.kept_elsewhere = False
        # around a request that creates the upload of a file until its URL is recorded; after each change of an upload
        self.creation: Callable[[LocalFile], AbstractContextManager[None]] = lambda _file: nullcontext()
        self.on_upload: Callable[[LocalFile, PendingUpload], None] = lambda _file, _upload: None
        self._mutex = threading.Lock()
        self._claimed: dict[bytes, Pending] = {}
        self._sessions = reading.get_sessions(db, self.number)
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
        """Take `files` for this run, atomically; return what is known of each.

        NEW and CHANGED have a durable new `upload_key`, with `pack` a common one with positions. Another file of the
        same path is BUSY, and all are after `finish`. Raise `Interrupted`.
        """
        if not files:
            return []
        paths = [path_key(file) for file in files]
        by_path = dict(zip(paths, files, strict=True))
        uploads = _packed_uploads(reading.new_key()) if pack else None
        pending, receipts, claims = dict[bytes, Pending](), dict[bytes, Stored](), list[Claim]()
        odd = list[str]()

        def look(db: Connection) -> None:  # keeps what precedes damage
            pending.update(reading.find_pending(db, self._target, self.number, by_path, odd.append))
            receipts.update(reading.find_receipts(db, self._target, by_path, self._since, odd.append))

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

    def packed(self, files: Sequence[LocalFile]) -> str:
        """Give claimed files of a pack a new key and return it."""
        key = reading.new_key()
        uploads = _packed_uploads(key)
        self._alter(files, lambda _old: next(uploads))
        return key

    def receipts(self, files: Sequence[LocalFile], *, own: bool = False) -> list[Stored | None]:
        """Return the newest receipt for each file's size and mtime, with `own` only of this run."""
        paths, since = [path_key(file) for file in files], self._since if own else -1
        by_path, found = dict(zip(paths, files, strict=True)), dict[bytes, Stored]()
        with self._mutex:
            self._read(lambda db: found.update(reading.find_receipts(db, self._target, by_path, since)))
            known = [self._unwritten.receipt(key, found.get(key)) for key in paths]
        return [row if row and is_same(file, row.file) else None for file, row in zip(files, known, strict=True)]

    def is_stored(self, file: LocalFile) -> bool:
        """Return whether this run, or the one that it resumes, has stored a file of this path."""
        key, found = path_key(file), dict[bytes, Stored]()
        with self._mutex:
            self._read(lambda db: found.update(reading.find_receipts(db, self._target, {key: file}, self._since)))
            return self._unwritten.receipt(key, found.get(key)) is not None

    def creating(self, file: LocalFile, session: str | None = None, *, replaced: tuple[str, ...] = ()) -> PendingUpload:
        """Replace the upload of a claimed file by a new one: call it before each creation but the first."""
        upload = PendingUpload(session=session, replaced=replaced)
        self._alter([file], lambda _old: upload)
        return upload

    def update(self, file: LocalFile, *, part: int | None = None, **values: Any) -> None:
        """Set fields of the upload of a claimed file, or of its part. A file in one request needs no such call."""

        def change(old: PendingUpload) -> PendingUpload:
            if part is None:
                return replace(old, **values)
            return replace(old, parts=tuple(replace(p, **values) if p.index == part else p for p in old.parts))

        self._alter([file], change)

    def split(self, file: LocalFile, sizes: Sequence[int]) -> tuple[reading.PendingPart, ...]:
        starts = accumulate(sizes, initial=0)  # the last is the end
        parts = tuple(reading.PendingPart(n, next(starts), size, reading.new_key()) for n, size in enumerate(sizes))
        self.update(file, parts=parts)
        return parts

    def creating_part(self, file: LocalFile, part: int, *, replaced: tuple[str, ...] = ()) -> str:
        """Replace the upload of a part and return its new key: call it before another creation."""
        key = reading.new_key()

        def change(old: PendingUpload) -> PendingUpload:
            new = (reading.PendingPart(p.index, p.offset, p.size, key) if p.index == part else p for p in old.parts)
            return replace(old, parts=tuple(new), replaced=replaced)

        self._alter([file], change)
        return key

    def adopt(self, uploads: Sequence[tuple[LocalFile, PendingUpload]]) -> None:
        """Record the uploads of files as another process knows them."""
        with self._change():
            for file, upload in uploads:
                self._put(path_key(file), Pending(file, upload, own=True))

    def uploads(self, files: Sequence[LocalFile]) -> list[PendingUpload]:
        """Return the uploads of claimed files."""
        with self._mutex:
            return [self._claimed[path_key(file)].upload for file in files]

    def completed(self, stored: Sequence[Stored]) -> None:
        """Record stored files: receipts replace older ones and uploads. Allowed after `finish`."""
        with self._mutex:
            for item in stored:
                key = path_key(item.file)
                self._unwritten.store(key, item, counted=self._claimed.pop(key, None) is not None)
            self._save()

    def removed(self, stored: Stored) -> None:
        """Record that the local file of a receipt is gone (`--then`): any file at its path is another one."""
        self.completed([replace(stored, file=replace(stored.file, mtime_ns=OF_NO_FILE))])

    def uncertain(self, files: Sequence[LocalFile]) -> None:
        self._alter(files, lambda old: replace(old, uncertain=True), begins=False)

    def certain(self, files: Sequence[LocalFile]) -> None:
        self._alter(files, lambda old: replace(old, uncertain=False), begins=False)

    def forget(self, files: Sequence[LocalFile], *, receipts: bool = True) -> None:
        """Forget the uploads of files, with `receipts` also the receipts for their size and mtime."""
        with self._change():
            for file in files:
                key = path_key(file)
                self._claimed.pop(key, None)
                self._unwritten.forget(key, file if receipts else None)

    def release(self, files: Sequence[LocalFile]) -> None:
        with self._mutex:
            for file in files:
                self._claimed.pop(path_key(file), None)

    def session_opened(self, session: str, category: str = "", secret: str = "") -> None:
        """Record an open session, with the secret that its creator needs to write to it."""
        with self._change():
            self._sessions[session] = reading.SavedSession(category, secret)
            self._unwritten.sessions = self._sessions

    def session_closed(self, session: str, *, failed: bool = False) -> None:
        """Record that a session has ended or is unknown; keep its secret if some of its files `failed`."""
        with self._change():
            known = self._sessions.pop(session, None)
            if failed and known is not None and known.secret:
                self._sessions[session] = known._replace(open=False)
                closed = [name for name, one in self._sessions.items() if not one.open]
                for oldest in closed[:-MOST_CLOSED]:
                    del self._sessions[oldest]
            self._unwritten.sessions = self._sessions

    def sessions(self) -> dict[str, reading.SavedSession]:
        """Return sessions by their ids, also of the resumed run, oldest first."""
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
        upload = self._new_upload(key, file) if uploads is None else next(uploads)
        new = Pending(file, upload, identity=written_identity(file))
        self._put(key, new)
        if self.again and uploads is None:
            return Claim(ClaimState.RESUME, new.upload)
        earlier = receipt is not None and receipt.file.mtime_ns != OF_NO_FILE
        is_new = self._fresh and not old.own if old else not earlier
        return Claim(ClaimState.NEW if is_new else ClaimState.CHANGED, new.upload, outdated=old.upload if old else None)

    def _new_upload(self, key: bytes, file: LocalFile) -> PendingUpload:
        if self.secret is None:
            return PendingUpload()
        identity = b"%d %d %s" % (file.size, file.mtime_ns, key)
        return PendingUpload(hmac.digest(self.secret, identity, "sha256").hex()[:32])

    def _alter(
        self, files: Sequence[LocalFile], change: Callable[[PendingUpload], PendingUpload], *, begins: bool = True
    ) -> None:
        changed = []
        with self._change(begins=begins):
            for file in files:
                if (old := self._claimed.get(key := path_key(file))) is not None:
                    new = change(old.upload)
                    self._put(key, replace(old, upload=new))
                    changed.append((file, new))
        for item in changed:
            self.on_upload(*item)

    def _put(self, key: bytes, new: Pending) -> None:
        self._claimed[key] = new
        self._unwritten.claim(key, new)

    @contextmanager
    def _change(self, *, begins: bool = False) -> Iterator[None]:
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


def _packed_uploads(key: str) -> Iterator[PendingUpload]:
    return (PendingUpload(f"{key}:{index}") for index in count())
