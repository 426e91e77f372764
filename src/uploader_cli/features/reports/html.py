"""Write a report as one HTML page: speed over time, response times, the slowest files, failures by cause.

The page loads nothing and runs no script; its size is bounded, whatever the number of files. Plots are SVG that is
stretched to the width of the page; their labels are HTML, so that they keep their size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from uploader_cli.exit_status import MEANINGS
from uploader_cli.features.reports import figures as fig
from uploader_cli.features.reports.heads import read_heads
from uploader_cli.render.words import clip, plural, rate, safe, size, span
from uploader_cli.report.recorder import Row, Spool

LONGEST_TEXT, MOST_NOTES = 300, 30  # maximum characters of a text, and rows of incidents and of warnings
PLOT_WIDTH, PLOT_HEIGHT = 1000, 100  # units of a plot, which is stretched to its place


def as_html(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    slowest, causes = fig.ranked(spool.rows())
    beginning = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    yield beginning.substitute(title=_text(fig.verdict(head)[1]))
    yield from _header(head)
    yield f'<dl class="tiles">{"".join(_tiles(head))}</dl>\n'
    yield from _speed(head)
    yield from _causes(causes)
    yield from _slowest(slowest)
    yield from _responses(head)
    yield from _notes(head)
    yield from _failed(head["counts"]["failed"], causes)
    yield f"<footer>uploader {_text(head['version'])}</footer>\n</html>\n"


def _text(value: object) -> str:
    """Return untrusted text for the page: visible, escaped and not too long."""
    return escape(clip(safe(str(value)), LONGEST_TEXT))


def _words(code: str | None) -> str:
    return _text((code or "").replace("_", " "))


def _header(head: dict[str, Any]) -> Iterator[str]:
    glyph, words = fig.verdict(head)
    kind = "ok" if head["ok"] else "bad"
    yield f'<header>\n<h1><span class="{kind}">{glyph}</span> {_text(words)}</h1>\n'
    where = _text(head["server"] or "several servers") + (f" ({_text(head['category'])})" if head["category"] else "")
    parts = [
        f"to {where}",
        _period(head["started"], head["finished"]),
        *(_text(one.words(head)) for one in read_heads()),
        f"run {_text(head['run'])}" if head["run"] else plural(len(head.get("runs", ())), "run"),
        f"exit code {head['exit_code']} ({_text(MEANINGS.get(head['exit_code'], 'complete'))})",
    ]
    yield f'<p class="soft">{" · ".join(filter(None, parts))}</p>\n</header>\n'
    incomplete = "The run ended before all files were found." if head.get("selection_complete") is False else ""
    for note in filter(None, (head.get("trouble"), incomplete, *head.get("missing", ()))):
        yield f'<p class="note">{_text(note)}</p>\n'


def _moment(written: str) -> str:
    try:
        return datetime.fromisoformat(written).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return _text(written)


def _period(started: str, finished: str) -> str:
    start, end = _moment(started), _moment(finished)
    return f"{start} – {end[11:] if start[:10] == end[:10] else end} UTC"


def _tiles(head: dict[str, Any]) -> Iterator[str]:
    counts, metrics = head["counts"], head.get("metrics") or {}
    yield _tile("files uploaded", f"{counts['completed']:,}", f"of {counts['selected']:,}")
    yield _tile("data", size(head["bytes"]), f"of {size(head['selected_bytes'])}")
    if head.get("seconds") is not None:
        average = rate(head["rate"]) + " on average" if head.get("rate") else ""
        yield _tile("time", span(head["seconds"]), average)
    for name in ("failed", "cancelled", "skipped"):
        if counts[name]:
            why = (f"{count:,} {reason}" for reason, count in head["skips"].items()) if name == "skipped" else ()
            yield _tile(name, f"{counts[name]:,}", ", ".join(why))
    if metrics.get("latency_ms"):
        yield _tile("response time", fig.milliseconds(metrics["latency_ms"]["p50"]), "median, without file data")
    if metrics.get("calls"):
        failed, retries = metrics["failed_calls"], plural(metrics["retries"], "retry").replace("retrys", "retries")
        yield _tile("requests", f"{metrics['calls']:,}", f"{failed:,} failed, {retries}")


def _tile(name: str, value: str, detail: str) -> str:
    return f"<div><dt>{name}</dt><dd>{_text(value)}<small>{_text(detail)}</small></dd></div>"


# --- plots ------------------------------------------------------------------------------------------------------------


def _speed(head: dict[str, Any]) -> Iterator[str]:
    curves = fig.curves(head)
    if not curves:
        return
    bands = list(_bands(head))
    yield "<section>\n"
    for curve, colour in zip(curves, ("blue", "teal"), strict=True):
        yield _plot(curve, colour, bands)
    notes = ["Shaded: the server limited the rate, or requests were retried."] if bands else []
    if head.get("bottleneck"):
        notes.append(f"Limited by: {_text(fig.limit(head))}.")
    yield f"<p><small>{' '.join(notes)}</small></p>\n" if notes else ""
    yield "</section>\n"


def _bands(head: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield the start and the seconds of the incidents that slowed the run down."""
    start = datetime.fromisoformat(head["started"])
    for incident in head["incidents"]["kept"]:
        if incident["kind"] in ("rate_limit", "transfer", "stall") and incident["seconds"] is not None:
            yield (datetime.fromisoformat(incident["ts"]) - start).total_seconds(), incident["seconds"]


