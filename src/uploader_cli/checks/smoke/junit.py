"""Write the checks as JUnit XML: one suite with a test case per check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.verdicts import Verdict
from uploader_cli.report import junit as xml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from uploader_cli.checks.smoke.verdicts import Report, Result


def junit(report: Report, when: datetime) -> Iterator[str]:
    """Yield the document. A failed check that is not required is reported as skipped."""
    tags = [_tag(result, strict=report.strict) for result in report.results]
    names = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    counts = {"tests": len(tags), **{name: tags.count(tag) for name, tag in names.items()}}
    properties = {
        "server": report.server,
        "calls": report.calls,
        "budget": report.budget,
        "exit_code": int(report.exit_code),
    }
    yield xml.BEGIN
    yield xml.opening(0, "uploader smoke", when.isoformat(), report.seconds, counts, properties)
    for result, tag in zip(report.results, tags, strict=True):
        yield xml.case(result.id, "uploader.smoke", result.seconds, _inside(result, tag))
    yield xml.closing("\n".join(_notes(report)))
    yield xml.END


def _tag(result: Result, *, strict: bool) -> str:
    if result.counts(strict=strict):
        return "failure" if result.verdict in (Verdict.FAIL, Verdict.WARNING) else "error"
    return "" if result.verdict in (Verdict.PASS, Verdict.WARNING) else "skipped"


def _inside(result: Result, tag: str) -> str:
    message = result.message or result.description
    match tag:
        case "":
            return ""
        case "skipped":
            return xml.verdict(tag, message=f"{result.verdict.words}: {message}")
    return xml.verdict(tag, _details(result), message=message, type=str(result.verdict))


def _details(result: Result) -> str:
    lines = {"check": result.description, "hint": result.hint, "expected": result.expected, "got": result.got}
    return "\n".join(f"{name}: {text}" for name, text in {**lines, "means": result.means}.items() if text)


def _notes(report: Report) -> list[str]:
    """Return the notes of passed checks, and what is left on the server."""
    passed = (found for found in report.results if found.verdict in (Verdict.PASS, Verdict.WARNING) and found.message)
    notes = [f"{found.id}: {found.message}" for found in passed]
    return [*notes, *(f"left on the server: {thing}" for thing in report.left)]
