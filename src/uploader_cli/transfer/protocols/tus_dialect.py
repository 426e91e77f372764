"""What tus 1.0 says: requests, and what their answers mean."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, capabilities_of, endpoint_for, root_of
from uploader_cli.core.protocol import whole
from uploader_cli.core.record import Record
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.protocols.dialect import (
    CHUNK_TIMEOUT,
    JOIN_TIMEOUT,
    LOCKED,
    NOT_CREATED,
    UPLOAD_GONE,
    Append,
    Call,
    Create,
    Creation,
    Kind,
    Known,
    Offset,
    OffsetAfter,
    Outcome,
    Request,
    Server,
    created_at,
    describing,
    gone,
    length_header,
    not_created,
    not_of_server,
    offset_in,
    refusal,
)
from uploader_cli.transfer.protocols.machine import Position
from uploader_cli.transfer.refusals import is_blocked, is_page, is_tus

NO_PATCH = (201, 400, 404, 409, 410, 411, 412, 415)
"""Statuses of a server that took a POST for a creation and not for a PATCH, or whose offset the PATCH has moved."""
UNSIGNED = "the server's answers have no Tus-Resumable: a proxy may remove it, and other headers of tus, too"
SIGNED = {"Tus-Resumable": TUS_VERSION}  # a header of each request but OPTIONS


class TusDialect(Record, frozen=True):
    """tus 1.0 at one server."""

    server: Server
    body_type: str = "application/offset+octet-stream"

    # --- requests

    def options(self) -> Request:
        return Request("OPTIONS", root_of(self.server.endpoint), {})

    def of_upload(self, method: str, url: str) -> Request:
        return Request(method, url, SIGNED)

    def request(self, call: Call) -> Request:
        match call:
            case Create(new):
                return self._creating(new)
            case Append():
                headers = SIGNED | {"Upload-Offset": str(call.offset)} | length_header(call.length)
                headers |= _checked(call.checksum) | ({"X-HTTP-Method-Override": "PATCH"} if call.posts else {})
                method = "POST" if call.posts else "PATCH"
                return Request(method, call.url, headers, body_type=self.body_type, timeout=CHUNK_TIMEOUT)
            case Offset(url) | OffsetAfter(url):
                return self.of_upload("HEAD", url)

    def _creating(self, new: Creation) -> Request:
        """Create an upload (tus 1.0, creation; with bytes: creation-with-upload; of parts: concatenation).

        The path replaces the fields of an endpoint that has a URL for each file.
        """
        headers = SIGNED | describing(new) | _checked(new.checksum)
        if new.length is None and not new.parts:
            headers["Upload-Defer-Length"] = "1"
        if new.partial or new.parts:
            headers["Upload-Concat"] = "partial" if new.partial else "final;" + " ".join(new.parts)
        return Request(
            "POST",
            endpoint_for(self.server.endpoint, new.path),
            headers,
            session=new.metadata.get("sessionId", ""),
            body_type=self.body_type,
            timeout=CHUNK_TIMEOUT if new.body is not None else JOIN_TIMEOUT if new.parts else None,
            completes=bool(new.parts) or new.length == 0,
        )

    # --- answers

    def capabilities(self, answer: Answer, known: Known) -> tuple[Capabilities, Known]:
        """Return what the server says that it can do; without a usable answer core and creation, as tus 1.0 requires.

        OPTIONS is a hint: frameworks, gateways and firewalls answer it in place of servers that work.
        """
        try:
            return capabilities_of(answer.headers, self.server.endpoint), known
        except ValueError as error:
            raise errors.ProtocolError(f"{self.server.endpoint}: {error}") from error

    def interim(self, asked: str, status: int, headers: Mapping[str, str], known: Known) -> tuple[Known, str | None]:
        del asked, status, headers
        return known, None

    def learned(self, call: Call, answer: Answer, known: Known) -> Known:
        """Return what is known: no firewall blocks PATCH once one was accepted in this run."""
        if not isinstance(call, Append):
            return known
        is_taken = answer.ok and not _creates(call, answer)
        posts = call.posts and (known.posts or is_taken) and not is_blocked(answer)
        return replace(known, posts=posts, patched=known.patched or (is_taken and not call.posts))

    def judged(self, call: Call, answer: Answer, known: Known, sent: int) -> Outcome:
        """Return what an answer says. Raise `SessionLost`, `NotAnUploadServer`, or another refusal."""
        match call:
            case OffsetAfter():
                return self._found_after(call, answer)
            case _ if answer.status in self.server.retry_status:
                raise self.refusal(answer, LOCKED)
            case Create(new):
                return self._created(new, answer, known)
            case Append():
                return self._appended(call, answer, known, sent)
            case Offset(url):
                return self._found(url, answer)

    def _created(self, new: Creation, answer: Answer, known: Known) -> Position:
        if (error := not_created(self.server, answer, known)) is not None:
            raise error
        self._check(answer, NOT_CREATED.get(answer.status))
        if new.length == 0 and answer.headers.get("Location") == "" and not self.server.terms.strict:
            return Position("", 0, answer.headers)  # stored, without an upload
        offset, is_new = whole(answer.headers.get("Upload-Offset")), answer.status == 201
        return Position(created_at(self.server, answer), offset, answer.headers, new=is_new)

    def _appended(self, call: Append, answer: Answer, known: Known, sent: int) -> Outcome:
        """Return the new offset, or the call that finds it.

        Where a firewall blocks PATCH, a POST that stands for it follows (tus 1.0, core), or the other way round. Raise
        `PatchBlocked` where both are blocked, a retryable `UploadGone` for 404 and 410. Where the server does not take
        the POST for a PATCH (`NO_PATCH`), the refusal of the PATCH is raised, which says why.
        """
        if is_blocked(answer) and (call.posts or not known.patched):
            if call.blocked is None:
                return replace(call, posts=not call.posts, blocked=answer)
            refused = call.blocked if call.posts else answer  # that to PATCH
            raise errors.PatchBlocked(call.url, refused.status, refused.sentence)
        if call.blocked is not None and _creates(call, answer):
            answer = call.blocked
        if answer.status in (404, 410):
            raise gone(self.refusal(answer, UPLOAD_GONE))
        if answer.ok and not self.server.terms.strict and "Upload-Offset" not in answer.headers:
            self._check(answer)
            return OffsetAfter(call.url, answer, call.offset + sent)
        return self._position(call.url, answer)

    def _found(self, url: str, answer: Answer) -> Position:
        """Return the server's offset. Raise `UploadGone` for 403, 404 or 410 from a tus server.

        Without `Tus-Resumable` (a proxy, a captive portal) the error is a retryable `NotFound`, unless OPTIONS had none
        either: then 404 and 410 are the server's own.
        """
        if answer.status not in (403, 404, 410):
            return self._position(url, answer)
        tus = self.server.terms.tus
        unsigned = tus is not None and not tus.announced
        if "Tus-Resumable" in answer.headers or (unsigned and answer.status != 403):
            raise self.refusal(answer, UPLOAD_GONE)
        raise not_of_server(url, answer, ", but not as a tus server")

    def _found_after(self, call: OffsetAfter, found: Answer) -> Position:
        """Return the offset that HEAD `found` after a PATCH whose answer does not have it.

        Where HEAD succeeds and does not have it either, the status 204 says that the bytes were taken. Where it fails,
        or a page came in place of the server's answer, nothing is known of them: raise `UploadGone`, or
        `ConnectionLost`, after which the offset is asked for again.
        """
        try:
            if found.status in self.server.retry_status:
                raise self.refusal(found, LOCKED)
            if is_page(call.answer) and is_tus(found):
                raise errors.ConnectionLost("a page came in place of the answer to the bytes", body_sent=True)
            if found.ok and call.answer.status == 204 and "Upload-Offset" not in found.headers:
                self._check(found)
                return Position(call.url, call.offset, call.answer.headers)
            return self._found(call.url, found)
        except errors.UploadGone:
            raise
        except errors.AnswerError as error:  # not the answer to the bytes
            words = f"the answer to the bytes has no Upload-Offset, and HEAD failed: {error}"
            raise errors.ConnectionLost(words, body_sent=True) from error

    def _position(self, url: str, answer: Answer) -> Position:
        self._check(answer)
        return Position(url, offset_in(answer), answer.headers, whole(answer.headers.get("Upload-Length")))

    def _check(self, answer: Answer, kind: Kind | None = None) -> None:
        """Raise the refusal, unless the answer is a success of tus 1.0."""
        if not answer.ok:
            raise self.refusal(answer, kind)
        version = answer.headers.get("Tus-Resumable")
        if version != TUS_VERSION and (version is not None or self.server.terms.strict):
            said = (
                f"speaks tus {version}, not {TUS_VERSION}" if version else "does not answer as tus (no Tus-Resumable)"
            )
            raise errors.ProtocolError(f"{answer.url} {said}")

    def lacks(self, call: Call, answer: Answer) -> str | None:
        """Return what the user is warned of because of a success; a creation without a URL is none."""
        is_other = _creates(call, answer) if isinstance(call, Append) else "Location" not in answer.headers
        is_success = answer.ok and not (isinstance(call, Create | Append) and is_other)
        unsigned = is_success and "Tus-Resumable" not in answer.headers and not self.server.terms.strict
        return UNSIGNED if unsigned else None

    def is_signed(self, answer: Answer) -> bool:
        return is_tus(answer)

    def refusal(self, answer: Answer, kind: Kind | None = None) -> errors.UploaderError:
        if answer.status == 412 and ("Tus-Version" in answer.headers or not is_tus(answer)):
            versions = answer.headers.get("Tus-Version", "")
            words = f"{answer.url} does not speak tus {TUS_VERSION} (it says {versions or 'nothing'})"
            if TUS_VERSION in versions.replace(" ", "").split(","):
                words = f"{answer.url} got no Tus-Resumable (412): a proxy removes it from requests"
            return errors.ProtocolError(words)
        return refusal(answer, kind, signed=is_tus(answer), strict=self.server.terms.strict)


def _creates(call: Append, answer: Answer) -> bool:
    """Return whether a server took the POST in place of a blocked PATCH for a creation, or not for a PATCH."""
    return call.posts and call.blocked is not None and answer.status in NO_PATCH


def _checked(checksum: str | None) -> dict[str, str]:
    return {} if checksum is None else {"Upload-Checksum": checksum}
