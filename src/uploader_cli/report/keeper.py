"""The observer that keeps a row of each file, and writes what was asked for when the run is over, however it ended."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from uploader_cli.core.report import Rows, RunFacts, report_head
from uploader_cli.report.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.core.events import Event
    from uploader_cli.core.state import ProgressState

Output: TypeAlias = "Callable[[dict[str, Any], Spool], None]"
"""Writes one file from the head and the rows; raises OSError."""


@dataclass(slots=True)
class Keeper:
    """Bounded in memory by what is under way. Nothing that goes wrong here touches the upload: see `problems`."""

    outputs: Sequence[Output]
    facts: RunFacts
    wall_clock: Callable[[], float]
    """Unix seconds."""
    problems: list[str] = field(default_factory=list)
    """What could not be written, one sentence each; complete once the run is over."""
    _rows: Rows = field(default_factory=Rows)
    _spool: Spool | None = None

    def __post_init__(self) -> None:
        self._guarded(self._open)

    def handle(self, event: Event, _state: ProgressState, now: float) -> None:
        """Keep the row, where the event is the end of a file."""
        row = self._rows.of(event, now)
        if row is not None and self._spool is not None:
            spool, values = self._spool, row.as_fields()
            self._guarded(lambda: spool.put(values))

    def refresh(self, state: ProgressState, now: float) -> None:
        """Nothing to draw."""

    def close(self, state: ProgressState, _now: float) -> None:
        """Write everything."""
        spool, self._spool = self._spool, None
        if spool is None:
            return
        head = report_head(state, self.facts, self.wall_clock())
        for output in self.outputs:
            try:
                output(head, spool)
            except (OSError, sqlite3.Error) as error:
                self.problems.append(str(error))
        spool.close()

    def _open(self) -> None:
        self._spool = Spool()

    def _guarded(self, action: Callable[[], None]) -> None:
        """A disk that is full costs the reports, not the upload."""
        try:
            action()
        except sqlite3.Error as error:
            self.problems.append(f"no report can be written: {error} in the directory for temporary files")
            self._spool = None
