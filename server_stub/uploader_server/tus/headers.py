"""The headers of tus 1.0 (tus.io/protocols/resumable-upload): what they mean, and when they are refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from uploader_server.http.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VERSION = "1.0.0"
ENDPOINT = "/api/upload/files/"
BODY_TYPE = "application/offset+octet-stream"
EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
)
CHECKSUMS: dict[str, Callable[[], Any]] = {
    "sha256": hashlib.sha256,
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "md5": lambda: hashlib.md5(usedforsecurity=False),
}

LONGEST_METADATA = 8 << 10
"""Characters of Upload-Metadata: a path of 4 KiB in base64, and the rest."""
MOST_PARTS = 1000
"""Parts of a final upload."""
_LONGEST_NUMBER = 18
_PLACE = ("finalKey", "finalLength", "partOffset")
"""Metadata of a part that is written in place."""
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class TusError(ApiError):
    """An ApiError about one upload or the protocol; `headers` go into the answer."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, code, message, headers=headers)


def described(max_size: int) -> dict[str, Any]:
    """`tus` in the session answer and in `/health` (docs/protocol.md, section 5)."""
    return {
        "endpoint": ENDPOINT,
        "version": VERSION,
        "extensions": list(EXTENSIONS),
        "checksumAlgorithms": list(CHECKSUMS),
        "maxSize": max_size,
    }


def capabilities(max_size: int) -> dict[str, str]:
    """The headers that answer OPTIONS (tus 1.0, OPTIONS)."""
    return {
        "tus-version": VERSION,
        "tus-extension": ",".join(EXTENSIONS),
        "tus-max-size": str(max_size),
        "tus-checksum-algorithm": ",".join(CHECKSUMS),
    }


def number(headers: Mapping[str, str], name: str) -> int | None:
    """A header that is a non-negative number of bytes; None where it is absent. Raises ApiError 400."""
    text = headers.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > _LONGEST_NUMBER:
        raise ApiError(400, "INVALID_HEADER", f"{name} must be a number of bytes", details=text)
    return int(text)


def creation_length(headers: Mapping[str, str], max_size: int) -> int | None:
    """Upload-Length of a creation, or None with `Upload-Defer-Length: 1` (tus 1.0, creation). Raises ApiError."""
    length, deferred = number(headers, "Upload-Length"), headers.get("Upload-Defer-Length")
    if deferred not in {None, "1"}:
        raise ApiError(400, "INVALID_HEADER", "Upload-Defer-Length must be 1", details=deferred)
    if (length is None) == (deferred is None):
        raise ApiError(400, "INVALID_HEADER", "Send either Upload-Length or Upload-Defer-Length: 1")
    if length is not None:
        check_length(length, max_size)
    return length


def check_length(length: int, max_size: int) -> None:
    """Raises ApiError 413 for more bytes than Tus-Max-Size."""
    if length > max_size:
        raise ApiError(413, "FILE_TOO_LARGE", f"An upload may have {max_size} bytes at most")


def parse_metadata(text: str) -> dict[str, str]:
    """Upload-Metadata: `key base64,key base64,key` (tus 1.0, creation); empty is none. Raises ApiError 400."""
    if len(text) > LONGEST_METADATA:
        raise _bad_metadata(f"it has more than {LONGEST_METADATA} characters")
    fields: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not key or not key.isascii() or key in fields:
            raise _bad_metadata(f"a key is empty, not ASCII or there twice: {key!r}")
        try:
            fields[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError) as error:
            raise _bad_metadata(f"the value of {key} is not base64 of UTF-8") from error
    return fields


def _bad_metadata(details: str) -> ApiError:
    return ApiError(400, "INVALID_METADATA", "Upload-Metadata can't be read", details=details)


class Place(NamedTuple):
    """Where the bytes of a part go, as its metadata say."""

    key: str
    """`finalKey`: the `uploadKey` of the upload that will join the parts."""
    length: int
    """`finalLength`: bytes of all parts together."""
    start: int
    """`partOffset`: where the part begins, in bytes."""


def parse_place(fields: Mapping[str, str]) -> Place | None:
    """Read the metadata of a part; None where it is one of its own. Raises ApiError 400."""
    if not any(fields.get(key) for key in _PLACE):
        return None
    key, length, start = (fields.get(name, "") for name in _PLACE)
    for number in (length, start):
        if not key or not number.isascii() or not number.isdigit() or len(number) > _LONGEST_NUMBER:
            details = "finalKey comes with finalLength and partOffset, which are numbers of bytes"
            raise ApiError(400, "INVALID_METADATA", "Upload-Metadata can't be read", details=details)
    return Place(key, int(length), int(start))


@dataclass(frozen=True)
class Checksum:
    """Upload-Checksum of one body (tus 1.0, checksum)."""

    algorithm: str
    expected: bytes

    def hasher(self) -> Any:
        """A fresh hash object of the algorithm."""
        return CHECKSUMS[self.algorithm]()


def parse_checksum(text: str | None) -> Checksum | None:
    """`sha1 base64`; None where it is absent. Raises ApiError 400 for an unknown algorithm or a bad value."""
    if text is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        known = ", ".join(CHECKSUMS)
        raise ApiError(400, "UNKNOWN_CHECKSUM", f"Use one of these algorithms: {known}", details=algorithm)
    try:
        expected = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        expected = b""
    if len(expected) != CHECKSUMS[algorithm]().digest_size:
        raise ApiError(400, "INVALID_HEADER", "Upload-Checksum must be: algorithm, space, base64", details=text)
    return Checksum(algorithm, expected)


@dataclass(frozen=True)
class Concat:
    """Upload-Concat (tus 1.0, concatenation): of a plain upload, of a part, or of the whole made of parts."""

    kind: Literal["", "partial", "final"] = ""
    parts: tuple[str, ...] = ()
    """Ids of the parts, in order."""


def parse_concat(text: str | None) -> Concat:
    """Absent, `partial` or `final;URL URL …`. Raises ApiError 400 for anything else."""
    if text is None:
        return Concat()
    kind, _, urls = text.strip().partition(";")
    if kind == "partial" and not urls:
        return Concat("partial")
    parts = tuple(_upload_id(url) for url in urls.split())
    if kind != "final" or not parts:
        raise ApiError(400, "INVALID_HEADER", "Upload-Concat must be: partial, or final;URL URL …", details=text)
    if len(parts) > MOST_PARTS or len(set(parts)) < len(parts):
        details = f"a final upload has at most {MOST_PARTS} parts, each of them once"
        raise ApiError(400, "INVALID_HEADER", "Upload-Concat names too many parts, or one twice", details=details)
    return Concat("final", parts)


def _upload_id(url: str) -> str:
    """The id in an upload URL, absolute or not. Raises ApiError 400 for a URL that is none of ours."""
    try:
        path, found, upload_id = urlsplit(url).path.rpartition(ENDPOINT)
    except ValueError:  # brackets that hold no address
        path, found, upload_id = "", "", ""
    if not found or not is_upload_id(upload_id) or (path and not path.startswith("/")):
        raise ApiError(400, "INVALID_HEADER", "Upload-Concat names a URL that is no upload here", details=url)
    return upload_id


def is_upload_id(text: str) -> bool:
    """Whether this could be the id of an upload: a UUID in lower case."""
    return _ID.fullmatch(text) is not None
