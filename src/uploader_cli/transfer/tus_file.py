"""The job that sends one file with tus: in one upload, or in parts that are joined (docs/resumable-uploads.md)."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.capabilities import parts as cut
from uploader_cli.core.codes import FailureCode, SkipReason, WarningCode
from uploader_cli.core.confirmation import UNCERTAIN, Ending, KnownBy, verified_by
from uploader_cli.core.plan import ENDLESS, LocalFile
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.protocol import NAME_TAKEN, utf8
from uploader_cli.transfer.journal.reading import Awaited, Claim
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pool import Step, Worker
from uploader_cli.transfer.projections import of_awaited
from uploader_cli.transfer.protocols import join
from uploader_cli.transfer.protocols.upload import usable
from uploader_cli.transfer.results import FileResult, failed, not_compared
from uploader_cli.transfer.tus_reading import stored_url
from uploader_cli.transfer.tus_state import Tus, TusFileState
from uploader_cli.transfer.upload_driver import JoinDriver, UploadDriver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from uploader_cli.transfer.protocols.machine import Position
    from uploader_cli.transfer.upload_calls import UploadCalls
    from uploader_cli.transfer.upload_session import UploadSession

DELETE_RETRIES = 2
NOT_CONFIRMED = "no answer of the server confirms its last byte: the server may have stored the file, or not"


class TusFile:
    """Send one file, in one upload or in parts that are joined. `claim` is its state in the journal."""

    def __init__(self, tus: Tus, session: UploadSession, file: LocalFile, claim: Claim) -> None:
        self.session, self.file = session, file
        self.state = TusFileState(tus, session.id, file, claim)
        self.parts: list[UploadDriver] = []
        self._tus, self._context = tus, tus.context
        if claim.doubtful:
            tus.context.doubts.add(file)
        # An upload that a service created is never deleted.
        self._outdated = claim.outdated.urls if claim.outdated is not None and not file.upload_url else ()
        self._left = 0  # parts that have not ended
        self._lock = threading.Lock()

    def run(self, worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Yield the outcome of the file; nothing while its parts are jobs. Raise what ends the run."""
        if self._context.fails_fast:
            self.session.skip(worker.api, [self.file])
            return
        self._discard(worker.tus, self._outdated)
        if (awaited := self.state.upload.awaited) is not None:
            yield [self._arrived(awaited)]
            return
        try:
            sent = self._divide(worker)
            if sent is None and len(self.parts) > 1:
                self.state.begin()
                steps = [Step(partial(self._send_part, part), self.session) for part in self.parts]
                self._tus.pool.put(steps, first=True)
                return
            if sent is None:
                sent = self.parts[0].run(worker)
        except errors.UploaderError as error:
            yield self._failed(worker, error)
        else:
            yield [self._stored(worker.tus, sent)]

    def _send_part(self, part: UploadDriver, worker: Worker) -> Iterator[Sequence[FileResult]]:
        """Send one part. The last one to end joins them and yields the outcome of the file."""
        state, failure = self.state, None
        try:
            state.checkpoint()
            part.run(worker)
        except BaseException as error:  # noqa: BLE001 - raised by the part that ends last
            failure = error
        with self._lock:
            state.error = state.error or failure
            self._left -= 1
            is_last = not self._left
        if not is_last:
            return
        try:
            joined = self._join(worker)
        except errors.UploaderError as error:
            yield self._failed(worker, error)
        else:
            yield [self._stored(worker.tus, joined)]

    def _failed(self, worker: Worker, error: errors.UploaderError) -> Sequence[FileResult]:
        """Return the outcome of a file that failed, none where it is queued again.

        One whose session is lost resumes in another session. One whose parts the server does not take is sent in one
        upload, as later files are.
        """
        file = self.file
        if not isinstance(error, errors.FileError | errors.Interrupted | errors.NotAnUploadServer):
            self.state.begin()  # the attempt is reported before it fails
        if ends_run(error):
            raise error
        if isinstance(error, errors.SessionLost) and self.session.renew(worker.api, self.state.session):
            self._context.ledger.retry([file], error)
            (claim,) = self._context.run.claim([file])
        elif self._tus.parts_refused.is_set() and isinstance(error, errors.AnswerError) and self._is_unjoined(error):
            self._context.ledger.retry([file], error)
            self._discard(worker.tus, self._urls)
            claim = Claim(ClaimState.NEW, self._context.run.creating(file, self.session.id))
        elif isinstance(error, errors.AnswerError) and error.error == NAME_TAKEN:
            return [failed(file, FailureCode.EXISTS, str(error))]
        else:
            may_fall_back = self.state.terms.falls_back and not file.once
            return [FileResult(file, error, falls_back=may_fall_back and isinstance(error, errors.PatchBlocked))]
        self._tus.pool.put([TusFile(self._tus, self.session, file, claim)], first=True)
        return []

    def _is_unjoined(self, error: errors.UploaderError) -> bool:
        """Return whether a part failed with `error`, and no request to join the parts may have stored the file."""
        return error is self.state.error and Ending(self.state.upload.ending) not in UNCERTAIN

    def _stored(self, client: UploadCalls, sent: Position) -> FileResult:
        file, state, location = self.file, self.state, sent.headers.get("Content-Location")
        if file.upload_url and not location:
            url = None  # no event and no receipt has the URL of an upload that a service created
        else:
            url = (location or sent.url if state.terms.sessions else stored_url(sent)) or None
        if (known := state.receipt) is not None:
            found = FileResult(file, None, known.server_id, known.location, link=known.link, new=False)
            return found._replace(skipped=SkipReason.PRESENT, compares=self._context.settings.verify)
        uploads = [part.state for part in self.parts]
        known_by = uploads[0].known_by  # of parts the request tells that joins them
        adopted, unchecked = (any(getattr(one, name) for one in uploads) for name in ("adopted", "unchecked"))
        verified = not unchecked and sum(one.checked for one in uploads) == state.size
        verified = verified and (state.size > 0 or state.terms.tells_stored)
        server_id = state.id_in(sent) or state.server_id
        file = replace(file, size=state.size) if file.once else file
        if known_by is KnownBy.NOTHING:
            state.begin()  # the attempt is reported before it fails
            unknown = errors.OutcomeUnknown(NOT_CONFIRMED, after=uploads[0].reason)
            return not_compared(file) if adopted else FileResult(file, unknown)
        if not state.terms.tells_stored and known_by is KnownBy.ANSWER:
            self._tus.readings.confirmed(file, sent, state.size)
        # Some servers name uploads by their metadata: an old URL may be the new one.
        replaced = [old for old in state.upload.replaced if old != sent.url]
        for old, error in self._discard(client, replaced).items():
            text = f"{utf8(file.path)}: an upload of it that failed may be stored, and can't be deleted: {old}"
            self._context.warn(WarningCode.MAY_BE_STORED, f"{text} ({error})")
        stored = FileResult(file, server_id=server_id, location=location, content_location=url)
        continued = not state.terms.tells_stored and any(one.continued for one in uploads)
        stored = stored._replace(values=self._values(sent, server_id), continued=adopted or continued)
        stored = stored._replace(adopted=adopted, unconfirmed=known_by is KnownBy.CREATION)
        if adopted or known_by is not KnownBy.ANSWER:  # it may be the local file itself
            stored = stored._replace(new=False)
        if not verified:
            return stored
        by = verified_by(self._tus.terms.checksum, resumed=any(one.resumed for one in uploads))
        return stored._replace(verified=True, verified_by=by)

    def _values(self, sent: Position, server_id: str | None) -> dict[str, str] | None:
        """Return the values that a feature awaits, as far as the server gave them; None without one."""
        names = self._context.settings.awaits
        if not names:
            return None
        known = {"url": sent.url, "id": server_id}
        found = {name: known[name] if name in known else sent.headers.get(name.partition(":")[2]) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def _arrived(self, awaited: Awaited) -> FileResult:
        """Return the outcome of a file that an earlier run has sent, and that was being processed at its end."""
        self.state.divide(1)
        self.state.found(0, self.file.size)
        self.state.begin()
        settings = self._context.settings
        return of_awaited(
            self.file,
            awaited,
            waits=bool(settings.awaits),
            keeps_digest=not settings.consumes,  # which reads the file
        )

    def _divide(self, worker: Worker) -> Position | None:
        tus, run, file, state = self._tus, self._context.run, self.file, self.state
        upload, session = state.upload, self.session.id
        whole = bool(file.upload_url or file.once or self._context.doubts.is_sent_again(file))  # parts: no digest
        whole = whole or state.resumes or run.kept_elsewhere
        count = 1 if whole else tus.parts(file.size, tus.pool.idle, tus.pool.spare, worker.api.request_ids.round_trip)
        sizes, parts = [size for _, size in cut(file.size, count)], upload.parts
        if len(sizes) > 1:
            state.upload, parts = run.creating(file, session, replaced=upload.replaced), run.split(file, sizes)
        elif not parts:
            # In a session the key is used instead of the URL: this moves an upload from another session.
            url = file.upload_url or (None if session else upload.url)
            parts = (upload.piece(ENDLESS if file.once else file.size, url=url),)
        state.session, self._left = session, len(parts)
        state.divide(len(parts))
        self.parts = [UploadDriver(state, tus, part, whole=len(parts) == 1) for part in parts]
        return self._find_joined(worker) if len(parts) > 1 else None

    def _find_joined(self, worker: Worker) -> Position | None:
        """Ask what the server has of the parts; return the upload that an earlier run joined them to, if any."""
        client, state = worker.tus, self.state
        search = JoinDriver(state, self._tus, [part.state.url or "" for part in self.parts], join.search)
        found = search.run(worker)
        is_joined = found.offset == self.file.size
        if found.url and not is_joined:
            client.discard(found.url)  # the key was unknown: the server created an upload
            state.upload = self._context.run.creating(self.file, state.session, replaced=state.upload.replaced)
            state.resumes = False
            return self._divide(worker)
        if is_joined:
            for part in self.parts:
                part.found(part.state.size)
            return self._joined(client, found)
        for part, offset in zip(self.parts, search.state.offsets, strict=True):
            part.found(usable(part.state, offset or 0))
        if state.session != (state.upload.session or ""):  # their keys move them to this session
            for part in self.parts:
                part.state = replace(part.state, url=None)
        return None

    def _join(self, worker: Worker) -> Position:
        if self.state.error is not None:
            raise self.state.error
        return self._joined(worker.tus, JoinDriver(self.state, self._tus, self._urls).run(worker))

    def _joined(self, client: UploadCalls, joined: Position) -> Position:
        self.state.report_joined()
        if not self.state.terms.keys:
            self._discard(client, self._urls)
        return joined

    def _discard(self, client: UploadCalls, urls: Iterable[str]) -> dict[str, errors.UploaderError]:
        """Delete uploads that are not needed. Return those that stay, and why."""
        stay = dict[str, errors.UploaderError]()
        for url in urls if self._tus.capabilities.terminates else ():
            try:
                self._context.pacer.call(partial(client.delete, url), at_most=DELETE_RETRIES)
            except errors.UploadGone:
                pass
            except (errors.AnswerError, errors.NetworkError, errors.ProtocolError) as error:
                stay[url] = error
        return stay

    @property
    def _urls(self) -> list[str]:
        return [part.state.url for part in self.parts if part.state.url]
