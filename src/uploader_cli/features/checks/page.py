"""A report as text for a given width, printed on stderr: a row for each check, and the summary at the end."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from uploader_cli.feature import job_page
from uploader_cli.features.checks.check import Check, Checked, CheckReport, Verdict
from uploader_cli.render import choose, columns, use_color
from uploader_cli.render.words import safe, wrap
from uploader_cli.settings import Settings

_SIGNS = {
    Verdict.PASS: ("✓", "\x1b[32m"),
    Verdict.WARNING: ("!", "\x1b[1;33m"),
    Verdict.FAIL: ("✗", "\x1b[1;31m"),
    Verdict.ERROR: ("✗", "\x1b[1;31m"),
    Verdict.NOT_OFFERED: ("–", "\x1b[2m"),
    Verdict.SKIPPED: ("–", "\x1b[2m"),
    Verdict.NOT_RUN: ("?", "\x1b[1;33m"),
}
"""Sign and colour; `outputs` replaces signs that an encoding does not have."""
_END = "\x1b[0m"


class Page(ABC):
    """Formats a report in lines of at most `width` cells, and prints them.

    `quiet` leaves only what makes the run fail. With `moves`, on a terminal, the last line is the running check.
    """

    command: ClassVar[str]
    narrow: ClassVar[int]  # columns below which a text is below its title

    def __init__(
        self,
        *,
        width: int = 80,
        color: bool = False,
        verbose: bool = False,
        quiet: bool = False,
        moves: bool = False,
    ) -> None:
        self._width, self._color, self._moves = max(20, width), color, moves
        self._verbose, self._quiet = verbose, quiet

    @classmethod
    def begun(cls, settings: Settings, **more: Any) -> Self:
        """Print the heading on stderr, and return the page for that terminal or file."""
        tty, job = sys.stderr.isatty(), job_page(os.environ)
        view = choose("auto", stderr_is_tty=tty, env=os.environ, quiet=settings.quiet)
        page = cls(
            width=columns(80),
            color=use_color(os.environ, is_tty=tty),
            verbose=bool(settings.verbose),
            quiet=settings.quiet,
            moves=view == "live" and not (job and job.most),
            **more,
        )
        page.print(page.heading(settings.target_url))
        return page

    def begin(self, check: Check) -> None:
        """Show the running check, which may take seconds."""
        self._replace(self.running(check))

    def tell(self, result: Checked) -> None:
        """Print a finished check."""
        self._replace("")
        self.print(self.row(result))

    def print(self, lines: Sequence[str]) -> None:
        if lines:
            sys.stderr.write("\n".join(lines) + "\n")
            sys.stderr.flush()

    def _replace(self, line: str) -> None:
        if self._moves:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    @abstractmethod
    def running(self, check: Check) -> str:
        """Return the line of the running check."""

    @abstractmethod
    def row(self, result: Checked) -> list[str]:
        """Return the lines of a finished check."""

    @abstractmethod
    def end(self, report: CheckReport) -> list[str]:
        """Return the lines after all checks: what remains to be said of them, what was used, and the summary."""

    def heading(self, server: str) -> list[str]:
        return [] if self._quiet else [*wrap(f"uploader {self.command}: {safe(server)}", self._width, rest="  "), ""]

    def _sign(self, verdict: Verdict) -> str:
        return _SIGNS[verdict][0]

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
        return [f"{_SIGNS[verdict][1]}{start}{_END}{lines[0][len(start) :]}", *lines[1:]]
