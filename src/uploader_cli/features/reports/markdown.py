"""Write a report as Markdown for a pipeline's page: the verdict, the numbers and the first failures."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from uploader_cli.features.reports.figures import verdict
from uploader_cli.features.reports.heads import read_heads
from uploader_cli.render.words import plural, safe, size, span
from uploader_cli.report.document import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uploader_cli.report.recorder import Row, Spool

MOST_ROWS = 50  # maximum failed files, and renamed ones, listed: GitHub limits a step's summary to 1 MiB
_LONGEST = 300
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>|#~&$]")


def as_markdown(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield the text, which ends with an empty line so that more can be appended."""
    counts = head["counts"]
    yield f"## {' '.join(verdict(head))}\n\n"
    yield "| | files |\n|---|---:|\n"
    for name in OUTCOMES:
        if counts[name] or name == "completed":
            why = _reasons(head) if name == "skipped" else ""
            yield f"| {name}{why} | {counts[name]:,} |\n"
    yield f"\n{_facts(head)}\n\n"
    if head.get("missing"):
        yield from (f"- {plain(sentence)}\n" for sentence in head["missing"])
        yield "\n"
    failed = (_failure(row) for row in spool.rows() if row["outcome"] == "failed")
    yield from _table("| failed | reason | retry |\n|---|---|---|\n", failed, counts["failed"])
    renamed = (row for row in spool.rows() if row.get("stored_as"))
    lines = (f"| {plain(row['path'])} | {plain(row['stored_as'])} |\n" for row in renamed)
    yield from _table("| renamed | stored as |\n|---|---|\n", lines, head.get("renamed", 0))


def _reasons(head: dict[str, Any]) -> str:
    parts = (f"{count:,} {plain(reason)}" for reason, count in head["skips"].items())
    return f" ({', '.join(parts)})" if head["skips"] else ""


def _facts(head: dict[str, Any]) -> str:
    parts = [f"**{size(head['bytes'])}**"]
    if head["seconds"] is not None:
        parts[0] += f" in **{span(head['seconds'])}**"
    if head["server"]:
        place = "/".join(filter(None, (head.get("category"), head.get("dest"))))
        parts.append(f"to {plain(head['server'])}" + (f" ({plain(place)})" if place else ""))
    parts += [plain(words) for one in read_heads() if (words := one.words(head))]
    parts.append(f"run {plain(head['run'])}" if head.get("run") else plural(len(head.get("runs", ())), "run"))
    parts.append(f"exit code {head['exit_code']} ({plain(head['exit'].replace('_', ' '))})")
    return " · ".join(parts)


def _table(head: str, lines: Iterable[str], total: int) -> Iterator[str]:
    if total:
        yield head
        yield from islice(lines, min(total, MOST_ROWS))
        if total > MOST_ROWS:
            yield f"\n… and {total - MOST_ROWS:,} more.\n"
        yield "\n"


def _failure(row: Row) -> str:
    again = "retryable" if row.get("retryable") else "not retryable"
    why = f"{row.get('code', '')}: {row.get('message', '')}"
    return f"| {plain(row['path'])} | {plain(why)} | {again} |\n"


def plain(text: str) -> str:
    """Return `text` in one line with Markdown and HTML escaped."""
    text = safe(text)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    return _SPECIAL.sub(r"\\\g<0>", text)
