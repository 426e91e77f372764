"""What features show of their parts of the state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from uploader_cli.core.events import Event
from uploader_cli.core.state import ProgressState
from uploader_cli.feature import features
from uploader_cli.render.lines import Lines
from uploader_cli.render.words import Row


class View(Protocol):
    """A module about the part `own` of the state. Times are of the run clock (seconds)."""

    def rows(self, own: Any, now: float, width: int, space: int) -> list[Row]:
        """Draw at most `space` rows of the live view, below the running files."""

    def lines(self, event: Event, own: Any, now: float, *, verbose: bool) -> list[str]:
        """Return the lines of a log about a public event, which may be of the core or of any feature."""

    def summarize(self, lines: Lines, own: Any, *, interrupted: bool) -> Iterable[str]:
        """Add lines to the summary; return the texts of warnings that need not be shown again."""

    def failed(self, own: Any) -> str:
        """Return the subject of `… failed`, where something after all files has; else empty."""

    def result(self, own: Any) -> dict[str, Any]:
        """Return fields of the `Result`."""


def views(state: ProgressState) -> list[tuple[View, Any]]:
    """Return the views of the features that have a part of the state, each with that part."""
    return [(one.load(one.view), state.added[one.name]) for one in features() if one.name in state.added]
