"""tests/unit/founding_document.md names a module and a test for each statement."""

from __future__ import annotations

import re

from docs_pages import ROOT, codes, missing_tests, rows

PAGE = (ROOT / "tests/unit/founding_document.md").read_text(encoding="utf-8")
ROWS = rows(PAGE)
TEST = re.compile(r"`(tests/\S+\.py)::(test_\w+)`")


def test_each_row_is_complete_and_its_test_exists() -> None:
    assert len(ROWS) > 50
    for statement, here, proof in ROWS:
        assert statement
        assert here
        assert TEST.fullmatch(proof), f"{proof!r} names no test"
    assert missing_tests(TEST.fullmatch(proof).groups() for _, _, proof in ROWS) == []  # type: ignore[union-attr]


def test_each_named_module_exists() -> None:
    """Modules are named below `src/uploader_cli/`, or from the top; what begins with `/` is a route of the server."""
    named = {code for row in ROWS for code in codes(row[1]) if "/" in code and not code.startswith("/")}
    assert len(named) > 10
    for module in named:
        places = [ROOT / module, ROOT / "src" / "uploader_cli" / module]
        assert any(place.exists() or place.with_suffix(".py").exists() for place in places), module


def test_every_section_has_its_table() -> None:
    titles = re.findall(r"^## (\d+)\. ", PAGE, re.MULTILINE)
    assert titles == [str(number) for number in range(1, 11)]
