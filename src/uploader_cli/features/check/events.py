"""The lines of a check in the event stream."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from uploader_cli.core.events import Bytes, Count, Event, FileNumber, Seconds, public_among


class CheckResult(StrEnum):
    """How a local file compares with the server's."""

    SAME = "same"
    SAME_SIZE = "same_size"
    DIFFERENT = "different"
    MISSING = "missing"


class CheckFile(Event, frozen=True, tag="check.file"):
    """A local file was compared with the server's. `name` is its path below the category.

    `stored_size` and `location` are those of the stored file, None if it is missing.
    """

    file: FileNumber
    path: str
    size: Bytes
    name: str
    result: CheckResult
    stored_size: Bytes | None
    location: str | None


class CheckFinished(Event, frozen=True, tag="check.finished"):
    """The last line of a check: the number of files by result, and the bytes of the compared files."""

    ends: ClassVar[bool] = True
    same: Count
    different: Count
    missing: Count
    failed: Count
    skipped: Count
    bytes: Bytes
    seconds: Seconds
    exit_code: int


EVENTS = public_among((CheckFile, CheckFinished))
