"""The job of the worker pool that sends many small files in one request (docs/protocol.md, section 6)."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from uploader_cli import errors
from uploader_cli.core import packs
from uploader_cli.core.events import FailureCode, SkipReason, WarningCode
from uploader_cli.core.protocol import utf8
from uploader_cli.transfer.bodies import read_whole
from uploader_cli.transfer.job import Outcome, ends_run
from uploader_cli.transfer.journal import Claim, ClaimState, pack_position
from uploader_cli.transfer.pacing import unlimited
from uploader_cli.transfer.retry import FIRST_PROBE, LAST_PROBE, Tries
from uploader_cli.transfer.tus_job import TusFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.packs import PackedFile, PackOffer
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.sessions import UploadSession
    from uploader_cli.transfer.tus_job import Tus

LARGEST = 1 << 20
"""Bytes above which a file goes by tus, whatever the server would take in a pack: there it resumes in the middle."""
MOST_FILES = 500
MOST_BYTES = 8 << 20
"""What one pack holds at most: no more than a chunk, so that an interruption costs no more than a chunk does."""
FIRST_BYTES = 2 << 20
LEAST_BYTES = 64 << 10
"""Where the size of packs begins, before one was measured, and where it ends on a slow link."""
SLOW = 2.0
"""Seconds that a pack may take before the next ones get smaller."""
MOST_MEMORY = 64 << 20
"""Bytes in all packs that are being sent; each is held twice while its body is made."""
MISMATCH = "CHECKSUM_MISMATCH"


class PackLimits:
    """What goes into one pack. All workers share it: a refusal that one of them meets counts for all."""

    def __init__(self, offer: PackOffer, chunk_size: int | Literal["auto"], jobs: int) -> None:
        chunk = MOST_BYTES if chunk_size == "auto" else max(chunk_size, LARGEST)
        self.endpoint = offer.endpoint
        self.files = min(offer.max_files, MOST_FILES)
        self._lock = threading.Lock()
        self._most = min(offer.max_bytes, MOST_BYTES, chunk)
        self.bytes = min(self._most, FIRST_BYTES)
        self.share(jobs)
        self.largest = min(offer.max_file_size, LARGEST, self._most)
        self.refused = False
        """True once the server turned out to have no packs: files go by tus for the rest of the run."""

    def share(self, jobs: int) -> None:
        """Make packs so small that those of `jobs` workers fit into `MOST_MEMORY`."""
        with self._lock:
            self._most = min(self._most, max(LARGEST, MOST_MEMORY // (2 * jobs)))
            self.bytes = min(self.bytes, self._most)

    def takes(self, file: LocalFile) -> bool:
        """Return whether a file goes into a pack."""
        return not self.refused and file.size <= self.largest

    def measured(self, size: int, seconds: float) -> None:
        """Take how long a pack of `size` bytes took: the next ones should take 1 to 2 s at most."""
        with self._lock:
            if seconds > SLOW:
                self.bytes = max(LEAST_BYTES, min(self.bytes, int(size * SLOW / (2 * seconds))))
            elif seconds < SLOW / 2 and 2 * size > self.bytes:
                self.bytes = min(self._most, 2 * self.bytes)

    def shrink(self, size: int) -> None:
        """Halve the bytes of a pack, because one of `size` bytes was too large."""
        with self._lock:
            self.bytes = max(1, min(self.bytes, size // 2))
            self._most = max(self.bytes, min(self._most, size))

    def refuse(self) -> bool:
        """Use no more packs; True for the first caller."""
        with self._lock:
            first, self.refused = not self.refused, True
        return first


class PackBody:
    """A multipart body in memory: `manifest` and `data`, with a Content-Length."""

    def __init__(
        self,
        manifest: bytes,
        data: Sequence[bytes],
        *,
        check: Callable[[], None],
        throttle: Callable[[int], int] = unlimited,
    ) -> None:
        """`data` are the files' bytes; `throttle` is asked before each piece: it waits and returns how many may go."""
        boundary = f"uploader-{secrets.token_hex(12)}"
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.started = False
        self.check, self._throttle = check, throttle
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="%s"\r\nContent-Type: %s\r\n\r\n'
        parts = [(head % ("manifest", "application/json")).encode(), manifest, b"\r\n"]
        parts += [(head % ("data", "application/octet-stream")).encode(), *data, f"\r\n--{boundary}--\r\n".encode()]
        self._body = memoryview(b"".join(parts))
        self._read = self._taken = 0

    def __len__(self) -> int:
        return len(self._body)

    def __iter__(self) -> Iterator[memoryview]:
        while piece := self.read(1 << 20):
            yield piece

    @property
    def through(self) -> bool:
        """True once the kernel has taken the last byte."""
        return self._taken >= len(self._body)

    def read(self, amount: int) -> memoryview:
        """Return up to `amount` bytes; empty at the end."""
        self.started = True
        amount = self._throttle(min(amount, len(self._body) - self._read))
        piece = self._body[self._read : self._read + amount]
        self._read += amount
        return piece

    def taken(self, count: int) -> None:
        """Count `count` more bytes that the kernel took."""
        self._taken += count


