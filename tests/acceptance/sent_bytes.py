"""What a proxy saw of uploads, counted independently of the client: which bytes of which upload were sent how often."""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxy import Request

UPLOADS = "/api/upload/files/"


def kind_of(request: Request) -> str:
    """Return `create`, `patch`, `finish`, `batch`, or `other`."""
    path = urlsplit(request.target).path
    if path == UPLOADS and request.method == "POST":
        return "create"
    if path.startswith(UPLOADS) and request.method == "PATCH":
        return "patch"
    if path == "/api/upload/batch":
        return "batch"
    return "finish" if path.startswith("/api/upload/session/") and path.endswith("/finish") else "other"


def created_by(request: Request) -> str:
    """Return the path of the file that a creation names, or the key of a part."""
    pairs = (pair.partition(" ") for pair in request.headers.get("upload-metadata", "").split(","))
    fields = {key: base64.b64decode(value).decode() for key, _, value in pairs}
    return fields.get("relativePath") or fields.get("uploadKey", "")


def uploads(requests: Iterable[Request]) -> Iterator[tuple[Request, str, int]]:
    """Return the requests with bytes of resumable uploads, with the file (or key of a part) and the offset.

    Raises KeyError for an upload without a creation.
    """
    requests = list(requests)
    names = {urlsplit(r.answer["location"]).path: created_by(r) for r in requests if "location" in r.answer}
    for request in requests:
        if kind_of(request) in ("create", "patch") and request.passed:
            name = created_by(request) if kind_of(request) == "create" else names[urlsplit(request.target).path]
            yield request, name, int(request.headers.get("upload-offset", 0))


def sent_again(requests: Iterable[Request]) -> dict[int, Counter[str]]:
    """Return for each epoch and file how many bytes were resent, without files that resent none.

    A file is sent from front to back: all bytes below the highest one were sent. Raises AssertionError for a gap.
    """
    ends: Counter[str] = Counter()
    again: dict[int, Counter[str]] = {}
    for request, name, start in uploads(requests):
        end = start + request.passed
        assert start <= ends[name], f"{name}: {start} follows on {ends[name]}"
        if start < ends[name]:
            again.setdefault(request.epoch, Counter())[name] += min(end, ends[name]) - start
        ends[name] = max(end, ends[name])
    return again
