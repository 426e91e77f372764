"""What became of local files, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.features.then.fields import Removed
from uploader_cli.render.words import plural, safe

if TYPE_CHECKING:
    from collections import Counter


def ending(event: Any) -> str:
    """Return what became of the local file, as the end of a list."""
    if event.removed is Removed.MOVED:
        return f", moved to {safe(event.moved_to or '')}"
    return f", {event.removed} here"


def planned(event: Any) -> str:
    """Return what would become of the local file, as the end of a row."""
    return f", then {event.removed}{f' to {safe(event.moved_to)}' if event.moved_to else ''}"


def total(counts: Counter[Removed]) -> str:
    """Return how many local files were moved or deleted."""
    return f"local files: {', '.join(f'{count:,} {removed}' for removed, count in counts.items())}"


def planned_total(removed: Removed, count: int) -> str:
    """Return how many local files would be moved or deleted."""
    return f"{plural(count, 'file')} here would be {removed} if the server has the same bytes then"
