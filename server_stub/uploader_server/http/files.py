"""Responses with stored files, and their digest header."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from uploader_server.http.errors import ApiError
from uploader_server.http.shares import holder_of
from uploader_server.storage.categories import OpenFile
from uploader_server.storage.reading import StoredFile
from uploader_server.storage.store import Store

_WANTED = re.compile(r"(?:^|,)\s*sha-256\s*=\s*0*[1-9]\d*\s*(?:,|$)", re.IGNORECASE)


def repr_digest(sha256: bytes) -> dict[str, str]:
    """Return the `Repr-Digest` header (RFC 9530), or no header for an unknown digest."""
    return {"repr-digest": f"sha-256=:{base64.b64encode(sha256).decode()}:"} if sha256 else {}


async def digest_header(store: Store, file: StoredFile, request: Request) -> dict[str, str]:
    """Return `Repr-Digest` of a stored file if it is known or requested by `Want-Repr-Digest` (RFC 9530).

    Raises ApiError 503 while the digest is being computed, OSError and sqlite3.Error if the disk fails. A file that
    can't be read has no digest.
    """
    if _WANTED.search(request.headers.get("want-repr-digest", "")) is None:
        return repr_digest((await store.digests.known([file])).get(file, b""))
    sha256 = (await store.digests.compute([file], holder_of(request.scope))).get(file)
    if sha256 is None:
        raise ApiError(503, "DIGEST_PENDING", "The digest is being computed; ask again", retry_after=10)
    return repr_digest(sha256)


class Download(FileResponse):
    """A response with an open file, which it closes, and with range support; the type is guessed from the name.

    Uploaded files are untrusted: headers make browsers download them and run no scripts.
    """

    chunk_size = 1 << 20  # each is read in a thread: smaller ones take several times as long

    def __init__(self, path: str, file: OpenFile, headers: Mapping[str, str]) -> None:
        name = path.rpartition("/")[2]
        guarded = {
            "content-disposition": f"attachment; filename*=UTF-8''{quote(os.fsencode(name), safe='')}",
            "x-content-type-options": "nosniff",
            "content-security-policy": "sandbox",
        }
        self._fd = file.fd
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        opened = f"/dev/fd/{file.fd}"  # not its name, which may lead elsewhere by now
        super().__init__(opened, headers={**guarded, **headers}, media_type=kind, stat_result=file.status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:  # without extensions: a server that opens the file itself does so after this call
            await super().__call__({**scope, "extensions": {}}, receive, send)
        finally:
            os.close(self._fd)
