"""What the calls of tus and of the IETF's resumable uploads share: positions, redirects, and where URLs may lead."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from uploader_cli import errors
from uploader_cli.core.capabilities import encode_metadata, root_of, unknown_upload
from uploader_cli.core.confirmation import OUTAGES, Reading, reading_of
from uploader_cli.core.origins import below, resolved
from uploader_cli.core.protocol import error_code, whole
from uploader_cli.transfer.http_client import AS_STORED, READ_TIMEOUT, REDIRECTS, Answer
from uploader_cli.transfer.protocols.machine import SESSION_ERRORS, Position
from uploader_cli.transfer.refusals import answer_error, not_an_upload_server, says_no_upload_server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from uploader_cli.core.capabilities import Capabilities
    from uploader_cli.core.terms import Terms
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.bodies import Body

    Kind = tuple[type[errors.AnswerError], str]

CHUNK_TIMEOUT = 60.0  # seconds from a chunk's last byte to the answer; a late one costs a HEAD, no byte
SHORT_ANSWER = 256 << 10  # most bytes of a file's content that are read though only its length is wanted
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


def ignore(*_interim: object) -> None:
    """Ignore an interim answer."""


class Creation(NamedTuple):
    """A new upload of `length` bytes (None: not known yet) for the file `path`.

    It gets its first bytes from `body`, with their `checksum` as a header of tus. With tus it may be `partial`, or the
    concatenation of the URLs `parts`. `sha256` is the digest (hex) of the file, where it is known already. `on_url` is
    called with the URL of the upload where the server sends it before the answer.
    """

    length: int | None
    metadata: Mapping[str, str]
    body: Body | None = None
    checksum: str | None = None
    partial: bool = False
    parts: Sequence[str] = ()
    path: str = ""
    sha256: str | None = None
    on_url: Callable[[str], None] = ignore


class UploadCalls(ABC):
    """Call an endpoint of resumable uploads; each thread has its own object.

    Upload URLs may be on another host: no credentials are sent there, and nothing at all from https to http
    (docs/resumable-uploads.md). Each call raises `NetworkError`, `AnswerError` by status, and `ProtocolError`.
    """

    usual: Mapping[str, str]  # headers of each request but OPTIONS
    asking: Mapping[str, str]  # headers of OPTIONS
    body_type: str  # Content-Type of a chunk

    def __init__(self, api: Api, terms: Terms) -> None:
        """It shares the connections, token and rate limit of `api`."""
        self.endpoint = api.settings.target_url if terms.tus is None else terms.tus.endpoint
        self._api, self._terms = api, terms

    @property
    def has_created(self) -> bool:
        """Whether the server has created an upload in this run."""
        return self._api.has_created.is_set()

    def options(self) -> Capabilities:
        """Return what the server says that it can do.

        Raise `Unauthorized` for 401, after which a new token may help, and as `reach` does.
        """
        answer = self._send("OPTIONS", root_of(self.endpoint), self.asking)
        if not answer.ok and answer_error(answer).outage:
            self.reach()
        if answer.status == 401:
            raise self._refusal(answer)
        return self._capabilities(answer)

    @abstractmethod
    def _capabilities(self, answer: Answer) -> Capabilities:
        """Return what the answer to OPTIONS says, also a refusal."""

    @abstractmethod
    def create(self, new: Creation) -> Position:
        """Create an upload. Raise `SessionLost` for an unknown or ended session.

        Raise `NotAnUploadServer` for a first answer that no upload server gives.
        """

    @abstractmethod
    def head(self, url: str) -> Position:
        """Return the server's offset. Raise `UploadGone` if it does not have the upload."""

    @abstractmethod
    def patch(
        self, url: str, offset: int, body: Body, checksum: str | None = None, length: int | None = None
    ) -> Position:
        """Send a chunk at `offset` and return the new offset; `length` is that of the upload, where it is declared."""

    def read_last(self, url: str, size: int) -> Reading:
        """Ask for the last byte of a file of `size` bytes. Raise for what may pass: `NetworkError`, 429, a gateway.

        A short answer is read to its end. To close its connection costs more, and Node.js 20 may exit with an error if
        a connection closes just when an answer ends.
        """
        headers = {**self._api.authorization(), **AS_STORED} | ({"Range": f"bytes={size - 1}-"} if size else {})
        with self._api.stream(url, headers) as (answer, pieces):
            if answer.status in (429, *OUTAGES):
                raise answer_error(answer)
            reason = next(pieces, b"").decode("latin-1") if answer.status == 400 else ""
            length, total = answer.headers.get("Content-Length"), answer.headers.get("Content-Range", "")
            known = whole(length), whole(total.rpartition("/")[2])
            if known[0] is not None and known[0] <= SHORT_ANSWER:
                for _ in pieces:
                    pass
            return reading_of(answer.status, size, length=known[0], total=known[1], reason=reason)

    def reach(self) -> None:
        """Ask for an upload that does not exist. Raise `ServerFault` if a gateway answers in place of the server."""
        answer = self._send("HEAD", unknown_upload(self.endpoint), {})
        if not answer.ok and (error := answer_error(answer)).outage:
            raise error

    def delete(self, url: str) -> None:
        """Delete an upload."""
        answer = self._send("DELETE", url, {})
        if not answer.ok:
            raise self._refusal(answer)

    def discard(self, url: str) -> None:
        """Delete an upload that has no complete file. Where that fails it expires."""
        with suppress(errors.AnswerError, errors.NetworkError, errors.ProtocolError):
            self.delete(url)

    def _patience(self, usual: float, *, completes: bool) -> float:
        """Return the seconds to wait for an answer: `usual`, or longer where the request `completes` an upload.

        Then a server may run a hook for minutes, and refuse the file at its end. Where only this answer tells whether
        the file is stored, it is waited for as long as the connection lives (`dialler.SOCKET_OPTIONS`), at most
        `--finish-timeout`. Nothing asks for the offset meanwhile: some servers end the request then.
        """
        return self._api.settings.finish_timeout if completes and not self._terms.tells_stored else usual

    @abstractmethod
    def _is_signed(self, answer: Answer) -> bool:
        """Return whether an answer has headers that only a server of this protocol sends."""

    @abstractmethod
    def _check(self, answer: Answer) -> None:
        """Raise the refusal, unless the answer is a success of this protocol."""

    def _describing(self, new: Creation) -> dict[str, str]:
        """Return the headers that say what a new upload is for."""
        headers = length_header(new.length) | self._api.may_write(new.metadata.get("sessionId", ""))
        if encoded := encode_metadata(new.metadata):  # servers refuse an empty one (docs/resumable-uploads.md)
            headers["Upload-Metadata"] = encoded
        return headers

    def _check_created(self, answer: Answer, *, is_stored: bool = False) -> None:
        """Raise the refusal of a creation, none where all of the file `is_stored`."""
        if (lost := _session_lost(answer)) is not None:
            raise lost
        is_unknown = not self._terms.sessions and not self.has_created  # one that opens sessions is an upload server
        if is_unknown and not is_stored and says_no_upload_server(answer):
            raise not_an_upload_server(answer, self._api.option, endpoint=True)
        if answer.status in NOT_CREATED:
            raise self._refusal(answer, NOT_CREATED[answer.status])
        self._check(answer)

    def _created_at(self, answer: Answer) -> str:
        """Return the URL of the upload that a request has created."""
        location = answer.headers.get("Location")
        if not location:
            raise errors.ProtocolError(f"{answer.url} created an upload without a Location")
        self._api.has_created.set()
        return self._place(answer.url, self._own_path(location))

    def _check_there(self, answer: Answer) -> None:
        """Raise `UploadGone` for the answer 404 or 410 to a chunk; it is retryable, because HEAD decides."""
        if answer.status in (404, 410):
            gone = self._refusal(answer, UPLOAD_GONE)
            gone.retryable = not isinstance(gone, errors.SessionCancelled)
            raise gone

    def _refusal(self, answer: Answer, kind: Kind | None = None) -> errors.UploaderError:
        """Return the error for an answer that is not 2xx (docs/resumable-uploads.md)."""
        if (lost := _session_lost(answer)) is not None:
            return lost
        error, kind = answer_error(answer), kind or KINDS.get(answer.status)
        if kind is not None and not isinstance(error, errors.TooLarge | errors.SessionCancelled):
            said = ": ".join(filter(None, [f"{answer.status} {error.error}".strip(), answer.sentence]))
            words = f"{kind[1]} ({said})"
            error = kind[0](words, status=answer.status, error=error.error, retry_after=error.retry_after)
        error.by_server = self._is_signed(answer)
        if isinstance(error, errors.Unauthorized):  # a gateway may answer 403 where a token has expired
            error.renews = not self._terms.strict and not error.by_server
        return error

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        timeout: float = READ_TIMEOUT,
        body: Body | None = None,
        on_interim: Callable[[str, int, Mapping[str, str]], None] = ignore,
    ) -> Answer:
        """Send one request and follow 307 and 308, with its method and body.

        `on_interim` gets URL, status and headers of each interim answer to a request without a body.
        """
        sent = headers if method == "OPTIONS" else {**self.usual, **headers}
        timeout = self._patience(timeout, completes=body is not None and body.completes)
        for _ in range(REDIRECTS + 1):
            own = {**self._api.authorization(), **sent}
            try:
                answer = self._api.request(
                    method,
                    url,
                    headers=own,
                    body=body,
                    read_timeout=timeout,
                    on_interim=partial(on_interim, url),
                )
            except errors.ConnectFailed as error:
                self._check_port(url, error)
                raise
            if not self._is_signed(answer):
                self._check_port(url)
            self._api.budget.note(answer.headers)
            if answer.status in self._api.settings.retry_status:
                raise self._refusal(answer, LOCKED)
            target = answer.headers.get("Location") if answer.status in (307, 308) else None
            if not target:
                return answer
            url = self._place(url, target)
            if body is not None:
                body.rewind()
        raise errors.ProtocolError(f"{self.endpoint} redirects too often, last to {url}")

    def _check_port(self, url: str, cause: Exception | None = None) -> None:
        """Raise `ProtocolError` if `url` has the endpoint's host without its port, which is a mistake of a proxy."""
        ours, theirs = urlsplit(self.endpoint), urlsplit(url)
        if ours.port and not theirs.port and (ours.scheme, ours.hostname) == (theirs.scheme, theirs.hostname):
            raise errors.ProtocolError(
                f"the server's Location points to {url}: its proxy drops the port"
                " (nginx: proxy_set_header Host $http_host)"
            ) from cause

    def _own_path(self, location: str) -> str:
        """Return the path of an upload of a server with sessions: behind a proxy it may not know its own address."""
        _, found, path = location.partition(API_ROOT) if self._api.server else ("", "", "")
        return found + path or location

    def _place(self, base: str, location: str) -> str:
        try:
            return resolved(base, below(self._api.server, location))
        except ValueError as error:
            raise errors.ProtocolError(
                f"{base} points to a URL that is not followed: {error}",
                hint="a server behind a TLS proxy has to know its own public address",
            ) from error


