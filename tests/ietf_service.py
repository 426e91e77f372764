"""Any server of the IETF's resumable uploads (interop version 8) that is not ours: it offers nothing of tus."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any, Self

from scripted_server import Answer, Request, Rule, ScriptedServer

INTERIM = b"HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Draft-Interop-Version: %d\r\n%s\r\n\r\n"


@dataclass
class WithInterim(Answer):
    """An answer after an interim one (104) with this header."""

    interim: str = ""
    version: int = 8
    breaks: bool = False  # whether the connection ends before the final answer

    def sent_to(self, method: str) -> bytes:
        """Return the bytes of both."""
        if self.breaks:
            self.headers["Connection"] = "close"
        return INTERIM % (self.version, self.interim.encode()) + (b"" if self.breaks else super().sent_to(method))


@dataclass
class Resource:
    """One upload, with the sizes of the requests that it was sent in."""

    length: int | None
    name: str
    content: bytearray = field(default_factory=bytearray)
    chunks: list[int] = field(default_factory=list)
    complete: bool = False
    gone: bool = False  # deleted, or more bytes arrived than it has


class IetfService:
    """A context manager; `url` is where uploads are created."""

    def __init__(self, limits: str = "min-size=0") -> None:
        self.limits = limits
        self.least = 0  # a smaller file gets no upload
        self.uploads: list[Resource] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Method and headers of each, without those to unknown uploads."""
        self.silent = False  # whether answers to PATCH lack Upload-Complete and Upload-Offset
        self.terse = False  # whether answers to HEAD have the offset alone
        self.repeats = True  # whether it then repeats the final answer, in place of a refusal
        self.cuts: list[int] = []  # the bytes after which the next PATCH requests break off
        self.lost = 0  # the answers to so many requests that complete an upload are lost
        self.processed: Answer | None = None  # the answer of what processes a complete upload, in place of 200
        self.never_complete = False  # whether requests that complete an upload are answered as if they did not
        self.ends_at_once = False  # whether it says that an upload is complete when it is created
        self.early = 0  # the server ends so many uploads after their first chunk
        self.kept: list[int] = []  # the bytes that are kept of the next PATCH requests, which succeed
        self.forgets = 0  # so many uploads are gone after their first chunk
        self.waits_at: int | None = None  # an upload with so many bytes is gone, and its answer waits for `goes_on`
        self.waits, self.goes_on = threading.Event(), threading.Event()
        self.at_creation = ""  # further limits in the answers to creations
        self.broken_creations = 0  # so many connections end after the interim answer to a creation
        self.interim_version = 8
        self.refusals: list[int] = []  # statuses of the next creations, after the interim answer
        self.readable = False  # whether GET gives out a complete upload
        self.moves = False  # whether the answer to a creation has another URL than the interim one

    def __enter__(self) -> Self:
        self._server = ScriptedServer(Rule(self._answer)).__enter__()
        self.url = f"{self._server.url}/files"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)  # type: ignore[arg-type]

    def sent(self, method: str) -> list[dict[str, str]]:
        """Return the headers of the requests with this method."""
        return [headers for sent, headers in self.requests if sent == method]

    def _answer(self, request: Request) -> Answer | None:
        number = request.path.rpartition("/")[2]
        known = int(number) if number.isdigit() else len(self.uploads)
        if request.path != "/files" and known >= len(self.uploads):
            return Answer(404)
        self.requests.append((request.method, request.headers))
        answer = self._answer_to(request, known)
        if self.waits_at is not None and self.uploads and len(self.uploads[-1].content) == self.waits_at:
            self.waits_at, self.uploads[-1].gone = None, True
            self.waits.set()
            self.goes_on.wait(30.0)
        return answer

    def _answer_to(self, request: Request, known: int) -> Answer | None:
        if request.method == "OPTIONS":
            return Answer(204, headers={"Upload-Limit": self.limits})
        if request.method == "POST":
            return self._create(request)
        upload = self.uploads[known]
        if upload.gone:
            return Answer(410)
        if request.method == "GET":
            return Answer(200, bytes(upload.content)) if self.readable and upload.complete else Answer(405)
        if request.method == "HEAD":
            return Answer(204, headers={"Upload-Offset": len(upload.content)} if self.terse else self._state(upload))
        upload.gone = request.method == "DELETE"
        return self._append(upload, request) if request.method == "PATCH" else Answer(204)

    def _create(self, request: Request) -> Answer | None:
        length = request.headers.get("upload-length")
        upload = Resource(None if length is None else int(length), request.headers["content-disposition"])
        if upload.length is not None and upload.length < self.least:
            return self._store(upload, request)
        assert (request.headers["upload-complete"], request.body) == ("?0", b"")
        self.uploads.append(upload)
        place = f"{self.url}/{len(self.uploads) - 1}"
        limits = ", ".join(filter(None, (self.limits, self.at_creation)))
        headers = {"Location": place, "Upload-Complete": f"?{self.ends_at_once:d}", "Upload-Limit": limits}
        if self.moves:
            self.uploads.append(Resource(upload.length, upload.name))
            headers["Location"] = f"{place[:-1]}{len(self.uploads) - 1}"
        self.broken_creations -= 1
        how: dict[str, Any] = {"version": self.interim_version, "breaks": self.broken_creations >= 0}
        status = self.refusals.pop(0) if self.refusals else 201
        return WithInterim(status, headers=headers, interim=f"Location: {place}", **how)

    def _store(self, upload: Resource, request: Request) -> Answer | None:
        """Store a file that is too small for an upload, as a server that knows nothing of this protocol."""
        sent = request.headers["upload-complete"], request.headers.get("content-type"), len(request.body)
        if upload.length and sent != ("?1", "application/octet-stream", upload.length):
            return Answer(400)
        upload.content, upload.complete = bytearray(request.body), True
        self.uploads.append(upload)
        self.lost -= 1
        return None if self.lost >= 0 else Answer(201)

    def _append(self, upload: Resource, request: Request) -> Answer | None:
        assert request.headers["content-type"] == "application/partial-upload"
        offset, completes = request.headers["upload-offset"], request.headers["upload-complete"] == "?1"
        if not offset.isdigit() or upload.complete:
            return Answer(200 if self.terse and self.repeats else 400, headers={"Upload-Complete": f"?{self.terse:d}"})
        if int(offset) != len(upload.content):
            return Answer(409, headers={**self._state(upload), "Upload-Complete": "?0"})
        if self.cuts:
            upload.content += request.body[: self.cuts.pop(0)]
            return None
        announced, stated = int(request.headers["content-length"]), request.headers.get("upload-length")
        length = upload.length if stated is None else int(stated)
        end = int(offset) + announced
        if length is not None and end > length:
            upload.gone = True
            return Answer(413, headers={"Upload-Complete": "?0"})
        if upload.length not in (None, length) or (completes and length not in (None, end)):
            return Answer(400, headers={"Upload-Complete": "?0"})
        if _differs(request):
            return Answer(400, headers={"Upload-Complete": "?0"})
        upload.length = end if completes else length
        if self.kept:
            upload.content += request.body[: self.kept.pop(0)]
            return Answer(200, headers={"Upload-Complete": "?0", "Upload-Offset": len(upload.content)})
        upload.content += request.body
        if len(request.body) < announced:
            return None
        upload.chunks.append(len(request.body))
        upload.complete = self.early > 0 or completes
        self.early -= not completes
        upload.gone = self.forgets > 0
        self.forgets -= 1
        upload.complete = upload.complete and not self.never_complete
        if upload.complete and self.lost > 0:
            self.lost -= 1
            return None
        interim = f"Upload-Offset: {len(upload.content)}"
        if self.silent:
            return WithInterim(200, interim=interim)
        if upload.complete and self.processed is not None:
            return self.processed
        return WithInterim(200, headers={"Upload-Complete": f"?{upload.complete:d}"}, interim=interim)

    def _state(self, upload: Resource) -> dict[str, Any]:
        length = {} if upload.length is None else {"Upload-Length": upload.length}
        state = {"Upload-Offset": len(upload.content), "Upload-Complete": f"?{upload.complete:d}"}
        return {**state, **length, "Upload-Limit": self.limits}


def _differs(request: Request) -> bool:
    """Return whether the content has another digest than its header (RFC 9530)."""
    digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
    return request.headers.get("content-digest", f"sha-256=:{digest}:") != f"sha-256=:{digest}:"
