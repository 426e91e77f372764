"""The tree of errors.

    UploaderError
    ├── UsageError, NotAnUploadServer, ProtocolError, SessionUnknown, Interrupted
    ├── FileError, FileFailure, OutcomeUnknown, Exhausted
    ├── NetworkError
    │   ├── ConnectFailed ── Unreachable, ProxyUnauthorized
    │   └── ConnectionLost ── TimedOut, ServerDied
    └── AnswerError
        ├── ServerFault ── DiskFull, DigestPending, PackInProgress, NotFinished
        ├── NotFound ── UploadGone
        ├── RateLimited ── ShareUsed
        ├── Unauthorized ── NotYours
        └── TooSlow, TooLarge, OffsetConflict, Locked, ChecksumMismatch, PatchBlocked,
            PacksRefused, KeyReused, SessionLost, SessionCancelled

The message says what happened to which file or URL, `hint` how to fix it. `code` is the code in `file.failed`;
`retryable` is True where the same request can succeed later.
"""

from __future__ import annotations

import copyreg
import errno
from collections.abc import Sequence
from typing import Any

from uploader_cli.core.codes import FailureCode


class UploaderError(Exception):
    """The base class of all errors; `str(error)` is the message for users."""

    code = FailureCode.PROTOCOL
    retryable = False
    forgets = False  # whether the upload can't be resumed: the journal forgets it
    stored = False  # whether the server has confirmed the file all the same

    def __init__(self, message: str, *, hint: str = "") -> None:
        """`message` is one sentence that names the file, URL or option; `hint` says how to fix it."""
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without calling the constructors, whose arguments differ."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    @property
    def reason(self) -> str:
        """The message for where the path of the file is shown already."""
        return str(self)


