"""The report as text for a given width: glyph, title, time, cause and fix of each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks.doctor.findings import Result, Status, skipped
from uploader_cli.render.words import plural, safe, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.checks.doctor.findings import Report

GLYPHS = {Status.OK: "✓", Status.WARNING: "!", Status.FAILED: "✗", Status.SKIPPED: "–"}
PLAIN = {Status.OK: "ok", Status.WARNING: "!", Status.FAILED: "x", Status.SKIPPED: "-"}
"""For terminals whose encoding lacks the glyphs."""
_COLOURS = {Status.OK: "\x1b[32m", Status.WARNING: "\x1b[1;33m", Status.FAILED: "\x1b[1;31m", Status.SKIPPED: "\x1b[2m"}
_END = "\x1b[0m"
TITLE = 13
"""Cells of the longest title and a space."""
TIME = 9
NARROW = 60
"""Columns below which the cause is below the title."""


class Page:
    """Formats a report in lines of at most `width` cells (20 at least)."""

    def __init__(self, *, width: int = 80, color: bool = False, glyphs: bool = True, verbose: bool = False) -> None:
        self._width, self._color, self._verbose = max(20, width), color, verbose
        self._glyphs = GLYPHS if glyphs else PLAIN
        self._arrow = "→" if glyphs else "->"

    def heading(self, server: str) -> list[str]:
        """Return the heading."""
        return [*wrap(f"uploader doctor: {safe(server)}", self._width, rest="  "), ""]

    def step(self, result: Result) -> list[str]:
        """Return the lines of one step."""
        found = result.finding
        title = f"{self._sign(result.status)} {result.title:<{TITLE}}"
        time = "" if result.status is Status.SKIPPED else f"{result.ms:,.0f} ms"
        if self._width < NARROW:
            indent = " " * 2
            lines = [f"{title}{time:>{TIME}}".rstrip()]
            lines += wrap(safe(found.cause), self._width, first=indent, rest=indent)
        else:
            indent = " " * (2 + TITLE + TIME + 2)
            lines = wrap(safe(found.cause), self._width, first=indent, rest=indent)
            lines[0] = f"{title}{time:>{TIME}}  {lines[0][len(indent) :]}"
        if found.remedy:
            arrow = f"{indent}{self._arrow} "
            lines += wrap(safe(found.remedy), self._width, first=arrow, rest=" " * len(arrow))
        if self._verbose:
            for key, value in found.details.items():
                shown = ", ".join(value) if isinstance(value, list) else value
                lines += wrap(safe(f"{key}: {shown}"), self._width, first=indent, rest=indent + "  ")
        return [self._painted(lines[0], result.status), *lines[1:]]

    def blocked(self, results: Sequence[Result]) -> list[str]:
        """Return one line for the steps that one failure blocks."""
        if len(results) == 1:
            return self.step(results[0])
        titles = ", ".join(result.title for result in results)
        cause = f"because {results[0].blocked_by} failed: {titles}"
        return self.step(Result("", plural(len(results), "step"), 0.0, skipped(cause)))

    def verdict(self, report: Report) -> list[str]:
        """Return the summary line, and the requests and time used."""
        lines = wrap(safe(report.verdict), self._width, first=f"{self._sign(report.status)} ", rest="  ")
        spent = f"{plural(report.api_calls, 'API call')} used, {report.ms / 1000:.1f} s"
        return ["", f"  {spent}", self._painted(lines[0], report.status), *lines[1:]]

    def _sign(self, status: Status) -> str:
        return self._glyphs[status]

    def _painted(self, line: str, status: Status) -> str:
        """Colour the glyph."""
        sign = self._sign(status)
        return f"{_COLOURS[status]}{sign}{_END}{line[len(sign) :]}" if self._color else line
