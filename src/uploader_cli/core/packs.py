"""Parse and format packs and lookups (docs/protocol.md sections 6 and 9)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import as_object, number, text
from uploader_cli.core.tus import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class PackOffer:
    """The limits of one pack: files, total bytes, and bytes per file."""

    endpoint: str
    max_files: int
    max_bytes: int
    max_file_size: int


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file in a response. `stored` is False for a failed one, with `error`, `message` and `retryable`."""

    stored: bool
    server_id: str | None = None
    location: str | None = None
    error: str = ""
    message: str = ""
    retryable: bool = False


def parse_offer(body: object, server: str) -> PackOffer | None:
    """Parse the `packs` object of `/health` or of a session response; None if unusable.

    The endpoint may be relative to `server`. Another host is rejected, because it would get the token.
    """
    fields = as_object(body)
    url = endpoint_of(fields.get("endpoint"), server)
    numbers = [number(fields.get(name)) for name in ("maxFiles", "maxBytes", "maxFileSize")]
    if url is None or any(value is None or value < 1 for value in numbers):
        return None
    files, size, one = (int(value or 0) for value in numbers)
    return PackOffer(url, files, size, one)


@dataclass(frozen=True, slots=True)
class LookupOffer:
    """The endpoint for looking up files by path, and the maximum number per request."""

    endpoint: str
    max_files: int


@dataclass(frozen=True, slots=True)
class Found:
    """A file on the server: `size` in bytes and `sha256` (hex), if known."""

    size: int | None
    sha256: str | None
    location: str | None


def parse_lookup_offer(body: object, server: str) -> LookupOffer | None:
    """Parse the `lookup` object beside `packs`; None if unusable, as in `parse_offer`."""
    fields = as_object(body)
    url, most = endpoint_of(fields.get("endpoint"), server), number(fields.get("maxFiles"))
    return LookupOffer(url, int(most)) if url and most is not None and most >= 1 else None


def parse_found(body: object, count: int) -> list[Found | None] | None:
    """Parse the response to a lookup of `count` files, in order; None if invalid."""
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


def manifest(session: str, entries: Iterable[tuple[str, int, str, int]]) -> bytes:
    """Return the manifest of a pack; each entry is (relative path, size, hex SHA-256, mtime in ms)."""
    files = [
        {"relativePath": path, "size": size, "sha256": digest, "lastModified": modified}
        for path, size, digest, modified in entries
    ]
    return json.dumps({"sessionId": session, "files": files}, separators=(",", ":")).encode()


def parse_answer(body: object, count: int) -> list[PackedFile] | None:
    """Parse the response to a pack of `count` files, in order; None if invalid."""
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
