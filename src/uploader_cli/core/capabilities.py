"""tus 1.0: capabilities, metadata, checksums, chunks and parts."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal
from urllib.parse import quote

from uploader_cli.core.origins import endpoint_of
from uploader_cli.core.protocol import NOBODY, as_object, number, text, utf8, whole
from uploader_cli.core.record import Record
from uploader_cli.core.upload_limits import upload_limits

TUS_VERSION = "1.0.0"
CREATION_WITH_UPLOAD = "creation-with-upload"
CONCATENATION = "concatenation"
PREFERRED = ("crc32c", "sha256", "sha1")  # checksum algorithms for `auto`, the cheapest first

LARGE = 256 << 20  # minimum bytes of a file for parallel parts, where one connection is slower than the link
LARGE_AND_FAR = 10 << 20  # the same for a distant server
LEAST_PART = 5 << 20  # minimum bytes of a part: S3 joins no smaller ones
QUEUED_PART = 16 << 20  # the same for parts that wait: it takes seconds to send one, in which jobs are added

Checksum = Literal["auto", "none", "crc32c", "sha1", "sha256"]
_FIELD = re.compile(r"\{(?:path|name|dir)\}")


class Capabilities(Record, frozen=True):
    """The capabilities of a tus server, from its session response, `/health` or OPTIONS. `max_size` None: no limit."""

    endpoint: str
    extensions: frozenset[str] = frozenset()
    checksum_algorithms: frozenset[str] = frozenset()
    max_size: int | None = None
    announced: bool = True  # whether OPTIONS was answered as tus servers answer it
    ietf: bool = False  # whether uploads use the IETF's protocol, not tus 1.0
    resumes_from: int = 0  # smaller files are sent with the creation of their upload
    compares_checksums: bool = False  # whether OPTIONS says that a checksum that is accepted was compared

    @classmethod
    def of_ietf(
        cls, endpoint: str, max_size: int | None, min_size: int | None = None, *, announced: bool = True
    ) -> Capabilities:
        """Return what every server of the IETF's protocol can do, in terms of tus.

        Servers may ignore digests, and announce none: they are sent where they cost little.
        """
        extensions = frozenset(("creation", "creation-defer-length", "termination", "checksum"))
        return cls(
            endpoint, extensions, frozenset(("sha256",)), max_size, announced, ietf=True, resumes_from=min_size or 0
        )

    @property
    def creates_with_upload(self) -> bool:
        """True if the creation may carry the first bytes."""
        return CREATION_WITH_UPLOAD in self.extensions

    @property
    def terminates(self) -> bool:
        """True if uploads can be deleted."""
        return "termination" in self.extensions

    @property
    def defers_length(self) -> bool:
        """True if the length of an upload may be sent at its end."""
        return "creation-defer-length" in self.extensions

    @property
    def concatenates(self) -> bool:
        """True if a file may be sent as several partial uploads."""
        return CONCATENATION in self.extensions

    def checksum(self, wanted: Checksum, is_fast: Callable[[str], bool]) -> str | None:
        """Return the algorithm to use, None for no checksums. Raise `ValueError` if `wanted` is unsupported.

        `is_fast(algorithm)` returns whether `auto` may choose it.
        """
        offered = self.checksum_algorithms if "checksum" in self.extensions else frozenset[str]()
        if wanted == "auto":
            return next((name for name in PREFERRED if name in offered and is_fast(name)), None)
        if wanted == "none":
            return None
        if wanted not in offered:
            names = ", ".join(sorted(offered)) or "none"
            raise ValueError(f"the server does not support {wanted} (it supports: {names})")
        return wanted


def parse_capabilities(body: object, server: str) -> Capabilities | None:
    """Parse the `tus` object of a session response or `/health` (docs/resumable-uploads.md); None if unusable."""
    fields = as_object(body)
    url, size = endpoint_of(fields.get("endpoint"), server), number(fields.get("maxSize"))
    if url is None or (text(fields.get("version")) or TUS_VERSION) != TUS_VERSION:
        return None
    return Capabilities(
        endpoint=url,
        extensions=_words(fields.get("extensions")),
        checksum_algorithms=_words(fields.get("checksumAlgorithms")),
        max_size=int(size) if size is not None and size > 0 else None,
    )


def capabilities_of(headers: Mapping[str, str], endpoint: str) -> Capabilities:
    """Parse a response to OPTIONS (tus 1.0, core). A server without these headers is assumed to support only creation.

    A server with `Upload-Limit` and nothing of tus speaks the IETF's protocol.

    Raises `ValueError` if the server supports only other versions.
    """
    versions = _listed(headers.get("Tus-Version"))
    if versions and TUS_VERSION not in versions:
        raise ValueError(f"it supports tus {', '.join(versions)}, not {TUS_VERSION}")
    announced = bool(versions) or "Tus-Resumable" in headers
    limits = None if announced else upload_limits(headers.get("Upload-Limit"))
    if limits is not None:
        return Capabilities.of_ietf(endpoint, limits.max_size, limits.min_size)
    return Capabilities(
        endpoint=endpoint,
        extensions=frozenset(item.lower() for item in _listed(headers.get("Tus-Extension"))),
        checksum_algorithms=frozenset(item.lower() for item in _listed(headers.get("Tus-Checksum-Algorithm"))),
        max_size=whole(headers.get("Tus-Max-Size")) or None,
        compares_checksums=headers.get("Checksum-Compared") == "1",
        announced=announced,
    )


def unknown_upload(endpoint: str) -> str:
    """Return the URL of an upload that no server has."""
    path, mark, query = root_of(endpoint).partition("?")
    return f"{path.rstrip('/')}/{NOBODY}{mark}{query}"


def names_files(endpoint: str) -> bool:
    """Return whether an endpoint has a field, so that there is a URL for each file."""
    return "{" in endpoint


def endpoint_for(endpoint: str, path: str) -> str:
    """Return the URL where the upload of the file `path` is created: the endpoint with its fields replaced."""
    directory, _, name = path.rpartition("/")
    values = {"{path}": path, "{name}": name, "{dir}": directory}
    template = endpoint if directory else endpoint.replace("{dir}/", "")
    return _FIELD.sub(lambda field: quote(values[field[0]], safe="/"), template)


def root_of(endpoint: str) -> str:
    """Return the URL to ask for the server's capabilities: an endpoint without its fields and what follows them."""
    return endpoint.partition("{")[0].rpartition("/")[0] + "/" if names_files(endpoint) else endpoint


