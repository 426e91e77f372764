"""Jobs that upload with tus: one file, or one part of a large file (docs/protocol.md, section 5)."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.protocol import utf8
from uploader_cli.core.tus import parts as cut
from uploader_cli.transfer.bodies import content_type
from uploader_cli.transfer.job import Outcome, ends_run
from uploader_cli.transfer.journal import Claim, ClaimState, PendingPart, PendingUpload
from uploader_cli.transfer.pool import Step
from uploader_cli.transfer.retry import Tries, ignore
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
"""Seconds between two checks for a failure of another part."""


class PartStopped(errors.UploaderError):
    """Another part of the file has failed."""


class Tus(NamedTuple):
    """What all tus jobs of a run share."""

    context: Context
    terms: Terms
    pool: Pool


@dataclass(slots=True)
class Part:
    """A `PendingPart` in progress (`index` None: the whole file). Bytes count from its start."""

    index: int | None
    start: int
    size: int
    key: str
    url: str | None
    checked: int
    """End of the bytes whose checksums the server has accepted."""
    pledged: int
    """End of the chunk being sent where it extends `checked`, else 0: it is stored whole or not at all."""
    journaled: int = field(init=False)
    confirmed: int = 0
    sent: int = 0

    def __post_init__(self) -> None:
        self.journaled = self.pledged


class Progress:
    """What becomes of a file under way, for events and the journal: sums over its parts, or over the whole as one.

    The threads of all parts use it. Within an attempt no number falls; a retry of any part ends the attempt.
    """

    def __init__(self, tus: Tus, file: LocalFile, session: str, parts: Sequence[PendingPart]) -> None:
        self.file, self.session, self.parted = file, session, len(parts) > 1
        self.parts = [Part(*astuple(part)) for part in parts]
        if not self.parted:
            self.parts[0].index = None
        self.error: BaseException | None = None  # the first failure of a part: it stops the others
        self._context, self._terms, self._run = tus.context, tus.terms, tus.context.run
        self._most_confirmed = self._most_sent = 0
        self._left, self._begun = len(parts), False
        self._lock = threading.RLock()

    @property
    def urls(self) -> list[str]:
        """The known URLs of the parts."""
        return [part.url for part in self.parts if part.url]

    @property
    def verified(self) -> bool:
        """True where the server accepted checksums of all bytes."""
        return sum(part.checked for part in self.parts) == self.file.size

    def found(self, part: Part, offset: int) -> None:
        """Record the server's offset in a part, which may be lower than before."""
        part.confirmed, part.sent = offset, max(part.sent, offset)
        checked = offset if offset == part.pledged else min(part.checked, offset)
        changed = checked != part.checked
        part.checked, part.pledged = checked, 0
        if changed and (self.parted or offset < self.file.size):
            self._run.checked(self.file, checked, part=part.index)

    def begin(self) -> None:
        """Begin an attempt unless one is in progress."""
        with self._lock:
            if not self._begun:
                self._begun = True
                name, offset = utf8(self.file.relative_path), sum(part.confirmed for part in self.parts)
                self._most_confirmed = self._most_sent = offset
                self._context.ledger.start(self.file, self.session, name, offset)

    def retry(self, error: errors.UploaderError, delay: float, part: Part | None = None) -> None:
        """End the attempt: a part, or the request that joins the parts, is repeated after `delay` seconds."""
        with self._lock:
            if self.error is not None:
                return
            self.begin()
            if part is not None:
                part.sent = part.confirmed
            self._begun = False
            self._context.ledger.retry([self.file], error, delay)

    def sending(self, part: Part, start: int, end: int, *, checksum: bool) -> None:
        """Journal the next chunk, unless it is the whole part."""
        part.pledged = end if checksum and start <= part.checked else 0
        until = part.pledged if end - start < part.size else 0
        if until != part.journaled:
            part.journaled = until
            self._run.pledged(self.file, until, part=part.index)

    def sent(self, part: Part, total: int) -> None:
        """Report the sent bytes of a part."""
        with self._lock:
            self.begin()
            part.sent = total
            total = sum(part.sent for part in self.parts)
            if total > self._most_sent:
                self._most_sent = total
                self._tell(ev.BytesSent, total)

    def confirmed(self, part: Part, offset: int) -> None:
        """Report the server's offset in a part."""
        self.found(part, offset)
        with self._lock:
            self.begin()
            self._most_confirmed = max(self._most_confirmed, sum(part.confirmed for part in self.parts))
            # For a file in one request the end event is enough.
            if offset < self.file.size or not self._terms.in_one_request(self.file.size):
                self._tell(ev.BytesConfirmed, self._most_confirmed)

    def created(self, part: Part, url: str) -> None:
        """Record the URL of an upload; a file in one request is found again by its key."""
        part.url = url
        if self.parted:
            self._run.created(self.file, url, part=part.index)
        elif not self._terms.in_one_request(self.file.size):
            self._run.created(self.file, url, chunk_size=self._terms.chunk_size)

    def restarted(self, part: Part) -> None:
        """Forget an upload that the server has lost, and journal the key of the next one."""
        with self._lock:
            part.url = None
            part.confirmed = part.sent = part.checked = part.pledged = part.journaled = 0
        if part.index is None:
            part.key = self._run.creating(self.file, self.session).upload_key
        else:
            part.key = self._run.creating_part(self.file, part.index)

    def joined(self, url: str) -> None:
        """Record the upload that the parts were joined to."""
        self._run.created(self.file, url, chunk_size=self._terms.chunk_size)
        with self._lock:
            self.begin()
            self._tell(ev.BytesConfirmed, self.file.size)

    def over(self, error: BaseException | None) -> bool:
        """End a part; return True for the last one."""
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
            step = min(TICK, seconds) if self.parted else seconds
            self._terms.retry.stop.sleep(step)
            seconds -= step
        self.check()

    def _tell(self, event: type[ev.BytesSent | ev.BytesConfirmed], total: int) -> None:
        self._context.emit(event(self.file.file, self._context.ledger.attempt(self.file), total))


