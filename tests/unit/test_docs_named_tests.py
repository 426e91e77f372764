"""Every test and every module that a page names exists."""

from __future__ import annotations

import re

import pytest
from docs_pages import BLOCK, ROOT, TEST, codes, missing_tests

PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("**/*.md"))}
NAMING = [name for name, text in PAGES.items() if TEST.search(text)]


@pytest.mark.parametrize("name", NAMING)
def test_every_test_that_a_page_names_exists(name: str) -> None:
    assert missing_tests(TEST.findall(PAGES[name])) == []


def test_the_pages_with_promises_name_tests() -> None:
    promises = {"cli.md", "manifests.md", "protocol.md", "reliability.md", "reports.md", "server.md", "smoke.md"}
    assert promises | {"testing.md"} <= set(NAMING)
    assert all(len(TEST.findall(PAGES[name])) > 5 for name in promises)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_module_that_a_page_names_exists(name: str) -> None:
    """Modules are named from the root of the repository or below one of our packages."""
    text = BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8"))
    named = {code for code in codes(text) if re.fullmatch(r"[\w.][\w./]*(/|\.py)", code)}
    assert len(named) > 10
    tops = (ROOT, ROOT / "src/uploader_cli", ROOT / "server_stub/uploader_server")
    assert [code for code in sorted(named) if not any((top / code).exists() for top in tops)] == []
