"""Every test that a page names exists."""

from __future__ import annotations

import pytest
from pages import ROOT, TEST, missing_tests

PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
NAMING = [name for name, text in PAGES.items() if TEST.search(text)]


@pytest.mark.parametrize("name", NAMING)
def test_every_test_that_a_page_names_exists(name: str) -> None:
    assert missing_tests(TEST.findall(PAGES[name])) == []


def test_the_pages_with_promises_name_tests() -> None:
    promises = {"cli.md", "manifests.md", "protocol.md", "reliability.md", "reports.md", "server.md", "smoke.md"}
    assert promises | {"testing.md"} <= set(NAMING)
    assert all(len(TEST.findall(PAGES[name])) > 5 for name in promises)
