"""The calls of tus 1.0, one request each, without retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.capabilities import (
    TUS_VERSION,
    Capabilities,
    capabilities_of,
    encode_metadata,
    endpoint_for,
    root_of,
)
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.protocol import error_code, whole
from uploader_cli.transfer.http_client import READ_TIMEOUT, Answer
from uploader_cli.transfer.refusals import answer_error, is_blocked, is_tus, not_an_upload_server, says_no_upload_server
from uploader_cli.transfer.upload_calls import CHUNK_TIMEOUT, NO_SESSION, UPLOAD_GONE, Position, UploadCalls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.upload_calls import Kind

JOIN_TIMEOUT = 300.0  # seconds for the answer to a concatenation: servers copy the bytes
UNSIGNED = "the server's answers have no Tus-Resumable: a proxy may remove it, and other headers of tus, too"


class TusClient(UploadCalls):
    """Call a tus endpoint."""

    usual = {"Tus-Resumable": TUS_VERSION}  # noqa: RUF012 - a constant
    body_type = "application/offset+octet-stream"

    def __init__(self, api: Api, endpoint: str) -> None:
        super().__init__(api, endpoint)
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
            raise self._refusal(answer)
        try:
            return capabilities_of(answer.headers, self.endpoint)
        except ValueError as error:
            raise errors.ProtocolError(f"{self.endpoint}: {error}") from error

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
        **_of_ietf: object,
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
        headers |= self._api.may_write(metadata.get("sessionId", "")) | _checked(checksum)
        timeout = CHUNK_TIMEOUT if body is not None else JOIN_TIMEOUT if parts else READ_TIMEOUT
        answer = self._send("POST", endpoint_for(self.endpoint, path), headers, timeout, body)
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
            raise self._refusal(answer, UPLOAD_GONE)
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
        own |= _checked(checksum)
        for override in (self._overrides, not self._overrides):
            headers = own | ({"X-HTTP-Method-Override": "PATCH"} if override else {})
            answer = self._send("POST" if override else "PATCH", url, headers, CHUNK_TIMEOUT, body)
            if not is_blocked(answer):
                break
            body.rewind()
        else:
            self._overrides = False
            raise errors.PatchBlocked(url, answer.status, answer.sentence)
        self._overrides = override and (self._overrides or answer.ok)
        if answer.status in (404, 410):
            gone = self._refusal(answer, UPLOAD_GONE)
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

    def _position(self, url: str, answer: Answer) -> Position:
        self._check(answer)
        offset = whole(answer.headers.get("Upload-Offset"))
        if offset is None:
            raise errors.ProtocolError(f"{answer.url} answered {answer.status} without an Upload-Offset")
        return Position(url, offset, answer.headers, whole(answer.headers.get("Upload-Length")))

    def _check(self, answer: Answer) -> None:
        if not answer.ok:
            raise self._refusal(answer)
        version = answer.headers.get("Tus-Resumable")
        if version is None and self._api.settings.foreign:
            self._api.warn_once(WarningCode.PROTOCOL, UNSIGNED)
        elif version != TUS_VERSION:
            said = (
                f"speaks tus {version}, not {TUS_VERSION}" if version else "does not answer as tus (no Tus-Resumable)"
            )
            raise errors.ProtocolError(f"{answer.url} {said}")

    def _is_signed(self, answer: Answer) -> bool:
        return is_tus(answer)

    def _refusal(self, answer: Answer, kind: Kind | None = None) -> errors.UploaderError:
        if answer.status == 412 and ("Tus-Version" in answer.headers or not is_tus(answer)):
            versions = answer.headers.get("Tus-Version", "")
            words = f"{answer.url} does not speak tus {TUS_VERSION} (it says {versions or 'nothing'})"
            if TUS_VERSION in versions.replace(" ", "").split(","):
                words = f"{answer.url} got no Tus-Resumable (412): a proxy removes it from requests"
            return errors.ProtocolError(words)
        return super()._refusal(answer, kind)


def _checked(checksum: str | None) -> dict[str, str]:
    return {} if checksum is None else {"Upload-Checksum": checksum}
