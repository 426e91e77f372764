"""The JUnit XML of a run of checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime  # noqa: TC003 - loaded anyway

from uploader_cli.features.checks.check import Checked, CheckReport, Verdict, counts
from uploader_cli.features.reports import junit as xml

_NAMES = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def junit(report: CheckReport, command: str, when: datetime, properties: Mapping[str, object]) -> Iterator[str]:
    """Yield the document, a suite named after the command. What counts is a failure, or an error if it did not finish.

    A failed check that is not required is reported as skipped.
    """
    tags = [_tag(result, strict=report.strict) for result in report.results]
    numbers = {"tests": len(tags), **{name: tags.count(tag) for name, tag in _NAMES.items()}}
    known = {**properties, "exit_code": int(report.exit_code)}
    yield xml.BEGIN
    yield xml.opening(0, f"uploader {command}", when.isoformat(), report.seconds, numbers, known)
    notes = []
    for result, tag in zip(report.results, tags, strict=True):
        yield xml.case(result.id, f"uploader.{command}", result.seconds, _inside(result, tag))
        if result.verdict in (Verdict.PASS, Verdict.WARNING) and result.finding.message:
            notes.append(f"{result.id}: {result.finding.message}")
    yield xml.closing("\n".join([*notes, *report.notes, *(f"left on the server: {thing}" for thing in report.left)]))
    yield xml.END


def _tag(result: Checked, *, strict: bool) -> str:
    if counts(result, strict=strict):
        return "failure" if result.verdict in (Verdict.FAIL, Verdict.WARNING) else "error"
    return "" if result.verdict in (Verdict.PASS, Verdict.WARNING) else "skipped"


def _inside(result: Checked, tag: str) -> str:
    message = result.finding.message or result.check.description
    if tag in ("", "skipped"):
        return xml.verdict(tag, message=f"{result.verdict.words}: {message}") if tag else ""
    details = {"check": result.check.description, **result.details}
    text = "\n".join(f"{name}: {text}" for name, text in details.items() if text)
    return xml.verdict(tag, text, message=message, type=str(result.verdict))