class TusFile:
    """Send one file. `claim` is its state in the journal."""

    _progress: Progress

    def __init__(self, tus: Tus, session: UploadSession, file: LocalFile, claim: Claim) -> None:
        self.session = session
        self._tus, self._context, self._file = tus, tus.context, file
        self._outdated = claim.outdated.urls if claim.outdated is not None else ()
        self._upload = claim.upload or PendingUpload("")
        self._resumes = claim.state not in (ClaimState.NEW, ClaimState.CHANGED)
        self._foreign = bool(tus.context.settings.tus_endpoint)  # without upload keys; joined parts remain

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome of the file. Raise what ends the run."""
        if self._context.fails_fast:
            self.session.skip(worker.api, [self._file])
            return
        self._discard(worker.tus, self._outdated)
        yield from self._end(worker, lambda: self._send(worker))

    def _send_part(self, part: Part, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Send one part. The last one to end joins them and yields the outcome of the file."""
        failure = None
        try:
            self._progress.check()
            self._upload_of(worker, part).run()
        except BaseException as error:  # noqa: BLE001 - raised by the part that ends last
            failure = error
        if self._progress.over(failure):
            yield from self._end(worker, lambda: self._join(worker.tus))

    def _end(self, worker: Worker, last: Callable[[], Position | None]) -> Iterator[Sequence[Outcome]]:
        """Call `last` and yield the outcome; a file whose session is lost resumes in another one."""
        file = self._file
        try:
            sent = last()
        except errors.UploaderError as error:
            if not isinstance(error, errors.FileError | errors.Interrupted):
                self._progress.begin()  # the attempt is reported before it fails
            if ends_run(error):
                raise
            if isinstance(error, errors.SessionLost) and self.session.renew(worker.api, self._progress.session):
                self._context.ledger.retry([file], error)
                (claim,) = self._context.run.claim([file])
                self._tus.pool.put_first([TusFile(self._tus, self.session, file, claim)])
            else:
                yield [Outcome(file, error)]
            return
        if sent is not None:
            location = sent.headers.get("Content-Location")
            # Only the paths of a foreign server are known.
            readable = urljoin(sent.url, location or "") if self._foreign else location or sent.url
            server_id, verified = sent.headers.get("Upload-File-Id"), self._progress.verified
            yield [Outcome(file, server_id=server_id, location=location, readable=readable, verified=verified)]

    def _send(self, worker: Worker) -> Position | None:
        """Return the complete upload; None where its parts have become jobs."""
        tus, run, file, upload, session = self._tus, self._context.run, self._file, self._upload, self.session.id
        count = 1 if self._resumes else tus.terms.parts(file.size, tus.pool.idle, worker.api.request_ids.round_trip)
        sizes, parts = [size for _, size in cut(file.size, count)], upload.parts
        if len(sizes) > 1:
            self._upload, parts = run.creating(file, session), run.split(file, sizes)
        elif not parts:
            # In a session the key is used instead of the URL: this moves an upload from another session.
            known = (upload.upload_key, None if session else upload.url, upload.checked_until, upload.pledged_until)
            parts = (PendingPart(0, 0, file.size, *known),)
        self._progress = Progress(tus, file, session, parts)
        return self._send_parts(worker) if len(parts) > 1 else self._upload_of(worker, self._progress.parts[0]).run()

    def _upload_of(self, worker: Worker, part: Part) -> TusUpload:
        terms, progress, metadata = self._tus.terms, self._progress, self._metadata(part)
        return TusUpload(worker.tus, terms, progress, part, metadata, resumes=self._resumes, helper=worker.helper)

    def _metadata(self, part: Part | None = None) -> dict[str, str]:
        """Return the metadata of the file, or of a part (docs/protocol.md, section 7)."""
        progress, file = self._progress, self._file
        session = {"sessionId": progress.session} if progress.session else {}
        if part is None or part.index is None:
            named = {"filename": utf8(file.name), "filetype": content_type(file.name)}
            named |= {"relativePath": utf8(file.relative_path), "lastModified": str(file.mtime_ns // 1_000_000)}
            return {"uploadKey": self._upload.upload_key} | named | session
        if self._foreign:
            return session
        place = {"finalLength": str(file.size), "partOffset": str(part.start)}
        return {"finalKey": self._upload.upload_key} | place | session

    def _send_parts(self, worker: Worker) -> Position | None:
        """Make jobs of the parts; return the upload that an earlier run joined them to, if any.

        The bundled server finds it by its key once all parts are gone: no request joins parts that are gone (section
        7).
        """
        client, progress, size, joined = worker.tus, self._progress, self._file.size, None
        if self._foreign and self._upload.url is not None:
            joined = self._head(client, self._upload.url)
        heads = [self._head(client, part.url) if part.url and joined is None else None for part in progress.parts]
        if not self._foreign and len(progress.urls) == len(heads) and not any(heads):
            joined = self._tries(client).run(lambda: client.create(size, self._metadata()))
            if joined.offset != size:
                client.discard(joined.url)  # the key was unknown: the server created an upload
                self._upload, self._resumes = self._context.run.creating(self._file, progress.session), False
                return self._send(worker)
        complete = joined if joined is not None and joined.offset == size else None
        for part, head in zip(progress.parts, heads, strict=True):
            progress.found(part, part.size if complete else min(head.offset or 0, part.size) if head else 0)
        if complete is not None:
            return self._joined(client, complete)
        if progress.session != (self._upload.session or ""):  # their keys move them to this session
            for part in progress.parts:
                part.url = None
        progress.begin()
        self._tus.pool.put_first([Step(partial(self._send_part, part), self.session) for part in progress.parts])
        return None

    def _head(self, client: TusClient, url: str) -> Position | None:
        """Return the server's offset in an upload; None where it is gone."""
        with suppress(errors.UploadGone):
            return self._tries(client).run(lambda: client.head(url))
        return None

    def _tries(self, client: TusClient, on_retry: Callable[[errors.UploaderError, float], None] = ignore) -> Tries:
        return Tries(self._tus.terms.retry, on_retry=on_retry, stale=lambda: client.stale)

    def _join(self, client: TusClient) -> Position:
        """Join the parts on the server. Raise the first error of a part."""
        size = self._file.size
        if self._progress.error is not None:
            raise self._progress.error

        def ask() -> Position:
            joined = client.create(None, self._metadata(), parts=self._progress.urls)
            if joined.offset is None:
                joined = client.head(joined.url)
            if joined.offset != size:
                raise errors.ProtocolError(f"{joined.url} was joined to {joined.offset} bytes of {size}")
            return joined

        return self._joined(client, self._tries(client, self._progress.retry).run(ask))

    def _joined(self, client: TusClient, joined: Position) -> Position:
        self._progress.joined(joined.url)
        if self._foreign:
            self._discard(client, self._progress.urls)
        return joined

    def _discard(self, client: TusClient, urls: Iterable[str]) -> None:
        if self._tus.terms.capabilities.terminates:
            for url in urls:
                client.discard(url)
