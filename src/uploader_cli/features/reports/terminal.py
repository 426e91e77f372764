"""Draw a report for a terminal, as rows of styled text: the same figures as in the HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

from uploader_cli.exit_status import MEANINGS
from uploader_cli.features.reports import figures as fig
from uploader_cli.render.words import SIZE_WIDTH, Row, bar, cells, clip, fit, pad, plural, rate, safe, size, span

NARROW = 60  # columns below which details are omitted
SLOWEST_ROWS, CAUSE_ROWS, INCIDENT_ROWS = 10, 12, 5  # maximum rows of each table
PLOTS = (("cyan", 2), ("green", 1))  # the style of each plot, and its rows between two marks
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def rows_of(head: dict[str, Any], files: Iterable[dict[str, Any]], width: int) -> Iterator[Row]:
    """Yield the rows for the head of a report and the rows of its files, each at most `width` cells wide."""
    return (fit(row, width) for row in _rows(head, files, width))


def _rows(head: dict[str, Any], files: Iterable[dict[str, Any]], width: int) -> Iterator[Row]:
    yield from _header(head, width)
    for curve, (style, rows) in zip(fig.curves(head), PLOTS, strict=False):
        yield from _plot(curve, style, rows, width)
    slowest, causes = fig.ranked(files)
    yield from _causes(head, causes, width)
    yield from _slowest(slowest, width)
    yield from _responses(head, width)
    yield from _incidents(head, width)


def _header(head: dict[str, Any], width: int) -> Iterator[Row]:
    (glyph, words), counts, metrics = fig.verdict(head), head["counts"], head.get("metrics") or {}
    for mark, line in zip_longest([f"{glyph} "], wrap(words, width - 2), fillvalue="  "):
        yield [(mark, "bold green" if head["ok"] else "bold red"), (line, "bold")]
    took = f" in {span(head['seconds'])}" if head.get("seconds") is not None else ""
    numbers = [
        size(head["bytes"]) + took,
        f"{rate(head['rate'])} on average" if head.get("rate") else "",
        f"{counts['skipped']:,} skipped" if counts["skipped"] else "",
        f"{metrics['calls']:,} requests" if metrics.get("calls") else "",
        f"{metrics['retries']:,} retried" if metrics.get("retries") else "",
        f"limited by {safe(fig.limit(head))}" if head.get("bottleneck") else "",
    ]
    yield from _wrapped(numbers, width)
    where, run = safe(head["server"] or "several servers"), f"run {safe(head['run'])}" if head["run"] else ""
    end = f"exit code {head['exit_code']} ({MEANINGS.get(head['exit_code'], 'complete')})"
    yield from _wrapped([f"to {where}", run, end], width, "dim")
    for note in filter(None, (head.get("trouble"), *head.get("missing", ()))):
        yield [("! ", "yellow"), (safe(note), "")]


def _wrapped(parts: Sequence[str], width: int, style: str = "") -> Iterator[Row]:
    """Join the parts that are not empty with dots, in as many rows as they need."""
    line = ""
    for part in filter(None, parts):
        joined = f"{line} · {part}" if line else part
        if line and cells(joined) > width - 2:
            yield [(f"  {line}", style)]
            joined = part
        line = clip(joined, width - 2)
    yield [(f"  {line}", style)]


def _title(title: str, width: int, *details: str) -> Iterator[Row]:
    """Yield an empty row and the title, with those details that fit."""
    known = ""
    for detail in details:
        longer = f"{known}, {detail}" if known else detail
        known = longer if len(title) + 2 + len(longer) <= width else known
    yield []
    yield [(title, "bold"), (f"  {known}", "dim")]


# --- plots ------------------------------------------------------------------------------------------------------------


def _plot(curve: fig.Curve, style: str, each: int, width: int) -> Iterator[Row]:
    """Draw an area of block characters, with a mark in each `each` rows."""
    yield from _title(curve.title, width, *curve.details)
    marks, form = curve.marks, curve.form
    label = max(len(form(mark)) for mark in marks)
    columns, top, height = width - label - 3, marks[-1], each * (len(marks) - 1)
    eighths = [max(0, round(value / top * height * 8)) for value in fig.resampled(curve.values, columns)]
    names = {round(mark / top * height): form(mark) for mark in marks if mark}
    for level in range(height, 0, -1):
        drawn = "".join(_EIGHTHS[min(8, max(0, column - 8 * (level - 1)))] for column in eighths)
        yield [(f"{names.get(level, ''):>{label}} ", "dim"), ("┤" if level in names else "│", "dim"), (drawn, style)]
    yield [(f"{0:>{label}} └" + "─" * columns, "dim")]
    axis = [" "] * columns
    for moment, name in fig.moments(curve.seconds, columns // 9):
        start = min(max(0, int(moment / curve.seconds * columns) - len(name) // 2), columns - len(name))
        axis[start : start + len(name)] = name
    yield [(" " * (label + 2) + "".join(axis), "dim")]


# --- tables -----------------------------------------------------------------------------------------------------------


def _bar(share: float, width: int, style: str) -> Row:
    """Draw a bar; a count above 0 is visible."""
    return bar(max(share, 0.5 / width) if share else 0.0, width, style)


def _causes(head: dict[str, Any], causes: Sequence[fig.Cause], width: int) -> Iterator[Row]:
    if not causes:
        return
    yield from _title("Failures by cause", width, plural(head["counts"]["failed"], "file"))
    most, name = causes[0].count, max(len(cause.code) for cause in causes)
    count = len(f"{most:,}")
    for cause in causes[:CAUSE_ROWS]:
        length = max(6, min(20, width - name - count - 4)) if width >= NARROW else max(4, width - name - count - 4)
        row = [(f"{clip(safe(cause.code), name):<{name}}  {cause.count:>{count},}  ", "")]
        row += _bar(cause.count / most, length, "red")
        yield [*row, (f"  {safe(cause.message)}" if width >= NARROW else "", "dim")]


def _slowest(slowest: Sequence[dict[str, Any]], width: int) -> Iterator[Row]:
    if not slowest:
        return
    yield from _title("Slowest files", width)
    most = slowest[0]["seconds"]
    length = 16 if width >= NARROW else 0
    for row in slowest[:SLOWEST_ROWS]:
        mark, style = ("✓ ", "green") if row["outcome"] == "completed" else ("✗ ", "bold red")
        numbers = f" {span(row['seconds']):>7}"
        if length:
            numbers = f" {size(row.get('size') or 0):>{SIZE_WIDTH}}{numbers}  "
        name = pad(safe(row["path"]), width - 2 - len(numbers) - length)
        yield [(mark, style), (name, ""), (numbers, ""), *bar(row["seconds"] / most, length, "cyan")]


def _responses(head: dict[str, Any], width: int) -> Iterator[Row]:
    bars = fig.responses(head)
    if not bars:
        return
    yield from _title("Response times", width, *fig.spread(head))
    most, total = max(count for _, count in bars), sum(count for _, count in bars)
    digits = len(f"{most:,}")
    for name, count in bars:
        length = min(40, width - 10 - digits - 10)
        yield [
            (f"{name:>8}  ", ""),
            *_bar(count / most, length, "cyan"),
            (f"  {count:>{digits},} {100 * count / total:5.1f} %", ""),
        ]


def _incidents(head: dict[str, Any], width: int) -> Iterator[Row]:
    incidents = head.get("incidents") or {"kept": [], "total": 0}
    if not incidents["kept"]:
        return
    yield from _title("Incidents", width)
    for one in incidents["kept"][:INCIDENT_ROWS]:
        took = "" if one["seconds"] is None else f" {span(one['seconds'])}"
        ending = f", {safe(one['ending']).replace('_', ' ')}" if one["ending"] else ""
        yield [("! ", "yellow"), (f"{safe(one['kind']).replace('_', ' ')}{took}{ending}: {safe(one['text'])}", "")]
    more = incidents["total"] - min(INCIDENT_ROWS, len(incidents["kept"]))
    if more > 0:
        yield [(f"  … and {more:,} more", "dim")]
