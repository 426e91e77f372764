"""The fields of events, of rows of reports and of receipts that say what became of a local file."""

from __future__ import annotations

from enum import StrEnum


class Removed(StrEnum):
    """What became of a local file that is stored (`--then`)."""

    MOVED = "moved"
    DELETED = "deleted"
    GONE = "gone"


OF_MISSING = {"removed": Removed.GONE}
"""The fields of a stored file that was missing before this run could remove it."""
_FATE = (("removed", Removed | None, None), ("moved_to", str | None, None))
EVENT_FIELDS = dict.fromkeys(("FileCompleted", "FileSkipped", "FileEnded", "PlanFile", "Receipt"), _FATE)
