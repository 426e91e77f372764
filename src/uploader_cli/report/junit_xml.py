"""JUnit XML piece by piece, whatever the suites and cases tell of.

Held to both schemas in use, that of Jenkins' xUnit plugin and that of Ant's junitreport, which allow different things:
so there are no attributes at the root, no time zone in a timestamp, and each suite ends with its outputs, empty or not.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Mapping

BEGIN = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n'
END = "</testsuites>\n"
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't carry, not even as a reference (its production 2, Char)."""


def opening(
    number: int, name: str, started: str, seconds: float, counts: Mapping[str, int], properties: Mapping[str, object]
) -> str:
    """The beginning of a suite; its cases follow. `started` is RFC 3339, in UTC, `counts` are those of `tests`,
    `failures`, `errors` and `skipped`; a property of None is left out.
    """
    when = re.split("[.Z+]", started)[0]
    place = _attributes(name=name, id=number, package="uploader", hostname="localhost", timestamp=when)
    known = (_attributes(name=name, value=value) for name, value in properties.items() if value is not None)
    told = "".join(f"      <property{each}/>\n" for each in known)
    suite = f"  <testsuite{place}{_attributes(**counts, time=f'{seconds:.3f}')}>\n"
    return f"{suite}    <properties>\n{told}    </properties>\n"


def case(name: str, classname: str, seconds: float, verdict: str = "") -> str:
    """One test; without a `verdict` it passed."""
    attributes = _attributes(name=name, classname=classname, time=f"{seconds:.3f}")
    return f"    <testcase{attributes}>{verdict}</testcase>\n" if verdict else f"    <testcase{attributes}/>\n"


def verdict(tag: str, text: str = "", **attributes: str) -> str:
    """What a case that did not pass has in it: a `failure`, an `error`, or `skipped`."""
    head = tag + _attributes(**attributes)
    return f"<{head}>{_text(text)}</{tag}>" if text else f"<{head}/>"


def closing(out: str = "") -> str:
    """The end of a suite, with what is to be said of the whole."""
    told = f"<system-out>{_text(out)}</system-out>" if out else "<system-out/>"
    return f"    {told}\n    <system-err/>\n  </testsuite>\n"


def _attributes(**values: object) -> str:
    # quoteattr makes references of line breaks and tabs
    return "".join(f" {name}={quoteattr(_legal(str(value)))}" for name, value in values.items())


def _text(text: str) -> str:
    return escape(_legal(text))


def _legal(text: str) -> str:
    return _ILLEGAL.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
