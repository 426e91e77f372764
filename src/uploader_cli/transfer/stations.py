"""What happens to a file besides its being sent: its stations, in one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, WarningCode
from uploader_cli.core.presence import Answer, Shown, shown
from uploader_cli.core.protocol import utf8
from uploader_cli.feature import used
from uploader_cli.sources.content import sha256_of
from uploader_cli.sources.unchanged import failure
from uploader_cli.transfer.projections import receipt_of
from uploader_cli.transfer.results import FileResult, failed, not_compared
from uploader_cli.transfer.station import Carrier, Station
from uploader_cli.transfer.stored_files import Silent, StoredDigest, digest_of, gives_nothing, stored_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.feature import Place
    from uploader_cli.sources.content import Digests
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.upload_session import RunContext


CHANGED_MEANWHILE = "it changed while it was being sent"
NO_DIGEST = "it may have changed while it was being sent, and no digest can tell"


class Stations:
    """Take every result from its job, or from the check that has found the file on the server, to its end.

    A new station is one more line in the list, or a step of a feature; none knows another. Their order is a promise:

    - A file is admitted before anything of it is read: what is known of it then is what a later station compares.
    - A receipt is written before a station that takes long: a run that is killed there sends no file again. It is not
      written before the bytes that were sent are known to be those of the file.
    - What becomes of the local file comes last: after its receipt, the comparison of what is stored, and the server's
      own work.
    - A file ends once, and after all that can make it fail. Its session ends after it.
    """

    def __init__(self, context: RunContext) -> None:
        self._stations: list[Station] = [
            SecondReading(context),
            Recording(context),
            Comparison(context),
            *_steps(context, "stored"),
            *_steps(context, "last"),
            Finishing(context),
        ]
        for station in self._stations:
            station.go_on = self.take
        self._admitting = self._overriding("admit")
        self._keeping = self._overriding("kept")

    def _overriding(self, name: str) -> list[Station]:
        """Return the stations that have something of their own to do there: thousands of files ask each second."""
        return [station for station in self._stations if getattr(type(station), name) is not getattr(Station, name)]

    def admit(self, file: LocalFile) -> LocalFile:
        """Return a file as it is sent, before anything of it is read."""
        for station in self._admitting:
            file = station.admit(file)
        return file

    def take(
        self, carrier: Carrier, results: Sequence[FileResult], after: Station | None = None
    ) -> Sequence[FileResult]:
        """Take results through the stations, or through those `after` one. Raise what ends the run.

        Return the results of files that have not ended: another protocol sends them (`FileResult.falls_back`).
        """
        return self._take(carrier, results, 0 if after is None else self._stations.index(after) + 1)

    def _take(self, carrier: Carrier, results: Sequence[FileResult], first: int) -> Sequence[FileResult]:
        for number, station in enumerate(self._stations[first:], first):
            if station.one_by_one and len(results) > 1:
                return [left for one in results for left in self._take(carrier, [one], number)]
            if results:
                results = station.take(carrier, results)
        return results

    @property
    def kept(self) -> int:
        return sum(station.kept for station in self._keeping)

    def check(self) -> None:
        """Raise what has ended the thread of a station: it ends the run."""
        for station in self._keeping:
            station.check()

    def shut(self) -> None:
        """End requests of stations, from another thread."""
        for station in self._stations:
            station.shut()

    def close(self) -> None:
        for station in self._stations:
            station.close()


def _steps(context: RunContext, place: Place) -> list[Station]:
    """Return the steps of the features that are used, in their order."""
    return [
        feature.load(step)(context) for feature in used(context.settings) for at, step in feature.steps if at == place
    ]


class SecondReading(Station):
    """Read a file once more that was sent while only its ctime or inode changed (`sources.unchanged.unchanged`).

    Let a doubtful file fail if its bytes differ from what was sent, or from what is stored.

    Where the server tells no digest and gives out nothing, and nobody knows that of what was sent, the outcome falls
    back: the file is sent once more, and its digest is made then. An answer that may be another one later, when all
    retries are used, is an error of the file.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        context = self._context
        if not context.doubts:  # nearly always
            return results
        settled = []
        for outcome in results:
            if outcome.error is None and outcome.file in context.doubts:
                outcome = _settled(context, carrier.api, outcome)
            context.doubts.settled(outcome.file)
            settled.append(outcome)
        return settled


def _settled(context: RunContext, api: Api, outcome: FileResult) -> FileResult:
    file = outcome.file
    sent = context.digests.sent(file)
    location = outcome.content_location or outcome.location
    theirs = stored_digest(api, location) if sent is None and location else Silent()
    if sent is None and isinstance(theirs, Silent):
        if theirs.error is not None and theirs.error.retryable:
            return outcome._replace(error=theirs.error)
        if context.doubts.is_sent_again(file) or file.upload_url:
            return outcome._replace(error=failure(file, NO_DIGEST))
        context.doubts.send_again(file)
        context.digests.forget(file)
        return outcome._replace(error=failure(file, f"{NO_DIGEST}: it is sent once more"), falls_back=True)
    try:
        mine = sha256_of(file, context.stop.checkpoint, source=context.doubts.source(file))
    except errors.FileError as error:
        return outcome._replace(error=error)
    if sent is not None:
        return outcome if sent == mine else outcome._replace(error=failure(file, CHANGED_MEANWHILE))
    if isinstance(theirs, Silent) or theirs.sha256 != mine:
        return outcome._replace(error=failure(file, CHANGED_MEANWHILE))
    return outcome._replace(checksum=mine, verified=True, verified_by=theirs.by)


