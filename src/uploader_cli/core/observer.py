"""The interface of the run loop's observers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploader_cli.core.events import Event
    from uploader_cli.core.state import ProgressState


class Observer:
    """An observer of a run, as a view, a log or a report. Times are of the run clock (monotonic seconds).

    It is called in the loop's thread. The events of a frame arrive before its `refresh`, each with its own time
    and the state after it.
    """

    def handle(self, event: Event, state: ProgressState, now: float) -> None:
        """Process a public event, a `CallMade` or a `FileEnded`."""

    def refresh(self, state: ProgressState, now: float) -> None:
        """Draw; called about ten times a second, with or without events."""

    def close(self, state: ProgressState, now: float) -> None:
        """Restore the terminal: the run has ended, possibly with an error."""
