"""The calls of tus 1.0, one request each: headers out, headers back, errors by class. Retries belong to the caller."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from uploader_cli import errors
from uploader_cli.core.protocol import error_code, error_sentence, whole
from uploader_cli.core.tus import VERSION, Capabilities, capabilities_of, encode_metadata, place, trusts
from uploader_cli.settings import mask
from uploader_cli.transfer.api import answer_error, not_an_upload_server
from uploader_cli.transfer.budget import retry_after
from uploader_cli.transfer.http import READ_TIMEOUT, Answer, Payload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REDIRECTS = 3
"""How many 307 and 308 in a row are followed."""
CHUNK_TIMEOUT = 60.0
"""Seconds for the answer to begin after a chunk's last byte. One that comes too late costs a HEAD, no byte."""
JOIN_TIMEOUT = 300.0
"""Seconds for the answer to a concatenation: servers copy the bytes."""
KINDS: Mapping[int, tuple[type[errors.AnswerError], str]] = {
    409: (errors.OffsetConflict, "the server's offset is not ours"),
    413: (errors.TooLarge, "the server does not take a body of this size"),
    423: (errors.Locked, "another client writes to the upload"),
    460: (errors.ChecksumMismatch, "the chunk did not arrive as it was read"),
}
NO_SESSION = ("SESSION_NOT_FOUND", "SESSION_ENDED")


class Requests(Protocol):
    """The part of `Http` that is needed here: a model stands in for it in tests."""

    def request(
        self,
        method: str,
        url: str,
        *,
        body: Payload | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float = READ_TIMEOUT,
        stranger: bool = False,
    ) -> Answer:
        """See `Http.request`."""


class Chunk(Payload, Protocol):
    """A body that can be repeated, for a redirect."""

    def rewind(self) -> None:
        """Start over."""


@dataclass(frozen=True, slots=True)
class Created:
    """A new upload, or the one that the server has for the key. `offset` in bytes, None where the answer has none."""

    url: str
    offset: int | None
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Position:
    """The server's offset in an upload, in bytes; `length` is None where the server does not say."""

    offset: int
    length: int | None
    headers: Mapping[str, str]


