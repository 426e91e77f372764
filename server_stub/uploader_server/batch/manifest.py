"""Parsing and validation of pack manifests (docs/protocol.md, section 6)."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from uploader_server.http.errors import ApiError, parse_json

MAX_MANIFEST = 4 << 20  # maximum bytes of a manifest
LATEST = 1 << 53  # latest time in milliseconds: the largest integer that every JSON parser represents exactly
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Entry(NamedTuple):
    """One file of a pack."""

    path: str  # path below the category; not checked for safety yet
    size: int  # bytes
    sha256: str  # 64 lower-case hex digits
    modified: int  # milliseconds since the epoch


class PackLimits(NamedTuple):
    """Limits of a pack; shown as `packs` in `/health` and in the session response."""

    files: int = 1000
    bytes: int = 32 << 20  # data of one pack
    file_size: int = 4 << 20


class Manifest(NamedTuple):
    """The parsed manifest."""

    session: str
    entries: list[Entry]
    total: int  # bytes of the data
    may_rename: bool  # whether a file gets another name if its own is taken
    digest: bytes  # SHA-256 of the files; requests with the same key must have the same digest


def parse_manifest(text: bytes, limits: PackLimits) -> Manifest:
    """Parse a manifest. Raises ApiError: 400 if it is invalid, 413 if the pack is too large."""
    try:
        body = parse_json(text)
    except ValueError as error:
        raise _wrong(f"it is not JSON in UTF-8: {error}") from error
    if not isinstance(body, dict) or not {"sessionId", "files"} <= body.keys() <= {"sessionId", "files", "ifExists"}:
        raise _wrong('it must be an object with the keys "sessionId" and "files", and may have "ifExists"')
    session, files, if_exists = body["sessionId"], body["files"], body.get("ifExists", "rename")
    if not isinstance(session, str):
        raise _wrong('"sessionId" must be a string')
    if if_exists not in ("rename", "fail"):
        raise _wrong('"ifExists" must be rename or fail')
    if not isinstance(files, list) or not files:
        raise _wrong('"files" must be a list of at least one file')
    if len(files) > limits.files:
        raise too_large(f"a pack has at most {limits.files} files")
    entries = [_entry(index, file) for index, file in enumerate(files)]
    if max(entry.size for entry in entries) > limits.file_size:
        raise too_large(f"a file of a pack has at most {limits.file_size} bytes")
    total = sum(entry.size for entry in entries)
    if total > limits.bytes:
        raise too_large(f"a pack has at most {limits.bytes} bytes")
    return Manifest(session, entries, total, if_exists == "rename", _digest(entries))


def _entry(index: int, file: Any) -> Entry:
    if not isinstance(file, dict) or file.keys() != {"relativePath", "size", "sha256", "lastModified"}:
        keys = "lastModified, relativePath, sha256, size"
        raise _wrong(f'"files[{index}]" must be an object with exactly the keys {keys}')
    path, size, sha256, modified = file["relativePath"], file["size"], file["sha256"], file["lastModified"]
    if not isinstance(path, str):
        raise _wrong(f'"files[{index}].relativePath" must be a string')
    if type(size) is not int or size < 0:
        raise _wrong(f'"files[{index}].size" must be a whole number of bytes')
    if not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None:
        raise _wrong(f'"files[{index}].sha256" must be 64 lower-case hex digits')
    if type(modified) is not int or abs(modified) > LATEST:
        raise _wrong(f'"files[{index}].lastModified" must be a whole number of milliseconds')
    return Entry(path, size, sha256, modified)


def _digest(entries: list[Entry]) -> bytes:
    try:
        text = json.dumps(entries, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise _wrong("a relativePath is not valid Unicode: it has a lone surrogate") from error
    return hashlib.sha256(text).digest()


def _wrong(details: str) -> ApiError:
    return ApiError(400, "INVALID_MANIFEST", "The manifest of the pack is invalid", details=details)


def too_large(details: str) -> ApiError:
    """Return a 413 that asks for a smaller pack."""
    return ApiError(413, "PACK_TOO_LARGE", "Send a smaller pack", details=details)
