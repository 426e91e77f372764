"""The analysis after an upload, for people: a timeline of its stages, the time it takes, and what the server says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.core.stages import STAGES
from uploader_cli.render.rows import width_of
from uploader_cli.render.words import clock, elide, safe

if TYPE_CHECKING:
    from uploader_cli.core.events import Stage
    from uploader_cli.core.stages import Analysis, Kind
    from uploader_cli.render.rows import Row

_LOG = 4
"""The last messages that are shown. Their rows are kept free from the start: nothing moves when one comes."""


def title(analysis: Analysis) -> str:
    """`content analysis of a.mp4 (2/3)`."""
    which = f" ({analysis.number}/{analysis.of})" if analysis.of > 1 else ""
    return f"{analysis.kind} analysis of {safe(analysis.name)}{which}"


def note(analysis: Analysis) -> str:
    """What is to be said beside a percentage that nobody told."""
    return ", estimated" if analysis.assumed else ""


def ends(kind: Kind, event: Stage) -> bool:
    """True where the event says that a stage is over."""
    return (event.name, event.percent) in STAGES[kind]


def rows(analysis: Analysis, now: float, width: int, room: int) -> list[Row]:
    """Title with times, timeline, the last messages: as much of it as there is room for, with an empty row before."""
    if room < 2:
        return []
    out: list[Row] = [_head(analysis, now, width), _timeline(analysis, width)]
    kept = min(_LOG, max(0, room - 5))
    said: list[Row] = [[("  » " + safe(text), "dim")] for text in list(analysis.log)[-kept:]] if kept else []
    out += said + [[] for _ in range(kept - len(said))]
    return [[], *out] if room > 2 else out


def _head(analysis: Analysis, now: float, width: int) -> Row:
    """The times stand at the right, in cells of their own: nothing moves when they change."""
    left = analysis.remaining(now)
    ahead = f"{clock(left + 0.5)} left" if left is not None else "estimated" if analysis.assumed else ""
    times = f"{clock(analysis.elapsed(now))}  {ahead:<12}"
    words = elide(title(analysis), max(10, width - len(times) - 2))
    row: Row = [(words, "bold")]
    return [*row, (" " * max(2, width - width_of(row) - len(times)), ""), (times, "dim")]


def _timeline(analysis: Analysis, width: int) -> Row:
    """`✓ upload  ▶ model analysis 23 %  · structuring …`; where that is too wide, only the stage under way."""
    stages, current = STAGES[analysis.kind], analysis.stage
    row: Row = [("  ", "")]
    for index, (name, _) in enumerate(stages):
        if index:
            row.append(("  ", ""))
        row += _entry(analysis, index, name)
    if width_of(row) <= width:
        return row
    done = len(stages) if analysis.complete else current
    return [("  ", ""), *_entry(analysis, current, stages[current][0]), (f"  {done}/{len(stages)} done", "dim")]


def _entry(analysis: Analysis, index: int, name: str) -> Row:
    if analysis.complete or index < analysis.stage:
        return [("✓ ", "green"), (name, "")]
    if index > analysis.stage:
        return [("· ", "dim"), (name, "dim")]
    if analysis.error:
        return [("✗ ", "bold red"), (name, "bold")]
    sign = "~" if analysis.assumed else ""
    return [("▶ ", "bold cyan"), (f"{name} {f'{sign}{int(analysis.percent)}':>3} %", "bold")]
