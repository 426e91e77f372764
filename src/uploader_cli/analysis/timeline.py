"""The analysis after an upload: a timeline of its stages, times, and the server's messages."""

from __future__ import annotations

from uploader_cli.analysis.stages import STAGES, Analysis, Kind
from uploader_cli.core.events import Stage
from uploader_cli.render.words import Row, clock, elide, safe, width_of

_LOG = 4  # maximum messages shown; their rows are reserved from the start


def title(analysis: Analysis) -> str:
    """Format `content analysis of a.mp4 (2/3)`."""
    which = f" ({analysis.number}/{analysis.of})" if analysis.of > 1 else ""
    return f"{analysis.kind} analysis of {safe(analysis.name)}{which}"


def note(analysis: Analysis) -> str:
    """Return the remark for an estimated percentage."""
    return ", estimated" if analysis.assumed else ""


def ends(kind: Kind, event: Stage) -> bool:
    return (event.name, event.percent) in STAGES[kind]


def rows(analysis: Analysis, now: float, width: int, space: int) -> list[Row]:
    """Draw title with times, timeline and last messages after an empty row, as far as they fit in `space` rows."""
    if space < 2:
        return []
    out: list[Row] = [_head(analysis, now, width), _timeline(analysis, width)]
    kept = min(_LOG, max(0, space - 5))
    said: list[Row] = [[("  » " + safe(text), "dim")] for text in list(analysis.log)[-kept:]] if kept else []
    out += said + [[] for _ in range(kept - len(said))]
    return [[], *out] if space > 2 else out


def _head(analysis: Analysis, now: float, width: int) -> Row:
    left = analysis.remaining(now)
    ahead = f"{clock(left + 0.5)} left" if left is not None else "estimated" if analysis.assumed else ""
    times = f"{clock(analysis.elapsed(now))}  {ahead:<12}"
    words = elide(title(analysis), max(10, width - len(times) - 2))
    row: Row = [(words, "bold")]
    return [*row, (" " * max(2, width - width_of(row) - len(times)), ""), (times, "dim")]


def _timeline(analysis: Analysis, width: int) -> Row:
    """Draw `✓ upload  ▶ model analysis 23 %  · structuring …`; if that is too wide, only the running stage."""
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
