"""Jobs of the worker pool that speak tus: one file, or one part of a large file (docs/protocol.md, section 5)."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import SkipReason
from uploader_cli.core.protocol import utf8
from uploader_cli.core.tus import parts as cut
from uploader_cli.transfer.bodies import content_type
from uploader_cli.transfer.job import Outcome, ends_run
from uploader_cli.transfer.journal import Claim, ClaimState, PendingPart, PendingUpload
from uploader_cli.transfer.retry import Tries, ignore
from uploader_cli.transfer.tus import NO_SESSION
from uploader_cli.transfer.tus_upload import TusUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.job import Context
    from uploader_cli.transfer.pool import Pool, Worker
    from uploader_cli.transfer.sessions import UploadSession
    from uploader_cli.transfer.tus import Position, TusClient
    from uploader_cli.transfer.tus_upload import Terms

TICK = 0.25
"""Seconds between two looks at whether another part has failed."""


class PartStopped(errors.UploaderError):
    """Another part of the file has failed: this one is not needed."""


@dataclass(frozen=True, slots=True)
class Tus:
    """What all tus jobs of a run share."""

    context: Context
    terms: Terms
    pool: Pool


class Progress:
    """What becomes of a file under way, for events and the journal: sums over its parts, or over the whole as one.

    Methods may be called from the threads of all parts. Within an attempt no number falls; a retry of any part ends it,
    and what happens next begins another one.
    """

    def __init__(self, tus: Tus, file: LocalFile, session: str, parts: Sequence[PendingPart], *, parted: bool) -> None:
        self.file, self.parted = file, parted
        self.error: BaseException | None = None
        """The first failure of a part: it stops the others."""
        self._context, self._terms, self._session, self._parts = tus.context, tus.terms, session, parts
        self._confirmed, self._sent = [0] * len(parts), [0] * len(parts)
        self._checked = [part.checked_until for part in parts]
        self._most_confirmed = self._most_sent = 0
        self._left = len(parts)
        self._begun = False
        self._lock = threading.RLock()

    @property
    def verified(self) -> bool:
        """True where all bytes lay in chunks whose checksum the server accepted."""
        return sum(self._checked) == self.file.size

    def found(self, confirmed: Sequence[int]) -> None:
        """Take the server's offset in each part, before the first attempt."""
        self._confirmed, self._sent = list(confirmed), list(confirmed)
        for index, (part, offset) in enumerate(zip(self._parts, confirmed, strict=True)):
            self._checked[index] = offset if offset == part.pledged_until else min(part.checked_until, offset)

    def begin(self) -> None:
        """Begin an attempt unless one is under way."""
        with self._lock:
            if not self._begun:
                self._begun = True
                self._most_confirmed = self._most_sent = sum(self._confirmed)
                name = utf8(self.file.relative_path)
                self._context.ledger.start(self.file, self._session, name, self._most_confirmed)

    def retry(self, error: errors.UploaderError, delay: float, index: int | None = None) -> None:
        """End the attempt because part `index`, or the request that joins the parts, is tried again after `delay`."""
        with self._lock:
            if self.error is not None:
                return
            self.begin()
            if index is not None:
                self._sent[index] = self._confirmed[index]
            self._begun = False
            self._context.ledger.retry([self.file], error, delay)

    def sent(self, index: int, total: int) -> None:
        """Take the bytes of a part that have left this machine."""
        with self._lock:
            self.begin()
            self._sent[index] = total
            if sum(self._sent) > self._most_sent:
                self._most_sent = sum(self._sent)
                self._tell(ev.BytesSent, self._most_sent)

    def confirmed(self, index: int, offset: int, checked: int) -> None:
        """Take the server's offset in a part, and the end of the bytes whose checksums it has accepted."""
        with self._lock:
            before, self._checked[index] = self._checked[index], checked
            self._confirmed[index], self._sent[index] = offset, max(self._sent[index], offset)
            self.begin()
            self._most_confirmed = max(self._most_confirmed, sum(self._confirmed))
            # The end of a file says the same of one that went in one request.
            if offset < self.file.size or not self._terms.in_one_request(self.file.size):
                self._tell(ev.BytesConfirmed, self._most_confirmed)
        if checked != before and (self.parted or offset < self.file.size):
            self._context.run.checked(self.file, checked, part=self._part(index))

    def created(self, index: int, url: str) -> None:
        """Record the URL of an upload; that of a file in one request is found again by its key."""
        if self.parted:
            self._context.run.created(self.file, url, part=index)
        elif not self._terms.in_one_request(self.file.size):
            self._context.run.created(self.file, url, chunk_size=self._terms.chunk_size)

    def pledged(self, index: int, until: int) -> None:
        """Record that the next chunk ends at `until`, and its checksum covers all bytes so far; 0 if it does not."""
        self._context.run.pledged(self.file, until, part=self._part(index))

    def restarted(self, index: int) -> str:
        """Forget an upload that the server has lost; return the journaled key of the next one."""
        with self._lock:
            self._confirmed[index] = self._sent[index] = self._checked[index] = 0
        if self.parted:
            return self._context.run.creating_part(self.file, index)
        return self._context.run.creating(self.file, self._session).upload_key

    def joined(self, url: str) -> None:
        """Record the upload that the parts were joined to."""
        self._context.run.created(self.file, url, chunk_size=self._terms.chunk_size)
        with self._lock:
            self.begin()
            self._tell(ev.BytesConfirmed, self.file.size)

    def over(self, error: BaseException | None) -> bool:
        """End a part; True for the one that ends last."""
        with self._lock:
            self.error = self.error or error
            self._left -= 1
            return not self._left

    def check(self) -> None:
        """Raise `Interrupted`, or `PartStopped` once another part has failed."""
        self._terms.retry.stop.check()
        if self.error is not None:
            raise PartStopped("another part of the file failed")

    def sleep(self, seconds: float) -> None:
        """Wait; raise as `check` does."""
        while seconds > 0:
            self.check()
            self._terms.retry.stop.sleep(min(TICK, seconds) if self.parted else seconds)
            seconds -= TICK if self.parted else seconds
        self.check()

    def _part(self, index: int) -> int | None:
        return index if self.parted else None

    def _tell(self, event: type[ev.BytesSent | ev.BytesConfirmed], total: int) -> None:
        self._context.emit(event(self.file.file, self._context.ledger.attempt(self.file), total))


