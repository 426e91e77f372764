"""A file that was sent while only its ctime or inode changed is read once more (`sources.unchanged.unchanged`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.sources.content import sha256_of
from uploader_cli.sources.unchanged import failure
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.station import Carrier, Station
from uploader_cli.transfer.stored_files import NO_OUTCOME
from uploader_cli.transfer.verification import stored_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.upload_session import RunContext

CHANGED_MEANWHILE = "it changed while it was being sent"
NO_DIGEST = "it may have changed while it was being sent, and no digest can tell"


class SecondReading(Station):
    """Let a doubtful file fail if its bytes differ from what was sent, or from what is stored.

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
    sent = context.proof.sent(file)
    location = outcome.content_location or outcome.location
    theirs = None
    if sent is None and location:
        try:
            theirs = stored_digest(api, location)
        except NO_OUTCOME:
            raise
        except errors.UploaderError as error:
            if error.retryable:
                return outcome._replace(error=error)
    if sent is None and theirs is None:
        if context.doubts.is_sent_again(file) or file.upload_url:
            return outcome._replace(error=failure(file, NO_DIGEST))
        context.doubts.send_again(file)
        context.proof.forget(file)
        return outcome._replace(error=failure(file, f"{NO_DIGEST}: it is sent once more"), falls_back=True)
    try:
        mine = sha256_of(file, context.stop.checkpoint, source=context.doubts.source(file))
    except errors.FileError as error:
        return outcome._replace(error=error)
    if sent is not None:
        return outcome if sent == mine else outcome._replace(error=failure(file, CHANGED_MEANWHILE))
    if theirs is None or theirs[1] != mine:
        return outcome._replace(error=failure(file, CHANGED_MEANWHILE))
    return outcome._replace(checksum=mine, verified=True, verified_by=theirs[0])
