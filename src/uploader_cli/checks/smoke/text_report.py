"""The report as text for a given width: a table of verdicts, the failures, what is left, and a summary line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.checks import CHECKS
from uploader_cli.checks.smoke.verdicts import Verdict
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import plural, safe, span, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.checks.smoke.verdicts import Report, Result

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
_WHY = {Exit.NO_SERVER: "No upload server answers: ", Exit.NOT_AUTHORISED: "The server denies access: "}
"""The common cause of all failures."""
_END = "\x1b[0m"
_LONGEST_ID = max(len(check.id) for check in CHECKS)
_LONGEST_WORD = max(len(verdict.words) for verdict in Verdict)
TIME = 8
NARROW = 70
"""Columns below which the message is below the ID."""
MOST_LEFT = 5
"""Maximum objects left on the server that are listed, unless `verbose`."""


class Page:
    """Formats a report in lines of at most `width` cells (36 at least)."""

    def __init__(self, *, width: int = 80, color: bool = False, glyphs: bool = True, verbose: bool = False) -> None:
        self._width, self._color, self._glyphs, self._verbose = max(36, width), color, glyphs, verbose
        self._said = ""

    def heading(self, server: str) -> list[str]:
        """Return the heading."""
        return [*wrap(f"uploader smoke: {safe(server)}", self._width, rest="  "), ""]

    def row(self, result: Result) -> list[str]:
        """Return the lines of one check, without repeating the previous message."""
        said = result.message if result.message != self._said else ""
        self._said = result.message
        if self._verbose and result.verdict in (Verdict.PASS, Verdict.NOT_OFFERED):
            said = f"{result.description} ({result.message})" if result.message else result.description
        ran = result.verdict not in (Verdict.NOT_OFFERED, Verdict.SKIPPED, Verdict.NOT_RUN)
        time = span(result.seconds) if ran else ""
        return self._narrow(result, time, said) if self._width < NARROW else self._wide(result, time, said)

    def _wide(self, result: Result, time: str, said: str) -> list[str]:
        sign = self._sign(result.verdict)
        start = f"{sign} {result.verdict.words:<{_LONGEST_WORD}}  {result.id:<{_LONGEST_ID}}{time:>{TIME}}  "
        return self._painted(_beside(start, said, self._width), result.verdict)

    def _narrow(self, result: Result, time: str, said: str) -> list[str]:
        line = f"{self._sign(result.verdict)} {result.id:<{_LONGEST_ID}}{time:>{TIME}}".rstrip()
        if result.verdict is Verdict.PASS:
            below = said
        else:
            below = f"{result.verdict.words}: {said}" if said else result.verdict.words
        lines = [line, *(wrap(safe(below), self._width, first="  ", rest="  ") if below else ())]
        return self._painted(lines, result.verdict)

    def failures(self, results: Sequence[Result]) -> list[str]:
        """Return the details of each failed check."""
        lines: list[str] = []
        for result in results:
            if result.verdict not in (Verdict.FAIL, Verdict.ERROR):
                continue
            optional = "" if result.required else " (not required)"
            title = f"{self._sign(result.verdict)} {result.id}: {result.description}{optional}"
            lines += ["", *self._painted(wrap(title, self._width, rest="  "), result.verdict)]
            where = "error" if result.verdict is Verdict.ERROR else "in"
            details = (where, result.message), ("hint", result.hint), ("expected", result.expected), ("got", result.got)
            for name, text in (*details, ("means", result.means)):
                if text:
                    lines += _beside(f"  {name:<8}  ", text, self._width)
        return lines

    def left(self, report: Report) -> list[str]:
        """Return what could not be deleted."""
        if not report.left:
            return []
        shown = report.left if self._verbose else report.left[:MOST_LEFT]
        more = len(report.left) - len(shown)
        lines = ["", f"Left on the server ({len(report.left)}):"]
        for thing in shown:
            lines += wrap(safe(thing), self._width, first="  ", rest="    ")
        return [*lines, f"  and {more} more (-v lists them)"] if more else lines

    def verdict(self, report: Report) -> list[str]:
        """Return the requests and time used, and the summary line."""
        spent = f"{report.calls} of {plural(report.budget, 'call')} used, {span(report.seconds)}"
        verdict = Verdict.PASS if report.ok else Verdict.FAIL
        line = wrap(safe(sentence(report)), self._width, first=f"{self._sign(verdict)} ", rest="  ")
        return ["", *wrap(spent, self._width, first="  ", rest="  "), *self._painted(line, verdict)]

    def running(self, check_id: str) -> str:
        """Return the line of the running check."""
        return f"{'…' if self._glyphs else '.'} {check_id}"

    def _sign(self, verdict: Verdict) -> str:
        return _SIGNS[verdict][0 if self._glyphs else 1]

    def _painted(self, lines: list[str], verdict: Verdict) -> list[str]:
        """Colour the first line up to its verdict."""
        if not self._color:
            return lines
        sign = self._sign(verdict)
        start = f"{sign} {verdict.words}" if lines[0].startswith(f"{sign} {verdict.words} ") else sign
        return [f"{_SIGNS[verdict][2]}{start}{_END}{lines[0][len(start) :]}", *lines[1:]]


def sentence(report: Report) -> str:
    """Summarize all checks in one sentence."""
    counted = report.counted
    ran = len(report.results) - counted[Verdict.NOT_OFFERED] - counted[Verdict.SKIPPED]
    rest = [
        f"{counted[verdict]} {words}"
        for verdict, words in (
            (Verdict.NOT_OFFERED, "not offered"),
            (Verdict.SKIPPED, "skipped"),
            (Verdict.WARNING, "with a warning"),
        )
        if counted[verdict]
    ]
    rest += [f"not required and failed: {_ids(_forgiven(report))}"] if _forgiven(report) else []
    more = f" ({', '.join(rest)})" if rest else ""
    if report.exit_code in (130, 143):
        return f"Interrupted: {counted[Verdict.NOT_RUN]} of {plural(len(report.results), 'check')} not run{more}"
    if report.ok:
        return f"{plural(ran - len(_forgiven(report)), 'check')} passed{more}"
    broken = [result for result in report.against if result.verdict is not Verdict.NOT_RUN]
    unmade = [result for result in report.against if result.verdict is Verdict.NOT_RUN]
    if not broken:
        return f"{len(unmade)} of {plural(ran, 'check')} not run: {unmade[0].message}{more}"
    also = f"; {len(unmade)} not run" if unmade else ""
    why = _WHY.get(report.exit_code, "")
    return f"{why}{len(broken)} of {plural(ran, 'check')} failed: {_ids(broken)}{also}{more}"


def _forgiven(report: Report) -> list[Result]:
    return [
        result
        for result in report.results
        if result.verdict in (Verdict.FAIL, Verdict.ERROR) and not result.counts(strict=report.strict)
    ]


def _ids(results: Sequence[Result]) -> str:
    return ", ".join(result.id for result in results)


def _beside(start: str, text: str, width: int) -> list[str]:
    """Put `text` to the right of `start`, in a column."""
    indent = " " * len(start)
    lines = wrap(safe(text), width, first=indent, rest=indent)
    return [(start + lines[0][len(indent) :]).rstrip(), *lines[1:]]