class TusFile:
    """Send one file. `claim` is what the journal has of it."""

    _progress: Progress
    _parts: Sequence[PendingPart]
    """The ranges that are sent: the whole file as one, or several that are joined in the end."""
    _urls: list[str]
    _session: str

    def __init__(self, tus: Tus, session: UploadSession, file: LocalFile, claim: Claim) -> None:
        self.session = session
        self._tus, self._context, self._file, self._outdated = tus, tus.context, file, claim.outdated
        self._upload = claim.upload or PendingUpload("")
        self._resumes = claim.state not in (ClaimState.NEW, ClaimState.CHANGED)
        self._foreign = bool(tus.context.settings.tus_endpoint)
        """True for a server that knows no `uploadKey` and keeps parts beside what they were joined to."""

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome of the file. Raise what ends the run."""
        context = self._context
        if context.settings.fail_fast and context.ledger.failures:
            context.ledger.skip(self._file, SkipReason.FAIL_FAST)
            self.session.over(worker.api, 1, given_up=1)
            return
        if self._outdated is not None:
            self._discard(worker.tus, self._outdated.urls)
        try:
            sent = self._send(worker)
        except errors.UploaderError as error:
            yield from self._failed(worker, error)
        else:
            if sent is not None:
                yield [self._outcome(sent)]

    def send_part(self, worker: Worker, index: int) -> Iterator[Sequence[Outcome]]:
        """Send one part. The one that ends last has all of them joined and yields the outcome of the file."""
        progress, failure = self._progress, None
        try:
            progress.check()
            self._urls[index] = self._range(worker, index).run().url
        except BaseException as error:  # noqa: BLE001 - raised by the part that ends last
            failure = error
        if not progress.over(failure):
            return
        try:
            if progress.error is not None:
                raise progress.error
            sent = self._join(worker.tus)
        except errors.UploaderError as error:
            yield from self._failed(worker, error)
        else:
            yield [self._outcome(sent)]

    def _outcome(self, sent: Position) -> Outcome:
        location = sent.headers.get("Content-Location")
        readable = location or sent.url
        if self._foreign:  # what it calls its paths is all that is known of that server
            readable = urljoin(sent.url, readable)
        server_id, verified = sent.headers.get("Upload-File-Id"), self._progress.verified
        return Outcome(self._file, server_id=server_id, location=location, readable=readable, verified=verified)

    def _failed(self, worker: Worker, error: errors.UploaderError) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome, unless the server has lost the session: then the file is resumed in another one."""
        if not isinstance(error, errors.FileError | errors.Interrupted):
            self._progress.begin()  # the attempt is reported before it fails
        if ends_run(error):
            raise error
        lost = isinstance(error, errors.AnswerError) and error.error in NO_SESSION
        if not lost or not self.session.renew(worker.api, self._session):
            yield [Outcome(self._file, error)]
            return
        self._context.ledger.retry([self._file], error)
        (claim,) = self._context.run.claim([self._file])
        self._tus.pool.put_first([TusFile(self._tus, self.session, self._file, claim)])

    # --- the file as a whole, or as parts -----------------------------------------------------------------------------

    def _send(self, worker: Worker) -> Position | None:
        """Return the upload once the server has all of it; None where its parts have become jobs."""
        tus, run, file = self._tus, self._context.run, self._file
        session = self._session = self.session.id
        count = 1 if self._resumes else tus.terms.parts(file.size, tus.pool.idle, worker.api.request_ids.round_trip)
        if count > 1:
            self._upload = run.creating(file, session)
            self._parts = run.split(file, [size for _, size in cut(file.size, count)])
        else:
            self._parts = self._upload.parts
        if self._parts:
            self._progress = Progress(tus, file, session, self._parts, parted=True)
            self._urls = [part.url or "" for part in self._parts]
            if self._resumes:
                return self._resume_parts(worker)
            self._put_parts()
            return None
        upload, url = self._upload, None if session else self._upload.url  # in a session the key is asked for: it moves
        whole = PendingPart(0, 0, file.size, upload.upload_key, url, upload.checked_until, upload.pledged_until)
        self._parts = (whole,)
        self._progress = Progress(tus, file, session, self._parts, parted=False)
        return self._range(worker, 0).run()

    def _range(self, worker: Worker, index: int) -> TusUpload:
        part, progress = self._parts[index], self._progress
        metadata = self._metadata(part if progress.parted else None)
        return TusUpload(
            worker.tus, self._tus.terms, progress, part, metadata, resumes=self._resumes, helper=worker.helper
        )

    def _metadata(self, part: PendingPart | None = None) -> dict[str, str]:
        """Return the metadata of the file, or of a part: its place, where the server writes it there at once."""
        session, file = {"sessionId": self._session} if self._session else {}, self._file
        if part is None:
            named = {"filename": utf8(file.name), "filetype": content_type(file.name)}
            named |= {"relativePath": utf8(file.relative_path), "lastModified": str(file.mtime_ns // 1_000_000)}
            return named | session
        if self._foreign:
            return session
        place = {"finalLength": str(file.size), "partOffset": str(part.offset)}
        return {"finalKey": self._upload.upload_key} | place | session

    # --- parts --------------------------------------------------------------------------------------------------------

    def _put_parts(self) -> None:
        self._progress.begin()
        self._tus.pool.put_first([TusPart(self, index) for index in range(len(self._parts))])

    def _resume_parts(self, worker: Worker) -> Position | None:
        """Return the upload that an earlier run had the parts joined to; None where parts are left to send.

        Its URL may be known; the bundled server finds it by its key, once all parts are gone: no request asks to join
        parts that are not there (docs/protocol.md, section 7).
        """
        client, size, joined = worker.tus, self._file.size, None
        if self._foreign and self._upload.url is not None:
            joined = self._head(client, self._upload.url)
        found = [self._head(client, url) for url in self._urls if url] if joined is None else []
        if not self._foreign and len(found) == len(self._parts) and not any(found):
            joined = self._tries(client).run(lambda: client.create(size, self._final_metadata()))
            if joined.offset != size:
                client.discard(joined.url)  # the key was new to the server: it has made an upload
                self._upload, self._resumes = self._context.run.creating(self._file, self._session), False
                return self._send(worker)
        if joined is not None and joined.offset == size:
            self._progress.found([part.size for part in self._parts])
            return self._joined(client, joined)
        offsets = {position.url: position.offset or 0 for position in found if position is not None}
        self._progress.found([min(offsets.get(part.url or "", 0), part.size) for part in self._parts])
        if self._session != (self._upload.session or ""):  # asked for by their keys, they move to this session
            self._parts = [replace(part, url=None) for part in self._parts]
        self._put_parts()
        return None

    def _head(self, client: TusClient, url: str) -> Position | None:
        """Return the server's offset in an upload; None where it is gone."""
        with suppress(errors.UploadGone):
            return self._tries(client).run(lambda: client.head(url))
        return None

    def _tries(self, client: TusClient, on_retry: Callable[[errors.UploaderError, float], None] = ignore) -> Tries:
        return Tries(self._tus.terms.retry, on_retry=on_retry, stale=lambda: client.stale)

    def _join(self, client: TusClient) -> Position:
        """Have the server make one upload of the parts."""
        size = self._file.size

        def ask() -> Position:
            joined = client.concatenate(self._urls, self._final_metadata())
            if joined.offset is None:
                joined = client.head(joined.url)
            if joined.offset != size:
                raise errors.ProtocolError(f"{joined.url} was joined to {joined.offset} bytes of {size}")
            return joined

        return self._joined(client, self._tries(client, self._progress.retry).run(ask))

    def _joined(self, client: TusClient, joined: Position) -> Position:
        """Take the upload that the parts were joined to; delete them where they would stay beside it."""
        self._progress.joined(joined.url)
        if self._foreign:
            self._discard(client, filter(None, self._urls))
        return joined

    def _final_metadata(self) -> dict[str, str]:
        return {**self._metadata(), "uploadKey": self._upload.upload_key}

    def _discard(self, client: TusClient, urls: Iterable[str]) -> None:
        """Delete uploads that are not needed, where the server can."""
        if self._tus.terms.capabilities.terminates:
            for url in urls:
                client.discard(url)


@dataclass(frozen=True, slots=True)
class TusPart:
    """Send one part of a file."""

    whole: TusFile
    index: int

    @property
    def session(self) -> UploadSession:
        """The session of the file."""
        return self.whole.session

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome of the file, if this part ends last. Raise what ends the run."""
        return self.whole.send_part(worker, self.index)