class Entry(NamedTuple):
    """A file as it was read: its bytes and their SHA-256 (hex)."""

    file: LocalFile
    data: bytes
    digest: str


class Pack:
    """Send the files of one pack. What can't go in a pack becomes jobs of its own."""

    def __init__(
        self,
        tus: Tus,
        limits: PackLimits,
        session: UploadSession,
        files: Sequence[tuple[LocalFile, Claim]],
        *,
        tries: int = 0,
    ) -> None:
        """`tries` is how often the server has refused these files and said that it may take them later."""
        self.session = session
        self._tus, self._context, self._limits, self._files, self._tries = tus, tus.context, limits, files, tries
        self._entries: list[Entry] = []
        self._key, self._sent_before = "", False
        """The key of the request, which makes a repeat safe; True where it may have been sent by an earlier run."""
        self._excused = False

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcomes of the files. Raise what ends the run."""
        context, files = self._context, [file for file, _ in self._files]
        if context.settings.fail_fast and context.ledger.failures:
            for file in files:
                context.ledger.skip(file, SkipReason.FAIL_FAST)
            self.session.over(worker.api, len(files), given_up=len(files))
            return
        if self._limits.refused:
            self._by_tus(files)
            return
        if self._tries:
            context.stop.sleep(_delay(self._tries))
        unread = self._read()
        if unread:
            yield unread
        if self._entries:
            self._choose_key()
            yield from self._send(worker)

    def _read(self) -> list[Outcome]:
        """Read and hash each file once; return the outcomes of those that can't be read."""
        unread = []
        check = self._context.stop.check
        for file, _ in self._files:
            check()
            try:
                data = read_whole(file)
            except errors.FileError as error:
                unread.append(Outcome(file, error))
            else:
                self._entries.append(Entry(file, data, hashlib.sha256(data, usedforsecurity=False).hexdigest()))
        return unread

    def _choose_key(self) -> None:
        """Take the key that is in the journal, if it stands for exactly these files in this order, or a new one."""
        keys = [pack_position(claim) for _, claim in self._files]
        first = keys[0][0] if keys[0] is not None else ""
        same = len(self._entries) == len(keys) and keys == [(first, index) for index in range(len(keys))]
        if first and same:
            self._key = first
            self._sent_before = all(claim.state is ClaimState.RESUME for _, claim in self._files)
        else:
            self._key = self._context.run.packed([entry.file for entry in self._entries])

    def _send(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        context, files = self._context, [entry.file for entry in self._entries]
        try:
            answer = self._answer(worker, files)
        except errors.PacksRefused as error:
            if self._limits.refuse():
                context.warn(WarningCode.PACKS, f"{error}: small files are sent one by one")
            context.ledger.retry(files, error)
            self._by_tus(files)
        except errors.UploaderError as error:
            if ends_run(error):
                raise
            cut = isinstance(error, errors.ConnectionLost) and not error.body_sent and len(files) > 1
            if cut or isinstance(error, errors.TooLarge | errors.TooSlow):  # smaller ones may get through
                self._limits.shrink(sum(file.size for file in files))
                context.ledger.retry(files, error)
                self._halve(files)
                return
            yield [Outcome(file, error) for file in files]
        else:
            yield self._outcomes(answer)

    def _answer(self, worker: Worker, files: Sequence[LocalFile]) -> list[PackedFile]:
        """Send the request until it is answered. Raise the error that remains."""
        context, renamed = self._context, False

        def on_retry(error: errors.UploaderError, delay: float) -> None:
            self._excused = isinstance(error, errors.RateLimited | errors.Unauthorized)
            if not self._excused:
                context.ledger.retry(files, error, delay)

        tries = Tries(context.retry, on_retry=on_retry)
        while True:
            session = self.session.id
            try:
                return tries.run(lambda: self._attempt(worker))
            except errors.SessionLost as error:
                if not self.session.renew(worker.api, session):
                    raise
                context.ledger.retry(files, error)
            except errors.KeyReused as error:
                if renamed:
                    raise
                renamed = True
                self._key, self._sent_before = context.run.packed(files), False
                context.ledger.retry(files, error)

    def _attempt(self, worker: Worker) -> list[PackedFile]:
        context, session, entries = self._context, self.session.id, self._entries
        if not self._excused:
            for entry in entries:
                context.ledger.start(entry.file, session, utf8(entry.file.relative_path), packed=True)
        if self._sent_before:
            known = worker.api.pack_answer(self._limits.endpoint, self._key, len(entries))
            if known is not None:
                return known
            self._sent_before = False
        manifest = packs.manifest(
            session,
            ((utf8(file.relative_path), file.size, digest, file.mtime_ns // 1_000_000) for file, _, digest in entries),
        )
        data = [entry.data for entry in entries]
        body = PackBody(manifest, data, check=context.stop.check, throttle=context.throttle)
        began = time.monotonic()
        answer = worker.api.pack(self._limits.endpoint, self._key, body, len(entries))
        self._limits.measured(len(body), time.monotonic() - began)
        return answer

    def _outcomes(self, answer: Sequence[PackedFile]) -> list[Outcome]:
        """Pair each file with its entry; those that the server may take later go into a new pack.

        So do all that failed in an earlier run, of which this is the answer: they have not been sent in this one.
        """
        outcomes, later = [], []
        earlier = self._sent_before
        for (file, _, digest), item in zip(self._entries, answer, strict=True):
            if item.stored:
                outcomes.append(Outcome(file, None, item.server_id, item.location, None, digest, verified=True))
                continue
            code = FailureCode.INTEGRITY if item.error == MISMATCH else FailureCode.SERVER_FAILED
            words = f"the server could not store it: {item.message or item.error or 'it gives no reason'}"
            refused = errors.FileFailure(words, code=code, retryable=item.retryable)
            if earlier or (item.retryable and self._tries < self._context.settings.retries):
                self._context.ledger.retry([file], refused, 0.0 if earlier else _delay(self._tries + 1))
                later.append(file)
            else:
                outcomes.append(Outcome(file, refused))
        if later:
            self._put(later, tries=self._tries + (not earlier))
        return outcomes

    def _halve(self, files: Sequence[LocalFile]) -> None:
        """Send the halves of a pack that was too large; a single file goes by tus."""
        if len(files) == 1:
            self._by_tus(files)
            return
        middle = len(files) // 2
        self._put(files[middle:], tries=self._tries)
        self._put(files[:middle], tries=self._tries)

    def _put(self, files: Sequence[LocalFile], *, tries: int) -> None:
        fresh = [(file, Claim(ClaimState.NEW)) for file in files]
        self._tus.pool.put_first([Pack(self._tus, self._limits, self.session, fresh, tries=tries)])

    def _by_tus(self, files: Sequence[LocalFile]) -> None:
        run, session = self._context.run, self.session
        self._tus.pool.put_first(
            [TusFile(self._tus, session, file, Claim(ClaimState.NEW, run.creating(file, session.id))) for file in files]
        )


def _delay(tries: int) -> float:
    """Return the seconds to wait before files go into a pack for the `tries`th time more."""
    return float(min(LAST_PROBE, FIRST_PROBE * 2 ** (tries - 1)))
