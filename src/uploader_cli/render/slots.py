"""Assign running files to rows so that rows don't jump."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core.events import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.state import FileState

_SETTLE = 2.0
"""Seconds before the rows below a free row move up."""


class Slots:
    """The rows of the running files; each file keeps its row to its end."""

    def __init__(self) -> None:
        self._rows: list[int | None] = []
        self._free_since: float | None = None

    def assign(self, running: Mapping[int, FileState], capacity: int, now: float) -> list[int | None]:
        """Return file numbers by row, None for a free row; at most `capacity`."""
        rows = [number if number in running else None for number in self._rows[:capacity]]
        shown = set(rows)
        hidden = sorted((n for n in running if n not in shown), key=lambda n: not _busy(running[n]))
        waiting = iter(hidden)
        rows = [next(waiting, None) if number is None else number for number in rows]
        rows += [number for number, _ in zip(waiting, range(capacity - len(rows)), strict=False)]
        self._rows = self._closed_up(self._busy_first(rows, running, hidden), now)
        return self._rows

    @staticmethod
    def _busy_first(rows: list[int | None], running: Mapping[int, FileState], hidden: list[int]) -> list[int | None]:
        """Give rows of files without progress to hidden files with progress: a batch may have more files than rows."""
        shown = set(rows)
        moving = iter([n for n in hidden if n not in shown and _busy(running[n])])
        return [n if n is None or _busy(running[n]) else next(moving, n) for n in rows]

    def _closed_up(self, rows: list[int | None], now: float) -> list[int | None]:
        if None not in rows:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
        elif now - self._free_since >= _SETTLE:
            return [number for number in rows if number is not None]
        return rows


def _busy(file: FileState) -> bool:
    """Return True for a file with visible progress."""
    if file.phase is Phase.SENDING and file.size:
        return file.offset < file.sent < file.size
    return 0 < (file.server_percent or 0) < 100
