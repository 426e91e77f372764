"""What the protocols of resumable uploads, tus and the IETF's, have in common: their calls, as data.

A dialect is a value with pure functions: `request(exchange)` is what is sent for a call, `judged(exchange, answer, …)`
what its answer means: a `Position`, the exchange that has to follow, or uploads to discard; it raises the error of a
refusal. `learned(exchange, answer, known)` is what later requests have to know. `transfer.upload_calls` sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

from uploader_cli import errors
from uploader_cli.core.capabilities import Capabilities, encode_metadata
from uploader_cli.core.origins import below, resolved
from uploader_cli.core.protocol import error_code, whole
from uploader_cli.core.record import Record
from uploader_cli.core.terms import Terms
from uploader_cli.core.upload_limits import UploadLimits
from uploader_cli.transfer.answers import Answer, answer_error, not_an_upload_server, says_no_upload_server
from uploader_cli.transfer.protocols.machine import SESSION_ERRORS, Call, Create, Position

Kind: TypeAlias = tuple[type[errors.AnswerError], str]

CHUNK_TIMEOUT = 60.0  # seconds from a chunk's last byte to the answer; a late one costs a HEAD, no byte
JOIN_TIMEOUT = 300.0  # seconds for the answer to a concatenation: the bundled server copies the bytes
KINDS: Mapping[int, Kind] = {
    409: (errors.OffsetConflict, "the server has another offset"),
    413: (errors.TooLarge, "the server does not take a body of this size"),
    423: (errors.Locked, "another client writes to the upload"),
    460: (errors.ChecksumMismatch, "the chunk was corrupted in transit"),
}
NOT_CREATED: Mapping[int, Kind] = {
    409: (errors.OffsetConflict, "the server does not create the upload"),
    423: (errors.Locked, "the server does not create the upload now"),
}
"""What the statuses of positions and locks mean for a creation, and for a request to join parts."""
UPLOAD_GONE = (errors.UploadGone, "the server does not have the upload any more")
LOCKED = (errors.Locked, "another request uses the upload, or its file exists already")
"""What a status of `retry_status` means."""
API_ROOT = "/api/upload/"


# --- requests


class Exchange(Record, frozen=True):
    """The next request of a `call`, of which there may be several until an answer tells the position.

    `announced` are the URLs that the server has sent for a creation before its answer. With `posts` POST is sent in
    place of PATCH, and `blocked` is the answer to the other of both, which a proxy refused. `unclear` is the answer to
    bytes up to `reached`, which does not tell what the server has: the request asks for that.
    """

    call: Call
    announced: frozenset[str] = frozenset()
    posts: bool = False
    blocked: Answer | None = None
    unclear: Answer | None = None
    reached: int = 0


class Request(Record, frozen=True):
    """What is sent. `session` is the one whose secret goes with it; `body_type` is the Content-Type of its body.

    The answer comes within `timeout` seconds of the last byte (None: as usual), later where it `completes` the upload.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    session: str = ""
    body_type: str = ""
    timeout: float | None = None
    completes: bool = False


class Known(Record, frozen=True):
    """What the answers of a run have said about the server."""

    created: bool = False  # whether it has created an upload
    patched: bool = False  # whether it has accepted a PATCH: no firewall blocks that
    posts: bool = False  # whether POST is sent in place of PATCH: it has worked, and PATCH has not
    limits: UploadLimits = UploadLimits()


# --- what answers say


class Unusable(Record, frozen=True):
    """The server has created uploads that can't be used because of `error`: they are deleted."""

    urls: tuple[str, ...]
    error: errors.UploaderError


Outcome: TypeAlias = Position | Exchange | Unusable


class Server(Record, frozen=True):
    """Where uploads are created. `root` is the address of a server with sessions, else empty.

    `option` names the option with the address. `retry_status` are the statuses that mean a lock there.
    """

    endpoint: str
    terms: Terms
    root: str = ""
    option: str = ""
    retry_status: tuple[int, ...] = ()

    def at(self, base: str, location: str) -> str:
        """Return the URL that an answer of `base` names. Raise `ProtocolError` for one that is not followed."""
        try:
            return resolved(base, below(self.root, location))
        except ValueError as error:
            raise errors.ProtocolError(
                f"{base} points to a URL that is not followed: {error}",
                hint="a server behind a TLS proxy has to know its own public address",
            ) from error

    def upload_at(self, base: str, location: str) -> str:
        """Return the URL of an upload. Of a server with sessions only the path counts.

        Behind a proxy it may not know its own address.
        """
        _, found, path = location.partition(API_ROOT) if self.root else ("", "", "")
        return self.at(base, found + path or location)


