"""Refusals by class (wire contract 5 says which of them can be retried)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.protocol import error_code, error_sentence
from uploader_cli.core.tus import VERSION
from uploader_cli.settings import mask
from uploader_cli.transfer.api import answer_error
from uploader_cli.transfer.budget import retry_after

if TYPE_CHECKING:
    from uploader_cli.transfer.http import Answer

_KINDS: dict[int, tuple[type[errors.AnswerError], str]] = {
    409: (errors.OffsetConflict, "the server is elsewhere in the upload than we are"),
    413: (errors.TooLarge, "the server does not take so much"),
    423: (errors.Locked, "something else writes to the upload"),
    460: (errors.ChecksumMismatch, "the chunk did not arrive as it was read"),
}

_NO_SESSION = ("SESSION_NOT_FOUND", "SESSION_ENDED")


def session_lost(answer: Answer) -> errors.SessionLost | None:
    """A creation was refused because of the session that its metadata name; None where it was not."""
    code = error_code(answer.body)
    if answer.status not in (404, 409) or code not in _NO_SESSION:
        return None
    words = f"the server has no open session for the upload ({code})"
    return errors.SessionLost(words, status=answer.status, error=code)


def gone_error(answer: Answer) -> errors.UploadGone:
    """The upload is not there."""
    words = f"the server does not have the upload any more ({answer.status})"
    return errors.UploadGone(words, status=answer.status, error=error_code(answer.body))


def refusal(answer: Answer) -> errors.UploaderError:
    """The error for what is not 2xx. Its `retryable` says whether the same request can succeed later."""
    if answer.status == 412:
        versions = answer.headers.get("Tus-Version", "")
        return errors.ProtocolError(f"{answer.url} does not speak tus {VERSION} (it says {versions or 'nothing'})")
    plain = answer_error(answer)
    kind, words = _KINDS.get(answer.status, (None, ""))
    if kind is None:
        return plain
    said = ": ".join(filter(None, [f"{answer.status} {plain.error}".strip(), mask(error_sentence(answer.body))]))
    return kind(f"{words} ({said})", status=answer.status, error=plain.error, retry_after=retry_after(answer.headers))