def _plot(curve: fig.Curve, colour: str, bands: Iterable[tuple[float, float]]) -> str:
    seconds, step, top, form = curve.seconds, curve.step, curve.marks[-1], curve.form
    wide, heights = PLOT_WIDTH / seconds, [PLOT_HEIGHT * (1 - value / top) for value in curve.values]
    points = [((at + 0.5) * step * wide, height) for at, height in enumerate(heights)]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in [(0.0, heights[0]), *points, (PLOT_WIDTH, heights[-1])])
    parts = [f'<b style="bottom:{100 * mark / top:.4g}%"></b>' for mark in curve.marks]
    parts += [
        f'<i class="y" style="bottom:{100 * mark / top:.4g}%">{form(mark) if mark else 0}</i>' for mark in curve.marks
    ]
    parts += [f'<i class="x" style="left:{100 * at / seconds:.4g}%">{name}</i>' for at, name in fig.moments(seconds)]
    shaded = (
        f'<rect x="{begun * wide:.1f}" width="{max(3.0, long * wide):.1f}" height="{PLOT_HEIGHT}"/>'
        for begun, long in bands
        if 0 <= begun < seconds
    )
    drawn = [f'<g class="bands">{"".join(shaded)}</g>']
    drawn.append(
        f'<path class="area" d="M0 {PLOT_HEIGHT}L{line}L{PLOT_WIDTH} {PLOT_HEIGHT}Z"/><path class="curve" d="M{line}"/>'
    )
    drawn += [
        f'<rect class="hit" x="{at * step * wide:.1f}" width="{step * wide:.1f}" height="{PLOT_HEIGHT}">'
        f"<title>{span(at * step)}: {form(value)}</title></rect>"
        for at, value in enumerate(curve.values)
    ]
    known = ", ".join(curve.details)
    return (
        f'<figure class="{colour}" role="img" aria-label="{curve.title}: {known}">\n'
        f'<div class="head"><h2>{curve.title}</h2><small>{known}</small></div>\n'
        f'<div class="plot">{"".join(parts)}\n<svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" preserveAspectRatio="none">'
        f"{''.join(drawn)}</svg></div>\n</figure>\n"
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _section(title: str, detail: str, columns: Mapping[str, str], rows: Iterable[Sequence[str]], more: int = 0) -> str:
    """Draw a table. `columns` are the titles of the columns and their classes in `page.html`."""
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in columns.items())
    kinds = columns.values()
    cells = ([f'<td class="{kind}">{cell}</td>' for kind, cell in zip(kinds, row, strict=True)] for row in rows)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    rest = f"<p><small>… and {more:,} more</small></p>\n" if more > 0 else ""
    return (
        f'<section>\n<div class="head"><h2>{title}</h2><small>{detail}</small></div>\n'
        f"<table>\n<tr>{head}</tr>\n{body}\n</table>\n{rest}</section>\n"
    )


def _bar(share: float, colour: str) -> str:
    return (
        f'<svg class="{colour}" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{max(0.5, 100 * share):.4g}" height="1"/></svg>'
    )


def _responses(head: dict[str, Any]) -> Iterator[str]:
    if bars := fig.responses(head):
        most, total = max(count for _, count in bars), sum(count for _, count in bars)
        detail = f"without file data: {', '.join(fig.spread(head))}"
        columns = {"time": "key", "": "bar long", "requests": "n", "share": "n"}
        rows = [(name, _bar(n / most, "blue"), f"{n:,}", f"{100 * n / total:.1f} %") for name, n in bars]
        yield _section("Response times", detail, columns, rows)


def _causes(causes: Sequence[fig.Cause]) -> Iterator[str]:
    if not causes:
        return
    most = causes[0].count
    columns = {"cause": "key", "files": "n", "": "bar", "retryable": "n", "first message": "wide"}
    rows = [
        (_text(one.code), f"{one.count:,}", _bar(one.count / most, "red"), f"{one.retryable:,}", _text(one.message))
        for one in causes
    ]
    yield _section("Failures by cause", "", columns, rows)


def _failed(failed: int, causes: Sequence[fig.Cause]) -> Iterator[str]:
    if causes:
        files = (row for cause in causes for row in cause.files)
        rows = [(_text(row["path"]), _text(row.get("message", ""))) for row in files]
        columns = {"file": "name", "reason": "name"}
        yield _section("Failed files", f"at most {fig.EXAMPLES} for each cause", columns, rows, failed - len(rows))


def _slowest(slowest: Sequence[Row]) -> Iterator[str]:
    if not slowest:
        return
    most, rows = slowest[0]["seconds"], []
    for row in slowest:
        ended = _text(row["outcome"])
        colour, note = ("blue", "") if ended == "completed" else ("red", f" <small>{ended}</small>")
        numbers = size(row.get("size") or 0), span(row["seconds"]), _bar(row["seconds"] / most, colour)
        rows.append((_text(row["path"]) + note, *numbers, f"{row.get('attempts') or 0:,}"))
    columns = {"file": "name", "size": "n", "time": "n", "": "bar", "attempts": "n wide"}
    yield _section("Slowest files", "from the first attempt to the confirmation", columns, rows)


def _notes(head: dict[str, Any]) -> Iterator[str]:
    incidents, warnings = head.get("incidents") or {"kept": [], "total": 0}, head.get("warnings") or []
    if kept := incidents["kept"][:MOST_NOTES]:
        rows = []
        for one in kept:
            took = "" if one["seconds"] is None else span(one["seconds"])
            rows.append((_moment(one["ts"]), _words(one["kind"]), took, _words(one["ending"]), _text(one["text"])))
        names = {"incident": "name", "time": "n", "ending": "name", "first message": "name"}
        detail = "problems during the run, and how they ended"
        yield _section("Incidents", detail, {"start": "wide", **names}, rows, incidents["total"] - len(rows))
    if warnings:
        named = [(_words(one["code"]), _text(one["text"])) for one in warnings[:MOST_NOTES]]
        yield _section("Warnings", "", {"code": "name", "text": "name"}, named, len(warnings) - len(named))
