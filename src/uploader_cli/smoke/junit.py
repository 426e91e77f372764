"""The report as JUnit XML, in the form that GitLab, Jenkins and GitHub's actions read (Jenkins' `junit-10.xsd`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from uploader_cli.smoke.verdicts import Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from uploader_cli.smoke.verdicts import Report, Result

NAME = "uploader smoke"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't carry, not even escaped."""


def junit(report: Report, when: datetime) -> bytes:
    """The document. A check that does not count against the server is never a failure in it, but skipped."""
    cases = [_case(result, strict=report.strict) for result in report.results]
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    totals = {name: str(count) for name, count in counts.items()} | {"time": f"{report.seconds:.3f}"}
    suite = ET.Element("testsuite", {"name": NAME, **totals, "skipped": str(skipped)})
    suite.set("timestamp", when.strftime("%Y-%m-%dT%H:%M:%S"))
    properties = ET.SubElement(suite, "properties")
    told = {"server": report.server, "calls": report.calls, "budget": report.budget, "exit_code": int(report.exit_code)}
    for name, value in told.items():
        ET.SubElement(properties, "property", name=name, value=_clean(str(value)))
    suite.extend(cases)
    if report.left:
        ET.SubElement(suite, "system-out").text = _clean("left on the server:\n" + "\n".join(report.left))
    suites = ET.Element("testsuites", {"name": NAME, **totals})
    suites.append(suite)
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document


def _case(result: Result, *, strict: bool) -> ET.Element:
    case = ET.Element("testcase", name=result.id, classname="uploader.smoke", time=f"{result.seconds:.3f}")
    message = _clean(result.message or result.description)
    counts = result.counts(strict=strict)
    if counts and result.verdict in (Verdict.FAIL, Verdict.WARNING):
        ET.SubElement(case, "failure", message=message, type=str(result.verdict)).text = _clean(_details(result))
    elif counts:
        ET.SubElement(case, "error", message=message, type=str(result.verdict)).text = _clean(_details(result))
    elif result.verdict not in (Verdict.PASS, Verdict.WARNING):
        ET.SubElement(case, "skipped", message=f"{result.verdict.words}: {message}")
    if result.verdict in (Verdict.PASS, Verdict.WARNING) and result.message and not counts:
        ET.SubElement(case, "system-out").text = message
    return case


def _details(result: Result) -> str:
    told = ("check", result.description), ("expected", result.expected), ("got", result.got), ("means", result.means)
    return "\n".join(f"{name}: {text}" for name, text in told if text)


def _clean(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
