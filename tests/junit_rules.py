"""The rules of JUnit XML that CI systems read, as a check by hand: both the schema of Jenkins' xUnit plugin and that of
Ant's junitreport, which GitLab, GitHub's actions, Azure and TeamCity read as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterable

_SUITE = {"name", "tests", "failures", "errors", "time", "timestamp", "hostname", "id", "package"}
_TIME = re.compile(r"[0-9]+(\.[0-9]*)?")
_VERDICTS = {"failure", "error", "skipped"}
_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def check_junit(text: str) -> Any:
    """Return the root of a document after checking all rules; raise AssertionError for a violation."""
    root = ET.fromstring(text)
    assert (root.tag, root.attrib) == ("testsuites", {})
    for number, suite in enumerate(root):
        _check_suite(suite, number)
    return root


def _check_suite(suite: Any, number: int) -> None:
    assert suite.tag == "testsuite"
    _names(suite, must=_SUITE, may={"skipped"})
    assert suite.get("name").strip()
    assert int(suite.get("id")) == number
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp")), "no fraction and no zone"
    assert _TIME.fullmatch(suite.get("time"))
    properties, *cases, out, err = suite
    assert (properties.tag, out.tag, err.tag) == ("properties", "system-out", "system-err")
    for item in properties:
        assert item.tag == "property"
        _names(item, must={"name", "value"})
    for case in cases:
        _check_case(case)
    assert int(suite.get("tests")) == len(cases)
    for attribute, tag in _COUNTED.items():
        assert int(suite.get(attribute, "0")) == sum(inner.tag == tag for case in cases for inner in case)


def _check_case(case: Any) -> None:
    assert case.tag == "testcase"
    _names(case, must={"name", "classname", "time"})
    assert _TIME.fullmatch(case.get("time"))
    assert len(case) <= 1
    for verdict in case:
        assert verdict.tag in _VERDICTS
        assert len(verdict) == 0
        _names(verdict, must={"message"} if verdict.tag == "skipped" else {"message", "type"}, may={"type"})


def _names(element: Any, *, must: Iterable[str], may: Iterable[str] = ()) -> None:
    assert set(must) <= set(element.attrib) <= {*must, *may}, element.attrib
