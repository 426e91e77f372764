"""The jobs that send small files in packs, and what becomes of the files that a pack gives back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import WarningCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.protocol import sent_name
from uploader_cli.core.sizes import REMOTE
from uploader_cli.sources.content import read_whole, sha256_of
from uploader_cli.sources.unchanged import failure
from uploader_cli.transfer.bodies import Body, pack_form
from uploader_cli.transfer.journal.reading import Claim, pack_position
from uploader_cli.transfer.pacer import backoff
from uploader_cli.transfer.protocols import pack
from uploader_cli.transfer.protocols.machine import Again, Ask, How, Named, NewKey, Packed
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.send import FilesDriver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from uploader_cli.core.sizes import PackSize
    from uploader_cli.transfer.pool import Pool, Worker
    from uploader_cli.transfer.protocols.machine import Came, Wanted
    from uploader_cli.transfer.upload_session import RunContext, UploadSession

    Claimed = Sequence[tuple[LocalFile, Claim]]

REFUSED = "the server takes no packs"


class Contents:
    """What was read of the files of a pack: their bytes and digests, and the results of those that can't be read."""

    def __init__(self, context: RunContext, files: Iterable[LocalFile]) -> None:
        """Read the files. Raise `Interrupted`."""
        self.files, self.digests, self.data = list[LocalFile](), list[str](), list[bytearray]()
        self.unread = list[FileResult]()
        began = time.monotonic()
        for file in files:
            data = bytearray(file.size)
            try:
                digest = _read(context, file, data)
            except errors.FileError as error:
                self.unread.append(FileResult(file, error))
            else:
                self.files.append(file)
                self.digests.append(digest)
                self.data.append(data)
        self.seconds = time.monotonic() - began


def _read(context: RunContext, file: LocalFile, data: bytearray) -> str:
    """Read a file into `data` and return its SHA-256; one in doubt is read twice. Raise `FileError`."""
    checkpoint, doubts = context.stop.checkpoint, []
    digest = read_whole(file, memoryview(data), checkpoint, lambda *doubt: doubts.append(doubt))
    if doubts and sha256_of(file, checkpoint) != digest:
        raise failure(file, "it changed while it was being read")
    return digest


