"""One worker: a thread with connections of its own, that sends files by tus until none is left."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.protocol import utf8
from uploader_cli.core.tus import parts as cut
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.journal_records import ClaimState, PendingUpload
from uploader_cli.transfer.multipart import content_type
from uploader_cli.transfer.tus import TusClient
from uploader_cli.transfer.tus_parts import Part, send_in_parts
from uploader_cli.transfer.tus_types import Known, Sent, Watch
from uploader_cli.transfer.tus_upload import TusUpload

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal_records import PendingPart
    from uploader_cli.transfer.session import Work
    from uploader_cli.transfer.tus_files import TusFiles

LOST = frozenset({"SESSION_NOT_FOUND", "SESSION_ENDED"})
"""What a creation is refused with when its session is no more."""


class Worker(threading.Thread):
    """`fatal` is what ended the run, where this worker met it."""

    def __init__(self, crew: TusFiles, work: Work) -> None:
        super().__init__(name="uploader-worker", daemon=True)
        self.fatal: BaseException | None = None
        self._crew, self._work, self._context = crew, work, crew.context
        self._apis = [self._make_api()]

    def run(self) -> None:
        """Send one file after the other."""
        try:
            while (taken := self._crew.take(self._work)) is not None:
                try:
                    self._send(*taken)
                finally:
                    self._crew.done()
        except BaseException as error:  # noqa: BLE001 - raised where the workers are waited for
            self.fatal = error
            self._crew.halt(self._work)
        finally:
            for api in self._apis:
                api.close()

    def shut(self) -> None:
        """End its requests, from another thread."""
        for api in self._apis:
            api.shut()

    # --- one file -----------------------------------------------------------------------------------------------------

    def _send(self, file: LocalFile, parts: int) -> None:
        context = self._context
        try:
            sent = self._upload(file, parts)
        except (errors.Interrupted, errors.Unauthorized, errors.RateLimited):
            raise
        except (errors.NetworkError, errors.ProtocolError) as error:
            context.ledger.fail(file, error)
            self._crew.probe(self._client(0))  # a server that is gone ends the run here, not after a wait for each file
        except errors.UploaderError as error:
            context.ledger.fail(file, error)
        else:
            self._complete(file, sent)

    def _upload(self, file: LocalFile, parts: int) -> Sent:
        """With a new session where the old one turns out to be gone (3.14)."""
        claim = self._crew.claims[file.file]
        if claim.outdated is not None:
            self._terminate(claim.outdated)
        pending, resumes = claim.upload or PendingUpload(""), claim.state is ClaimState.RESUME
        while True:
            session = self._work.session.session_id
            try:
                return self._attempt(file, session, pending, parts, resumes=resumes)
            except errors.AnswerError as error:
                if error.error not in LOST or not self._crew.renew(self._work, session):
                    raise
                self._context.ledger.again([file], error)
                pending, resumes = self._context.run.creating(file, self._work.session.session_id), False

    def _attempt(self, file: LocalFile, session: str, pending: PendingUpload, parts: int, *, resumes: bool) -> Sent:
        watch, make_key = self._watch(file, session), self._keys(file, session, pending, resumes=resumes)
        if pending.parts or (parts > 1 and not resumes):
            return self._in_parts(file, session, pending, parts, watch, make_key)
        return TusUpload(
            self._client(0),
            self._crew.terms,
            file,
            self._metadata(file, session),
            watch=watch,
            known=_known(pending, session) if resumes else Known(),
            make_key=make_key,
        ).run()

    def _in_parts(
        self,
        file: LocalFile,
        session: str,
        known: PendingUpload,
        count: int,
        watch: Watch,
        make_key: Callable[[], str],
    ) -> Sent:
        run = self._context.run
        resumed = bool(known.parts)
        pieces = known.parts or run.split(file, [size for _, size in cut(file.size, count)])
        return send_in_parts(
            [self._client(index) for index in range(max(2, count))],
            self._crew.terms,
            file,
            self._metadata(file, session),
            [self._part(file, piece, resumed=resumed) for piece in pieces],
            part_metadata={"sessionId": session} if session else {},
            watch=watch,
            known=Known(key=known.upload_key) if resumed else Known(),
            make_key=make_key,
        )

    def _part(self, file: LocalFile, piece: PendingPart, *, resumed: bool) -> Part:
        run = self._context.run
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

    # --- what the upload is given -------------------------------------------------------------------------------------

    def _keys(self, file: LocalFile, session: str, known: PendingUpload, *, resumes: bool) -> Callable[[], str]:
        """Keys for creations: first the claim's, then new ones. All are on disk before they are used."""
        first = iter(() if resumes else (known.upload_key,))
        return lambda: next(first, None) or self._context.run.creating(file, session).upload_key

    def _metadata(self, file: LocalFile, session: str) -> dict[str, str]:
        kept = {"filename": utf8(file.name), "filetype": content_type(file.name)}
        kept |= {"relativePath": utf8(file.relative_path), "lastModified": str(file.mtime_ns // 1_000_000)}
        return kept | ({"sessionId": session} if session else {})

    def _watch(self, file: LocalFile, session: str) -> Watch:
        context, terms = self._context, self._crew.terms
        emit, ledger, run = context.emit, context.ledger, context.run
        in_one = terms.capabilities.creates_with_upload and file.size <= terms.chunk_size
        checked_before = 0

        def created(url: str) -> None:
            if not in_one:  # a file in one request is found again by its key
                run.created(file, url, chunk_size=terms.chunk_size)

        def confirmed(offset: int, checked: int) -> None:
            nonlocal checked_before
            emit(ev.BytesConfirmed(file.file, ledger.attempt(file), offset))
            if checked > checked_before and offset < file.size:
                checked_before = checked
                run.checked(file, checked)

        return Watch(
            created=created,
            attempt=lambda offset, _attempt: ledger.start(file, session, utf8(file.relative_path), offset),
            confirmed=confirmed,
            pledged=lambda until: run.pledged(file, until),
            sent=lambda total: emit(ev.BytesSent(file.file, ledger.attempt(file), total)),
            retry=lambda error, delay, _attempt: ledger.again([file], error, delay),
            pause=self._crew.paused,
        )

    def _complete(self, file: LocalFile, sent: Sent) -> None:
        location = sent.headers.get("Content-Location")
        readable = location or sent.url
        if self._context.settings.tus_endpoint:  # what it calls its paths is all that is known of that server
            readable = urljoin(sent.url, readable)
        self._crew.confirm.stored(
            self._apis[0],
            file,
            server_id=sent.headers.get("Upload-File-Id"),
            location=location,
            readable=readable,
            verified=sent.verified,
        )

    # --- connections --------------------------------------------------------------------------------------------------

    def _make_api(self) -> Api:
        context = self._context
        return Api(context.settings, context.emit, context.stop, beside=context.api)

    def _client(self, index: int) -> TusClient:
        """The worker's client, or one more for a part that travels beside it."""
        while len(self._apis) <= index:
            self._apis.append(self._make_api())
        api = self._apis[index]
        return TusClient(api.http, self._crew.terms.capabilities.endpoint, api.authorization, api.note)

    def _terminate(self, outdated: PendingUpload) -> None:
        """What was begun of a file that has changed is of no use: a server that can forgets it."""
        if "termination" not in self._crew.terms.capabilities.extensions:
            return
        for url in outdated.urls:
            try:
                self._client(0).terminate(url)
            except (errors.AnswerError, errors.NetworkError, errors.ProtocolError):
                continue  # it expires by itself


def _known(pending: PendingUpload, session: str) -> Known:
    """In a session the key is asked for, not the URL: so an upload that was begun in another one moves to this one."""
    url = None if session else pending.url
    return Known(url, pending.upload_key, 0, pending.checked_until, pending.pledged_until)
