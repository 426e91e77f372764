"""The result of a file, which every job yields and every station completes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode, SkipReason, VerifiedBy
from uploader_cli.core.protocol import NAME_TAKEN

if TYPE_CHECKING:
    from uploader_cli.core.plan import LocalFile

STORE_FAILURES = {"CHECKSUM_MISMATCH": FailureCode.INTEGRITY, NAME_TAKEN: FailureCode.EXISTS}


class FileResult(NamedTuple):
    """The result of one file: the server has stored it, or `error` says why not.

    `content_location` is where the stored bytes can be read (None: `location`), `checksum` the hex SHA-256 of compared
    bytes, `digest` that of the bytes as they were read, with `--digest`. `verified` is also True where the server
    compared every chunk; `verified_by` is None for chunks with SHA-1. `file_path` is the path on the server.
    `continued`: the server got bytes after a break, and may have put them at the wrong place. `adopted`: it had bytes
    before this client sent any, which may be those of another file. `falls_back`:
    another protocol sends it; `error` says why this one did not. `values` are what `Feature.awaits`, of a file
    that the server still processes; `link` is where it can be read once it is processed. `gone`: the local file is no
    longer at its path. `added` are fields of features for the event of its end. `new`: whether the
    server has stored it for a request of this run, and found no equal file there; None where it does not say.

    `skipped` says why it was not sent: the server has it, or a receipt says so, which stays. Of such a file, `compares`
    says whether it has still to be compared (`--verify`).

    `unconfirmed`: only a receipt of another run knows of it, or only the success of the creation of an empty file.
    Nothing that removes the local file relies on that.
    """

    file: LocalFile
    error: errors.UploaderError | None = None
    server_id: str | None = None
    location: str | None = None
    content_location: str | None = None
    checksum: str | None = None
    verified: bool = False
    file_path: str | None = None
    digest: str | None = None
    continued: bool = False
    adopted: bool = False
    falls_back: bool = False
    verified_by: VerifiedBy | None = None
    values: dict[str, str] | None = None
    link: str | None = None
    gone: bool = False
    added: dict[str, Any] | None = None
    new: bool | None = None
    skipped: SkipReason | None = None
    compares: bool = False
    unconfirmed: bool = False

    @property
    def sha256(self) -> str | None:
        return self.checksum or self.digest


def failed(file: LocalFile, code: FailureCode, message: str, *, retryable: bool = False) -> FileResult:
    return FileResult(file, errors.FileFailure(message, code=code, retryable=retryable))


def not_compared(file: LocalFile) -> FileResult:
    """Return the result of a file of which the server had bytes before, and which can't be read there."""
    words = "the server had bytes for its name, size and time before, and nothing shows that they are of this file"
    return FileResult(file, errors.OutcomeUnknown(words))


def not_stored(file: LocalFile, why: str | None, error: str = "", *, retryable: bool = False) -> FileResult:
    """Return the result of a file that a server failed to store, with the code `error`."""
    words = f"the server could not store it: {why or 'it gives no reason'}"
    return failed(file, STORE_FAILURES.get(error, FailureCode.SERVER_FAILED), words, retryable=retryable)
