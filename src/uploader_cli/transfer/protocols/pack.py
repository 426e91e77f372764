"""The job that sends many small files in one request (docs/protocol.md, section 6)."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core import packs
from uploader_cli.core.events import VerifiedBy, WarningCode
from uploader_cli.core.protocol import utf8
from uploader_cli.core.sizes import REMOTE
from uploader_cli.sources.content import read_whole, sha256_of
from uploader_cli.sources.unchanged import failure
from uploader_cli.transfer.bodies import Body, pack_form
from uploader_cli.transfer.journal import Claim, ClaimState
from uploader_cli.transfer.journal.reading import pack_position
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pacer import backoff
from uploader_cli.transfer.results import FileResult, not_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from uploader_cli.core.packs import PackedFile
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.sizes import PackSize
    from uploader_cli.transfer.bodies import Piece
    from uploader_cli.transfer.pool import Pool, Worker
    from uploader_cli.transfer.upload_session import RunContext, UploadSession


REFUSED = "the server takes no packs"


class PackEntry(NamedTuple):
    """A file with its bytes and their SHA-256 (hex)."""

    file: LocalFile
    data: bytearray
    digest: str


class Pack:
    """Send the files of one pack. Files that can't be packed end with `FileResult.falls_back`."""

    def __init__(
        self,
        context: RunContext,
        pool: Pool,
        size: PackSize,
        session: UploadSession,
        files: Sequence[tuple[LocalFile, Claim]],
        tries: int = 0,
    ) -> None:
        """`tries` counts earlier retryable refusals of these files."""
        self.session = session
        self._context, self._pool, self._size, self._files, self._tries = context, pool, size, files, tries
        self._entries: list[PackEntry] = []
        self._remote = 0  # how many of them are at URLs
        self._reading = 0.0  # seconds for which stores were asked for the files
        self._key, self._sent_before = "", False  # the idempotency key, and whether an earlier run may have sent it
        self._ask = False  # whether the server may have the whole request, so that its answer can be requested

    def run(self, worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Yield the outcomes of the files. Raise what ends the run."""
        context, files = self._context, [file for file, _ in self._files]
        if context.fails_fast:
            self.session.skip(worker.api, files)
            return
        if self._size.refused:
            yield _not_packed(files, errors.PacksRefused(REFUSED, status=405))
            return
        if self._tries:
            context.stop.sleep(backoff(self._tries))
        self._cut()
        files = [file for file, _ in self._files]
        unread, began = [], time.monotonic()
        for file in files:
            data = bytearray(file.size)
            try:
                digest = self._read(file, data)
            except errors.FileError as error:
                unread.append(FileResult(file, error))
            else:
                self._entries.append(PackEntry(file, data, digest))
        self._remote = sum(entry.file.is_remote for entry in self._entries)
        if self._remote:
            self._reading = time.monotonic() - began
        if unread:
            yield unread
        if self._entries:
            self._choose_key()
            yield from self._send(worker)

    def _read(self, file: LocalFile, data: bytearray) -> str:
        """Read a file into `data` and return its SHA-256; one in doubt is read twice. Raise `FileError`."""
        checkpoint, doubts = self._context.stop.checkpoint, []
        digest = read_whole(file, memoryview(data), checkpoint, lambda *doubt: doubts.append(doubt))
        if doubts and sha256_of(file, checkpoint) != digest:
            raise failure(file, "it changed while it was being read")
        return digest

    def _cut(self) -> None:
        """Leave what exceeds the size of packs by now to the next job. What an earlier run sent keeps its key."""
        files = [file for file, _ in self._files]
        if (count := self._size.count(files)) == len(files):
            return
        if not any(claim.state is ClaimState.RESUME for _, claim in self._files):
            self._put(files[count:], self._tries)
            self._files = _fresh(files[:count])

    def _choose_key(self) -> None:
        """Use the journaled key where it covers exactly these files in this order, else a new one."""
        keys = [pack_position(claim) for _, claim in self._files]
        first = keys[0][0] if keys[0] is not None else ""
        same = len(self._entries) == len(keys) and not any(claim.doubtful for _, claim in self._files)
        same = same and keys == [(first, index) for index in range(len(keys))]
        if first and same:
            self._key = first
            self._sent_before = all(claim.state is ClaimState.RESUME for _, claim in self._files)
        else:
            self._key = self._context.run.packed([entry.file for entry in self._entries])

    def _send(self, worker: Worker) -> Iterator[Sequence[FileResult]]:
        context, files = self._context, [entry.file for entry in self._entries]
        try:
            answer = self._answer(worker, files)
        except errors.UploaderError as error:
            if ends_run(error):
                raise
            fails = isinstance(error, errors.ServerFault) and not isinstance(error, errors.PackInProgress)
            if fails or isinstance(error, errors.PacksRefused):
                first, self._size.refused = not self._size.refused, True
                if first:
                    context.warn(WarningCode.PACKS, f"{error}: small files are sent one by one")
                yield _not_packed(files, error)
                return
            cut = isinstance(error, errors.ConnectionLost) and not error.body_sent
            cut = (cut or isinstance(error, errors.ServerDied)) and len(files) > 1
            if not cut and not isinstance(error, errors.TooLarge | errors.TooSlow):
                yield [FileResult(file, error) for file in files]
                return
            self._size.shrink(sum(file.size for file in files))  # smaller ones may succeed
            if len(files) == 1:
                yield _not_packed(files, error)
            else:
                context.ledger.retry(files, error)
                self._put(files[len(files) // 2 :], self._tries)
                self._put(files[: len(files) // 2], self._tries)
        else:
            yield self._outcomes(answer)

    def _answer(self, worker: Worker, files: Sequence[LocalFile]) -> list[PackedFile]:
        context, renamed = self._context, False
        while True:
            session = self.session.id
            try:
                attempt, repeat = partial(self._attempt, worker, session), partial(context.ledger.repeat, files)
                return context.pacer.call(attempt, on_retry=repeat)
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

    def _attempt(self, worker: Worker, session: str) -> list[PackedFile]:
        context, entries, endpoint = self._context, self._entries, self._size.endpoint
        for file, _, _ in entries:
            context.ledger.start(file, session, utf8(file.relative_path), packed=True)
        if self._sent_before or self._ask:
            with suppress(errors.NotYours):  # it was sent in another session: only the repeated key gets its answer
                known = worker.api.pack_answer(endpoint, session, self._key, len(entries))
                if known is not None:
                    self.session.ends_itself = False  # it may count in an earlier session
                    return known
                self._sent_before = self._ask = False
        listed = ((utf8(f.relative_path), f.size, digest, f.mtime_ns // 1_000_000) for f, _, digest in entries)
        more = {"ifExists": "fail"} if context.settings.if_exists == "fail" else {}
        manifest = packs.manifest(session, listed, **more)
        form = pack_form(manifest, [entry.data for entry in entries])
        body = self._body(form)
        began = time.monotonic() - self._reading
        try:
            answer = worker.api.pack(endpoint, session, self._key, body, len(entries))
        except (errors.PackInProgress, errors.TimedOut, errors.ConnectionLost):
            self._ask = body.through  # another 32 MiB would not bring the answer sooner
            raise
        self._size.measured(len(body) + REMOTE * self._remote, time.monotonic() - began)
        return answer

    def _body(self, form: tuple[str, list[Piece]]) -> Body:
        """Return the body, which reports its bytes as they leave, those before the data and after it in proportion."""
        context, numbers = self._context, tuple(entry.file.file for entry in self._entries)
        data, length = sum(entry.file.size for entry in self._entries), sum(piece.length for piece in form[1])
        return Body(
            *form,
            checkpoint=context.stop.checkpoint,
            throttle=context.throttle,
            on_count=lambda sent: context.emit(ev.PackSent(numbers, sent * data // length)),
            on_through=lambda: context.emit(ev.BodySent(numbers)),
        )

    def _outcomes(self, answer: Sequence[PackedFile]) -> list[FileResult]:
        """Return the outcomes; put retryable failures, and all failures of an earlier run, into a new pack."""
        outcomes, later, earlier, retries = [], [], self._sent_before, self._context.settings.retries
        for (file, _, digest), item in zip(self._entries, answer, strict=True):
            if item.stored:
                outcome = FileResult(
                    file,
                    server_id=item.server_id,
                    location=item.location,
                    checksum=digest,
                    verified=True,
                    verified_by=VerifiedBy.SHA256,
                    new=not (earlier or item.existing),
                )
            else:
                outcome = not_stored(file, item.message or item.error, item.error, retryable=item.retryable)
            if outcome.error is not None and (earlier or (item.retryable and self._tries < retries)):
                self._context.ledger.retry([file], outcome.error, 0.0 if earlier else backoff(self._tries + 1))
                later.append(file)
            else:
                outcomes.append(outcome)
        if later:
            self._put(later, self._tries + (not earlier))
        return outcomes

    def _put(self, files: Sequence[LocalFile], tries: int) -> None:
        self._pool.put([Pack(self._context, self._pool, self._size, self.session, _fresh(files), tries)], first=True)


def _fresh(files: Sequence[LocalFile]) -> list[tuple[LocalFile, Claim]]:
    return [(file, Claim(ClaimState.NEW)) for file in files]


def _not_packed(files: Sequence[LocalFile], error: errors.UploaderError) -> list[FileResult]:
    return [FileResult(file, error, falls_back=True) for file in files]


def packs_of(
    files: Iterable[tuple[LocalFile, Claim]], limits: PackSize
) -> Iterator[list[tuple[LocalFile, Claim]] | tuple[LocalFile, Claim]]:
    """Yield each large file, and lists of small ones that make a pack, in order."""
    packed: list[tuple[LocalFile, Claim]] = []
    size, first = 0, None  # of the pack: its bytes, and the journaled position of its first file
    for file, claim in files:
        if not limits.takes(file):
            yield file, claim
            continue
        here = pack_position(claim)
        other = first is not None and (here is None or here[0] != first[0])
        cost = limits.cost(file)
        if packed and (other or len(packed) >= limits.files or size + cost > limits.planned):
            yield packed
            packed, size = [], 0
        if not packed:
            first = here
        packed.append((file, claim))
        size += cost
    if packed:
        yield packed
