"""The report of a smoke run: exit code, one sentence, text, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from uploader_cli.exit_status import Exit, worst
from uploader_cli.feature import JobPage
from uploader_cli.features.checks.check import BROKEN, Check, Checked, CheckReport, Verdict, counts
from uploader_cli.features.checks.page import Page
from uploader_cli.features.reports.markdown import plain
from uploader_cli.render.words import plural, safe, span, wrap

_WHY = {Exit.NO_SERVER: "No upload server answers: ", Exit.NOT_AUTHORISED: "The server denies access: "}
"""The common cause of all failures."""
_ID, _WORD, _TIME = 25, 11, 8  # cells of the longest ID, of the longest verdict, and of a time
MOST_LEFT = 5  # maximum objects left on the server that are listed, unless `verbose`


def exit_of(results: Sequence[Checked], *, strict: bool, speaks: bool, refused: bool) -> Exit:
    """Return the exit code: 5 if all requests were refused (`refused`), 6 if no upload server answered."""
    against = [result.finding.exit or Exit.FAILED_FOR_GOOD for result in results if counts(result, strict=strict)]
    if not against:
        return Exit.OK
    if refused:
        return Exit.NOT_AUTHORISED
    return worst(against) if speaks else Exit.NO_SERVER


def sentence(results: Sequence[Checked], code: Exit, *, strict: bool) -> str:
    number = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    ran = len(results) - number[Verdict.NOT_OFFERED] - number[Verdict.SKIPPED]
    against = [result for result in results if counts(result, strict=strict)]
    tolerated = [result for result in results if result.verdict in BROKEN and result not in against]
    words = {Verdict.NOT_OFFERED: "not offered", Verdict.SKIPPED: "skipped", Verdict.WARNING: "with a warning"}
    rest = [f"{number[verdict]} {text}" for verdict, text in words.items() if number[verdict]]
    rest += [f"not required and failed: {_ids(tolerated)}"] if tolerated else []
    more = f" ({', '.join(rest)})" if rest else ""
    if code in (Exit.SIGINT, Exit.SIGTERM):
        return f"Interrupted: {number[Verdict.NOT_RUN]} of {plural(len(results), 'check')} not run{more}"
    if code is Exit.OK:
        return f"{plural(ran - len(tolerated), 'check')} passed{more}"
    broken = [result for result in against if result.verdict is not Verdict.NOT_RUN]
    not_run = [result for result in against if result.verdict is Verdict.NOT_RUN]
    if not broken:
        return f"{len(not_run)} of {plural(ran, 'check')} not run: {not_run[0].finding.message}{more}"
    also = f"; {len(not_run)} not run" if not_run else ""
    return f"{_WHY.get(code, '')}{len(broken)} of {plural(ran, 'check')} failed: {_ids(broken)}{also}{more}"


def _ids(results: Sequence[Checked]) -> str:
    return ", ".join(result.id for result in results)


class SmokePage(Page):
    """A table of verdicts, failures with their details, what is left on the server, and a summary line."""

    command, narrow = "smoke", 70
    _said = ""

    def __init__(self, *, strict: bool = False, leaves: str = "", **how: Any) -> None:
        """`strict` is that of the run, `leaves` the name of files that it can't delete, if any; `how` is for `Page`."""
        super().__init__(**how)
        self._strict, self._leaves = strict, leaves

    def heading(self, server: str) -> list[str]:
        """Return the heading, which says what stays on the server."""
        lines = super().heading(server)
        if lines and self._leaves:
            note = f"Without a token the files of the checks stay on the server, as {self._leaves}: give one with"
            lines[-1:] = [*wrap(f"{note} --token-file", self._width), ""]
        return lines

    def running(self, check: Check) -> str:
        return f"… {check.id}"

    def row(self, result: Checked) -> list[str]:
        """Return the lines of one check, without repeating the previous message; all about a failure is here."""
        check, verdict, message = result.check, result.verdict, result.finding.message
        broken = verdict in BROKEN
        if self._quiet and not (broken and counts(result, strict=self._strict)):
            return []
        said, self._said = message if message != self._said else "", message
        if broken:
            said = check.description + ("" if check.required else " (not required)")
        elif self._verbose and verdict in (Verdict.PASS, Verdict.NOT_OFFERED):
            said = f"{check.description} ({message})" if message else check.description
        ran = verdict not in (Verdict.NOT_OFFERED, Verdict.SKIPPED, Verdict.NOT_RUN)
        title = f"{check.id:<{_ID}}{span(result.seconds) if ran else '':>{_TIME}}"
        if self._width >= self.narrow:
            lines = self._beside(f"{self._sign(verdict)} {verdict.words:<{_WORD}}  {title}  ", said)
        else:
            words = "" if verdict is Verdict.PASS else verdict.words
            lines = self._below(f"{self._sign(verdict)} {title}", ": ".join(filter(None, (words, said))))
        return [*self._painted(lines, verdict), *(self._why(result) if broken else ())]

    def end(self, report: CheckReport) -> list[str]:
        """Return what was left on the server, what is known of it, the requests and time used, and the summary."""
        if self._quiet and report.ok:
            return []
        spent = f"{report.calls} of {plural(report.budget, 'call')} used, {span(report.seconds)}"
        notes = [line for note in report.notes for line in ("", *wrap(safe(note), self._width, first="  ", rest="  "))]
        lines = [*self._left(report.left), *notes, *self._summary(report, spent)]
        return lines[1:] if self._quiet else lines

    def _why(self, result: Checked) -> list[str]:
        lines, where = [], "error" if result.verdict is Verdict.ERROR else "in"
        for name, text in {where: result.finding.message, **result.details}.items():
            if text:
                lines += self._beside(f"  {name:<8}  ", text)
        return lines

    def _left(self, left: Sequence[str]) -> list[str]:
        if not left:
            return []
        shown = left if self._verbose else left[:MOST_LEFT]
        lines = ["", f"Left on the server ({len(left)}):"]
        for thing in shown:
            lines += wrap(safe(thing), self._width, first="  ", rest="    ")
        more = len(left) - len(shown)
        return [*lines, f"  and {more} more (-v lists them)"] if more else lines


