"""What a run hears of files that the server processes."""

from __future__ import annotations

from uploader_cli.core.events import Event
from uploader_cli.core.state import FeatureEvent, ProgressState


class StillProcessing(FeatureEvent, frozen=True):
    """The server has said that it processes a file."""

    def apply(self, state: ProgressState, now: float) -> list[Event]:
        state.advanced = now
        return []
