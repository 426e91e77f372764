"""A report as text for a given width: a row for each check, and the summary at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from uploader_cli.checks.check import CheckReport, Verdict
from uploader_cli.render.words import safe, wrap

_SIGNS = {
    Verdict.PASS: ("✓", "+", "\x1b[32m"),
    Verdict.WARNING: ("!", "!", "\x1b[1;33m"),
    Verdict.FAIL: ("✗", "x", "\x1b[1;31m"),
    Verdict.ERROR: ("✗", "x", "\x1b[1;31m"),
    Verdict.NOT_OFFERED: ("–", "-", "\x1b[2m"),
    Verdict.SKIPPED: ("–", "-", "\x1b[2m"),
    Verdict.NOT_RUN: ("?", "?", "\x1b[1;33m"),
}
"""Glyph, ASCII glyph and colour."""
_END = "\x1b[0m"


class Page:
    """Formats a report in lines of at most `width` cells.

    A subclass has `running`, the line of the running check, `row`, the lines of a result, and `end`, those after all
    checks. `quiet` leaves only what makes the run fail.
    """

    command: ClassVar[str]
    narrow: ClassVar[int]  # columns below which a text is below its title

    def __init__(
        self, *, width: int = 80, color: bool = False, glyphs: bool = True, verbose: bool = False, quiet: bool = False
    ) -> None:
        self._width, self._color, self._glyphs = max(20, width), color, glyphs
        self._verbose, self._quiet = verbose, quiet

    def heading(self, server: str) -> list[str]:
        return [] if self._quiet else [*wrap(f"uploader {self.command}: {safe(server)}", self._width, rest="  "), ""]

    def _sign(self, verdict: Verdict) -> str:
        return _SIGNS[verdict][0 if self._glyphs else 1]

    def _beside(self, start: str, text: str) -> list[str]:
        """Put `text` to the right of `start`, in a column."""
        indent = " " * len(start)
        first, *rest = wrap(safe(text), self._width, first=indent, rest=indent)
        return [(start + first[len(indent) :]).rstrip(), *rest]

    def _below(self, title: str, text: str) -> list[str]:
        return [title.rstrip(), *(wrap(safe(text), self._width, first="  ", rest="  ") if text else ())]

    def _summary(self, report: CheckReport, spent: str) -> list[str]:
        line = wrap(safe(report.summary), self._width, first=f"{self._sign(report.verdict)} ", rest="  ")
        return ["", *wrap(spent, self._width, first="  ", rest="  "), *self._painted(line, report.verdict)]

    def _painted(self, lines: Sequence[str], verdict: Verdict) -> list[str]:
        """Colour the first line up to its verdict."""
        if not self._color:
            return [*lines]
        sign = self._sign(verdict)
        start = f"{sign} {verdict.words}" if lines[0].startswith(f"{sign} {verdict.words} ") else sign
        return [f"{_SIGNS[verdict][2]}{start}{_END}{lines[0][len(start) :]}", *lines[1:]]
