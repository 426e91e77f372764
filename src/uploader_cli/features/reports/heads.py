"""What other features say of their fields in the head of a report that is read."""

from __future__ import annotations

from typing import Any, Protocol

from uploader_cli.feature import features
from uploader_cli.report.document import Head


class ReadHead(Head, Protocol):
    """A module of a feature about its fields of a report's head (`Feature.head`)."""

    def is_valid(self, head: dict[str, Any]) -> bool:
        """Return whether they have the right types in a report that was read."""

    def words(self, head: dict[str, Any]) -> str:
        """Return what they say to a reader; empty for nothing."""


def read_heads() -> list[ReadHead]:
    """Return what features have for heads of reports."""
    return [feature.load(feature.head) for feature in features() if feature.head]
