"""How the workers of an import are shown: each has a row with its files, its speed and its last sign of life."""

from __future__ import annotations

from uploader_cli.features.fleet.events import WorkerPhase, Workers, WorkerState
from uploader_cli.render.feature_views import View
from uploader_cli.render.words import RATE_WIDTH, Row, cells, elide, pad, plural, rate, safe

WORKERS_SHOWN = 12  # most workers with a row; those that have a problem come first
NARROW = 60  # columns: a narrower terminal has no room for words
NOTICED = 10.0  # seconds without a sign of life from which on a worker is noticeable
_GLYPHS = {
    WorkerPhase.READY: ("● ", "green"),
    WorkerPhase.CHECKED: ("○ ", "dim"),
    WorkerPhase.KEPT_OUT: ("✗ ", "bold red"),
    WorkerPhase.SILENT: ("! ", "bold yellow"),
}
_WORDS = {
    WorkerPhase.CHECKED: "being tested",
    WorkerPhase.KEPT_OUT: "takes no part",
    WorkerPhase.SILENT: "hangs: its tasks go to others",
}


def _rows(workers: Workers, now: float, width: int, space: int, *, still: bool) -> list[Row]:
    """Return at most `space` rows, the last with the address of Dask's dashboard."""
    if not workers.known or space < 1:
        return []
    shown = sorted(workers.known.values(), key=lambda one: one.seen.phase is WorkerPhase.READY)
    count = min(WORKERS_SHOWN, space if len(shown) <= space else space - 1)
    names = min(max(cells(safe(one.seen.name)) for one in shown), max(8, width // 3))
    rows = [_row(one, now, names, narrow=width < NARROW, still=still) for one in shown[:count]]
    if len(shown) > count:
        rows.append([(f"  … and {len(shown) - count:,} more workers", "dim")])
    if workers.dashboard and len(rows) < space:
        rows.append([(f"  dashboard: {safe(workers.dashboard)}", "dim")])
    return rows


def _row(one: WorkerState, now: float, names: int, *, narrow: bool, still: bool) -> Row:
    seen = one.seen
    silent = seen.silent + one.meter.idle(now)
    words = _WORDS.get(seen.phase) or f"{silent:.0f} s ago"
    style = "dim" if seen.phase is WorkerPhase.READY and silent < NOTICED else "yellow"
    name = pad(elide(safe(seen.name), names), names)
    files = f"{seen.files:>6,}" if narrow else f"{seen.files:>9,} files"
    speed = "" if still else rate(one.meter.rate(now))
    return [
        _GLYPHS[seen.phase],
        (name, ""),
        (f" {files} {speed:>{RATE_WIDTH}}  ", ""),
        (words, style),
    ]


def _channel(workers: Workers) -> tuple[str, str, str]:
    count = workers.taking_part
    return "●", plural(count, "worker"), "green" if count else "bold yellow"


def _once(workers: Workers) -> list[str]:
    return [f"dashboard of Dask: {safe(workers.dashboard)}"] if workers.dashboard else []


WORKERS_VIEW = View(above=_rows, channel=_channel, once=_once)
