"""What the IETF's resumable uploads say: requests, and what their answers mean (docs/resumable-uploads.md).

An upload is created empty ("careful upload creation"): so its URL is known before the first byte, whether or not the
server sends interim responses (104). Only a file below `min-size` is sent with the creation. Where a 104 has the URL,
an upload whose creation breaks off is not created again; the progress that others tell is not used: the answer has it.
The length never completes an upload: the request with the last byte declares the end, and the answer says whether it is
complete.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.capabilities import Capabilities, endpoint_for, root_of
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.protocol import as_object, text, whole
from uploader_cli.core.record import Record
from uploader_cli.core.upload_limits import upload_limits
from uploader_cli.transfer.answers import Answer, is_page
from uploader_cli.transfer.protocols.dialect import (
    CHUNK_TIMEOUT,
    LOCKED,
    NOT_CREATED,
    UPLOAD_GONE,
    Exchange,
    Kind,
    Known,
    Outcome,
    Request,
    Server,
    Unusable,
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

INTEROP_VERSION = 8
DRAFT = {"Upload-Draft-Interop-Version": str(INTEROP_VERSION)}  # a header of each request
COMPLETE, INCOMPLETE = "?1", "?0"
WHOLE_TYPE = "application/octet-stream"
"""Content-Type of a creation with all of a file."""
CORRUPTED = (errors.ChecksumMismatch, "the chunk was corrupted in transit")
_BOOLEAN = re.compile(r" *\?([01]) *(?:;.*)?")


class IetfDialect(Record, frozen=True):
    """The IETF's protocol at one server."""

    server: Server
    body_type: str = "application/partial-upload"

    # --- requests

    def options(self) -> Request:
        return Request("OPTIONS", root_of(self.server.endpoint), DRAFT)

    def of_upload(self, method: str, url: str) -> Request:
        return Request(method, url, DRAFT)

    def request(self, exchange: Exchange) -> Request:
        """Return what is sent. The chunk with the last byte of an upload declares its end."""
        match exchange.call:
            case Create() as new:
                return self._creating(new)
            case Append() as chunk:
                headers = DRAFT | {"Upload-Offset": str(chunk.offset)}
                headers |= {"Upload-Complete": COMPLETE if chunk.completes else INCOMPLETE}
                headers |= length_header(chunk.length) | _content_digest(chunk.checksum)
                return Request(
                    "PATCH",
                    chunk.url,
                    headers,
                    body_type=self.body_type,
                    timeout=CHUNK_TIMEOUT,
                    completes=chunk.completes,
                )
            case Locate(url):
                return self.of_upload("HEAD", url)

    def _creating(self, new: Create) -> Request:
        """Create an upload, empty or with all of the file in its body."""
        headers = DRAFT | {"Upload-Complete": COMPLETE if new.has_body else INCOMPLETE}
        headers |= describing(new) | _content_digest(new.checksum)
        headers |= _disposition(new.metadata.get("filename") or new.path.rpartition("/")[2])
        if new.sha256 is not None:
            headers |= _digest("Repr-Digest", b64encode(bytes.fromhex(new.sha256)).decode())
        return Request(
            "POST",
            endpoint_for(self.server.endpoint, new.path),
            headers,
            session=new.metadata.get("sessionId", ""),
            body_type=WHOLE_TYPE,
            timeout=CHUNK_TIMEOUT if new.has_body else None,
            completes=new.completes or new.length == 0,
        )

    # --- answers

    def capabilities(self, answer: Answer, known: Known) -> tuple[Capabilities, Known]:
        """Return the limits of the server."""
        known = _limited(answer.url, answer.headers, known)
        sizes = known.limits.max_size, known.limits.min_size
        announced = "Upload-Limit" in answer.headers
        return Capabilities.of_ietf(self.server.endpoint, *sizes, announced=announced), known

    def interim(self, asked: str, status: int, headers: Mapping[str, str], known: Known) -> tuple[Known, str | None]:
        """Return what a 104 tells: limits, and the URL of the upload."""
        if status != 104 or whole(headers.get("Upload-Draft-Interop-Version")) != INTEROP_VERSION:
            return known, None
        location = headers.get("Location")
        return _limited(asked, headers, known), self.server.upload_at(asked, location) if location else None

    def learned(self, exchange: Exchange, answer: Answer, known: Known) -> Known:
        del exchange
        return _limited(answer.url, answer.headers, known)

    def judged(self, exchange: Exchange, answer: Answer, known: Known, sent: int) -> Outcome:
        """Return what an answer says. Raise `SessionLost`, `NotAnUploadServer`, or another refusal.

        Raise `FileFailure` for a file that is larger than `Upload-Limit` allows.
        """
        match exchange.call:
            case Locate(url) if exchange.unclear is not None:
                return self._found_after(url, answer)
            case _ if answer.status in self.server.retry_status:
                raise self.refusal(answer, LOCKED)
            case Create() as new:
                return self._created(new, exchange.announced, answer, known)
            case Append() as chunk:
                return self._appended(chunk, answer, sent)
            case Locate(url):
                return self._found(url, answer)

    def _created(self, new: Create, announced: frozenset[str], answer: Answer, known: Known) -> Position | Unusable:
        """Return the position after a creation; where all of the file is stored, there may be no upload."""
        length = new.length
        has_all = new.has_body or (length == 0 and "Location" not in answer.headers)
        is_stored = has_all and answer.ok and not is_page(answer) and _flag(answer) is not False
        if (error := not_created(self.server, answer, known, is_upload_server=is_stored)) is not None:
            raise error
        self._check(answer, NOT_CREATED.get(answer.status))
        if is_stored:
            location = answer.headers.get("Location")
            url = self.server.at(answer.url, location) if location else ""
            return Position(url, length, answer.headers, complete=True)
        url = created_at(self.server, answer)
        if others := announced - {url}:
            words = f"{answer.url} announced one upload, and created another one"
            return Unusable((*others, url), errors.ProtocolError(words))
        most = known.limits.max_size
        if most is not None and length is not None and length > most:
            words = f"exceeds the server's limit of {most} bytes"
            return Unusable((url,), errors.FileFailure(words, code=FailureCode.REFUSED_SIZE))
        complete, offset = _flag(answer) or False, whole(answer.headers.get("Upload-Offset")) or 0
        if complete and offset != length:
            words = f"the server ended the upload at its creation, with {offset:,} bytes"
            return Unusable((url,), errors.FileFailure(words, code=FailureCode.SERVER_REFUSED))
        return Position(url, offset, answer.headers, complete=complete)

    def _appended(self, chunk: Append, answer: Answer, sent: int) -> Position | Exchange:
        """Return the new offset. Raise a retryable `UploadGone` for 404 and 410.

        Where the answer does not say whether the upload is complete, `HEAD` does.
        """
        if answer.status in (404, 410):
            raise gone(self.refusal(answer, UPLOAD_GONE))
        self._check(answer)
        complete, reached = _flag(answer), chunk.offset + sent
        if complete is None and chunk.completes:
            return Exchange(Locate(chunk.url), unclear=answer)
        if complete and not chunk.completes:
            words = f"the server ended the upload after {reached:,} bytes"
            raise errors.FileFailure(words, code=FailureCode.SERVER_REFUSED)
        told = whole(answer.headers.get("Upload-Offset"))
        return Position(chunk.url, reached if told is None else told, answer.headers, complete=complete or False)

    def _found(self, url: str, answer: Answer) -> Position:
        """Return the server's offset, and whether the upload is complete. Raise `UploadGone` for 404 and 410.

        Later drafts than version 12 don't require `Upload-Complete`: without it the end is declared again. A page for
        browsers is no answer of the server: it is a retryable `NotFound`.
        """
        if answer.status in (404, 410):
            raise not_of_server(url, answer, " with a page") if is_page(answer) else self.refusal(answer, UPLOAD_GONE)
        self._check(answer)
        length, complete = whole(answer.headers.get("Upload-Length")), _flag(answer) or False
        return Position(url, offset_in(answer), answer.headers, length, complete)

    def _found_after(self, url: str, answer: Answer) -> Position:
        """Return the position after a last chunk whose answer did not say whether the upload is complete."""
        try:
            if answer.status in self.server.retry_status:
                raise self.refusal(answer, LOCKED)
            return self._found(url, answer)
        except errors.AnswerError as error:  # not the answer to the bytes
            words = f"the answer to the last bytes has no Upload-Complete, and HEAD failed: {error}"
            raise errors.ConnectionLost(words, body_sent=True) from error

    def _check(self, answer: Answer, kind: Kind | None = None) -> None:
        """Raise the refusal, unless the answer is a success."""
        if not answer.ok:
            raise self.refusal(answer, kind)

    def lacks(self, exchange: Exchange, answer: Answer) -> str | None:
        del exchange, answer
        return None

    def is_signed(self, answer: Answer) -> bool:
        is_problem = answer.headers.get("Content-Type", "").startswith("application/problem+json")
        return is_problem or "Upload-Complete" in answer.headers or "Upload-Limit" in answer.headers

    def refusal(self, answer: Answer, kind: Kind | None = None) -> errors.UploaderError:
        if answer.status == 412 and (version := answer.headers.get("Upload-Draft-Interop-Version")):
            words = f"{answer.url} implements interop version {version} of the draft, not {INTEROP_VERSION}"
            return errors.ProtocolError(words)
        problem = text(as_object(answer.body).get("type")) or ""
        differs, is_over = problem.endswith("#digest-mismatching-values"), _flag(answer) is True
        kind, strict = CORRUPTED if differs and not is_over else kind, self.server.terms.strict
        error = refusal(answer, kind, signed=self.is_signed(answer), strict=strict)
        if differs and is_over:  # Repr-Digest
            error.code = FailureCode.INTEGRITY
        return error


