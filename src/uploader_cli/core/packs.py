"""Packs and the lookup as values: what a server offers, requests and answers (docs/protocol.md, sections 6 and 9)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import as_object, number, text
from uploader_cli.core.tus import place, trusts

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class PackOffer:
    """What a server takes in one pack: files, bytes of all of them, and bytes of one."""

    endpoint: str
    max_files: int
    max_bytes: int
    max_file_size: int


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One entry of an answer. `stored` is False for a file that failed: `error`, `message` and `retryable` say why."""

    stored: bool
    server_id: str | None = None
    location: str | None = None
    error: str = ""
    message: str = ""
    retryable: bool = False


def parse_offer(body: object, server: str) -> PackOffer | None:
    """Return the `packs` object of `/health` or of a session answer; None where none can be used.

    The endpoint may be relative to `server`. One on another host is not used: the token would go there.
    """
    fields = as_object(body)
    url = _endpoint(fields.get("endpoint"), server)
    numbers = [number(fields.get(name)) for name in ("maxFiles", "maxBytes", "maxFileSize")]
    if url is None or any(value is None or value < 1 for value in numbers):
        return None
    files, size, one = (int(value or 0) for value in numbers)
    return PackOffer(url, files, size, one)


@dataclass(frozen=True, slots=True)
class LookupOffer:
    """Where to ask for files by their paths, and how many at once."""

    endpoint: str
    max_files: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file on the server: `size` in bytes, `sha256` (hex) where the server knows it."""

    size: int
    sha256: str | None
    location: str | None


def parse_lookup_offer(body: object, server: str) -> LookupOffer | None:
    """Return the `lookup` object beside `packs`; None where none can be used, as in `parse_offer`."""
    fields = as_object(body)
    url, most = _endpoint(fields.get("endpoint"), server), number(fields.get("maxFiles"))
    return LookupOffer(url, int(most)) if url and most is not None and most >= 1 else None


def parse_found(body: object, count: int) -> list[Found | None] | None:
    """Return what a lookup of `count` files found, in their order; None where it is no such answer."""
    files = as_object(body).get("files")
    if not isinstance(files, list) or len(files) != count:
        return None
    found: list[Found | None] = []
    for item in files:
        fields = as_object(item)
        size = number(fields.get("size"))
        if fields.get("exists") is True and size is not None:
            found.append(Found(int(size), text(fields.get("sha256")), text(fields.get("location"))))
        else:
            found.append(None)
    return found


def _endpoint(value: object, server: str) -> str | None:
    """Return an endpoint as a URL of `server`; None for one on another host: the token would go there."""
    try:
        url = place(server, text(value) or "")
    except ValueError:
        return None
    return url if text(value) and trusts(server, url) else None


def manifest(session: str, entries: Iterable[tuple[str, int, str, int]]) -> bytes:
    """Return the manifest; each entry is (relative path, size, hex SHA-256, mtime in ms)."""
    files = [
        {"relativePath": path, "size": size, "sha256": digest, "lastModified": modified}
        for path, size, digest, modified in entries
    ]
    return json.dumps({"sessionId": session, "files": files}, separators=(",", ":")).encode()


def parse_answer(body: object, count: int) -> list[PackedFile] | None:
    """Return the entries of an answer, in the manifest's order; None unless there are `count` of them."""
    files = as_object(body).get("files")
    if not isinstance(files, list) or len(files) != count:
        return None
    out = []
    for item in files:
        fields = as_object(item)
        if fields.get("status") == "stored":
            out.append(PackedFile(stored=True, server_id=text(fields.get("id")), location=text(fields.get("location"))))
        else:
            error, message = text(fields.get("error")) or "", text(fields.get("message")) or ""
            out.append(
                PackedFile(stored=False, error=error, message=message, retryable=fields.get("retryable") is True)
            )
    return out