class Recording(Station):
    """Write the receipts of stored files first, then hash them: a kill meanwhile sends no file again."""

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        del carrier
        context, digests = self._context, self._context.digests
        if context.hashes:
            results = [one if one.skipped else one._replace(digest=digests.known(one.file)) for one in results]
        context.ledger.record([one for one in results if one.error is None and self._counts(one)])
        return [self._hashed(digests, one) for one in results] if context.hashes else results

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
                    self._context.ledger.record([result])
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
    """Compare what is stored with the file on disk (`--verify`), and what was sent across a break.

    A run that consumes files asks a tus endpoint, which stores each upload anew, for the same in a later station.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        return [self._compared(carrier.api, one) if one.error is None else one for one in results]

    def _compared(self, api: Api, result: FileResult) -> FileResult:
        """Return the result; that of a file that was not sent stays as it is, if its bytes are equal."""
        settings = self._context.settings
        verifies = settings.verify and (self._context.terms.sessions or not settings.consumes)
        asked = verifies or result.continued if result.skipped is None else result.compares
        found = compared(self._context, api, result) if asked else result
        return result if result.skipped is not None and found.error is None else found


def compared(context: RunContext, api: Api, outcome: FileResult, *, anew: bool = False) -> FileResult:
    """Compare the stored bytes with the file on disk and return the new outcome.

    With `anew` the bytes are read back: the server may have recorded its digest earlier. A file that was sent across a
    break is not verified by its checksums: the server accepted the bytes, and may have put them at another place.
    """
    file = outcome.file
    theirs: StoredDigest | Silent = Silent()
    if outcome.checksum is not None:
        return outcome
    if (location := outcome.content_location or outcome.location) and not (file.once and outcome.digest is None):
        theirs = stored_digest(api, location, anew=anew)
    answer, wanted, may_tell = Answer.SILENT, context.settings.verify or context.settings.consumes, False
    if not isinstance(theirs, Silent):
        try:
            mine = outcome.digest or sha256_of(file, context.stop.checkpoint)
        except errors.FileError as changed:
            return outcome._replace(error=changed)
        answer = Answer.EQUAL if theirs.sha256 == mine else Answer.OTHER
    else:
        may_tell = _may_tell(context, file, theirs.error)
    match shown(answer, wanted=wanted, may_tell=may_tell, adopted=outcome.adopted, continued=outcome.continued):
        case Shown.SPOILED:
            return failed(file, FailureCode.INTEGRITY, "what the server has is not what was read (SHA-256 differs)")
        case Shown.LATER if isinstance(theirs, Silent) and theirs.error is not None:
            theirs.error.retryable = True
            return outcome._replace(error=theirs.error)
        case Shown.UNSURE:
            return not_compared(file)
        case Shown.VERIFIED if not isinstance(theirs, Silent):
            outcome = outcome._replace(checksum=theirs.sha256, verified=True, verified_by=theirs.by)
        case Shown.UNVERIFIED:
            outcome = outcome._replace(verified=False, verified_by=None)
        case _:
            return outcome
    context.ledger.record([outcome])
    return outcome


def _may_tell(context: RunContext, file: LocalFile, error: errors.UploaderError | None) -> bool:
    """Return whether a server that has told nothing may tell it later; warn where the user relies on that."""
    settings = context.settings
    if error is None:
        if settings.verify:
            text = "--verify: this server gives no way to read a stored file or its digest"
            context.warn_once(WarningCode.UNVERIFIABLE, text)
        return False
    is_refused = gives_nothing(error, strict=context.terms.strict)
    if is_refused and (settings.verify or settings.consumes):
        text = f"{utf8(file.path)} is stored, and can't be compared: the server does not give it out: {error}"
        context.warn(WarningCode.UNVERIFIABLE, text)
    return not is_refused


class Finishing(Station):
    """Tell the ends of files, and let them leave their session."""

    def __init__(self, context: RunContext) -> None:
        self._ledger, self._run = context.ledger, context.run

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        """Return those that another protocol sends; their job has still to do with the session."""
        ended = [result for result in results if not result.falls_back]
        for result in ended:
            if result.gone:
                self._run.consumed(receipt_of(result))
        self._ledger.end(ended)
        if carrier.session is not None and ended:
            bad = [result.error for result in ended if result.error is not None and not result.error.stored]
            given_up = sum(not isinstance(error, errors.FileFailure) for error in bad)  # the server counts others
            carrier.session.over(carrier.api, len(ended), failed=len(bad), given_up=given_up)
        return [result for result in results if result.falls_back]
