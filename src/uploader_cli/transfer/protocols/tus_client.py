"""The calls of tus 1.0, one request each, without retries."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from uploader_cli import errors
from uploader_cli.core.capabilities import (
    TUS_VERSION,
    Capabilities,
    capabilities_of,
    encode_metadata,
    endpoint_for,
    root_of,
    unknown_upload,
)
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.origins import below, resolved
from uploader_cli.core.protocol import NOT_YOURS, error_code, whole
from uploader_cli.transfer.http_client import READ_TIMEOUT, REDIRECTS, Answer
from uploader_cli.transfer.refusals import answer_error, is_blocked, is_tus, not_an_upload_server, says_no_upload_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.bodies import Body

CHUNK_TIMEOUT = 60.0  # seconds from a chunk's last byte to the answer; a late one costs a HEAD, no byte
JOIN_TIMEOUT = 300.0  # seconds for the answer to a concatenation: servers copy the bytes
KINDS: Mapping[int, tuple[type[errors.AnswerError], str]] = {
    409: (errors.OffsetConflict, "the server has another offset"),
    413: (errors.TooLarge, "the server does not take a body of this size"),
    423: (errors.Locked, "another client writes to the upload"),
    460: (errors.ChecksumMismatch, "the chunk was corrupted in transit"),
}
UPLOAD_GONE = (errors.UploadGone, "the server does not have the upload any more")
LOCKED = (errors.Locked, "another request uses the upload, or its file exists already")
"""What a status of `retry_status` means."""
UNSIGNED = "the server's answers have no Tus-Resumable: a proxy may remove it, and other headers of tus, too"
API_ROOT = "/api/upload/"
NO_SESSION = ((404, "SESSION_NOT_FOUND"), (409, "SESSION_ENDED"), (403, NOT_YOURS))
"""Refusals of the session that a creation names, not of the upload."""


class Position(NamedTuple):
    """An upload as described by an answer, in bytes."""

    url: str
    offset: int | None
    headers: Mapping[str, str]
    length: int | None = None


class TusClient:
    """Call a tus endpoint; each thread has its own client.

    Upload URLs may be on another host: no credentials are sent there, and nothing at all from https to http
    (docs/protocol.md, section 5). Each call raises `NetworkError`, `AnswerError` by status, and `ProtocolError`.
    """

    def __init__(self, api: Api, endpoint: str) -> None:
        """The client shares the connections, token and rate limit of `api`."""
        self.endpoint, self._api = endpoint, api
        self._overrides = False  # POST is sent in place of PATCH: it has worked, and PATCH has not

    def options(self) -> Capabilities:
        """Return what the server says that it can do; without a usable answer core and creation, as tus 1.0 requires.

        OPTIONS is a hint: frameworks, gateways and firewalls answer it in place of servers that work. Raise
        `Unauthorized` for 401, after which a new token may help, and as `reach` does.
        """
        answer = self._send("OPTIONS", root_of(self.endpoint), {})
        if not answer.ok and answer_error(answer).outage:
            self.reach()
        if answer.status == 401:
            raise _refusal(answer)
        try:
            return capabilities_of(answer.headers, self.endpoint)
        except ValueError as error:
            raise errors.ProtocolError(f"{self.endpoint}: {error}") from error

    def reach(self) -> None:
        """Ask for an upload that does not exist. Raise `ServerFault` if a gateway answers in place of the server."""
        answer = self._send("HEAD", unknown_upload(self.endpoint), {})
        if not answer.ok and (error := answer_error(answer)).outage:
            raise error

    def create(
        self,
        length: int | None,
        metadata: Mapping[str, str],
        *,
        body: Body | None = None,
        checksum: str | None = None,
        partial: bool = False,
        parts: Sequence[str] = (),
        path: str = "",
    ) -> Position:
        """Create an upload of `length` bytes (tus 1.0, creation; with `body`: creation-with-upload).

        `path` replaces the fields of an endpoint that has a URL for each file. The upload may be `partial`, or the
        concatenation of the URLs `parts`. `length` is None for that, and for an upload
        whose length is sent later. Raise `SessionLost` for an unknown or ended session, and `NotAnUploadServer` for a
        first answer that no tus server gives.
        """
        headers = {} if length is None else {"Upload-Length": str(length)}
        if length is None and not parts:
            headers["Upload-Defer-Length"] = "1"
        if partial or parts:
            headers["Upload-Concat"] = "partial" if partial else "final;" + " ".join(parts)
        if encoded := encode_metadata(metadata):  # servers refuse an empty one (docs/protocol.md, section 5)
            headers["Upload-Metadata"] = encoded
        headers |= self._api.may_write(metadata.get("sessionId", ""))
        timeout = CHUNK_TIMEOUT if body is not None else JOIN_TIMEOUT if parts else READ_TIMEOUT
        answer = self._send("POST", endpoint_for(self.endpoint, path), headers, timeout, body, checksum)
        code = error_code(answer.body)
        if (answer.status, code) in NO_SESSION:
            words = f"the server has no open session for the upload ({code})"
            raise errors.SessionLost(words, status=answer.status, error=code)
        location = answer.headers.get("Location")
        if self._api.settings.foreign and not self._api.has_created.is_set() and says_no_upload_server(answer):
            raise not_an_upload_server(answer, self._api.option, endpoint=True)
        self._check(answer)
        if length == 0 and location == "" and self._api.settings.foreign:  # stored, without an upload
            return Position("", 0, answer.headers)
        if not location:
            raise errors.ProtocolError(f"{answer.url} created an upload without a Location")
        self._api.has_created.set()
        return Position(
            self._place(answer.url, self._own_path(location)),
            whole(answer.headers.get("Upload-Offset")),
            answer.headers,
        )

    def head(self, url: str) -> Position:
        """Return the server's offset. Raise `UploadGone` for 403, 404 or 410 from a tus server.

        Without `Tus-Resumable` (a proxy, a captive portal) the error is a retryable `NotFound`, unless OPTIONS had none
        either: then 404 and 410 are the server's own.
        """
        return self._found(url, self._send("HEAD", url, {}))

    def _found(self, url: str, answer: Answer) -> Position:
        if answer.status not in (403, 404, 410):
            return self._position(url, answer)
        unsigned = self._api.tus is not None and not self._api.tus.announced
        if "Tus-Resumable" in answer.headers or (unsigned and answer.status != 403):
            raise _refusal(answer, UPLOAD_GONE)
        error = errors.NotFound(f"{url} answered {answer.status}, but not as a tus server", status=answer.status)
        error.retryable = True
        raise error

    def patch(
        self, url: str, offset: int, body: Body, checksum: str | None = None, length: int | None = None
    ) -> Position:
        """Send a chunk at `offset` and return the new offset.

        `length` is that of an upload that was created without one (tus 1.0, creation-defer-length). Where a firewall
        blocks PATCH, send a POST that stands for it (tus 1.0, core), or the other way round. Raise `PatchBlocked` where
        both are blocked, a retryable `UploadGone` for 404 and 410.
        """
        own = {"Upload-Offset": str(offset)} | ({"Upload-Length": str(length)} if length is not None else {})
        for override in (self._overrides, not self._overrides):
            headers = own | ({"X-HTTP-Method-Override": "PATCH"} if override else {})
            answer = self._send("POST" if override else "PATCH", url, headers, CHUNK_TIMEOUT, body, checksum)
            if not is_blocked(answer):
                break
            body.rewind()
        else:
            self._overrides = False
            raise errors.PatchBlocked(url, answer.status, answer.sentence)
        self._overrides = override and (self._overrides or answer.ok)
        if answer.status in (404, 410):
            gone = _refusal(answer, UPLOAD_GONE)
            gone.retryable = not isinstance(gone, errors.SessionCancelled)  # HEAD decides
            raise gone
        if answer.ok and self._api.settings.foreign and "Upload-Offset" not in answer.headers:
            return self._found_after(url, answer, offset + body.sent)
        return self._position(url, answer)

    def _found_after(self, url: str, answer: Answer, offset: int) -> Position:
        """Return the offset after a PATCH whose answer does not have it: that of HEAD.

        Where HEAD succeeds and does not have it either, the status 204 says that the bytes were taken. Where it fails,
        nothing is known of them: raise `UploadGone`, or `ConnectionLost`, after which the offset is asked for again.
        """
        self._check(answer)
        try:
            found = self._send("HEAD", url, {})
            if found.ok and answer.status == 204 and "Upload-Offset" not in found.headers:
                self._check(found)
                return Position(url, offset, answer.headers)
            return self._found(url, found)
        except errors.UploadGone:
            raise
        except errors.AnswerError as error:  # not the answer to the bytes
            words = f"the answer to the bytes has no Upload-Offset, and HEAD failed: {error}"
            raise errors.ConnectionLost(words, body_sent=True) from error

    def discard(self, url: str) -> None:
        """Delete an upload that is not needed (tus 1.0, termination). Where that fails it expires."""
        with suppress(errors.AnswerError, errors.NetworkError, errors.ProtocolError):
            self._send("DELETE", url, {})

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        timeout: float = READ_TIMEOUT,
        body: Body | None = None,
        checksum: str | None = None,
    ) -> Answer:
        """Send one request and follow 307 and 308, with its method and body."""
        sent = {"Tus-Resumable": TUS_VERSION, **headers} if method != "OPTIONS" else dict(headers)
        if checksum is not None:
            sent["Upload-Checksum"] = checksum
        for _ in range(REDIRECTS + 1):
            own = {**self._api.authorization(), **sent}
            try:
                answer = self._api.request(method, url, headers=own, body=body, read_timeout=timeout)
            except errors.ConnectFailed as error:
                self._check_port(url, error)
                raise
            if "Tus-Resumable" not in answer.headers:
                self._check_port(url)
            self._api.budget.note(answer.headers)
            if answer.status in self._api.retry_status:
                raise _refusal(answer, LOCKED)
            target = answer.headers.get("Location")
            if answer.status not in (307, 308) or not target:
                return answer
            url = self._place(url, target)
            if body is not None:
                body.rewind()
        raise errors.ProtocolError(f"{self.endpoint} redirects too often, last to {url}")

    def _position(self, url: str, answer: Answer) -> Position:
        self._check(answer)
        offset = whole(answer.headers.get("Upload-Offset"))
        if offset is None:
            raise errors.ProtocolError(f"{answer.url} answered {answer.status} without an Upload-Offset")
        return Position(url, offset, answer.headers, whole(answer.headers.get("Upload-Length")))

    def _check(self, answer: Answer) -> None:
        if not answer.ok:
            raise _refusal(answer)
        version = answer.headers.get("Tus-Resumable")
        if version is None and self._api.settings.foreign:
            self._api.warn_once(WarningCode.PROTOCOL, UNSIGNED)
        elif version != TUS_VERSION:
            said = (
                f"speaks tus {version}, not {TUS_VERSION}" if version else "does not answer as tus (no Tus-Resumable)"
            )
            raise errors.ProtocolError(f"{answer.url} {said}")

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


def _refusal(answer: Answer, kind: tuple[type[errors.AnswerError], str] | None = None) -> errors.UploaderError:
    """Return the error for an answer that is not 2xx (docs/protocol.md, section 5)."""
    if answer.status == 412 and ("Tus-Version" in answer.headers or not is_tus(answer)):
        versions = answer.headers.get("Tus-Version", "")
        return errors.ProtocolError(f"{answer.url} does not speak tus {TUS_VERSION} (it says {versions or 'nothing'})")
    error, kind = answer_error(answer), kind or KINDS.get(answer.status)
    if kind is not None and not isinstance(error, errors.TooLarge | errors.SessionCancelled):
        said = ": ".join(filter(None, [f"{answer.status} {error.error}".strip(), answer.sentence]))
        words = f"{kind[1]} ({said})"
        error = kind[0](words, status=answer.status, error=error.error, retry_after=error.retry_after)
    error.by_tus = is_tus(answer)
    return error
