"""`Upload-Limit` of the IETF's resumable uploads: a dictionary (RFC 9651) with sizes in bytes."""

from __future__ import annotations

import re

from uploader_cli.core.record import Record

_BARE = r'"(?:[^"\\]|\\.)*"|:[A-Za-z0-9+/=]*:|\?[01]|@-?\d+|-?\d+(?:\.\d+)?|[A-Za-z*][\w!#$%&\'*+.^`|~:/-]*'
_PARAMETERS = rf"(?:;\x20*[a-z*][a-z0-9_.*-]*(?:=(?:{_BARE}))?)*"
_MEMBER = re.compile(
    rf"[ \t]*([a-z*][a-z0-9_.*-]*)(?:=({_BARE}|\((?:[^()\"]|\"(?:[^\"\\]|\\.)*\")*\)))?{_PARAMETERS}[ \t]*(?:,|$)"
)
_INTEGER = re.compile(r"\d{1,15}")
_SIZES = {
    "max-size": "max_size",
    "min-size": "min_size",
    "min-append-size": "least",
    "max-append-size": "most",
}
_KNOWN = {*_SIZES, "max-age"}


class UploadLimits(Record, frozen=True):
    """The sizes that a server accepts: of a file, and of the content of one request. None: no limit.

    Smaller files than `min_size` can't be resumed.
    """

    max_size: int | None = None
    min_size: int | None = None
    least: int | None = None
    most: int | None = None

    def after(self, later: UploadLimits | None) -> UploadLimits:
        """Return these limits with those of a `later` answer, which may have a part of them."""
        if later is None:
            return self
        least, most = later.least or self.least, later.most or self.most
        return UploadLimits(later.max_size or self.max_size, later.min_size or self.min_size, least, most)


def upload_limits(header: str | None) -> UploadLimits | None:
    """Parse the header; None if it is absent, or malformed, which counts as absent. Unknown limits are ignored."""
    if not header or not header.strip():
        return None
    sizes, at = dict[str, int](), 0
    while at < len(header):
        found = _MEMBER.match(header, at)
        if found is None:
            return None
        name, value, at = found[1], found[2] or "?1", found.end()
        if name in _KNOWN and not _INTEGER.fullmatch(value):
            return None
        if name in _SIZES:
            sizes[_SIZES[name]] = int(value)
    return None if header.rstrip().endswith(",") else UploadLimits(**sizes)
