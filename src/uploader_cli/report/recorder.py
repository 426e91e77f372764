"""Store a row for each file on disk, and write the reports at the end of the run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from uploader_cli.core.events import Event, FileEnded
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.report.document import RunFacts, report_head, row_of

Row: TypeAlias = dict[str, Any]  # a file as in the JSON report, see `report.document.row_of`

_TABLE = """
CREATE TABLE files (
    number INTEGER PRIMARY KEY, key TEXT, session TEXT, outcome TEXT NOT NULL, row TEXT NOT NULL
);
CREATE UNIQUE INDEX by_key ON files (key) WHERE key IS NOT NULL;
"""


class Spool:
    """One row per file, by its number, in a nameless temporary file that disappears even after a kill."""

    def __init__(self) -> None:
        """Raises sqlite3.Error if there is no space for a temporary file, as all methods do."""
        self._db = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.executescript(_TABLE)
        self._db.execute("BEGIN")  # never committed

    def put(self, row: Row, key: str | None = None) -> None:
        """Store the row, replacing one with the same `file` or the same `key`."""
        text = json.dumps(row, ensure_ascii=True, separators=(",", ":"))
        values = (row["file"], key, row.get("session"), row["outcome"], text)
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", values)

    def rows(self) -> Iterator[Row]:
        for (text,) in self.execute("SELECT row FROM files ORDER BY number"):
            yield json.loads(text)

    def execute(self, statement: str, *values: object) -> Iterator[Any]:
        """Execute SQL on the table `files`, and return an iterator over the records."""
        return self._db.execute(statement, values)

    def close(self) -> None:
        self._db.close()


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
class ReportWriter(Observer):
    """An observer that writes files. Failures don't affect the upload; they are in `notices` after the run."""

    notices: Notices = field(default_factory=Notices, kw_only=True)

    def write(self, _state: ProgressState) -> bool:
        """Write what is written once, before the outcome is known; return False if a file could not be written."""
        return True


@dataclass(slots=True)
class Recorder(ReportWriter):
    """Writes the reports at the end. Memory is bounded by the files in progress."""

    outputs: Sequence[Output]
    facts: RunFacts
    wall_clock: Callable[[], float]  # unix seconds
    newest: bool = False  # whether only the last upload of each path has a row
    _spool: Spool | None = None

    def __post_init__(self) -> None:
        with self._guarded():
            self._spool = Spool()

    def handle(self, event: Event, _state: ProgressState, _now: float) -> None:
        if isinstance(event, FileEnded) and self._spool is not None:
            with self._guarded():
                self._spool.put(row_of(event, self.facts.dest), event.path if self.newest else None)

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
