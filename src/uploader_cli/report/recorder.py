"""The observer that collects a row per file and writes the reports at the end of the run."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from uploader_cli.core.events import FileEnded
from uploader_cli.core.observer import Observer
from uploader_cli.report.document import RunFacts, report_head, row_of
from uploader_cli.report.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.events import Event
    from uploader_cli.core.state import ProgressState

Output: TypeAlias = "Callable[[dict[str, Any], Spool], str]"
"""Writes one file from the head and the rows; returns a note for the user, or an empty string. Raises OSError."""


@dataclass(slots=True)
class Notices:
    """Messages about the written files, one sentence each: failures and notes."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_all(outputs: Sequence[Output], head: dict[str, Any], spool: Spool, notices: Notices) -> None:
    """Write all files; a failure of one does not affect the others."""
    for output in outputs:
        try:
            note = output(head, spool)
        except (OSError, sqlite3.Error) as error:
            notices.problems.append(str(error))
        else:
            notices.notes += [note] if note else []


@dataclass(slots=True)
class Recorder(Observer):
    """Memory is bounded by the files in progress. Failures don't affect the upload; they are in `notices`."""

    outputs: Sequence[Output]
    facts: RunFacts
    wall_clock: Callable[[], float]  # unix seconds
    notices: Notices = field(default_factory=Notices)  # complete after the run
    _spool: Spool | None = None

    def __post_init__(self) -> None:
        with self._guarded():
            self._spool = Spool()

    def handle(self, event: Event, _state: ProgressState, _now: float) -> None:
        """Add the row of a file that ended."""
        if isinstance(event, FileEnded) and self._spool is not None:
            with self._guarded():
                self._spool.put(row_of(event, self.facts.dest))

    def write(self, state: ProgressState) -> bool:
        """Write the reports, once; return False if one could not be written."""
        spool, self._spool = self._spool, None
        if spool is not None:
            write_all(self.outputs, report_head(state, self.facts, self.wall_clock()), spool, self.notices)
            spool.close()
        return not self.notices.problems

    def close(self, state: ProgressState, _now: float) -> None:
        """Write the reports, if the run ended with an exception before."""
        self.write(state)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep a full disk from ending the upload; the reports are lost."""
        try:
            yield
        except sqlite3.Error as error:
            self.notices.problems.append(f"no report can be written: {error} in the directory for temporary files")
            self._spool = None
