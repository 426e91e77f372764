"""What tus 1.0 says: requests, and what their answers mean."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, capabilities_of, endpoint_for, root_of
from uploader_cli.core.protocol import whole
from uploader_cli.core.record import Record
from uploader_cli.transfer.answers import Answer, is_blocked, is_page, is_tus
from uploader_cli.transfer.protocols.dialect import (
    CHUNK_TIMEOUT,
    JOIN_TIMEOUT,
    LOCKED,
    NOT_CREATED,
    UPLOAD_GONE,
    Exchange,
    Kind,
    Known,
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
from uploader_cli.transfer.protocols.machine import Append, Create, Locate, Position

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

    def request(self, exchange: Exchange) -> Request:
        match exchange.call:
            case Create() as new:
                return self._creating(new)
            case Append() as chunk:
                headers = SIGNED | {"Upload-Offset": str(chunk.offset)} | length_header(chunk.length)
                headers |= _checked(chunk.checksum) | ({"X-HTTP-Method-Override": "PATCH"} if exchange.posts else {})
                return Request(
                    "POST" if exchange.posts else "PATCH",
                    chunk.url,
                    headers,
                    body_type=self.body_type,
                    timeout=CHUNK_TIMEOUT,
                    completes=chunk.completes,
                )
            case Locate(url):
                return self.of_upload("HEAD", url)

    def _creating(self, new: Create) -> Request:
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
            timeout=CHUNK_TIMEOUT if new.has_body else JOIN_TIMEOUT if new.parts else None,
            completes=new.completes or new.length == 0,
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

    def learned(self, exchange: Exchange, answer: Answer, known: Known) -> Known:
        """Return what is known: no firewall blocks PATCH once one was accepted in this run."""
        if not isinstance(exchange.call, Append):
            return known
        is_taken = answer.ok and not _creates(exchange, answer)
        posts = exchange.posts and (known.posts or is_taken) and not is_blocked(answer)
        return replace(known, posts=posts, patched=known.patched or (is_taken and not exchange.posts))

    def judged(self, exchange: Exchange, answer: Answer, known: Known, sent: int) -> Outcome:
        """Return what an answer says. Raise `SessionLost`, `NotAnUploadServer`, or another refusal."""
        match exchange.call:
            case Locate(url) if exchange.unclear is not None:
                return self._found_after(url, exchange.unclear, exchange.reached, answer)
            case _ if answer.status in self.server.retry_status:
                raise self.refusal(answer, LOCKED)
            case Create() as new:
                return self._created(new, answer, known)
            case Append() as chunk:
                return self._appended(exchange, chunk, answer, known, sent)
            case Locate(url):
                return self._found(url, answer)

    def _created(self, new: Create, answer: Answer, known: Known) -> Position:
        # A refusal of bytes may be that of the file. That of the creation without them, which follows, tells more.
        refuses_bytes = new.size > 0 and not answer.ok and is_tus(answer)
        if (error := not_created(self.server, answer, known, is_upload_server=refuses_bytes)) is not None:
            raise error
        self._check(answer, NOT_CREATED.get(answer.status))
        if new.length == 0 and answer.headers.get("Location") == "" and not self.server.terms.strict:
            return Position("", 0, answer.headers)  # stored, without an upload
        offset, is_new = whole(answer.headers.get("Upload-Offset")), answer.status == 201
        return Position(created_at(self.server, answer), offset, answer.headers, new=is_new)

    def _appended(self, exchange: Exchange, chunk: Append, answer: Answer, known: Known, sent: int) -> Outcome:
        """Return the new offset, or the request that finds it.

        Where a firewall blocks PATCH, a POST that stands for it follows (tus 1.0, core), or the other way round. Raise
        `PatchBlocked` where both are blocked, a retryable `UploadGone` for 404 and 410. Where the server does not take
        the POST for a PATCH (`NO_PATCH`), the refusal of the PATCH is raised, which says why.
        """
        blocked = exchange.blocked
        if is_blocked(answer) and (exchange.posts or not known.patched):
            if blocked is None:
                return replace(exchange, posts=not exchange.posts, blocked=answer)
            refused = blocked if exchange.posts else answer  # that to PATCH
            raise errors.PatchBlocked(chunk.url, refused.status, refused.sentence)
        if blocked is not None and _creates(exchange, answer):
            answer = blocked
        if answer.status in (404, 410):
            raise gone(self.refusal(answer, UPLOAD_GONE))
        if answer.ok and not self.server.terms.strict and "Upload-Offset" not in answer.headers:
            self._check(answer)
            return Exchange(Locate(chunk.url), unclear=answer, reached=chunk.offset + sent)
        return self._position(chunk.url, answer)

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

    def _found_after(self, url: str, unclear: Answer, reached: int, found: Answer) -> Position:
        """Return the offset that HEAD `found` after the `unclear` answer to a PATCH.

        Where HEAD succeeds and does not have it either, the status 204 says that the bytes were taken. Where it fails,
        or a page came in place of the server's answer, nothing is known of them: raise `UploadGone`, or
        `ConnectionLost`, after which the offset is asked for again.
        """
        try:
            if found.status in self.server.retry_status:
                raise self.refusal(found, LOCKED)
            if is_page(unclear) and is_tus(found):
                raise errors.ConnectionLost("a page came in place of the answer to the bytes", body_sent=True)
            if found.ok and unclear.status == 204 and "Upload-Offset" not in found.headers:
                self._check(found)
                return Position(url, reached, unclear.headers)
            return self._found(url, found)
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

    def lacks(self, exchange: Exchange, answer: Answer) -> str | None:
        """Return what the user is warned of because of a success; a creation without a URL is none."""
        call = exchange.call
        is_other = _creates(exchange, answer) if isinstance(call, Append) else "Location" not in answer.headers
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


def _creates(exchange: Exchange, answer: Answer) -> bool:
    """Return whether a server took the POST in place of a blocked PATCH for a creation, or not for a PATCH."""
    return exchange.posts and exchange.blocked is not None and answer.status in NO_PATCH


def _checked(checksum: str | None) -> dict[str, str]:
    return {} if checksum is None else {"Upload-Checksum": checksum}
