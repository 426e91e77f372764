"""What a person, a log and a script see of a run: each renderer draws from the state, none counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from uploader_cli.core.events import Event
    from uploader_cli.core.state import ProgressState


class Renderer(Protocol):
    """What the run loop calls, always from its own thread. `now` is the run clock (monotonic seconds)."""

    def handle(self, event: Event, state: ProgressState, now: float) -> None:
        """A public event just changed the state."""

    def refresh(self, state: ProgressState, now: float) -> None:
        """Called about ten times a second, with or without events."""

    def close(self, state: ProgressState, now: float) -> None:
        """The run is over: leave the terminal as it was. Also called when the run ends by an error."""
