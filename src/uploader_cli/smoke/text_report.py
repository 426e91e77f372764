"""The report as text, of whatever width: a table of verdicts, what failed and how, what is left, and one last line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.exit_status import Exit
from uploader_cli.render.words import plural, safe, span, wrap
from uploader_cli.smoke.checks import CHECKS
from uploader_cli.smoke.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.smoke.verdicts import Report, Result

_SIGNS = {
    Verdict.PASS: ("✓", "+", "\x1b[32m"),
    Verdict.WARNING: ("!", "!", "\x1b[1;33m"),
    Verdict.FAIL: ("✗", "x", "\x1b[1;31m"),
    Verdict.ERROR: ("✗", "x", "\x1b[1;31m"),
    Verdict.NOT_OFFERED: ("–", "-", "\x1b[2m"),
    Verdict.SKIPPED: ("–", "-", "\x1b[2m"),
    Verdict.NOT_RUN: ("?", "?", "\x1b[1;33m"),
}
"""A sign, one for terminals whose encoding has no such signs, and a colour."""
_WHY = {Exit.NO_SERVER: "No upload server answers: ", Exit.NOT_AUTHORISED: "The server lets nobody in: "}
"""What all failures come from."""
_END = "\x1b[0m"
_LONGEST_ID = max(len(check.id) for check in CHECKS)
_LONGEST_WORD = max(len(verdict.words) for verdict in Verdict)
TIME = 8
NARROW = 70
"""Columns below which what is said of a check stands below its id."""
MOST_LEFT = 5
"""Things left on the server that are named; `verbose` names all."""


class Page:
    """How a report is drawn: lines of at most `width` cells (of 36 at least)."""

    def __init__(self, *, width: int = 80, color: bool = False, glyphs: bool = True, verbose: bool = False) -> None:
        self._width, self._color, self._glyphs, self._verbose = max(36, width), color, glyphs, verbose
        self._said = ""

    def heading(self, server: str) -> list[str]:
        """What is examined."""
        return [*wrap(f"uploader smoke: {safe(server)}", self._width, rest="  "), ""]

    def row(self, result: Result) -> list[str]:
        """One check. What was said of the one before is not said again."""
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
        """Each check that failed: what was expected, what came instead, and what that means."""
        lines: list[str] = []
        for result in results:
            if result.verdict not in (Verdict.FAIL, Verdict.ERROR):
                continue
            optional = "" if result.required else " (not required)"
            title = f"{self._sign(result.verdict)} {result.id}: {result.description}{optional}"
            lines += ["", *self._painted(wrap(title, self._width, rest="  "), result.verdict)]
            where = "error" if result.verdict is Verdict.ERROR else "seen in"
            told = (where, result.message), ("hint", result.hint), ("expected", result.expected), ("got", result.got)
            for name, text in (*told, ("means", result.means)):
                if text:
                    lines += _beside(f"  {name:<8}  ", text, self._width)
        return lines

    def left(self, report: Report) -> list[str]:
        """What could not be removed."""
        if not report.left:
            return []
        shown = report.left if self._verbose else report.left[:MOST_LEFT]
        more = len(report.left) - len(shown)
        lines = ["", f"Left on the server ({len(report.left)}):"]
        for thing in shown:
            lines += wrap(safe(thing), self._width, first="  ", rest="    ")
        return [*lines, f"  and {more} more (-v names them)"] if more else lines

    def verdict(self, report: Report) -> list[str]:
        """What it took, and the last line, which says it all."""
        spent = f"{report.calls} of {plural(report.budget, 'call')} spent, {span(report.seconds)}"
        verdict = Verdict.PASS if report.ok else Verdict.FAIL
        line = wrap(safe(sentence(report)), self._width, first=f"{self._sign(verdict)} ", rest="  ")
        return ["", *wrap(spent, self._width, first="  ", rest="  "), *self._painted(line, verdict)]

    def looking(self, check_id: str) -> str:
        """The check under way."""
        return f"{'…' if self._glyphs else '.'} {check_id}"

    def _sign(self, verdict: Verdict) -> str:
        return _SIGNS[verdict][0 if self._glyphs else 1]

    def _painted(self, lines: list[str], verdict: Verdict) -> list[str]:
        """The first line, up to its verdict, in colour."""
        if not self._color:
            return lines
        sign = self._sign(verdict)
        start = f"{sign} {verdict.words}" if lines[0].startswith(f"{sign} {verdict.words} ") else sign
        return [f"{_SIGNS[verdict][2]}{start}{_END}{lines[0][len(start) :]}", *lines[1:]]


def sentence(report: Report) -> str:
    """All checks in one sentence."""
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
        return f"Interrupted: {counted[Verdict.NOT_RUN]} of {plural(len(report.results), 'check')} not made{more}"
    if report.ok:
        return f"{plural(ran - len(_forgiven(report)), 'check')} passed{more}"
    broken = [result for result in report.against if result.verdict is not Verdict.NOT_RUN]
    unmade = [result for result in report.against if result.verdict is Verdict.NOT_RUN]
    if not broken:
        return f"{len(unmade)} of {plural(ran, 'check')} not made: {unmade[0].message}{more}"
    also = f"; {len(unmade)} not made" if unmade else ""
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
    """`text` to the right of `start`, in a column of its own."""
    indent = " " * len(start)
    lines = wrap(safe(text), width, first=indent, rest=indent)
    return [(start + lines[0][len(indent) :]).rstrip(), *lines[1:]]
