"""The calls of the IETF's resumable uploads, one request each, without retries (docs/resumable-uploads.md).

An upload is created empty ("careful upload creation"): so its URL is known before the first byte, whether or not the
server sends interim responses (104). Only a file below `min-size` is sent with the creation. Where a 104 has the URL,
an upload whose creation breaks off is not created again; the progress that others tell is not used: the answer has it.
The length never completes an upload: the request with the last byte declares the end, and the answer says whether it is
complete.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote

from uploader_cli import errors
from uploader_cli.core.capabilities import Capabilities, endpoint_for
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.protocol import as_object, text, whole
from uploader_cli.core.upload_limits import UploadLimits, upload_limits
from uploader_cli.transfer.http_client import READ_TIMEOUT
from uploader_cli.transfer.protocols.machine import Position
from uploader_cli.transfer.refusals import is_page
from uploader_cli.transfer.upload_calls import (
    CHUNK_TIMEOUT,
    UPLOAD_GONE,
    Creation,
    UploadCalls,
    length_header,
    not_of_server,
    offset_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.sizes import ChunkSize
    from uploader_cli.core.terms import Terms
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.bodies import Body
    from uploader_cli.transfer.http_client import Answer
    from uploader_cli.transfer.upload_calls import Kind

INTEROP_VERSION = 8
COMPLETE, INCOMPLETE = "?1", "?0"
WHOLE_TYPE = "application/octet-stream"
"""Content-Type of a creation with all of a file."""
CORRUPTED = (errors.ChecksumMismatch, "the chunk was corrupted in transit")
_BOOLEAN = re.compile(r" *\?([01]) *(?:;.*)?")


class IetfClient(UploadCalls):
    """Call an endpoint of the IETF's protocol."""

    usual = asking = {"Upload-Draft-Interop-Version": str(INTEROP_VERSION)}  # noqa: RUF012 - a constant
    body_type = "application/partial-upload"

    def __init__(self, api: Api, terms: Terms, chunk: ChunkSize | None = None) -> None:
        """`chunk` gets the limits of requests that the server announces."""
        super().__init__(api, terms)
        self._limits, self._chunk = UploadLimits(), chunk

    def _capabilities(self, answer: Answer) -> Capabilities:
        """Return the limits of the server."""
        self._learn(answer.url, answer.headers)
        sizes = self._limits.max_size, self._limits.min_size
        return Capabilities.of_ietf(self.endpoint, *sizes, announced="Upload-Limit" in answer.headers)

    def create(self, new: Creation) -> Position:
        """Create an upload, empty or with all of the file in its body. `on_url` gets the URL of a 104.

        Raise `FileFailure` for a file that is larger than `Upload-Limit` allows.
        """
        headers = {"Upload-Complete": INCOMPLETE if new.body is None else COMPLETE}
        headers |= self._describing(new) | _content_digest(new.checksum)
        headers |= _disposition(new.metadata.get("filename") or new.path.rpartition("/")[2])
        if new.sha256 is not None:
            headers |= _digest("Repr-Digest", b64encode(bytes.fromhex(new.sha256)).decode())
        announced = set[str]()

        def interim(asked: str, status: int, fields: Mapping[str, str]) -> None:
            if status == 104 and whole(fields.get("Upload-Draft-Interop-Version")) == INTEROP_VERSION:
                self._learn(asked, fields)
                if location := fields.get("Location"):
                    announced.add(url := self._place(asked, self._own_path(location)))
                    new.on_url(url)

        if new.body is not None:
            new.body.content_type = WHOLE_TYPE
        timeout = self._patience(READ_TIMEOUT if new.body is None else CHUNK_TIMEOUT, completes=new.length == 0)
        answer = self._send("POST", endpoint_for(self.endpoint, new.path), headers, timeout, new.body, interim)
        has_all = new.body is not None or (new.length == 0 and "Location" not in answer.headers)
        is_stored = has_all and answer.ok and not is_page(answer) and _flag(answer) is not False
        self._check_created(answer, is_stored=is_stored)
        return self._created(answer, new.length, announced, is_stored=is_stored)

    def _created(self, answer: Answer, length: int | None, announced: set[str], *, is_stored: bool) -> Position:
        """Return the position after a creation; where all of the file `is_stored`, there may be no upload."""
        if is_stored:
            self._api.has_created.set()
            location = answer.headers.get("Location")
            url = self._place(answer.url, location) if location else ""
            return Position(url, length, answer.headers, complete=True)
        url = self._created_at(answer)
        if others := announced - {url}:
            for other in (*others, url):
                self.discard(other)
            raise errors.ProtocolError(f"{answer.url} announced one upload, and created another one")
        most = self._limits.max_size
        if most is not None and length is not None and length > most:
            self.discard(url)
            raise errors.FileFailure(f"exceeds the server's limit of {most} bytes", code=FailureCode.REFUSED_SIZE)
        complete, offset = _flag(answer) or False, whole(answer.headers.get("Upload-Offset")) or 0
        if complete and offset != length:
            self.discard(url)
            words = f"the server ended the upload at its creation, with {offset:,} bytes"
            raise errors.FileFailure(words, code=FailureCode.SERVER_REFUSED)
        return Position(url, offset, answer.headers, complete=complete)

    def head(self, url: str) -> Position:
        """Return the server's offset, and whether the upload is complete. Raise `UploadGone` for 404 and 410.

        Later drafts than version 12 don't require `Upload-Complete`: without it the end is declared again. A page for
        browsers is no answer of the server: it is a retryable `NotFound`.
        """
        answer = self._send("HEAD", url, {})
        if answer.status in (404, 410):
            raise not_of_server(url, answer, " with a page") if is_page(answer) else self._refusal(answer, UPLOAD_GONE)
        self._check(answer)
        length, complete = whole(answer.headers.get("Upload-Length")), _flag(answer) or False
        return Position(url, offset_in(answer), answer.headers, length, complete)

    def patch(
        self, url: str, offset: int, body: Body, checksum: str | None = None, length: int | None = None
    ) -> Position:
        """Send a chunk at `offset`; with the last byte of an upload of `length` bytes, declare its end.

        Raise a retryable `UploadGone` for 404 and 410. Where the answer does not say whether the upload is complete,
        `HEAD` does.
        """
        completes = length is not None and offset + len(body) == length
        own = {"Upload-Offset": str(offset), "Upload-Complete": COMPLETE if completes else INCOMPLETE}
        own |= length_header(length) | _content_digest(checksum)
        answer = self._send("PATCH", url, own, CHUNK_TIMEOUT, body)
        self._check_there(answer)
        self._check(answer)
        complete = _flag(answer)
        if complete is None and completes:
            return self._completed(url)
        if complete and not completes:
            words = f"the server ended the upload after {offset + body.sent:,} bytes"
            raise errors.FileFailure(words, code=FailureCode.SERVER_REFUSED)
        reported = whole(answer.headers.get("Upload-Offset"))
        return Position(
            url, offset + body.sent if reported is None else reported, answer.headers, complete=complete or False
        )

    def _completed(self, url: str) -> Position:
        """Return the position after a last chunk whose answer did not say whether the upload is complete."""
        try:
            return self.head(url)
        except errors.AnswerError as error:  # not the answer to the bytes
            words = f"the answer to the last bytes has no Upload-Complete, and HEAD failed: {error}"
            raise errors.ConnectionLost(words, body_sent=True) from error

    def _check(self, answer: Answer) -> None:
        """Raise the refusal, unless the answer is a success; learn the limits that it names."""
        self._learn(answer.url, answer.headers)
        if not answer.ok:
            raise self._refusal(answer)

    def _learn(self, asked: str, headers: Mapping[str, str]) -> None:
        limits = self._limits.after(upload_limits(headers.get("Upload-Limit")))
        if limits.most is not None and (limits.least or 0) > limits.most:
            words = f"min-append-size {limits.least} is more than max-append-size {limits.most}"
            raise errors.ProtocolError(f"{asked} announces limits that no request can meet: {words}")
        if limits != self._limits and self._chunk is not None:
            self._chunk.restrict(limits.least, limits.most)
        self._limits = limits

    def _is_signed(self, answer: Answer) -> bool:
        is_problem = answer.headers.get("Content-Type", "").startswith("application/problem+json")
        return is_problem or "Upload-Complete" in answer.headers or "Upload-Limit" in answer.headers

    def _refusal(self, answer: Answer, kind: Kind | None = None) -> errors.UploaderError:
        if answer.status == 412 and (version := answer.headers.get("Upload-Draft-Interop-Version")):
            words = f"{answer.url} implements interop version {version} of the draft, not {INTEROP_VERSION}"
            return errors.ProtocolError(words)
        problem = text(as_object(answer.body).get("type")) or ""
        differs, is_over = problem.endswith("#digest-mismatching-values"), _flag(answer) is True
        error = super()._refusal(answer, CORRUPTED if differs and not is_over else kind)
        if differs and is_over:  # Repr-Digest
            error.code = FailureCode.INTEGRITY
        return error


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
