"""Write a report as JUnit XML: sessions are suites, files are test cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.report import junit_xml as xml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.report.spool import Row, Spool, Suite

WITHOUT_SESSION = "without a session"
"""The suite of files that were never sent, or were sent to a server without sessions."""


def as_junit(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield the XML; failed files are failures, cancelled ones errors, skipped ones skipped."""
    yield xml.BEGIN
    for number, (suite, rows) in enumerate(spool.suites()):
        yield _opening(head, suite, number)
        for row in rows:
            yield xml.case(row["path"], "uploader.upload", row.get("seconds", 0.0), _verdict(row))
        yield xml.closing()
    yield xml.END


def _opening(head: dict[str, Any], suite: Suite, number: int) -> str:
    counts = {"tests": suite.files, "failures": suite.failed, "errors": suite.cancelled, "skipped": suite.skipped}
    properties = {name: head.get(name) for name in ("run", "server", "category", "exit_code")}
    return xml.opening(number, suite.session or WITHOUT_SESSION, head["started"], suite.seconds, counts, properties)


def _verdict(row: Row) -> str:
    match row["outcome"]:
        case "failed":
            code, message = row.get("code", ""), row.get("message", "")
            again = "retryable" if row.get("retryable") else "not retryable"
            return xml.verdict("failure", f"{code}: {message} ({again})", type=code, message=message)
        case "cancelled":
            why = "the run was interrupted before this file was uploaded"
            return xml.verdict("error", type="cancelled", message=why)
        case "skipped":
            return xml.verdict("skipped", message=row.get("reason", ""))
    return ""
