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

Output: TypeAlias = "Callable[[dict[str, Any], Spool], str]"
"""Writes one file from the head and the rows; a sentence that a person should know, or none. Raises OSError."""


@dataclass(slots=True)
class Said:
    """What there is to say once all is written, one sentence each: files that could not be written, and notes."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_all(outputs: Sequence[Output], head: dict[str, Any], spool: Spool, said: Said) -> None:
    """Write each file, whatever becomes of the others."""
    for output in outputs:
        try:
            note = output(head, spool)
        except (OSError, sqlite3.Error) as error:
            said.problems.append(str(error))
        else:
            said.notes += [note] if note else []


@dataclass(slots=True)
class Recorder:
    """Bounded in memory by what is under way. What goes wrong here does not touch the upload, it is in `said`."""

    outputs: Sequence[Output]
    facts: RunFacts
    wall_clock: Callable[[], float]
    """Unix seconds."""
    said: Said = field(default_factory=Said)
    """Complete once the run is over."""
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

    def write(self, state: ProgressState) -> bool:
        """Write everything, once; False where something could not be written."""
        spool, self._spool = self._spool, None
        if spool is not None:
            write_all(self.outputs, report_head(state, self.facts, self.wall_clock()), spool, self.said)
            spool.close()
        return not self.said.problems

    def close(self, state: ProgressState, _now: float) -> None:
        """Write what is not written, of a run that broke."""
        self.write(state)

    def _open(self) -> None:
        self._spool = Spool()

    def _guarded(self, action: Callable[[], None]) -> None:
        """A disk that is full costs the reports, not the upload."""
        try:
            action()
        except sqlite3.Error as error:
            self.said.problems.append(f"no report can be written: {error} in the directory for temporary files")
            self._spool = None
