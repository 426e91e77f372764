"""Wire formats of both flavours: categories, timestamps, ids, file extensions, locations, numbers."""

from __future__ import annotations

import math
import re
import uuid
from datetime import UTC, datetime
from urllib.parse import quote

CATEGORIES = ("personal", "scenic")
BATCH, PACKS, LOOKUP = "/api/upload/batch", "/api/upload/packs", "/api/upload/lookup"
TUS = "/api/upload/files/"  # the endpoint of tus; its uploads are below
TAKEN = "FILE_EXISTS"
"""Code of the failure of a file whose name is taken, with `ifExists` (docs/extensions.md)."""
_is_plain = re.compile(r"[A-Za-z0-9_.~/-]*").fullmatch  # matches a path that `quote` does not change


def timestamp(moment: datetime | None = None) -> str:
    """Format a time (default: now) as RFC 3339 in UTC with milliseconds: `2026-11-24T23:43:56.640Z`."""
    return (moment or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_uuid(text: object) -> bool:
    """Return whether the text is a UUID in canonical form."""
    if not isinstance(text, str) or len(text) != 36:
        return False
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def extension(name: str) -> str:
    """Return the extension of a file name, lower case, without the dot; empty if there is none."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot and stem else ""


def stored_at(path: str) -> str:
    """Return the location of a stored file from its path below the root."""
    return "/uploads/" + (path if _is_plain(path) else quote(path))  # `quote` takes three times as long


def js_number(value: float) -> int | float:
    """Return an int for a whole number, as JavaScript prints it."""
    return int(value) if value == int(value) else value


def js_round(value: float) -> int:
    """Round half up, as JavaScript does."""
    return math.floor(value + 0.5)
