"""Everything that can go wrong, as one tree.

    UploaderError
    ├── UsageError              bad option, bad config, missing path, nothing selected
    ├── NetworkError            the server could not be reached, or the connection broke
    │   ├── ConnectFailed       no connection was made: nothing was sent
    │   │   └── Unreachable     a server that has answered before stays unreachable: the run ends
    │   ├── ConnectionLost      the connection broke with a request under way
    │   └── TimedOut            a time limit passed without an answer
    ├── AnswerError             the server answered, with a refusal
    │   ├── ServerFault         5xx: the server's own trouble
    │   │   ├── DiskFull        507 for longer than --wait-for-server: the run ends
    │   │   └── DigestPending   503: the digest that was asked for is being computed
    │   ├── RateLimited         429
    │   ├── Unauthorized        401, 403
    │   ├── NotFound            404, 410
    │   ├── TooSlow             408: the request did not arrive in the server's time
    │   ├── UploadGone          404, 410, 403 of a tus upload: the server does not have it any more
    │   ├── OffsetConflict      409: the server is elsewhere in the upload than we are
    │   ├── Locked              423: something else writes to the upload
    │   ├── ChecksumMismatch    460: the chunk did not arrive as it was read
    │   ├── TooLarge            413: more than the server takes at once, or at all
    │   ├── PacksRefused        404, 405, 501: the server takes no packs of small files after all
    │   ├── KeyReused           422: the key stands for another pack
    │   └── SessionLost         the server does not know the session (wire contract 3.14)
    ├── SessionUnknown          nobody uploads under the id that was asked for
    ├── NotAnUploadServer       something answered that does not speak the contract
    ├── ProtocolError           an answer that can't be read
    ├── FileError               a local file can't be sent: unreadable, vanished, changed while being read
    ├── FileFailure             the server, or the plan, gives a reason that is no error of a request
    ├── AnalysisFailed          the server gave up an analysis, or answered without a result
    ├── OutcomeUnknown          the file may or may not be stored (wire contract 3.15)
    └── Interrupted             the user asked to stop

Each says what happened, and to which file or URL; `hint` says what to do next. `code` is what scripts see in
`file.failed`; `retryable` is True where the same request can succeed later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from uploader_cli.core.codes import FailureCode

if TYPE_CHECKING:
    from collections.abc import Sequence


class UploaderError(Exception):
    """The root: `str(error)` is for people."""

    code: ClassVar[FailureCode] = FailureCode.PROTOCOL
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        """`message` is one sentence that names the file, URL or option; `hint` is the way out."""
        super().__init__(message)
        self.hint = hint


class UsageError(UploaderError):
    """The command was given something it can't work with. `details` are lines that go between message and hint."""

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.details = tuple(details)


class NetworkError(UploaderError):
    """No answer, because of the way there."""

    code = FailureCode.NETWORK
    retryable = True


class ConnectFailed(NetworkError):
    """No connection: nothing was sent."""


class Unreachable(ConnectFailed):
    """A server that has answered in this run can't be reached any more, and waiting did not help."""


class ConnectionLost(NetworkError):
    """The connection broke. `body_sent`: the last byte of the request was out, so it may have been acted on."""

    def __init__(self, message: str, *, hint: str = "", body_sent: bool = False) -> None:
        """`body_sent` is True when the kernel had taken the whole request."""
        super().__init__(message, hint=hint)
        self.body_sent = body_sent


class TimedOut(ConnectionLost):
    """No answer within the limit."""

    code = FailureCode.TIMEOUT


class AnswerError(UploaderError):
    """The server answered with `status`; `error` is its own code (`{"error": "CODE"}`), empty where it gave none."""

    code = FailureCode.SERVER_REFUSED

    def __init__(
        self, message: str, *, status: int, error: str = "", hint: str = "", retry_after: float | None = None
    ) -> None:
        """`retry_after` is in seconds."""
        super().__init__(message, hint=hint)
        self.status = status
        self.error = error
        self.retry_after = retry_after
        self.retryable = status >= 500 or status in (408, 423, 425, 429)


