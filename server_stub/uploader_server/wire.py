"""Small pieces of the wire that both flavours share: categories, time stamps, ids, file name endings, numbers."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime

CATEGORIES = ("personal", "scenic")


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339 in UTC with milliseconds: `2026-11-24T23:43:56.640Z`."""
    return (moment or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_uuid(text: object) -> bool:
    """Whether a session id may be looked up at all: a UUID in its usual form."""
    if not isinstance(text, str) or len(text) != 36:
        return False
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def extension(name: str) -> str:
    """The ending of a file name, lower case and without the dot; empty where there is none."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot and stem else ""


def js_number(value: float) -> int | float:
    """A number as JavaScript prints it: without a fraction where it has none."""
    return int(value) if value == int(value) else value


def js_round(value: float) -> int:
    """Round half up, as JavaScript does (Python rounds half to even)."""
    return math.floor(value + 0.5)
