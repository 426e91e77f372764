"""The exit codes, and how errors map to them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode
from uploader_cli.feature import features


class Exit(IntEnum):
    OK = 0
    BUG = 1
    USAGE = 2
    RETRY_MAY_HELP = 3
    FAILED_FOR_GOOD = 4
    NOT_AUTHORISED = 5
    NO_SERVER = 6
    INTEGRITY = 7
    SIGINT = 130
    SIGTERM = 143


PERMANENT = (Exit.FAILED_FOR_GOOD, Exit.NO_SERVER)
"""The same command ends in the same way until something is corrected."""
MEANINGS = {
    1: "an internal error",
    2: "the command or its files are invalid",
    3: "some files failed; retryable",
    4: "some files failed permanently",
    5: "not authorised",
    6: "the server never answered, or is not an upload server",
    7: "a file differs from what was read here, or from the list",
    130: "interrupted (Ctrl-C)",
    143: "interrupted (SIGTERM)",
}
"""What the code of an upload says about the files."""

_RANK = (
    Exit.SIGTERM,
    Exit.SIGINT,
    Exit.INTEGRITY,
    Exit.NOT_AUTHORISED,
    Exit.NO_SERVER,
    Exit.FAILED_FOR_GOOD,
    Exit.RETRY_MAY_HELP,
)


def of_failure(code: FailureCode, *, retryable: bool) -> Exit:
    if code in (FailureCode.INTEGRITY, FailureCode.MISMATCH):
        return Exit.INTEGRITY
    if code is FailureCode.UNAUTHORIZED:
        return Exit.NOT_AUTHORISED
    if any(code == own.name and own.is_usage for feature in features() for own in feature.codes):
        return Exit.USAGE
    return Exit.RETRY_MAY_HELP if retryable else Exit.FAILED_FOR_GOOD


def of_error(error: BaseException) -> Exit:
    """Return the exit code for an error that ended a whole command."""
    match error:
        case errors.UsageError():
            return Exit.USAGE
        case errors.Unauthorized():
            return Exit.NOT_AUTHORISED
        case errors.Unreachable():  # it has answered before
            return Exit.RETRY_MAY_HELP
        case errors.NetworkError() | errors.NotAnUploadServer() | errors.ProtocolError():
            return Exit.NO_SERVER
        case errors.UploaderError():
            return Exit.RETRY_MAY_HELP if error.retryable else Exit.FAILED_FOR_GOOD
        case _:
            return Exit.BUG


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the code of the highest rank: 143, 130, then 7, 5, 6, 4, 3, then the others; OK for no codes."""
    seen = set(codes)
    return next((code for code in _RANK if code in seen), max(seen, default=Exit.OK))