def encode_metadata(metadata: Mapping[str, str]) -> str:
    """Format `Upload-Metadata` (tus 1.0, creation); an empty result means that the header is omitted.

    Undecodable bytes in names are percent-escaped. Raises `ValueError` for a key with a space, a comma or non-ASCII.
    """
    pairs = []
    for key, value in metadata.items():
        if not key or not key.isascii() or not key.isprintable() or " " in key or "," in key:
            raise ValueError(f"{key!r} is not a valid key of Upload-Metadata")
        encoded = base64.b64encode(utf8(value).encode()).decode()
        pairs.append(f"{key} {encoded}" if encoded else key)
    return ",".join(pairs)


def checksum_header(algorithm: str, digest: bytes) -> str:
    return f"{algorithm} {base64.b64encode(digest).decode()}"


def chunk_length(offset: int, length: int, size: int) -> int:
    """Return the bytes of the chunk at `offset` of a file of `length` bytes; 0 at the end."""
    return max(0, min(size, length - offset))


def parts(length: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield `(start, bytes)` of at most `count` non-empty parts of nearly equal length (tus 1.0, concatenation)."""
    count = max(1, min(count, length))
    for index in range(count):
        start, end = length * index // count, length * (index + 1) // count
        yield start, end - start


def _listed(header: str | None) -> list[str]:
    return [item.strip() for item in (header or "").split(",") if item.strip()]


def _words(value: object) -> frozenset[str]:
    return frozenset(str(item).lower() for item in value) if isinstance(value, list) else frozenset()
