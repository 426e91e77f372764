"""A report as JUnit XML: a session is a suite, a file is a test case.

Held to both schemas in use, that of Jenkins' xUnit plugin and that of Ant's junitreport, which allow different things:
so there are no attributes at the root, no time zone in a timestamp, and each suite ends with empty outputs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.report.spool import Row, Spool, Suite

WITHOUT_SESSION = "without a session"
"""The suite of files that were never sent, or went to a server that knows no sessions."""
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't carry, not even as a reference (its production 2, Char)."""


def as_junit(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Failed files are failures, cancelled ones errors, skipped ones skipped."""
    yield '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
    for number, (suite, rows) in enumerate(spool.suites()):
        yield _opening(head, suite, number)
        for row in rows:
            yield _case(row)
        yield "    <system-out/>\n    <system-err/>\n  </testsuite>\n"
    yield "</testsuites>\n"


def _opening(head: dict[str, Any], suite: Suite, number: int) -> str:
    attributes = _attributes(
        name=suite.session or WITHOUT_SESSION,
        id=number,
        package="uploader",
        hostname="localhost",
        timestamp=head["started"].partition(".")[0],
        tests=suite.files,
        failures=suite.failed,
        errors=suite.cancelled,
        skipped=suite.skipped,
        time=f"{suite.seconds:.3f}",
    )
    known = {name: head.get(name) for name in ("run", "server", "category", "exit_code")}
    properties = "".join(
        f"      <property{_attributes(name=name, value=value)}/>\n"
        for name, value in known.items()
        if value is not None
    )
    return f"  <testsuite{attributes}>\n    <properties>\n{properties}    </properties>\n"


def _case(row: Row) -> str:
    head = f"    <testcase{_attributes(name=row['path'], classname='uploader.upload', time=_seconds(row))}"
    inside = _verdict(row)
    return f"{head}>{inside}</testcase>\n" if inside else f"{head}/>\n"


def _seconds(row: Row) -> str:
    return f"{row.get('seconds', 0.0):.3f}"


def _verdict(row: Row) -> str:
    match row["outcome"]:
        case "failed":
            code, message = row.get("code", ""), row.get("message", "")
            again = "trying again can help" if row.get("retryable") else "trying again does not help by itself"
            return (
                f"<failure{_attributes(type=code, message=message)}>{_text(f'{code}: {message} ({again})')}</failure>"
            )
        case "cancelled":
            return (
                f"<error{_attributes(type='cancelled', message='the run was interrupted before this file was there')}/>"
            )
        case "skipped":
            return f"<skipped{_attributes(message=row.get('reason', ''))}/>"
    return ""


def _attributes(**values: object) -> str:
    return "".join(f" {name}={_quoted(str(value))}" for name, value in values.items())


def _quoted(text: str) -> str:
    return quoteattr(_legal(text))  # line breaks and tabs become references


def _text(text: str) -> str:
    return escape(_legal(text))


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
