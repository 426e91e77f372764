"""The calls of tus 1.0, one request each, without retries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, capabilities_of, endpoint_for
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.protocol import whole
from uploader_cli.transfer.http_client import READ_TIMEOUT, Answer
from uploader_cli.transfer.protocols.machine import Position
from uploader_cli.transfer.refusals import is_blocked, is_page, is_tus
from uploader_cli.transfer.upload_calls import (
    CHUNK_TIMEOUT,
    JOIN_TIMEOUT,
    UPLOAD_GONE,
    Creation,
    UploadCalls,
    length_header,
    not_of_server,
    offset_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.terms import Terms
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.upload_calls import Kind

NO_PATCH = (201, 400, 404, 409, 410, 411, 412, 415)
"""Statuses of a server that took a POST for a creation and not for a PATCH, or whose offset the PATCH has moved."""
UNSIGNED = "the server's answers have no Tus-Resumable: a proxy may remove it, and other headers of tus, too"


class TusClient(UploadCalls):
    """Call a tus endpoint."""

    usual = {"Tus-Resumable": TUS_VERSION}  # noqa: RUF012 - a constant
    asking: Mapping[str, str] = {}
    body_type = "application/offset+octet-stream"

    def __init__(self, api: Api, terms: Terms) -> None:
        super().__init__(api, terms)
        self._overrides = False  # POST is sent in place of PATCH: it has worked, and PATCH has not

    def _capabilities(self, answer: Answer) -> Capabilities:
        """Return what the server says that it can do; without a usable answer core and creation, as tus 1.0 requires.

        OPTIONS is a hint: frameworks, gateways and firewalls answer it in place of servers that work.
        """
        try:
            return capabilities_of(answer.headers, self.endpoint)
        except ValueError as error:
            raise errors.ProtocolError(f"{self.endpoint}: {error}") from error

    def create(self, new: Creation) -> Position:
        """Create an upload (tus 1.0, creation; with bytes: creation-with-upload; of parts: concatenation).

        The path replaces the fields of an endpoint that has a URL for each file.
        """
        headers = self._describing(new) | _checked(new.checksum)
        if new.length is None and not new.parts:
            headers["Upload-Defer-Length"] = "1"
        if new.partial or new.parts:
            headers["Upload-Concat"] = "partial" if new.partial else "final;" + " ".join(new.parts)
        usual = CHUNK_TIMEOUT if new.body is not None else JOIN_TIMEOUT if new.parts else READ_TIMEOUT
        timeout = self._patience(usual, completes=bool(new.parts) or new.length == 0)
        answer = self._send("POST", endpoint_for(self.endpoint, new.path), headers, timeout, new.body)
        self._check_created(answer)
        if new.length == 0 and answer.headers.get("Location") == "" and not self._terms.strict:
            return Position("", 0, answer.headers)  # stored, without an upload
        offset, is_new = whole(answer.headers.get("Upload-Offset")), answer.status == 201
        return Position(self._created_at(answer), offset, answer.headers, new=is_new)

    def head(self, url: str) -> Position:
        """Return the server's offset. Raise `UploadGone` for 403, 404 or 410 from a tus server.

        Without `Tus-Resumable` (a proxy, a captive portal) the error is a retryable `NotFound`, unless OPTIONS had none
        either: then 404 and 410 are the server's own.
        """
        return self._found(url, self._send("HEAD", url, {}))

    def _found(self, url: str, answer: Answer) -> Position:
        if answer.status not in (403, 404, 410):
            return self._position(url, answer)
        unsigned = self._terms.tus is not None and not self._terms.tus.announced
        if "Tus-Resumable" in answer.headers or (unsigned and answer.status != 403):
            raise self._refusal(answer, UPLOAD_GONE)
        raise not_of_server(url, answer, ", but not as a tus server")

    def patch(
        self, url: str, offset: int, body: Body, checksum: str | None = None, length: int | None = None
    ) -> Position:
        """Send a chunk at `offset` and return the new offset.

        `length` is that of an upload that was created without one (tus 1.0, creation-defer-length). Where a firewall
        blocks PATCH, send a POST that stands for it (tus 1.0, core), or the other way round. Raise `PatchBlocked` where
        both are blocked, a retryable `UploadGone` for 404 and 410.

        No firewall blocks PATCH once one was accepted in this run. Where the server does not take the POST for a PATCH
        (`NO_PATCH`), the refusal of the PATCH is raised, which says why.
        """
        own = {"Upload-Offset": str(offset)} | length_header(length) | _checked(checksum)
        refused: Answer | None = None
        for override in (self._overrides, not self._overrides):
            headers = own | ({"X-HTTP-Method-Override": "PATCH"} if override else {})
            answer = self._send("POST" if override else "PATCH", url, headers, CHUNK_TIMEOUT, body)
            if not is_blocked(answer) or (self._api.has_patched.is_set() and not override):
                break
            body.rewind()
            refused = answer if refused is None or not override else refused  # that to PATCH, once there is one
        else:
            self._overrides, answer = False, refused or answer
            raise errors.PatchBlocked(url, answer.status, answer.sentence)
        if refused is not None and override and answer.status in NO_PATCH:
            answer, override = refused, False
        self._overrides = override and (self._overrides or answer.ok)
        if answer.ok and not override:
            self._api.has_patched.set()
        self._check_there(answer)
        if answer.ok and not self._terms.strict and "Upload-Offset" not in answer.headers:
            return self._found_after(url, answer, offset + body.sent)
        return self._position(url, answer)

    def _found_after(self, url: str, answer: Answer, offset: int) -> Position:
        """Return the offset after a PATCH whose answer does not have it: that of HEAD.

        Where HEAD succeeds and does not have it either, the status 204 says that the bytes were taken. Where it fails,
        or a page came in place of the server's answer, nothing is known of them: raise `UploadGone`, or
        `ConnectionLost`, after which the offset is asked for again.
        """
        self._check(answer)
        try:
            found = self._send("HEAD", url, {})
            if is_page(answer) and is_tus(found):
                raise errors.ConnectionLost("a page came in place of the answer to the bytes", body_sent=True)
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
        return Position(url, offset_in(answer), answer.headers, whole(answer.headers.get("Upload-Length")))

    def _check(self, answer: Answer) -> None:
        if not answer.ok:
            raise self._refusal(answer)
        version = answer.headers.get("Tus-Resumable")
        if version is None and not self._terms.strict:
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
