"""Jobs of the worker pool that speak tus: one file, or one part of a large file (docs/protocol.md, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import SkipReason
from uploader_cli.core.protocol import utf8
from uploader_cli.core.tus import parts as cut
from uploader_cli.transfer.bodies import content_type
from uploader_cli.transfer.job import Outcome, ends_run
from uploader_cli.transfer.journal import Claim, ClaimState, PendingUpload
from uploader_cli.transfer.tus import NO_SESSION
from uploader_cli.transfer.tus_parts import Part, PartedUpload, PartsLost, PartStopped
from uploader_cli.transfer.tus_upload import Known, TusUpload, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.job import Context
    from uploader_cli.transfer.journal import PendingPart
    from uploader_cli.transfer.pool import Pool, Worker
    from uploader_cli.transfer.sessions import UploadSession
    from uploader_cli.transfer.tus_upload import Sent, Terms


@dataclass(frozen=True, slots=True)
class Tus:
    """What all tus jobs of a run share."""

    context: Context
    terms: Terms
    pool: Pool


class TusFile:
    """Send one file. `claim` is what the journal has of it."""

    def __init__(self, tus: Tus, session: UploadSession, file: LocalFile, claim: Claim) -> None:
        self.session = session
        self._tus, self._context, self._file, self._claim = tus, tus.context, file, claim

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome of the file. Raise what ends the run."""
        context, file = self._context, self._file
        if context.settings.fail_fast and context.ledger.failures:
            context.ledger.skip(file, SkipReason.FAIL_FAST)
            self.session.over(worker.api, 1, given_up=1)
            return
        if self._claim.outdated is not None:
            self._terminate(worker, self._claim.outdated)
        pending, resumes = self._claim.upload or PendingUpload(""), self._claim.state is not ClaimState.NEW
        resumes = resumes and self._claim.state is not ClaimState.CHANGED
        while True:
            session = self.session.id
            try:
                sent = self._send(worker, session, pending, resumes=resumes)
            except errors.UploaderError as error:
                if ends_run(error):
                    raise
                if not self._moves(worker, session, error):
                    yield [Outcome(file, error)]
                    return
                pending, resumes = context.run.creating(file, self.session.id), False
            else:
                if sent is not None:  # else its parts are jobs of their own
                    yield [self.outcome(sent)]
                return

    def outcome(self, sent: Sent) -> Outcome:
        """Return the outcome of a file that the server has."""
        location = sent.headers.get("Content-Location")
        readable = location or sent.url
        if self._context.settings.tus_endpoint:  # what it calls its paths is all that is known of that server
            readable = urljoin(sent.url, readable)
        return Outcome(
            self._file,
            server_id=sent.headers.get("Upload-File-Id"),
            location=location,
            readable=readable,
            verified=sent.verified,
        )

    def part_failed(self, worker: Worker, session: str, error: errors.UploaderError) -> Outcome | None:
        """Return the outcome of a file of which a part failed; None where it is sent once more, in a new session."""
        if not self._moves(worker, session, error):
            return Outcome(self._file, error)
        upload = self._context.run.creating(self._file, self.session.id)
        self._tus.pool.put_first([TusFile(self._tus, self.session, self._file, Claim(ClaimState.NEW, upload))])
        return None

    def _moves(self, worker: Worker, session: str, error: errors.UploaderError) -> bool:
        """Return whether the file is sent in a new session, because the server has lost the old one."""
        if getattr(error, "error", "") not in NO_SESSION or not self.session.renew(worker.api, session):
            return False
        self._context.ledger.retry([self._file], error)
        return True

    def _send(self, worker: Worker, session: str, pending: PendingUpload, *, resumes: bool) -> Sent | None:
        terms, file = self._tus.terms, self._file
        round_trip = worker.api.request_ids.round_trip
        parts = 1 if resumes else terms.parts(file.size, self._tus.pool.idle, round_trip)
        if pending.parts or parts > 1:
            return self._in_parts(worker, session, pending, parts)
        return TusUpload(
            worker.tus,
            terms,
            file,
            self._metadata(session),
            watch=self._watch(session),
            known=_known(pending, session) if resumes else Known(),
            make_key=self._keys(session, pending, resumes=resumes),
            helper=worker.helper,
        ).run()

    def _in_parts(self, worker: Worker, session: str, known: PendingUpload, count: int) -> Sent | None:
        """Make jobs of the parts; return the upload where the server has joined them already."""
        run, resumed = self._context.run, bool(known.parts)
        pieces = known.parts or run.split(self._file, [size for _, size in cut(self._file.size, count)])
        upload = PartedUpload(
            self._tus.terms,
            self._file,
            self._metadata(session),
            [self._part(piece, resumed=resumed) for piece in pieces],
            known.upload_key,
            watch=self._watch(session, in_parts=True),
            joined=None if session else known.url,  # in a session it is asked for by its key, as in `_known`
            session=session,
            recognises_keys=not self._context.settings.tus_endpoint,
        )
        try:
            sent = upload.begin(worker.tus)
        except PartsLost:
            anew = run.creating(self._file, session)
            return self._send(worker, session, anew, resumes=False)
        if sent is None:
            self._tus.pool.put_first([TusPart(self, upload, index, session) for index in range(len(pieces))])
        return sent

    def _part(self, piece: PendingPart, *, resumed: bool) -> Part:
        run, file = self._context.run, self._file
        keys = iter(() if resumed else (piece.upload_key,))
        known = Known(piece.url, piece.upload_key, 0, piece.checked_until, piece.pledged_until)
        return Part(
            piece.offset,
            piece.size,
            known=known if resumed else Known(),
            watch=Watch(
                created=lambda url: run.created(file, url, part=piece.index),
                confirmed=lambda _offset, checked: run.checked(file, checked, part=piece.index),
                pledged=lambda until: run.pledged(file, until, part=piece.index),
            ),
            make_key=lambda: next(keys, None) or run.creating_part(file, piece.index),
        )

    def _keys(self, session: str, known: PendingUpload, *, resumes: bool) -> Callable[[], str]:
        """Return a source of keys: first the claim's, then new ones. All are in the journal before they are used."""
        first = iter(() if resumes else (known.upload_key,))
        return lambda: next(first, None) or self._context.run.creating(self._file, session).upload_key

    def _metadata(self, session: str) -> dict[str, str]:
        file = self._file
        kept = {"filename": utf8(file.name), "filetype": content_type(file.name)}
        kept |= {"relativePath": utf8(file.relative_path), "lastModified": str(file.mtime_ns // 1_000_000)}
        return kept | ({"sessionId": session} if session else {})

    def _watch(self, session: str, *, in_parts: bool = False) -> Watch:
        context, terms, file = self._context, self._tus.terms, self._file
        emit, ledger, run = context.emit, context.ledger, context.run
        checked_before = 0

        def created(url: str) -> None:
            if not terms.in_one_request(file.size):  # otherwise it is found again by its key
                run.created(file, url, chunk_size=terms.chunk_size)

        def confirmed(offset: int, checked: int) -> None:
            nonlocal checked_before
            if offset < file.size or not terms.in_one_request(
                file.size
            ):  # the end of a file says the same of one that went in one request
                emit(ev.BytesConfirmed(file.file, ledger.attempt(file), offset))
            if not in_parts and checked > checked_before and offset < file.size:
                checked_before = checked
                run.checked(file, checked)

        return Watch(
            created=created,
            attempt=lambda offset, _attempt: ledger.start(file, session, utf8(file.relative_path), offset),
            confirmed=confirmed,
            pledged=lambda until: run.pledged(file, until),
            sent=lambda total: emit(ev.BytesSent(file.file, ledger.attempt(file), total)),
            retry=lambda error, delay, _attempt: ledger.retry([file], error, delay),
        )

    def _terminate(self, worker: Worker, outdated: PendingUpload) -> None:
        """Delete what an earlier version of the file left on the server, where the server can."""
        if self._tus.terms.capabilities.terminates:
            for url in outdated.urls:
                worker.tus.discard(url)


class TusPart:
    """Send one part of a file. The job that ends last yields the outcome of the file."""

    def __init__(self, whole: TusFile, upload: PartedUpload, index: int, id_at_start: str) -> None:
        self.session = whole.session
        self._whole, self._upload, self._index, self._id_at_start = whole, upload, index, id_at_start

    def run(self, worker: Worker) -> Iterator[Sequence[Outcome]]:
        """Yield the outcome of the file, if this part ends last. Raise what ends the run."""
        try:
            sent = self._upload.send(self._index, worker.tus, worker.helper)
        except PartStopped:
            return
        except errors.UploaderError as error:
            if ends_run(error):
                raise
            outcome = self._whole.part_failed(worker, self._id_at_start, error)
            if outcome is not None:
                yield [outcome]
        else:
            if sent is not None:
                yield [self._whole.outcome(sent)]


def _known(pending: PendingUpload, session: str) -> Known:
    """In a session the key is asked for, not the URL: so an upload that was begun in another one moves to this one."""
    url = None if session else pending.url
    return Known(url, pending.upload_key, 0, pending.checked_until, pending.pledged_until)