class UsageError(UploaderError):
    """Invalid option or config, missing path, empty selection. `details` are lines between message and hint."""

    def __init__(self, message: str, *, hint: str = "", details: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.details = tuple(details)


class NetworkError(UploaderError):
    """No response, because of a network failure."""

    code = FailureCode.NETWORK
    retryable = True


class ConnectFailed(NetworkError):
    """No connection was made, so nothing was sent."""


class Unreachable(ConnectFailed):
    """A server that has answered in this run stayed unreachable for longer than the run waits."""


class ProxyUnauthorized(ConnectFailed):
    """407: the proxy asks for a name and password."""


class ConnectionLost(NetworkError):
    """The connection broke. With `body_sent` the request was sent completely, so the server may have processed it."""

    def __init__(self, message: str, *, hint: str = "", body_sent: bool = False) -> None:
        """`body_sent` is True when the kernel had accepted the whole request."""
        super().__init__(message, hint=hint)
        self.body_sent = body_sent


class TimedOut(ConnectionLost):
    """No response within the time limit."""

    code = FailureCode.TIMEOUT


class ServerDied(ConnectionLost):
    """The server went down each time the same request was sent, also when no other suspect was being sent."""


class AnswerError(UploaderError):
    """The server answered with `status`; `error` is the code in its body (`{"error": "CODE"}`), or empty."""

    code = FailureCode.SERVER_REFUSED
    by_server = False  # whether an upload server answered, and no gateway in its place
    outage = False  # whether the server may be down: a gateway's status, or its page for a 500

    def __init__(
        self, message: str, *, status: int, error: str = "", hint: str = "", retry_after: float | None = None
    ) -> None:
        """`retry_after` is in seconds."""
        super().__init__(message, hint=hint)
        self.status = status
        self.error = error
        self.retry_after = retry_after
        self.retryable = self.retryable or status >= 500 or status in (408, 423, 425, 429)


class ServerFault(AnswerError):
    """5xx: a failure of the server, possibly temporary."""

    code = FailureCode.SERVER_ERROR


class DiskFull(ServerFault):
    """507 for longer than `--wait-for-server`: the run ends."""


class DigestPending(ServerFault):
    """503 with `Retry-After`: the server is still computing the requested digest."""


class PackInProgress(ServerFault):
    """409 `PACK_IN_PROGRESS`: the server is storing the pack with this key."""


class NotFinished(ServerFault):
    """All bytes of an upload have arrived, and the server failed to store the file, also in a second upload."""

    def __init__(self, reason: AnswerError) -> None:
        """`reason` is the error of the request that would have completed the upload."""
        super().__init__(f"all bytes arrived, and the server did not store the file: {reason}", status=reason.status)
        self.code, self.retryable = reason.code, True


class RateLimited(AnswerError):
    """429."""

    code = FailureCode.RATE_LIMITED


class ShareUsed(RateLimited):
    """429 `SHARE_USED`: this client holds its share of sessions, uploads or connections (docs/server.md, Shares)."""


class Unauthorized(AnswerError):
    """401 or 403. After a 401, and a 403 that `renews`, a new token may help."""

    code = FailureCode.UNAUTHORIZED
    renews = False


class NotYours(Unauthorized):
    """403: a session that was created with another secret (docs/extensions.md), or a file of another client."""


class NotFound(AnswerError):
    """404 or 410."""


class TooSlow(AnswerError):
    """408: never retried with the same set of files (docs/protocol.md section 3.10)."""

    code = FailureCode.TOO_SLOW


class UploadGone(NotFound):
    """404, 410 or 403 for the URL of a tus upload: create a new one (docs/resumable-uploads.md)."""


class OffsetConflict(AnswerError):
    """409, or a response with an unexpected offset. Retryable, once the server was asked for its offset."""

    retryable = True


class Locked(AnswerError):
    """423, or a status of `retry_status`: another client writes to the upload."""

    retryable = True


class ChecksumMismatch(AnswerError):
    """460 (tus 1.0, checksum): the chunk was corrupted on its way and discarded. The next attempt may succeed."""

    code = FailureCode.INTEGRITY
    retryable = True


class TooLarge(AnswerError):
    """413: the request or the file exceeds a limit."""

    code = FailureCode.REFUSED_SIZE


class PacksRefused(AnswerError):
    """404, 405 or 501: the server does not accept packs."""


class PatchBlocked(AnswerError):
    """A proxy or firewall passes on neither PATCH nor the POST that stands for it."""

    def __init__(self, url: str, status: int, said: str = "") -> None:
        """`said` is the reason that it gives."""
        super().__init__(
            f"a proxy or firewall blocks PATCH to {url} ({status}{said and ': '}{said})",
            status=status,
            hint="have it let PATCH pass, or use --protocol batch",
        )
        self.retryable = False  # also after 501


class KeyReused(AnswerError):
    """422: the key of a pack belongs to other files."""


class SessionLost(AnswerError):
    """The server no longer knows the session (docs/protocol.md section 3.14). Retryable in another session."""

    code = FailureCode.SERVER_ERROR
    retryable = True


class SessionCancelled(AnswerError):
    """409 or 410 `CANCELLED`: another client has cancelled the session, and the run ends."""


class SessionUnknown(UploaderError):
    """No session has the requested ID."""


class NotAnUploadServer(UploaderError):
    """The responding server speaks another protocol."""


class ProtocolError(UploaderError):
    """A response that can't be parsed."""


class FileError(UploaderError):
    """A local file can't be sent. `path` is as selected; `code` is one of unreadable, vanished, changed."""

    def __init__(self, reason: str, *, path: str, code: FailureCode, hint: str = "") -> None:
        """`reason` follows the path in the message."""
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = path
        self.code = code

    @property
    def reason(self) -> str:
        """The message without the path."""
        return str(self).removeprefix(f"{self.path}: ")


class FileFailure(UploaderError):
    """A file failed for another reason than a request error: a verdict of the server, or a rule of the plan."""

    def __init__(self, message: str, *, code: FailureCode, retryable: bool = False) -> None:
        """`retryable`: the same file can succeed later."""
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class OutcomeUnknown(UploaderError):
    """The file may or may not be stored (docs/protocol.md section 3.15).

    `after` is how the last request ended that may have stored it; the message has the words of a refusal.
    """

    code = FailureCode.OUTCOME_UNKNOWN

    def __init__(self, message: str, *, hint: str = "", after: UploaderError | None = None) -> None:
        super().__init__(f"{message}; {after}" if isinstance(after, AnswerError) else message, hint=hint)


TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


class Exhausted(UploaderError):
    """The system has no memory, thread or descriptor left for this process."""

    code = FailureCode.UNREADABLE
    retryable = True


def exhausted(error: BaseException) -> Exhausted | None:
    """Return the error for users where one of Python says that the process has no resources left, else None."""
    if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
        return Exhausted("too many files are open", hint="use fewer --jobs, or raise the limit (ulimit -n)")
    if isinstance(error, MemoryError):
        return Exhausted("there is not enough memory", hint="use fewer --jobs, or raise the limit of memory")
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return Exhausted("the system starts no more threads", hint="use fewer --jobs, or raise the limit (ulimit -u)")
    return None


def chain(error: BaseException) -> list[BaseException]:
    """Return the error, its arguments, reasons and causes, outermost first.

    Errors of this package are left out: they belong to an earlier call.
    """
    found = [error]
    for item in found:
        inner = (*item.args, getattr(item, "reason", None), item.__cause__, item.__context__)
        others = [x for x in inner if isinstance(x, BaseException) and not isinstance(x, UploaderError)]
        found.extend(x for x in others if not any(x is known for known in found))
    return found


def why(error: BaseException) -> str:
    """Return the operating system's message, else that of the innermost error, on one line."""
    found = chain(error)
    system = next((item.strerror for item in found if isinstance(item, OSError) and item.strerror), None)
    return " ".join((system or str(found[-1])).split())[:200]


class Interrupted(UploaderError):
    """The user interrupted the command, or another part of the file has failed."""