def _session_lost(answer: Answer) -> errors.SessionLost | None:
    """Return the error for an answer that the session of an upload is unknown or has ended."""
    code = error_code(answer.body)
    if (answer.status, code) not in SESSION_ERRORS:
        return None
    words = f"the server has no open session for the upload ({code})"
    return errors.SessionLost(words, status=answer.status, error=code)


def impossible(answer: Position, offset: int, body: Body) -> errors.OffsetConflict:
    """Return the error for an offset that the bytes sent at `offset` can't have led to: HEAD decides."""
    return errors.OffsetConflict(f"{body.sent} bytes at offset {offset} led to offset {answer.offset}", status=204)


def length_header(length: int | None) -> dict[str, str]:
    return {} if length is None else {"Upload-Length": str(length)}


def offset_in(answer: Answer) -> int:
    """Return the offset that an answer has to name."""
    offset = whole(answer.headers.get("Upload-Offset"))
    if offset is None:
        raise errors.ProtocolError(f"{answer.url} answered {answer.status} without an Upload-Offset")
    return offset


def not_of_server(url: str, answer: Answer, how: str) -> errors.NotFound:
    """Return the error for a refusal of HEAD that something else has given: the server may have the upload."""
    error = errors.NotFound(f"{url} answered {answer.status}{how}", status=answer.status)
    error.retryable = True
    return error