def check_json(result: Checked) -> dict[str, object]:
    return {
        "type": "check",
        "id": result.id,
        "description": result.check.description,
        "required": result.check.required,
        "verdict": str(result.verdict),
        "seconds": round(result.seconds, 3),
        "calls": result.calls,
        "message": result.finding.message,
        "expected": result.finding.expected,
        "got": result.finding.got,
        "hint": result.finding.hint,
        "means": result.details["means"],
        "blocked_by": result.blocked_by,
    }


def report_json(report: CheckReport) -> dict[str, object]:
    return {
        "type": "verdict",
        "server": report.server,
        "ok": report.ok,
        "exit_code": int(report.exit_code),
        "strict": report.strict,
        "against": [result.id for result in report.results if counts(result, strict=report.strict)],
        "counts": {str(each): sum(result.verdict is each for result in report.results) for each in Verdict},
        "calls": report.calls,
        "budget": report.budget,
        "seconds": round(report.seconds, 3),
        "left": list(report.left),
        "notes": list(report.notes),
    }


def annotation(page: JobPage, result: Checked) -> str:
    """Return the annotation of a result that makes the run fail."""
    return page.error(_in_words(result), title=f"uploader smoke: {result.id}")


def markdown(report: CheckReport) -> Iterator[str]:
    """Yield a summary in Markdown: the verdict, the checks that failed, and what is left on the server."""
    yield f"## {'✓' if report.ok else '✗'} {plain(report.summary)}\n\n"
    shown = [result for result in report.results if result.verdict in (*BROKEN, Verdict.WARNING, Verdict.NOT_RUN)]
    if shown:
        yield "| check | verdict | reason |\n|---|---|---|\n"
        yield from (f"| {result.id} | {result.verdict.words} | {plain(_in_words(result))} |\n" for result in shown)
        yield "\n"
    yield from (f"{plain(note)}\n\n" for note in report.notes)
    spent = f"{report.calls} of {plural(report.budget, 'call')} used in {span(report.seconds)}"
    left = f" · {plural(len(report.left), 'object')} left on the server" if report.left else ""
    yield f"{plain(report.server)} · {spent}{left} · exit code {int(report.exit_code)}\n\n"


def _in_words(result: Checked) -> str:
    """Return what a failed check expects, where it failed, what it got, and the fix, in one line."""
    found = result.finding
    difference = f"expected {found.expected}, got {found.got}" if found.expected else ""
    return "; ".join(filter(None, (result.check.description, found.message, difference, found.hint)))
