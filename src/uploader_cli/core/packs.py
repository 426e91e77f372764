"""Parse and format packs and lookups (docs/extensions.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from uploader_cli.core.origins import endpoint_of
from uploader_cli.core.protocol import JsonObject, as_object, integer, text
from uploader_cli.core.record import Record


class PackOffer(Record, frozen=True):
    """The limits of one pack: files, total bytes, and bytes per file."""

    endpoint: str
    max_files: int
    max_bytes: int
    max_file_size: int


class PackedFile(Record, frozen=True):
    """A file in a response. `stored` is False for a failed one, with `error`, `message` and `retryable`.

    `existing`: an equal file was there before.
    """

    stored: bool
    server_id: str | None = None
    location: str | None = None
    error: str = ""
    message: str = ""
    retryable: bool = False
    existing: bool = False


def parse_offer(body: object, server: str) -> PackOffer | None:
    """Parse the `packs` object of `/health` or of a session response; None if unusable."""
    fields = as_object(body)
    url = endpoint_of(fields.get("endpoint"), server)
    limits = [integer(fields.get(name)) or 0 for name in ("maxFiles", "maxBytes", "maxFileSize")]
    return PackOffer(url, *limits) if url is not None and min(limits) >= 1 else None


class LookupOffer(Record, frozen=True):
    """The endpoint for looking up files by path, and the maximum number per request."""

    endpoint: str
    max_files: int


class LookedUp(NamedTuple):
    """A file to look up: its path below the category, its bytes, and its hex SHA-256 if files by any name are meant."""

    category: str
    path: str
    size: int
    sha256: str | None = None

    @property
    def asked(self) -> JsonObject:
        """The file in a request."""
        return {"relativePath": self.path, "size": self.size} | ({"sha256": self.sha256} if self.sha256 else {})


class FoundFile(Record, frozen=True):
    """A file on the server: `size` in bytes and `sha256` (hex), if known; `pending` while the server computes it."""

    size: int | None
    sha256: str | None
    location: str | None
    pending: bool = False


def parse_lookup_offer(body: object, server: str) -> LookupOffer | None:
    """Parse the `lookup` object beside `packs`; None if unusable, as in `parse_offer`."""
    fields = as_object(body)
    url, most = endpoint_of(fields.get("endpoint"), server), integer(fields.get("maxFiles")) or 0
    return LookupOffer(url, most) if url is not None and most >= 1 else None


def parse_found(body: object, count: int) -> list[FoundFile | None] | None:
    """Parse the response to a lookup of `count` files, in order; None if invalid."""
    files = _listed(body, count)
    return None if files is None else [_found(item) for item in files]


def _found(fields: JsonObject) -> FoundFile | None:
    size = integer(fields.get("size"))
    if fields.get("exists") is not True or size is None:
        return None
    sha256, location = text(fields.get("sha256")), text(fields.get("location"))
    return FoundFile(size, sha256, location, pending=fields.get("pending") is True)


def manifest(session: str, entries: Iterable[tuple[str, int, str, int]], **more: str) -> bytes:
    """Return the manifest of a pack; each entry is (relative path, size, hex SHA-256, mtime in ms)."""
    files = [
        {"relativePath": path, "size": size, "sha256": digest, "lastModified": modified}
        for path, size, digest, modified in entries
    ]
    return json.dumps({"sessionId": session, **more, "files": files}, separators=(",", ":")).encode()


def parse_answer(body: object, count: int) -> list[PackedFile] | None:
    """Parse the response to a pack of `count` files, in order; None if invalid."""
    files = _listed(body, count)
    return None if files is None else [_packed(item) for item in files]


def _packed(fields: JsonObject) -> PackedFile:
    if fields.get("status") == "stored":
        server_id, location = text(fields.get("id")), text(fields.get("location"))
        return PackedFile(stored=True, server_id=server_id, location=location, existing=fields.get("existing") is True)
    error, message = text(fields.get("error")) or "", text(fields.get("message")) or ""
    return PackedFile(stored=False, error=error, message=message, retryable=fields.get("retryable") is True)


def _listed(body: object, count: int) -> list[JsonObject] | None:
    files = as_object(body).get("files")
    return [as_object(item) for item in files] if isinstance(files, list) and len(files) == count else None
