"""What follows a file that was sent: its receipt, its digest, and the comparison with what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, VerifiedBy, WarningCode
from uploader_cli.core.protocol import utf8
from uploader_cli.sources.content import sha256_of
from uploader_cli.transfer.projections import awaited_of, receipt_of
from uploader_cli.transfer.results import FileResult, failed, not_compared
from uploader_cli.transfer.station import Carrier, Station
from uploader_cli.transfer.stored_files import NO_OUTCOME, digest_of, digest_read_back

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.sources.content import Digests
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.upload_session import RunContext

T = TypeVar("T")


class Recording(Station):
    """Write the receipts of stored files first, then hash them: a kill meanwhile sends no file again."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        del carrier
        digests = self._context.digests
        if digests is not None:
            results = [one if one.skipped else one._replace(digest=digests.known(one.file)) for one in results]
        record(self._context, [one for one in results if one.error is None and self._counts(one)])
        return results if digests is None else [self._hashed(digests, one) for one in results]

    def _counts(self, result: FileResult) -> bool:
        """Return whether a file has a receipt before it is compared: not one that is unconfirmed and to be consumed."""
        is_open = result.unconfirmed and self._context.settings.consumes
        return not (result.continued or result.skipped or is_open)

    def _hashed(self, digests: Digests, result: FileResult) -> FileResult:
        try:
            if result.skipped:
                result = self._present(result)
            elif result.error is None and result.sha256 is None:
                result = result._replace(digest=digests.complete(result.file))
                if self._counts(result):
                    record(self._context, [result])
        except errors.FileError as error:
            result = result._replace(error=error)
        digests.forget(result.file)
        return result

    def _present(self, result: FileResult) -> FileResult:
        """Return the result of a file that was not sent with its digest, if it can be read and is not read later."""
        if result.error is not None or result.digest is not None or self._context.settings.consumes:
            return result
        return result._replace(digest=digest_of(result.file, self._context.stop.checkpoint))


class Comparison(Station):
    """Compare what is stored with the file on disk (`--verify`), and what was sent across a break."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        return [self._compared(carrier.api, one) if one.error is None else one for one in results]

    def _compared(self, api: Api, result: FileResult) -> FileResult:
        """Return the result; that of a file that was not sent stays as it is, if its bytes are equal."""
        asked = self._context.settings.verify or result.continued if result.skipped is None else result.compares
        found = compared(self._context, api, result) if asked else result
        return result if result.skipped is not None and found.error is None else found


def record(context: RunContext, results: Sequence[FileResult]) -> None:
    """Journal stored files: receipts, and what is known of those that the server still processes."""
    stored = [receipt_of(one, verify=context.settings.verify) for one in results if one.values is None]
    if stored:
        context.run.completed(stored)
    for result in results:
        if result.values is not None:
            context.run.update(result.file, awaited=awaited_of(result, result.values))


def compared(context: RunContext, api: Api, outcome: FileResult, *, anew: bool = False) -> FileResult:
    """Compare the stored bytes with the file on disk and return the new outcome.

    With `anew` the bytes are read back: the server may have recorded its digest earlier. A file that was sent across a
    break is not verified by its checksums: the server accepted the bytes, and may have put them at another place.
    """
    file, verify = outcome.file, context.settings.verify
    location = outcome.content_location or outcome.location
    if outcome.checksum is not None:
        return outcome
    is_gone = file.once and outcome.digest is None
    mine, theirs, is_refused = "", None, False
    try:
        theirs = stored_digest(api, location, anew=anew) if location and not is_gone else None
        if theirs is not None:
            mine = outcome.digest or sha256_of(file, context.stop.checkpoint)
    except NO_OUTCOME:
        raise
    except errors.UploaderError as error:
        is_refused = gives_nothing(error, strict=context.terms.strict)
        wanted = verify or context.settings.consumes
        if wanted and not is_refused:
            error.retryable = error.retryable or not isinstance(error, errors.FileError)
            return outcome._replace(error=error)
        if wanted:
            text = f"{utf8(file.path)} is stored, and can't be compared: the server does not give it out: {error}"
            context.warn(WarningCode.UNVERIFIABLE, text)
    if theirs is None:
        if verify and not is_refused:
            text = "--verify: this server gives no way to read a stored file or its digest"
            context.warn_once(WarningCode.UNVERIFIABLE, text)
        if outcome.adopted:
            return not_compared(file)
        if outcome.continued:
            outcome = outcome._replace(verified=False, verified_by=None)
            record(context, [outcome])
        return outcome
    by, digest = theirs
    if digest != mine:
        return failed(file, FailureCode.INTEGRITY, "what the server has is not what was read (SHA-256 differs)")
    outcome = outcome._replace(checksum=mine, verified=True, verified_by=by)
    record(context, [outcome])
    return outcome


def stored_digest(api: Api, location: str, *, anew: bool = False) -> tuple[VerifiedBy, str] | None:
    """Return the SHA-256 that the server tells, or else that of the bytes that it gives out; None without either.

    With `anew` it is that of the bytes. An answer that `gives_nothing` is not asked for again; raise it, if it is that
    to `GET`.
    """
    found = None
    try:
        found = None if anew else api.pacer.call(lambda: _asked_once(lambda: api.stored(location, patient=False)))
    except errors.UploaderError as error:
        if not (gives_nothing(error) or isinstance(error, errors.ProtocolError)):
            raise
    if found is not None and found.sha256 is not None:
        return VerifiedBy.DIGEST, found.sha256
    sha256 = api.pacer.call(lambda: _asked_once(lambda: digest_read_back(api, location)))
    return None if sha256 is None else (VerifiedBy.BYTES, sha256)


def gives_nothing(error: errors.UploaderError, *, strict: bool = True) -> bool:
    """Return whether a server that has stored a file refuses to give it out, which no repetition changes.

    So do 500 and all 4xx but those that ask for patience. After a 401 a new token may help; one that is not
    `strict` has refused that, too, when its error gets here.
    """
    if not isinstance(error, errors.AnswerError) or error.status in (408, 425, 429):
        return False
    return error.status == 500 or (400 <= error.status < 500 and (error.status != 401 or not strict))


def _asked_once(call: Callable[[], T]) -> T:
    """Return what `call` returns. Raise its error, which is not retryable where it `gives_nothing`."""
    try:
        return call()
    except errors.UploaderError as error:
        if gives_nothing(error):
            error.retryable = False
        raise
