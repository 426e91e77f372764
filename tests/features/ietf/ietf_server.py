"""A server of the IETF's resumable uploads that does all that the draft says; each defect is one change of this text.

The feature `tester` has the HTTP server: ASGI has no interim responses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

HTTP = import_module("uploader_cli.features.tester.http_server")
Answer: Any = HTTP.Answer
Request = Any

VERSION = "Upload-Draft-Interop-Version"
VERSIONS = ("6", "8")
"""The interop versions that are answered, the last one with 104."""
TYPES = "https://iana.org/assignments/http-problem-types#"
MAX_SIZE, MIN_APPEND, MAX_APPEND, LIFETIME = 1 << 20, 16, 1 << 16, 3600


def sha256(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def integer(request: Request, name: str) -> int | None:
    found = re.fullmatch(r"(\d+)(;.*)?", request.fields.get(name, ""))
    return int(found[1]) if found else None


def boolean(request: Request) -> bool | None:
    return {"?1": True, "?0": False}.get(request.fields.get("upload-complete", ""))


class Upload:
    def __init__(self, number: int, request: Request) -> None:
        self.path, self.ends, self.creation = f"/files/{number}", time.time() + LIFETIME, request
        self.coded = "content-encoding" in request.fields
        self.digest, self.wants = request.fields.get("repr-digest"), "want-repr-digest" in request.fields
        self.length: int | None = integer(request, "upload-length")
        self.data = bytearray()
        self.complete = self.gone = False
        self.appends: list[Request] = []
        self.turn = 0
        """The number of the request that may append."""

    @property
    def offset(self) -> int:
        return len(self.data)


class Exchange:
    """One request."""

    pause = 0.0

    def __init__(self, server: Server, request: Request) -> None:
        self.request, self.created = request, request.path == "/files"
        self.version = {VERSION: request.fields[VERSION.lower()]} if VERSION.lower() in request.fields else {}
        self.upload = server.uploads.get(request.path.rstrip("/"))
        if self.created and request.method == "POST" and boolean(request) is not None and self.known:
            self.upload = Upload(len(server.uploads), request)
            server.uploads[self.upload.path] = self.upload
        self.digest = request.fields.get("content-digest")
        self.turn = 0
        self.refused: Any = self.refusal()

    @property
    def known(self) -> bool:
        return not self.version or self.version[VERSION] in VERSIONS

    @property
    def speaks(self) -> bool:
        return self.upload is not None and self.version.get(VERSION) == VERSIONS[-1]

    @property
    def sends(self) -> bool:
        return self.request.method in ("POST", "PATCH")

    def refusal(self) -> Any:
        """Answer a request that its head refuses, and end an older request."""
        upload, request = self.upload, self.request
        if request.method == "OPTIONS":
            return Answer(204, {"Upload-Limit": self.limits})
        if upload is None:
            return Answer(400 if self.created else 404)
        if upload.gone:
            return Answer(410)
        if request.method == "HEAD":
            upload.turn += 1
        if request.method == "DELETE":
            upload.turn += 1
            upload.gone = True
            return Answer(204)
        if not self.sends:
            return None
        if request.method == "PATCH":
            upload.turn += 1
            upload.appends.append(request)
        self.turn = upload.turn
        if self.created:
            return self.of_creation(upload)
        return self.of_append(upload)

    def of_creation(self, upload: Upload) -> Any:
        if upload.length is not None and upload.length > MAX_SIZE:
            upload.gone = True
            return self.problem(413, "", {"Upload-Limit": self.limits})
        return None

    def of_append(self, upload: Upload) -> Any:
        request, at = self.request, integer(self.request, "upload-offset")
        if request.fields.get("content-type") != "application/partial-upload":
            return self.problem(415)
        if boolean(request) is None or at is None:
            return self.problem(400)
        if at != upload.offset:
            told = {"expected-offset": upload.offset, "provided-offset": at}
            return self.problem(409, "mismatching-upload-offset", {"Upload-Offset": str(upload.offset)}, **told)
        if upload.complete:
            return self.problem(400)
        if request.length is not None and request.length > MAX_APPEND:
            return self.problem(413, "", {"Upload-Limit": self.limits})
        if request.length is not None and request.length < MIN_APPEND and not boolean(request):
            return self.problem(400)
        stated = integer(request, "upload-length")
        end = upload.offset + request.length if boolean(request) and request.length is not None else stated
        if end is not None and upload.length not in (None, end):
            if end > upload.length:
                upload.gone = True
            return self.problem(400, "inconsistent-upload-length")
        upload.length = upload.length if end is None else end
        return None

    def problem(self, status: int, kind: str = "", fields: Mapping[str, str] | None = None, **more: object) -> Any:
        content = json.dumps({**({"type": TYPES + kind} if kind else {}), **more}).encode()
        own = {"Content-Type": "application/problem+json", "Upload-Complete": "?0", **(fields or {})}
        return Answer(status, own, content)

    @property
    def limits(self) -> str:
        limits = f"max-size={MAX_SIZE}, min-append-size={MIN_APPEND}, max-append-size={MAX_APPEND}"
        if self.upload is None:
            return limits
        name = "expires" if self.version.get(VERSION) == "6" else "max-age"
        return f"{limits}, {name}={self.upload.ends - time.time():.0f}"

    def early(self) -> list[Mapping[str, str]]:
        if not (self.created and self.speaks and not self.refused):
            return []
        return [{**self.version, "Location": self.upload.path, "Upload-Limit": self.limits}]

    def late(self) -> list[Mapping[str, str]]:
        if not (self.speaks and self.sends and not self.refused):
            return []
        return [{**self.version, "Upload-Offset": str(self.upload.offset)}]

    def take(self, piece: bytes) -> bool:
        upload, length = self.upload, None if self.upload is None else self.upload.length
        if self.refused or upload is None:
            return True
        if self.ended:
            return False
        if length is not None and upload.offset + len(piece) > length:
            upload.gone = True
            self.refused = self.problem(400)
        elif not self.digest:
            upload.data += piece
        return True

    @property
    def ended(self) -> bool:
        """Whether a newer request has ended this one."""
        return self.upload is not None and self.turn != self.upload.turn

    def answer(self) -> Any:
        upload, request = self.upload, self.request
        if self.refused:
            return self.refused
        if self.sends and self.ended:
            return Answer(0)
        if not self.sends:
            content = bytes(upload.data) if request.method == "GET" else b""
            return Answer(200, {**self.state, "Cache-Control": "no-store"}, content)
        if self.digest and self.digest != sha256(bytes(request.content)):
            return self.problem(400, "digest-mismatching-values")
        if self.digest:
            upload.data += request.content
        if not boolean(request):
            where = {"Location": upload.path} if self.created else {}
            return Answer(201 if self.created else 204, {**where, "Upload-Complete": "?0", "Upload-Limit": self.limits})
        if upload.digest and upload.digest != sha256(bytes(upload.data)):
            upload.gone = True
            return self.problem(400, "digest-mismatching-values")
        upload.complete, upload.length = True, upload.offset
        digest = {"Repr-Digest": sha256(bytes(upload.data))} if upload.wants else {}
        return Answer(200, {"Upload-Complete": "?1", "Content-Location": upload.path, **digest})

    @property
    def state(self) -> dict[str, str]:
        upload = self.upload
        length = {} if upload.length is None else {"Upload-Length": str(upload.length)}
        complete = {"Upload-Complete": f"?{upload.complete:d}", "Upload-Offset": str(upload.offset)}
        return {**complete, **length, "Upload-Limit": self.limits}


class Server:
    """A context manager."""

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self._http = HTTP.HttpServer(lambda request: Exchange(self, request))
        self.url = f"http://127.0.0.1:{self._http.port}/files"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
