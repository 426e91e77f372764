"""Write JUnit XML in pieces: in a report sessions are suites, files are test cases.

The output is valid under two different schemas, of Jenkins' xUnit plugin and of Ant's junitreport: therefore the root
has no attributes, timestamps have no time zone, and each suite ends with its outputs, even if empty.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from uploader_cli.report.recorder import Row, Spool

WITHOUT_SESSION = "without a session"
"""The suite of files that were never sent, or were sent to a server without sessions."""
BEGIN = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
END = "</testsuites>\n"
_SUITES = """
SELECT session, COUNT(*), SUM(outcome = 'failed'), SUM(outcome = 'cancelled'), SUM(outcome = 'skipped')
FROM files GROUP BY session ORDER BY MIN(number)
"""
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow, not even as a reference (production 2, Char)."""


def as_junit(head: dict[str, Any], spool: Spool) -> Iterator[str]:
    """Yield the XML; failed files are failures, cancelled ones errors, skipped ones skipped.

    The time of a suite is that of the run: files are sent at the same time, so their sum is no duration.
    """
    yield BEGIN
    properties = {name: head.get(name) for name in ("run", "server", "category", "exit_code")}
    for number, (session, counts, rows) in enumerate(_suites(spool)):
        named = dict(zip(("tests", "failures", "errors", "skipped"), counts, strict=True))
        suite = session or WITHOUT_SESSION
        yield opening(number, suite, head["started"], head.get("seconds") or 0.0, named, properties)
        for row in rows:
            yield case(row["path"], "uploader.upload", row.get("seconds", 0.0), _verdict(row))
        yield closing()
    yield END


def _suites(spool: Spool) -> Iterator[tuple[str | None, list[int], Iterator[Row]]]:
    """Yield the sessions in the order of their first files, None for files without one.

    Each has its numbers of files, of failed, cancelled and skipped ones, and its rows.
    """
    spool.execute("CREATE INDEX IF NOT EXISTS by_session ON files (session, number)")
    for session, *counts in spool.execute(_SUITES):
        found = spool.execute("SELECT row FROM files WHERE session IS ? ORDER BY number", session)
        yield session, counts, (json.loads(text) for (text,) in found)


def _verdict(row: Row) -> str:
    match row["outcome"]:
        case "failed":
            code, message = row.get("code", ""), row.get("message", "")
            again = "retryable" if row.get("retryable") else "not retryable"
            return verdict("failure", f"{code}: {message} ({again})", type=code, message=message)
        case "cancelled":
            untried = row.get("reason") == "not_tried"
            why = "the run ended" if untried else "the run was interrupted"
            why += " before this file was uploaded"
            return verdict("error", type="cancelled", message=why)
        case "skipped":
            return verdict("skipped", message=row.get("reason", ""))
    return ""


def opening(
    number: int, name: str, started: str, seconds: float, counts: Mapping[str, int], properties: Mapping[str, object]
) -> str:
    """Return the start of a suite; its cases follow. `started` is RFC 3339 in UTC; `counts` are of `tests`, `failures`,
    `errors` and `skipped`; a property of None is omitted.
    """
    when = re.split("[.Z+]", started)[0]
    place = _attributes(name=name, id=number, package="uploader", hostname="localhost", timestamp=when)
    known = (_attributes(name=name, value=value) for name, value in properties.items() if value is not None)
    listed = "".join(f"      <property{each}/>\n" for each in known)
    suite = f"  <testsuite{place}{_attributes(**counts, time=f'{seconds:.3f}')}>\n"
    return f"{suite}    <properties>\n{listed}    </properties>\n"


def case(name: str, classname: str, seconds: float, verdict: str = "") -> str:
    """Return one test case; without a `verdict` it passed."""
    attributes = _attributes(name=name, classname=classname, time=f"{seconds:.3f}")
    return f"    <testcase{attributes}>{verdict}</testcase>\n" if verdict else f"    <testcase{attributes}/>\n"


def verdict(tag: str, text: str = "", **attributes: str) -> str:
    """Return the element in a case that did not pass: `failure`, `error` or `skipped`."""
    head = tag + _attributes(**attributes)
    return f"<{head}>{_text(text)}</{tag}>" if text else f"<{head}/>"


def closing(out: str = "") -> str:
    """Return the end of a suite, with the output `out`."""
    element = f"<system-out>{_text(out)}</system-out>" if out else "<system-out/>"
    return f"    {element}\n    <system-err/>\n  </testsuite>\n"


def _attributes(**values: object) -> str:
    # quoteattr escapes line breaks and tabs
    return "".join(f" {name}={quoteattr(_legal(str(value)))}" for name, value in values.items())


def _text(text: str) -> str:
    return escape(_legal(text))


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
