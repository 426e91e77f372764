"""How analyses after an upload are shown: a timeline of stages, lines of a log, the summary, and the result."""

from __future__ import annotations

from typing import Any

from uploader_cli.core.events import Event
from uploader_cli.features.analysis.events import Stage
from uploader_cli.features.analysis.fields import Analysed
from uploader_cli.features.analysis.stages import STAGES, AnalysesState, Analysis
from uploader_cli.render.feature_views import View
from uploader_cli.render.lines import Lines
from uploader_cli.render.words import Row, clock, elide, safe, span, width_of

_LOG = 4  # maximum messages shown; their rows are reserved from the start


def rows(analyses: AnalysesState, now: float, width: int, space: int) -> list[Row]:
    """Draw title with times, timeline and last messages after an empty row, as far as they fit in `space` rows."""
    if space < 2 or not analyses.begun:
        return []
    analysis = analyses.begun[-1]
    out: list[Row] = [_head(analysis, now, width), _timeline(analysis, width)]
    kept = min(_LOG, max(0, space - 5))
    said: list[Row] = [[("  » " + safe(text), "dim")] for text in list(analysis.log)[-kept:]] if kept else []
    out += said + [[] for _ in range(kept - len(said))]
    return [[], *out] if space > 2 else out


def lines(event: Event, analyses: AnalysesState, now: float, *, verbose: bool) -> list[str]:
    """Return a line at the start of an analysis and for each completed stage; `verbose` for each percentage."""
    if not isinstance(event, Stage):
        return []
    analysis, move = analyses.begun[-1], (event.name, event.percent)
    out = [_title(analysis)] if move == analysis.first else []
    guess = ", estimated" if analysis.assumed else ""
    if move in STAGES[analysis.kind]:
        out.append(f"✓ {event.name} ({event.percent:.0f} %, {span(analysis.elapsed(now))}{guess})")
    elif verbose:
        out.append(f"  {event.name} {event.percent:.0f} %{guess}")
    return out


def summarize(lines: Lines, analyses: AnalysesState, *, interrupted: bool) -> set[str]:
    """List results and failures; return the warnings that these failures have been."""
    good, bad = ([done for done in analyses.ended if bool(done.error) is wrong] for wrong in (False, True))
    named = [f"{done.kind} analysis of {done.name}" + (f": {done.summary}" if done.summary else "") for done in good]
    lines.list("✓", named, noun="result")
    if analyses.file:
        lines.add("→", f"results saved in {safe(analyses.file)}")
    lines.list("✗", [f"{done.kind} analysis of {done.name}: {done.error[:500]}" for done in bad])
    if bad and (interrupted or any(done.retryable for done in bad)):
        lines.add("→", "To repeat the analysis, run the same command with --skip-existing.", indent=2)
    return {done.warning for done in bad}


def failed(analyses: AnalysesState) -> str:
    """Return the subject of `… failed`; empty if no analysis has."""
    return "an analysis" if any(done.error for done in analyses.ended) else ""


def result(analyses: AnalysesState) -> dict[str, Any]:
    """Return the fields of the `Result`."""
    ended = tuple(
        Analysed(done.kind, done.name, done.summary, done.error, done.retryable, done.warning)
        for done in analyses.ended
    )
    return {"analyses": ended, "analysis_file": analyses.file}


def _title(analysis: Analysis) -> str:
    """Format `content analysis of a.mp4 (2/3)`."""
    which = f" ({analysis.number}/{analysis.of})" if analysis.of > 1 else ""
    return f"{analysis.kind} analysis of {safe(analysis.name)}{which}"


def _head(analysis: Analysis, now: float, width: int) -> Row:
    left = analysis.remaining(now)
    ahead = f"{clock(left + 0.5)} left" if left is not None else "estimated" if analysis.assumed else ""
    times = f"{clock(analysis.elapsed(now))}  {ahead:<12}"
    words = elide(_title(analysis), max(10, width - len(times) - 2))
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


ANALYSES = View(rows=rows, lines=lines, summarize=summarize, failed=failed, result=result)
