"""tus 1.0 as values: what a server can do, metadata, checksums, chunks, and which URLs are the server's own. Pure."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal
from urllib.parse import urljoin, urlsplit, urlunsplit

from uploader_cli.core.protocol import as_object, number, text, utf8, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = "1.0.0"
CREATION_WITH_UPLOAD = "creation-with-upload"
CONCATENATION = "concatenation"
PREFERRED = ("sha256", "sha1")
"""Checksum algorithms that `auto` takes, best first."""

LARGE = 256 << 20
"""Bytes from which on a file goes up in parts where a connection is slower than the link."""
LARGE_AND_FAR = 8 << 20
"""The same where the server is far away."""
LEAST_PART = 4 << 20
"""Bytes of a part at least, there."""

Checksum = Literal["auto", "none", "sha1", "sha256"]
_UNAMBIGUOUS = re.compile(r"https?://[^\x00-\x20\x7f-\x9f\\/?#@]+(?:[/?#][^\x00-\x1f\x7f\\]*)?", re.IGNORECASE)
"""URLs that every parser reads alike: no user, no backslash, no control character."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # the standard library drops some of them


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a tus server offers, by its session answer, `/health` or OPTIONS. `max_size` in bytes, None for no limit."""

    endpoint: str
    version: str = VERSION
    extensions: frozenset[str] = frozenset()
    checksum_algorithms: frozenset[str] = frozenset()
    max_size: int | None = None

    @property
    def creates_with_upload(self) -> bool:
        """True where the creation may carry the first bytes."""
        return CREATION_WITH_UPLOAD in self.extensions

    @property
    def terminates(self) -> bool:
        """True where uploads can be deleted."""
        return "termination" in self.extensions

    @property
    def concatenates(self) -> bool:
        """True where one file may come as several partial uploads."""
        return CONCATENATION in self.extensions

    def checksum(self, wanted: Checksum) -> str | None:
        """The algorithm to use, None for no checksums. `ValueError` where the one asked for is not offered."""
        offered = self.checksum_algorithms if "checksum" in self.extensions else frozenset[str]()
        if wanted == "auto":
            return next((name for name in PREFERRED if name in offered), None)
        if wanted == "none":
            return None
        if wanted not in offered:
            names = ", ".join(sorted(offered)) or "none"
            raise ValueError(f"the server does not check {wanted} (it offers: {names})")
        return wanted


def parse_capabilities(body: object, server: str) -> Capabilities | None:
    """The `tus` object of a session answer or of `/health` (wire contract 5); None where none can be used.

    The endpoint may be relative to `server`. One on another host is not used: the token would go there.
    """
    fields = as_object(body)
    endpoint = text(fields.get("endpoint"))
    version = text(fields.get("version")) or VERSION
    if not endpoint or version != VERSION:
        return None
    try:
        url = place(server, endpoint)
    except ValueError:
        return None
    if not trusts(server, url):
        return None
    size = number(fields.get("maxSize"))
    return Capabilities(
        endpoint=url,
        version=version,
        extensions=_words(fields.get("extensions")),
        checksum_algorithms=_words(fields.get("checksumAlgorithms")),
        max_size=int(size) if size is not None and size > 0 else None,
    )


def capabilities_of(headers: Mapping[str, str], endpoint: str) -> Capabilities:
    """An answer to OPTIONS (tus 1.0, core). Servers that tell nothing are taken to know creation and no more.

    `ValueError` where the server speaks other versions only.
    """
    versions = _listed(headers.get("Tus-Version"))
    if versions and VERSION not in versions:
        raise ValueError(f"it speaks tus {', '.join(versions)}, not {VERSION}")
    return Capabilities(
        endpoint=endpoint,
        extensions=frozenset(item.lower() for item in _listed(headers.get("Tus-Extension"))),
        checksum_algorithms=frozenset(item.lower() for item in _listed(headers.get("Tus-Checksum-Algorithm"))),
        max_size=whole(headers.get("Tus-Max-Size")) or None,
    )


def encode_metadata(metadata: Mapping[str, str]) -> str:
    """`Upload-Metadata` (tus 1.0, creation): empty for nothing, and then the header is to be left out.

    Bytes in names that are no UTF-8 go percent-escaped. `ValueError` for a key with a space, a comma or non-ASCII.
    """
    pairs = []
    for key, value in metadata.items():
        if not key or not key.isascii() or not key.isprintable() or " " in key or "," in key:
            raise ValueError(f"{key!r} is no key of Upload-Metadata")
        encoded = base64.b64encode(utf8(value).encode()).decode()
        pairs.append(f"{key} {encoded}" if encoded else key)
    return ",".join(pairs)


def checksum_header(algorithm: str, digest: bytes) -> str:
    """`Upload-Checksum` (tus 1.0, checksum)."""
    return f"{algorithm} {base64.b64encode(digest).decode()}"


def chunk_length(offset: int, length: int, size: int) -> int:
    """Bytes of the chunk that begins at `offset` of a file of `length` bytes; 0 at the end."""
    return max(0, min(size, length - offset))


def parts(length: int, count: int) -> Iterator[tuple[int, int]]:
    """`(start, bytes)` of at most `count` parts of nearly equal length, none of them empty (tus 1.0, concatenation)."""
    count = max(1, min(count, length))
    for index in range(count):
        start, end = length * index // count, length * (index + 1) // count
        yield start, end - start


def place(base: str, location: str) -> str:
    """A `Location` as an absolute URL (wire contract 5). `ValueError` where it must not be followed.

    It may be relative. A server behind a TLS proxy may say http of its own host: then it is the base's scheme and port
    that hold. From https to http elsewhere is refused, and so are backslashes, users and control characters.
    """
    location = location.strip(" ")
    if base.endswith("/") and location.startswith(base) and "#" not in location and _UNAMBIGUOUS.fullmatch(location):
        return location  # as nearly all are: parsing takes longer than the rest
    url = urljoin(base, location)
    ours, theirs = urlsplit(base), urlsplit(url)
    if not _UNAMBIGUOUS.fullmatch(url) or _CONTROL.search(location) or not theirs.hostname or theirs.port == 0:
        raise ValueError(f"{location!r} is not a usable URL")
    if ours.scheme == "https" and theirs.scheme == "http":
        if ours.hostname != theirs.hostname:
            raise ValueError(f"{location} would leave https")
        theirs = theirs._replace(scheme=ours.scheme, netloc=ours.netloc)
    return urlunsplit(theirs._replace(fragment=""))


@lru_cache(1024)
def trusts(base: str, url: str) -> bool:
    """True where credentials for `base` may go to `url`: the same origin, or https instead of http on default ports."""
    try:
        ours, theirs = _origin(base), _origin(url)
    except ValueError:  # not a URL at all, or one that parsers read differently
        return False
    return ours == theirs or (ours == ("http", theirs[1], 80) and theirs[::2] == ("https", 443))


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port. Raises `ValueError`."""
    if not _UNAMBIGUOUS.fullmatch(url):
        raise ValueError("not a usable URL")
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _listed(header: str | None) -> list[str]:
    return [item.strip() for item in (header or "").split(",") if item.strip()]


def _words(value: object) -> frozenset[str]:
    return frozenset(str(item).lower() for item in value) if isinstance(value, list) else frozenset()
