"""The rules of Jenkins' `junit-10.xsd`, which GitLab and GitHub's actions read as well, where a report can break them.

Written down by hand: no validator of XML schemas is among the dependencies.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

TIME = r"\d+\.\d{3}"
NUMBER = r"\d+"
ATTRIBUTES = {
    "testsuites": {"name": ".+", "tests": NUMBER, "failures": NUMBER, "errors": NUMBER, "time": TIME},
    "testsuite": {
        "name": ".+",
        "tests": NUMBER,
        "failures": NUMBER,
        "errors": NUMBER,
        "skipped": NUMBER,
        "time": TIME,
        "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
    },
    "properties": {},
    "property": {"name": ".+", "value": ".*"},
    "testcase": {"name": ".+", "classname": ".+", "time": TIME},
    "failure": {"message": ".*", "type": ".+"},
    "error": {"message": ".*", "type": ".+"},
    "skipped": {"message": ".*"},
    "system-out": {},
}
"""An element and its attributes, all of which we write, with the pattern of each."""
CHILDREN = {
    "testsuites": r"(testsuite )*",
    "testsuite": r"(properties )?(testcase )*(system-out )?",
    "properties": r"(property )+",
    "testcase": r"((skipped )|(failure )|(error ))?(system-out )?",
}
"""The children of an element, in their order; the others have none."""


def check(document: bytes) -> ET.Element:
    """The root, where the document keeps all rules; `AssertionError` where it does not."""
    root = ET.fromstring(document)
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.attrib) == set(ATTRIBUTES[element.tag]), element.tag
        for name, pattern in ATTRIBUTES[element.tag].items():
            assert re.fullmatch(pattern, element.attrib[name], re.DOTALL), (element.tag, name, element.attrib[name])
        children = "".join(f"{child.tag} " for child in element)
        assert re.fullmatch(CHILDREN.get(element.tag, ""), children), (element.tag, children)
    for suite in root:
        cases = suite.findall("testcase")
        assert suite.get("tests") == root.get("tests") == str(len(cases))
        for counted, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(counted) == str(len(suite.findall(f"testcase/{tag}")))
        names = [case.get("name") for case in cases]
        assert len(set(names)) == len(names)
    return root
