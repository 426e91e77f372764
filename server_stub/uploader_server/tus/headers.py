"""Parsing and validation of tus 1.0 headers (tus.io/protocols/resumable-upload)."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from uploader_server.http.errors import ApiError
from uploader_server.tus.checksums import CHECKSUMS
from uploader_server.wire import TUS, is_uuid

TUS_VERSION = "1.0.0"
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

LONGEST_METADATA = 8 << 10  # maximum characters of Upload-Metadata: a 4 KiB path in base64 and other fields
MOST_FIELDS = 100  # maximum keys in it
MOST_PARTS = 1000  # maximum parts of a final upload
_LONGEST_NUMBER = 18
_UPLOAD_ID = re.compile("[0-9a-f]{32}")
_PLACE = ("finalKey", "finalLength", "partOffset")  # metadata keys of a part that is written in place


def capabilities(max_size: int) -> dict[str, str]:
    """Return the headers of the OPTIONS response.

    tus 1.0, OPTIONS; Upload-Limit is of the IETF's draft, and Checksum-Compared an addition of this server.
    """
    return {
        "tus-version": TUS_VERSION,
        "tus-extension": ",".join(EXTENSIONS),
        "tus-max-size": str(max_size),
        "tus-checksum-algorithm": ",".join(CHECKSUMS),
        "checksum-compared": "1",
        "upload-limit": f"max-size={max_size}",
    }


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER


def number(headers: Mapping[str, str], name: str) -> int | None:
    """Return a header as a non-negative number; None if absent. Raises ApiError 400."""
    text = headers.get(name)
    if text is not None and not _is_number(text):
        raise ApiError(400, "INVALID_HEADER", f"{name} must be a number of bytes", details=text)
    return None if text is None else int(text)


def creation_length(headers: Mapping[str, str], max_size: int) -> int | None:
    """Return Upload-Length, or None for `Upload-Defer-Length: 1` (tus 1.0, creation). Raises ApiError."""
    length, deferred = number(headers, "Upload-Length"), headers.get("Upload-Defer-Length")
    if deferred not in {None, "1"}:
        raise ApiError(400, "INVALID_HEADER", "Upload-Defer-Length must be 1", details=deferred)
    if (length is None) == (deferred is None):
        raise ApiError(400, "INVALID_HEADER", "Send either Upload-Length or Upload-Defer-Length: 1")
    if length is not None:
        check_length(length, max_size)
    return length


def check_length(length: int, max_size: int) -> None:
    """Raise ApiError 413 for more bytes than Tus-Max-Size."""
    if length > max_size:
        raise ApiError(413, "FILE_TOO_LARGE", f"An upload has at most {max_size} bytes")


def parse_metadata(text: str) -> dict[str, str]:
    """Parse Upload-Metadata: `key base64,key base64,key` (tus 1.0, creation). Raises ApiError 400."""
    if len(text) > LONGEST_METADATA:
        raise _bad_metadata(f"it has more than {LONGEST_METADATA} characters")
    fields: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if len(fields) == MOST_FIELDS:
            raise _bad_metadata(f"it has more than {MOST_FIELDS} keys")
        if not key or not key.isascii() or key in fields:
            raise _bad_metadata(f"a key is empty, not ASCII or repeated: {key!r}")
        try:
            fields[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except ValueError as error:  # binascii.Error, UnicodeDecodeError
            raise _bad_metadata(f"the value of {key} is not base64 of UTF-8") from error
    return fields


def encode_metadata(fields: Mapping[str, str]) -> str:
    """Format Upload-Metadata."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items())


def _bad_metadata(details: str) -> ApiError:
    return ApiError(400, "INVALID_METADATA", "Upload-Metadata is invalid", details=details)


class Place(NamedTuple):
    """The range of a part in the final file, from its metadata (docs/extensions.md)."""

    key: str  # `finalKey`: the `uploadKey` of the final upload
    length: int  # `finalLength`: total bytes of all parts
    start: int  # `partOffset`: first byte of the part


def parse_place(fields: Mapping[str, str]) -> Place | None:
    """Parse the metadata of a part; None for a part with its own data file. Raises ApiError 400."""
    if not any(fields.get(key) for key in _PLACE):
        return None
    key, length, start = (fields.get(name, "") for name in _PLACE)
    if not key or not _is_number(length) or not _is_number(start):
        raise _bad_metadata("finalKey, finalLength and partOffset are sent together; the last two are in bytes")
    return Place(key, int(length), int(start))


class Checksum(NamedTuple):
    """Upload-Checksum of one body (tus 1.0, checksum)."""

    algorithm: str
    expected: bytes


def parse_checksum(text: str | None) -> Checksum | None:
    """Parse `sha1 base64`; None if absent. Raises ApiError 400 for an unknown algorithm or a bad value."""
    if text is None:
        return None
    algorithm, _, value = text.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        known = ", ".join(CHECKSUMS)
        raise ApiError(400, "UNKNOWN_CHECKSUM", f"Use one of these algorithms: {known}", details=algorithm)
    try:
        expected = base64.b64decode(value.strip(), validate=True)
    except ValueError:
        expected = b""
    if len(expected) != len(CHECKSUMS[algorithm]().digest()):
        raise ApiError(400, "INVALID_HEADER", "Upload-Checksum must be: algorithm, space, base64", details=text)
    return Checksum(algorithm, expected)


class Concat(NamedTuple):
    """Upload-Concat (tus 1.0, concatenation): of a plain, a partial or a final upload."""

    kind: Literal["", "partial", "final"] = ""
    parts: tuple[str, ...] = ()  # ids of the parts in order


def parse_concat(text: str | None) -> Concat:
    """Parse `partial` or `final;URL URL …`; a plain upload if absent. Raises ApiError 400."""
    if text is None:
        return Concat()
    kind, _, urls = text.strip().partition(";")
    if kind == "partial" and not urls:
        return Concat("partial")
    parts = tuple(_upload_id(url) for url in urls.split())
    if kind != "final" or not parts:
        raise ApiError(400, "INVALID_HEADER", "Upload-Concat must be: partial, or final;URL URL …", details=text)
    if len(parts) > MOST_PARTS or len(set(parts)) < len(parts):
        details = f"a final upload has at most {MOST_PARTS} distinct parts"
        raise ApiError(400, "INVALID_HEADER", "Upload-Concat has too many or repeated parts", details=details)
    return Concat("final", parts)


def _upload_id(url: str) -> str:
    """Return the id in an upload URL. Raises ApiError 400 if it isn't a URL of this server."""
    try:
        path, found, upload_id = urlsplit(url).path.rpartition(TUS)
    except ValueError:  # brackets without an IPv6 address
        path, found, upload_id = "", "", ""
    if not found or not is_upload_id(upload_id) or (path and not path.startswith("/")):
        raise ApiError(
            400, "INVALID_HEADER", "Upload-Concat has a URL that is not an upload of this server", details=url
        )
    return upload_id


def is_upload_id(text: str) -> bool:
    """Return whether the text is 32 lower-case hex digits, or a UUID, as before version 4 of the database."""
    return _UPLOAD_ID.fullmatch(text) is not None or (is_uuid(text) and text == text.lower())