class Dialect(Protocol):
    """The functions of a protocol of uploads (see above)."""

    @property
    def server(self) -> Server: ...

    @property
    def body_type(self) -> str:
        """The Content-Type of a chunk."""

    def options(self) -> Request:
        """Return the request that asks what the server can do."""

    def capabilities(self, answer: Answer, known: Known) -> tuple[Capabilities, Known]:
        """Return what the answer to OPTIONS says, also a refusal."""

    def request(self, exchange: Exchange) -> Request:
        """Return what is sent."""

    def of_upload(self, method: str, url: str) -> Request:
        """Return a request for an upload that has no other headers than every request."""

    def learned(self, exchange: Exchange, answer: Answer, known: Known) -> Known:
        """Return what is known of the server after an answer. Raise `ProtocolError` for what can't be."""

    def interim(self, asked: str, status: int, headers: Mapping[str, str], known: Known) -> tuple[Known, str | None]:
        """Return what is known after an interim answer to a creation, and the URL that it announces."""

    def judged(self, exchange: Exchange, answer: Answer, known: Known, sent: int) -> Outcome:
        """Return what the answer says after `sent` bytes of the body. Raise the error of a refusal."""

    def is_signed(self, answer: Answer) -> bool:
        """Return whether an answer has headers that only a server of this protocol sends."""

    def lacks(self, exchange: Exchange, answer: Answer) -> str | None:
        """Return what the user is warned of because of a success."""

    def refusal(self, answer: Answer, kind: Kind | None = None) -> errors.UploaderError:
        """Return the error for an answer that is not 2xx (docs/resumable-uploads.md)."""


# --- what both say


def describing(new: Create) -> dict[str, str]:
    """Return the headers that say what a new upload is for."""
    headers = length_header(new.length)
    if encoded := encode_metadata(new.metadata):  # servers refuse an empty one (docs/resumable-uploads.md)
        headers["Upload-Metadata"] = encoded
    return headers


def length_header(length: int | None) -> dict[str, str]:
    return {} if length is None else {"Upload-Length": str(length)}


# --- what answers mean in both


def not_created(
    server: Server, answer: Answer, known: Known, *, is_upload_server: bool = False
) -> errors.SessionLost | errors.NotAnUploadServer | None:
    """Return the error for the answer to a creation of a server without the session, or of one that takes no uploads.

    `is_upload_server`: the answer shows that it does.
    """
    if (lost := session_lost(answer)) is not None:
        return lost
    is_unknown = not server.terms.sessions and not known.created  # one that opens sessions is an upload server
    if is_unknown and not is_upload_server and says_no_upload_server(answer):
        return not_an_upload_server(answer, server.option, endpoint=True)
    return None


def created_at(server: Server, answer: Answer) -> str:
    """Return the URL of the upload that a request has created."""
    location = answer.headers.get("Location")
    if not location:
        raise errors.ProtocolError(f"{answer.url} created an upload without a Location")
    return server.upload_at(answer.url, location)


def session_lost(answer: Answer) -> errors.SessionLost | None:
    """Return the error for an answer that the session of an upload is unknown or has ended."""
    code = error_code(answer.body)
    if (answer.status, code) not in SESSION_ERRORS:
        return None
    words = f"the server has no open session for the upload ({code})"
    return errors.SessionLost(words, status=answer.status, error=code)


def refusal(answer: Answer, kind: Kind | None, *, signed: bool, strict: bool) -> errors.AnswerError:
    """Return the error for an answer that is not 2xx, which a server of the protocol has `signed`, or not."""
    if (lost := session_lost(answer)) is not None:
        return lost
    error, kind = answer_error(answer), kind or KINDS.get(answer.status)
    if kind is not None and not isinstance(error, errors.TooLarge | errors.SessionCancelled):
        said = ": ".join(filter(None, [f"{answer.status} {error.error}".strip(), answer.sentence]))
        words = f"{kind[1]} ({said})"
        error = kind[0](words, status=answer.status, error=error.error, retry_after=error.retry_after)
    error.by_server = signed
    if isinstance(error, errors.Unauthorized):  # a gateway may answer 403 where a token has expired
        error.renews = not strict and not signed
    return error


def gone(refused: errors.UploaderError) -> errors.UploaderError:
    """Return the error for 404 or 410 to a chunk, the refusal `UPLOAD_GONE`: retryable, because HEAD decides."""
    if isinstance(refused, errors.UploadGone):
        refused.retryable = True
    return refused


def not_of_server(url: str, answer: Answer, how: str) -> errors.NotFound:
    """Return the error for a refusal of HEAD that something else has given: the server may have the upload."""
    error = errors.NotFound(f"{url} answered {answer.status}{how}", status=answer.status)
    error.retryable = True
    return error


def offset_in(answer: Answer) -> int:
    """Return the offset that an answer has to name."""
    offset = whole(answer.headers.get("Upload-Offset"))
    if offset is None:
        raise errors.ProtocolError(f"{answer.url} answered {answer.status} without an Upload-Offset")
    return offset
