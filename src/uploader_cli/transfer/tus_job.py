"""Jobs that upload with tus: one file, or one part of a large file (docs/protocol.md, section 5)."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.protocol import utf8
from uploader_cli.core.tus import parts as cut
from uploader_cli.transfer.bodies import content_type
from uploader_cli.transfer.job import Outcome, ends_run
from uploader_cli.transfer.journal import ClaimState, PendingPart, PendingUpload
from uploader_cli.transfer.pool import Step
from uploader_cli.transfer.retry import Tries
from uploader_cli.transfer.tus_upload import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal import Claim
    from uploader_cli.transfer.pool import Worker
    from uploader_cli.transfer.sessions import UploadSession
    from uploader_cli.transfer.tus import Position, TusClient
    from uploader_cli.transfer.tus_upload import Tus

TICK = 0.25
"""Seconds between two checks for a failure of another part."""


class PartStopped(errors.UploaderError):
    """Another part of the file has failed."""


class TusFile:
    """Send one file, in one upload or in parts that are joined. `claim` is its state in the journal.

    The threads of all parts report to it; its events are sums. Within an attempt no number falls; a retry of any part
    ends the attempt.
    """

    def __init__(self, tus: Tus, session: UploadSession, file: LocalFile, claim: Claim) -> None:
        self.session, self.file = session, file
        self.sent_to = session.id
        """The id of the session that is named to the server."""
        self.resumes = claim.state not in (ClaimState.NEW, ClaimState.CHANGED)
        self.parts: list[Part] = []
        self.error: BaseException | None = None
        """The first failure of a part: it stops the others."""
        self._tus, self._context, self._stop = tus, tus.context, tus.context.retry.stop
        self._outdated = claim.outdated.urls if claim.outdated is not None else ()
        self._upload = claim.upload or PendingUpload("")
        self._foreign = bool(tus.context.settings.tus_endpoint)  # without upload keys; joined parts remain
        self._begun, self._left = False, 0
        self._most_confirmed = self._most_sent = 0
        self._lock = threading.RLock()

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome of the file. Raise what ends the run."""
        if self._context.fails_fast:
            self.session.skip(worker.api, [self.file])
            return
        self._discard(worker.tus, self._outdated)
        yield from self._end(worker, lambda: self._send(worker))

    def _send_part(self, part: Part, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Send one part. The last one to end joins them and yields the outcome of the file."""
        failure = None
        try:
            self.check()
            part.run(worker)
        except BaseException as error:  # noqa: BLE001 - raised by the part that ends last
            failure = error
        with self._lock:
            self.error = self.error or failure
            self._left -= 1
            is_last = not self._left
        if is_last:
            yield from self._end(worker, lambda: self._join(worker.tus))

    def _end(self, worker: Worker, last: Callable[[], Position | None]) -> Iterator[Sequence[Outcome]]:
        """Call `last` and yield the outcome; a file whose session is lost resumes in another one."""
        file = self.file
        try:
            sent = last()
        except errors.UploaderError as error:
            if not isinstance(error, errors.FileError | errors.Interrupted):
                self.begin()  # the attempt is reported before it fails
            if ends_run(error):
                raise
            if isinstance(error, errors.SessionLost) and self.session.renew(worker.api, self.sent_to):
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
            verified = sum(part.checked for part in self.parts) == file.size
            server_id = sent.headers.get("Upload-File-Id")
            yield [Outcome(file, server_id=server_id, location=location, readable=readable, verified=verified)]

    def _send(self, worker: Worker) -> Position | None:
        """Return the complete upload; None where its parts have become jobs."""
        tus, run, file, upload, session = self._tus, self._context.run, self.file, self._upload, self.session.id
        count = 1 if self.resumes else tus.parts(file.size, tus.pool.idle, worker.api.request_ids.round_trip)
        sizes, parts = [size for _, size in cut(file.size, count)], upload.parts
        if len(sizes) > 1:
            self._upload, parts = run.creating(file, session), run.split(file, sizes)
        elif not parts:
            # In a session the key is used instead of the URL: this moves an upload from another session.
            known = (upload.upload_key, None if session else upload.url, upload.checked_until, upload.pledged_until)
            parts = (PendingPart(0, 0, file.size, *known),)
        self.sent_to, self._left = session, len(parts)
        self.parts = [Part(self, tus, part, whole=len(parts) == 1) for part in parts]
        return self._send_parts(worker) if len(parts) > 1 else self.parts[0].run(worker)

    def _send_parts(self, worker: Worker) -> Position | None:
        """Make jobs of the parts; return the upload that an earlier run joined them to, if any.

        The bundled server finds it by its key once all parts are gone: no request joins parts that are gone (section
        7).
        """
        client, size, joined = worker.tus, self.file.size, None
        if self._foreign and self._upload.url is not None:
            joined = self._head(client, self._upload.url)
        heads = [self._head(client, part.url) if part.url and joined is None else None for part in self.parts]
        if not self._foreign and len(self._urls) == len(heads) and not any(heads):
            joined = Tries(self._context.retry).run(lambda: client.create(size, self.metadata()))
            if joined.offset != size:
                client.discard(joined.url)  # the key was unknown: the server created an upload
                self._upload, self.resumes = self._context.run.creating(self.file, self.sent_to), False
                return self._send(worker)
        complete = joined if joined is not None and joined.offset == size else None
        for part, head in zip(self.parts, heads, strict=True):
            part.found(part.size if complete else min(head.offset or 0, part.size) if head else 0)
        if complete is not None:
            return self._joined(client, complete)
        if self.sent_to != (self._upload.session or ""):  # their keys move them to this session
            for part in self.parts:
                part.url = None
        self.begin()
        self._tus.pool.put_first([Step(partial(self._send_part, part), self.session) for part in self.parts])
        return None

    def _head(self, client: TusClient, url: str) -> Position | None:
        """Return the server's offset in an upload; None where it is gone."""
        with suppress(errors.UploadGone):
            return Tries(self._context.retry).run(lambda: client.head(url))
        return None

    def _join(self, client: TusClient) -> Position:
        """Join the parts on the server. Raise the first error of a part."""
        if self.error is not None:
            raise self.error

        def ask() -> Position:
            joined = client.create(None, self.metadata(), parts=self._urls)
            if joined.offset is None:
                joined = client.head(joined.url)
            if joined.offset != self.file.size:
                raise errors.ProtocolError(f"{joined.url} was joined to {joined.offset} bytes of {self.file.size}")
            return joined

        return self._joined(client, Tries(self._context.retry, on_retry=self.retry).run(ask))

    def _joined(self, client: TusClient, joined: Position) -> Position:
        self._context.run.created(self.file, joined.url)
        with self._lock:
            self.begin()
            self._tell(ev.BytesConfirmed, self.file.size)
        if self._foreign:
            self._discard(client, self._urls)
        return joined

    def _discard(self, client: TusClient, urls: Iterable[str]) -> None:
        if self._tus.capabilities.terminates:
            for url in urls:
                client.discard(url)

    @property
    def _urls(self) -> list[str]:
        return [part.url for part in self.parts if part.url]

    def metadata(self, part: Part | None = None) -> dict[str, str]:
        """Return the metadata of the file, or of a part (docs/protocol.md, section 7)."""
        file, session = self.file, {"sessionId": self.sent_to} if self.sent_to else {}
        if part is None or part.index is None:
            named = {"filename": utf8(file.name), "filetype": content_type(file.name)}
            named |= {"relativePath": utf8(file.relative_path), "lastModified": str(file.mtime_ns // 1_000_000)}
            return {"uploadKey": self._upload.upload_key} | named | session
        if self._foreign:
            return session
        place = {"finalLength": str(file.size), "partOffset": str(part.start)}
        return {"finalKey": self._upload.upload_key} | place | session

    def check(self) -> None:
        """Raise `Interrupted`, or `PartStopped` once another part has failed."""
        self._stop.check()
        if self.error is not None:
            raise PartStopped("another part of the file failed")

    def sleep(self, seconds: float) -> None:
        """Wait; raise as `check` does."""
        while seconds > 0:
            self.check()
            step = min(TICK, seconds) if len(self.parts) > 1 else seconds
            self._stop.sleep(step)
            seconds -= step
        self.check()

    def begin(self) -> None:
        """Begin an attempt unless one is in progress."""
        with self._lock:
            if not self._begun:
                self._begun = True
                self._most_confirmed = self._most_sent = sum(part.confirmed for part in self.parts)
                name = utf8(self.file.relative_path)
                self._context.ledger.start(self.file, self.sent_to, name, self._most_confirmed)

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

    def report_sent(self, part: Part, total: int) -> None:
        """Report the sent bytes of a part."""
        with self._lock:
            self.begin()
            part.sent = total
            total = sum(part.sent for part in self.parts)
            if total > self._most_sent:
                self._most_sent = total
                self._tell(ev.BytesSent, total)

    def report_confirmed(self, part: Part, offset: int) -> None:
        """Report the server's offset in a part."""
        part.found(offset)
        with self._lock:
            self.begin()
            self._most_confirmed = max(self._most_confirmed, sum(part.confirmed for part in self.parts))
            # For a file in one request the end event is enough.
            if offset < self.file.size or not self._tus.in_one_request(self.file.size):
                self._tell(ev.BytesConfirmed, self._most_confirmed)

    def _tell(self, event: type[ev.BytesSent | ev.BytesConfirmed], total: int) -> None:
        self._context.emit(event(self.file.file, self._context.ledger.attempt(self.file), total))