class ServerFault(AnswerError):
    """5xx: the server's own trouble, which may pass."""

    code = FailureCode.SERVER_ERROR


class DiskFull(ServerFault):
    """507 for longer than `--wait-for-server`: the run ends."""


class DigestPending(ServerFault):
    """503 with `Retry-After`: the server is computing the digest that was asked for."""


class RateLimited(AnswerError):
    """429."""

    code = FailureCode.RATE_LIMITED


class Unauthorized(AnswerError):
    """401 or 403."""

    code = FailureCode.UNAUTHORIZED


class NotFound(AnswerError):
    """404 or 410."""


class TooSlow(AnswerError):
    """408: never retried with the same set of files (wire contract 3.10)."""

    code = FailureCode.TOO_SLOW


class UploadGone(NotFound):
    """404, 410 or 403 for the URL of a tus upload: begin a new one (wire contract 5)."""


class OffsetConflict(AnswerError):
    """409: ask the server where it is. Also an answer whose offset no request of ours explains."""

    def __init__(self, message: str, *, status: int = 409, error: str = "", retry_after: float | None = None) -> None:
        """Retryable, once the offset is known."""
        super().__init__(message, status=status, error=error, retry_after=retry_after)
        self.retryable = True


class Locked(AnswerError):
    """423."""


class ChecksumMismatch(AnswerError):
    """460 (tus 1.0, checksum): the bytes were changed on their way; offset and data are as before."""

    code = FailureCode.INTEGRITY

    def __init__(self, message: str, *, status: int = 460, error: str = "", retry_after: float | None = None) -> None:
        """Retryable: the next try may arrive unharmed."""
        super().__init__(message, status=status, error=error, retry_after=retry_after)
        self.retryable = True


class TooLarge(AnswerError):
    """413."""

    code = FailureCode.REFUSED_SIZE


class PacksRefused(AnswerError):
    """404, 405 or 501: the server takes no packs of small files after all."""


class KeyReused(AnswerError):
    """422: the key of a pack stands for other files."""


class SessionLost(AnswerError):
    """The server does not know the session any more. `retryable`: another session can be opened."""

    code = FailureCode.SERVER_ERROR

    def __init__(self, message: str, *, status: int, error: str = "", retry_after: float | None = None) -> None:
        """`retry_after` is in seconds."""
        super().__init__(message, status=status, error=error, retry_after=retry_after)
        self.retryable = True


class SessionUnknown(UploaderError):
    """Nobody uploads under the id that was asked for."""


class NotAnUploadServer(UploaderError):
    """What answered does not speak the contract."""


class ProtocolError(UploaderError):
    """An answer that can't be read."""


class FileError(UploaderError):
    """A local file can't be sent. `path` is as selected."""

    def __init__(self, message: str, *, path: str, code: FailureCode, hint: str = "") -> None:
        """`code` is one of unreadable, vanished, changed."""
        super().__init__(message, hint=hint)
        self.path = path
        self.code = code  # type: ignore[misc]  # the one error whose code depends on the file


class FileFailure(UploaderError):
    """A file failed for a reason that is no error of a request: the server's word on it, or a rule of the plan."""

    def __init__(self, message: str, *, code: FailureCode, retryable: bool = False) -> None:
        """`retryable`: the same file can succeed later."""
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # as in FileError
        self.retryable = retryable


class AnalysisFailed(UploaderError):
    """No result of an analysis; what was uploaded is not touched by that (wire contract 4)."""

    code = FailureCode.SERVER_FAILED

    def __init__(self, message: str, *, retryable: bool) -> None:
        """`retryable`: the server failed in the middle of it, rather than refusing."""
        super().__init__(message)
        self.retryable = retryable


class OutcomeUnknown(UploaderError):
    """The file may or may not be stored."""

    code = FailureCode.OUTCOME_UNKNOWN


class Interrupted(UploaderError):
    """The user asked to stop."""