def _limited(asked: str, headers: Mapping[str, str], known: Known) -> Known:
    """Return what is known with the limits of an answer of `asked`."""
    limits = known.limits.after(upload_limits(headers.get("Upload-Limit")))
    if limits.most is not None and (limits.least or 0) > limits.most:
        words = f"min-append-size {limits.least} is more than max-append-size {limits.most}"
        raise errors.ProtocolError(f"{asked} announces limits that no request can meet: {words}")
    return known if limits == known.limits else replace(known, limits=limits)


def _flag(answer: Answer) -> bool | None:
    """Return `Upload-Complete`; None if it is absent or malformed, which counts as absent."""
    found = _BOOLEAN.fullmatch(answer.headers.get("Upload-Complete", ""))
    return None if found is None else found[1] == "1"


def _disposition(name: str) -> dict[str, str]:
    if not name:
        return {}
    plain = f'filename="{name}"; ' if name.isascii() and name.isprintable() and not set(name) & set('"\\%') else ""
    return {"Content-Disposition": f"inline; {plain}filename*=UTF-8''{quote(name, safe='')}"}


def _content_digest(checksum: str | None) -> dict[str, str]:
    """Return the header for a checksum of tus, `sha256 BASE64`."""
    return {} if checksum is None else _digest("Content-Digest", checksum.partition(" ")[2])


def _digest(field: str, sha256: str) -> dict[str, str]:
    """Return a digest field (RFC 9530) with a SHA-256 in base64."""
    return {field: f"sha-256=:{sha256}:"}