class PackDriver(FilesDriver[pack.PackState]):
    """Send one pack."""

    def __init__(
        self, context: RunContext, worker: Worker, session: UploadSession, state: pack.PackState, data: list[bytearray]
    ) -> None:
        super().__init__(context, worker, session, pack.step, state)
        self._data = data

    def _done(self, wanted: Wanted) -> Came:
        context, files = self._context, self.state.files
        match wanted:
            case Ask():
                for file in files:
                    context.ledger.start(file, self._session.id, sent_name(file, paths=True), packed=True)
                body = self._body(wanted.body.manifest) if isinstance(wanted.body, Packed) else None
                return self._ask(wanted, body, whole=False)
            case NewKey(error):
                key = context.run.packed(files)
                if error is not None:
                    context.ledger.retry(files, error)
                return Named(key)
        return super()._done(wanted)

    def _body(self, manifest: bytes) -> Body:
        """Return the body, with the bytes before the data and after it reported in proportion."""
        context, numbers = self._context, tuple(file.file for file in self.state.files)
        form = pack_form(manifest, self._data)
        data, length = sum(map(len, self._data)), sum(piece.length for piece in form[1])
        return Body(
            *form,
            checkpoint=context.stop.checkpoint,
            throttle=context.throttle,
            on_count=lambda sent: context.emit(ev.PackSent(numbers, sent * data // length)),
            on_through=lambda: context.emit(ev.BodySent(numbers)),
        )


class PackJob:
    """Send the files of one pack. Files that can't be packed end with `FileResult.falls_back`."""

    def __init__(
        self, context: RunContext, pool: Pool, size: PackSize, session: UploadSession, files: Claimed, tries: int = 0
    ) -> None:
        """`tries` counts earlier retryable refusals of these files."""
        self.session = session
        self._context, self._pool, self._size, self._files, self._tries = context, pool, size, files, tries

    def run(self, worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Yield the results of the files. Raise what ends the run."""
        context, size = self._context, self._size
        if context.fails_fast:
            self.session.skip(worker.api, [file for file, _ in self._files])
            return
        if size.refused:
            yield _not_packed([file for file, _ in self._files], errors.PacksRefused(REFUSED, status=405))
            return
        if self._tries:
            context.stop.sleep(backoff(self._tries))
        self._cut()
        contents = Contents(context, [file for file, _ in self._files])
        if contents.unread:
            yield contents.unread
        if not contents.files:
            return
        driver = PackDriver(context, worker, self.session, self._begin(worker, contents), contents.data)
        end = driver.run(worker)
        yield from driver.stopped(end)
        if driver.sent is not None:
            length, _, seconds = driver.sent
            remote = sum(file.is_remote for file, _ in self._files)  # their store was asked for them
            size.measured(length + REMOTE * remote, seconds + (contents.seconds if remote else 0.0))
        if end.fetched:
            self.session.ends_itself = False  # the files may count in an earlier session
        results = [*end.results, *self._given_back(end.again)]
        if results:
            yield results

    def _cut(self) -> None:
        """Leave what exceeds the size of packs by now to the next job. What an earlier run sent keeps its key."""
        files = [file for file, _ in self._files]
        if (count := self._size.count(files)) == len(files):
            return
        if not any(claim.state is ClaimState.RESUME for _, claim in self._files):
            self._put(files[count:], self._tries)
            self._files = self._files[:count]

    def _begin(self, worker: Worker, contents: Contents) -> pack.PackState:
        """Return the first state, with the journaled key where that covers exactly these files in this order."""
        context, claims = self._context, [claim for _, claim in self._files]
        state = pack.PackState(
            self._size.endpoint,
            self.session.id,
            tuple(contents.files),
            tuple(contents.digests),
            earlier=worker.api.earlier,
            tries=self._tries,
            retries=context.settings.retries,
            if_exists="fail" if context.settings.if_exists == "fail" else "",
        )
        if any(claim.doubtful for claim in claims):
            return state
        resumed = all(claim.state is ClaimState.RESUME for claim in claims)
        return pack.begin(state, [pack_position(claim) for claim in claims], sent_before=resumed)

    def _given_back(self, again: Sequence[Again]) -> list[FileResult]:
        """Queue jobs for files that a pack gave back; return the results of those that can't be packed."""
        context, results, tries = self._context, list[FileResult](), self._tries
        later: list[LocalFile] = []
        for one in again:
            match one.how:
                case How.SINGLY:
                    results += self._fall_back(one)
                case How.HALVED:
                    self._size.shrink(sum(file.size for file in one.files))  # smaller ones may succeed
                    context.ledger.retry(one.files, one.error)
                    middle = len(one.files) // 2
                    self._put(one.files[middle:], tries)
                    self._put(one.files[:middle], tries)
                case How.LATER:
                    tries = self._tries + one.counts
                    context.ledger.retry(one.files, one.error, backoff(tries) if one.counts else 0.0)
                    later += one.files
        if later:
            self._put(later, tries)
        return results

    def _fall_back(self, one: Again) -> list[FileResult]:
        if isinstance(one.error, errors.TooLarge | errors.TooSlow):
            self._size.shrink(sum(file.size for file in one.files))
        else:
            first, self._size.refused = not self._size.refused, True
            if first:
                self._context.warn(WarningCode.PACKS, f"{one.error}: small files are sent one by one")
        return _not_packed(one.files, one.error)

    def _put(self, files: Sequence[LocalFile], tries: int) -> None:
        fresh = [(file, Claim(ClaimState.NEW)) for file in files]
        self._pool.put([PackJob(self._context, self._pool, self._size, self.session, fresh, tries)], first=True)


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
