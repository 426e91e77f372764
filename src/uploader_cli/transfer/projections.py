"""What a `FileResult` becomes: the event of its end, a receipt, what waits for the server's work; and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.codes import FailureCode, SkipReason, VerifiedBy
from uploader_cli.transfer.journal.file_keys import written_identity
from uploader_cli.transfer.journal.reading import Awaited
from uploader_cli.transfer.journal.receipts import Stored
from uploader_cli.transfer.results import FileResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.plan import LocalFile

    UrlOf = Callable[[str], str]

COMPARED = (VerifiedBy.DIGEST, VerifiedBy.BYTES)
"""What shows that stored bytes, and not only those that arrived, are the file's."""
FORGOTTEN = (FailureCode.CHANGED, FailureCode.VANISHED, FailureCode.INTEGRITY)
REFUSED_FOR_GOOD = (413, 415, 422)
"""Refusals of one file's content; any other status may come from a proxy, a portal, a token or a redeploy."""


def completed(result: FileResult, url_of: UrlOf, *, attempts: int, seconds: float) -> ev.FileCompleted:
    """Return the event of a stored file; `url_of` returns the URL of a path in an answer."""
    file, place = result.file, result.link or result.content_location or result.location
    return ev.FileCompleted(
        file.file,
        file.path,
        file.size,
        result.server_id,
        result.location,
        verified=result.verified or result.checksum is not None,
        verified_by=result.verified_by,
        attempts=attempts,
        seconds=round(seconds, 3),
        checksum=_written(result.sha256),
        url=url_of(place) if place else None,
        file_path=result.file_path,
        local=file,
        gone=result.gone,
        link=result.link,
        **(result.added or {}),
    )


def skipped(result: FileResult, reason: SkipReason, url_of: UrlOf) -> ev.FileSkipped:
    """Return the event of a file that is left out, and may be on the server."""
    file, place = result.file, result.link or result.location
    return ev.FileSkipped(
        file.file,
        file.path,
        reason,
        file,
        location=result.location,
        checksum=_written(result.sha256),
        url=url_of(place) if place else None,
        gone=result.gone,
        **(result.added or {}),
    )


def failed_event(file: LocalFile, error: errors.UploaderError) -> ev.FileFailed:
    """Return the event of a file that failed with `error`."""
    # A file that changed after the comparison with its listed SHA-256 no longer matches the list.
    changed = file.sha256 is not None and error.code is FailureCode.CHANGED
    known = (FailureCode.MISMATCH if changed else error.code, error.reason, error.retryable, file)
    return ev.FileFailed(file.file, file.path, *known, stored=error.stored, forgotten=is_forgotten(error))


def is_forgotten(error: errors.UploaderError) -> bool:
    """Return whether the journal forgets the upload of a file that has failed with `error`."""
    if error.forgets:
        return True
    if isinstance(error, errors.AnswerError):
        return error.status in REFUSED_FOR_GOOD and not error.retryable
    return error.code in FORGOTTEN


def receipt_of(result: FileResult, *, verify: bool = False) -> Stored:
    """Return the receipt, with `verify` without a digest that was not compared: a resumed run verifies the file."""
    location, sha256 = result.location or result.content_location, result.checksum if verify else result.sha256
    known = (result.server_id, location, sha256, result.verified, result.link)
    return Stored(result.file, *known, written_identity(result.file))


def awaited_of(result: FileResult, values: dict[str, str]) -> Awaited:
    """Return what the journal has of a file that the server still processes."""
    where = (result.server_id, result.location, result.content_location)
    return Awaited(values, *where, result.sha256, result.verified, result.verified_by)


def of_awaited(file: LocalFile, awaited: Awaited, *, waits: bool, keeps_digest: bool) -> FileResult:
    """Return the result of a file that an earlier run has stored.

    `waits`: this run asks for what the server makes of it; `keeps_digest`: the digest of that run counts in this one.
    """
    return FileResult(
        file,
        server_id=awaited.server_id,
        location=awaited.location,
        content_location=awaited.content_location,
        checksum=awaited.sha256 if awaited.verified_by in COMPARED else None,
        digest=awaited.sha256 if keeps_digest else None,
        verified=awaited.verified,
        verified_by=awaited.verified_by,
        values=awaited.values if waits else None,
        new=False,
    )


def _written(sha256: str | None) -> str | None:
    return f"sha256:{sha256}" if sha256 else None