class TusClient:
    """Call a tus endpoint. Each thread has its own client: connections are not shared.

    Upload URLs on another host than the endpoint's are used, but neither the token nor any header of `--header` goes
    there; from https to http nothing goes at all (docs/protocol.md, section 5). Each call raises `NetworkError`,
    `AnswerError` by status, and `ProtocolError` for an answer that is not tus 1.0.
    """

    def __init__(
        self,
        http: Requests,
        endpoint: str,
        headers: Callable[[], Mapping[str, str]],
        note: Callable[[Answer], None] = lambda _answer: None,
    ) -> None:
        """`headers()` returns the credentials for each request; `note(answer)` is called with every answer."""
        self.endpoint = endpoint
        self._http, self._headers, self._note = http, headers, note
        self._used: Mapping[str, str] = {}

    @property
    def stale(self) -> bool:
        """True where another worker has refreshed the token since the last request."""
        return dict(self._headers()) != self._used

    def options(self) -> Capabilities:
        """Ask what the server can do (tus 1.0, core). Raise `NotAnUploadServer` where nothing is at the endpoint."""
        answer = self._send("OPTIONS", self.endpoint, {}, tus=False)
        page = answer.headers.get("Content-Type", "").startswith("text/html") and "Tus-Resumable" not in answer.headers
        if answer.status in (404, 410) or (page and (answer.ok or answer.status == 501)):
            raise not_an_upload_server(answer)
        if not answer.ok and answer.status not in (405, 501):
            raise refusal(answer)
        try:
            return capabilities_of(answer.headers, self.endpoint)
        except ValueError as error:
            raise errors.ProtocolError(f"{self.endpoint}: {error}") from error

    def create(
        self,
        length: int,
        metadata: Mapping[str, str],
        *,
        body: Chunk | None = None,
        checksum: str | None = None,
        partial: bool = False,
    ) -> Created:
        """Create an upload of `length` bytes (tus 1.0, creation; with `body`: creation-with-upload).

        Raise `SessionLost` where the metadata name a session that the server does not know, or that has ended.
        """
        headers = {"Upload-Length": str(length)}
        if partial:
            headers["Upload-Concat"] = "partial"
        if checksum is not None and body is not None:
            headers["Upload-Checksum"] = checksum
        return self._create(headers, metadata, body, READ_TIMEOUT if body is None else CHUNK_TIMEOUT)

    def concatenate(self, urls: Sequence[str], metadata: Mapping[str, str]) -> Created:
        """Join finished partial uploads, in their order (tus 1.0, concatenation)."""
        return self._create({"Upload-Concat": "final;" + " ".join(urls)}, metadata, None, JOIN_TIMEOUT)

    def head(self, url: str) -> Position:
        """Return the server's offset. Raise `UploadGone` where the tus server answers 403, 404 or 410.

        The same status without `Tus-Resumable` comes from something else (a proxy, a captive portal, a redeploy): it
        is raised as a retryable `NotFound`, and says nothing about the upload.
        """
        answer = self._send("HEAD", url, {})
        if answer.status in (403, 404, 410):
            if "Tus-Resumable" in answer.headers:
                raise gone_error(answer)
            error = errors.NotFound(f"{url} answered {answer.status}, but not as a tus server", status=answer.status)
            error.retryable = True
            raise error
        return self._position(answer)

    def patch(self, url: str, offset: int, body: Chunk, checksum: str | None = None) -> Position:
        """Send a chunk that begins at `offset` and return the new offset (tus 1.0, core).

        `checksum` is the value of `Upload-Checksum`. Raise `UploadGone`, here retryable, for 404 and 410.
        """
        headers = {"Upload-Offset": str(offset)}
        if checksum is not None:
            headers["Upload-Checksum"] = checksum
        answer = self._send("PATCH", url, headers, body, read_timeout=CHUNK_TIMEOUT)
        if answer.status in (404, 410):
            gone = gone_error(answer)
            gone.retryable = True  # HEAD decides
            raise gone
        return self._position(answer)

    def terminate(self, url: str) -> None:
        """Delete an upload (tus 1.0, termination). One that the server does not know is no error."""
        answer = self._send("DELETE", url, {})
        if not answer.ok and answer.status not in (404, 410):
            raise refusal(answer)

    def discard(self, url: str) -> None:
        """Delete an upload that is not needed, if the server does it at once: otherwise it expires."""
        with suppress(errors.AnswerError, errors.NetworkError, errors.ProtocolError):
            self.terminate(url)

    # --- one request --------------------------------------------------------------------------------------------------

    def _create(
        self, headers: dict[str, str], metadata: Mapping[str, str], body: Chunk | None, timeout: float
    ) -> Created:
        encoded = encode_metadata(metadata)
        if encoded:  # servers refuse an empty one (wire contract 5)
            headers["Upload-Metadata"] = encoded
        answer = self._send("POST", self.endpoint, headers, body, read_timeout=timeout)
        lost = session_lost(answer)
        if lost is not None:
            raise lost
        self._checked(answer)
        location = answer.headers.get("Location")
        if not location:
            raise errors.ProtocolError(f"{answer.url} created an upload without a Location")
        return Created(_place(answer.url, location), whole(answer.headers.get("Upload-Offset")), answer.headers)

    def _position(self, answer: Answer) -> Position:
        answer = self._checked(answer)
        offset = whole(answer.headers.get("Upload-Offset"))
        if offset is None:
            raise errors.ProtocolError(f"{answer.url} answered {answer.status} without an Upload-Offset")
        return Position(offset, whole(answer.headers.get("Upload-Length")), answer.headers)

    def _checked(self, answer: Answer) -> Answer:
        if not answer.ok:
            raise refusal(answer)
        version = answer.headers.get("Tus-Resumable")
        if version != VERSION:
            said = f"speaks tus {version}, not {VERSION}" if version else "does not answer as tus (no Tus-Resumable)"
            raise errors.ProtocolError(f"{answer.url} {said}")
        return answer

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Chunk | None = None,
        *,
        read_timeout: float = READ_TIMEOUT,
        tus: bool = True,
    ) -> Answer:
        """Send one request and follow 307 and 308: `requests` would empty a redirected PATCH."""
        sent = {"Tus-Resumable": VERSION, **headers} if tus else dict(headers)
        for _ in range(REDIRECTS + 1):
            self._used = dict(self._headers())
            known = url == self.endpoint or trusts(self.endpoint, url)
            answer = self._http.request(
                method,
                url,
                headers={**self._used, **sent} if known else sent,
                body=body,
                read_timeout=read_timeout,
                stranger=not known,
            )
            self._note(answer)
            target = answer.headers.get("Location")
            if answer.status not in (307, 308) or not target:
                return answer
            url = _place(url, target)
            if body is not None:
                body.rewind()
        raise errors.ProtocolError(f"{self.endpoint} redirects again and again, last to {url}")


def _place(base: str, location: str) -> str:
    try:
        return place(base, location)
    except ValueError as error:
        raise errors.ProtocolError(
            f"{base} points to a URL that is not followed: {error}",
            hint="a server behind a TLS proxy has to know its own public address",
        ) from error


# --- refusals by class (docs/protocol.md, section 5, says which of them can be retried) ------------------------------


def session_lost(answer: Answer) -> errors.SessionLost | None:
    """Return the error for a creation that was refused because of its session; None where it was not."""
    code = error_code(answer.body)
    if answer.status not in (404, 409) or code not in NO_SESSION:
        return None
    words = f"the server has no open session for the upload ({code})"
    return errors.SessionLost(words, status=answer.status, error=code)


def gone_error(answer: Answer) -> errors.UploadGone:
    """Return the error for an upload that the server does not have."""
    words = f"the server does not have the upload any more ({answer.status})"
    return errors.UploadGone(words, status=answer.status, error=error_code(answer.body))


def refusal(answer: Answer) -> errors.UploaderError:
    """Return the error for an answer that is not 2xx. Its `retryable` says whether the same request can succeed."""
    if answer.status == 412:
        versions = answer.headers.get("Tus-Version", "")
        return errors.ProtocolError(f"{answer.url} does not speak tus {VERSION} (it says {versions or 'nothing'})")
    plain = answer_error(answer)
    kind, words = KINDS.get(answer.status, (None, ""))
    if kind is None:
        return plain
    said = ": ".join(filter(None, [f"{answer.status} {plain.error}".strip(), mask(error_sentence(answer.body))]))
    return kind(f"{words} ({said})", status=answer.status, error=plain.error, retry_after=retry_after(answer.headers))
