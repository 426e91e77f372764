"""The checks as JUnit XML, held to both schemas in use as an upload's report is: Jenkins' xUnit plugin's and Ant's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from uploader_cli.smoke.verdicts import Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from uploader_cli.smoke.verdicts import Report, Result

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't carry, not even as a reference (its production 2, Char)."""


def junit(report: Report, when: datetime) -> str:
    """The document. A check that does not count against the server is never a failure in it, but skipped."""
    cases = [_case(result, strict=report.strict) for result in report.results]
    suite = ET.Element(
        "testsuite",
        name="uploader smoke",
        id="0",
        package="uploader",
        hostname="localhost",
        timestamp=when.strftime("%Y-%m-%dT%H:%M:%S"),
        tests=str(len(cases)),
        failures=_count(cases, "failure"),
        errors=_count(cases, "error"),
        skipped=_count(cases, "skipped"),
        time=f"{report.seconds:.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    told = {"server": report.server, "calls": report.calls, "budget": report.budget, "exit_code": int(report.exit_code)}
    for name, value in told.items():
        ET.SubElement(properties, "property", name=name, value=_legal(str(value)))
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = _legal("\n".join(_notes(report)))
    ET.SubElement(suite, "system-err")
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _case(result: Result, *, strict: bool) -> ET.Element:
    case = ET.Element("testcase", name=result.id, classname="uploader.smoke", time=f"{result.seconds:.3f}")
    message = _legal(result.message or result.description)
    if result.counts(strict=strict):
        tag = "failure" if result.verdict in (Verdict.FAIL, Verdict.WARNING) else "error"
        ET.SubElement(case, tag, message=message, type=str(result.verdict)).text = _legal(_details(result))
    elif result.verdict not in (Verdict.PASS, Verdict.WARNING):
        ET.SubElement(case, "skipped", message=f"{result.verdict.words}: {message}")
    return case


def _details(result: Result) -> str:
    told = (
        ("check", result.description),
        ("hint", result.hint),
        ("expected", result.expected),
        ("got", result.got),
        ("means", result.means),
    )
    return "\n".join(f"{name}: {text}" for name, text in told if text)


def _notes(report: Report) -> list[str]:
    """What was said of checks that hold, and what is left."""
    held = (found for found in report.results if found.verdict in (Verdict.PASS, Verdict.WARNING) and found.message)
    notes = [f"{found.id}: {found.message}" for found in held]
    return [*notes, *(f"left on the server: {thing}" for thing in report.left)]


def _count(cases: list[ET.Element], tag: str) -> str:
    return str(sum(case.find(tag) is not None for case in cases))


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
