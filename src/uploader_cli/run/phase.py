"""What a feature does after all files of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uploader_cli.core.events import Event
from uploader_cli.exit_status import Exit
from uploader_cli.feature import used
from uploader_cli.run.connections import Connections
from uploader_cli.run.interrupts import Interrupts
from uploader_cli.run.loop import Loop
from uploader_cli.selection.selection import Selection
from uploader_cli.settings import Settings


class Phase:
    """It is made before the first file. While it runs, the view is still shown and the channel is connected."""

    @classmethod
    def check(cls, settings: Settings, found: Selection) -> None:
        """Raise `UsageError` if it can't follow an upload of this selection, before anything is sent."""

    def __init__(self, settings: Settings, loop: Loop, connections: Connections) -> None:
        self._settings, self._loop, self._connections, self._emit = settings, loop, connections, loop.emit

    def listen(self, events: Sequence[Event]) -> None:
        """Process the events of a frame: what becomes of the files."""

    def run(self, interrupts: Interrupts, run_id: str) -> list[Exit]:
        """Do the work while turning the loop; return the exit codes of what failed.

        It is not called after a run that ended early.
        """
        raise NotImplementedError


def phases(settings: Settings) -> list[Any]:
    """Return the phases that these settings turn on: classes as `Phase`."""
    return [feature.load(feature.phase) for feature in used(settings) if feature.phase]


def check_phases(settings: Settings, found: Selection) -> None:
    """Raise `UsageError` if a phase can't follow the upload of a selection."""
    for phase in phases(settings):
        phase.check(settings, found)
