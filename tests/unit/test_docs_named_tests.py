"""The tests of statements, and the modules and headings that the pages name, exist."""

from __future__ import annotations

import re
import runpy
from functools import cache
from typing import TYPE_CHECKING

import pytest
from docs_pages import BLOCK, ROOT, codes, missing_tests, page, statements

if TYPE_CHECKING:
    from pathlib import Path

MOVE = runpy.run_path(str(ROOT / "docs/statements.py"))


@pytest.mark.parametrize("name", statements())
def test_every_test_of_a_statement_exists_and_its_words_are_on_the_page(name: str) -> None:
    named = [test.split("::") for tests in statements()[name].values() for test in tests]
    assert missing_tests((path, test) for path, test in named) == []
    text = " ".join(page(name).split())
    assert [words for words in statements()[name] if words not in text] == [], "correct docs/statements.txt"


def test_the_pages_with_promises_name_tests() -> None:
    promises = {"cli.md", "manifests.md", "protocol.md", "reliability.md", "reports.md", "server.md", "smoke.md"}
    assert all(len(statements()[name]) > 5 for name in promises | {"commands/upload.md", "testing.md"})


def test_index_is_written_as_it_is_read_and_no_page_has_a_name_of_a_test() -> None:
    assert MOVE["written"](statements()) == page("statements.txt")
    left = [name for name, path in MOVE["pages"]().items() if MOVE["COMMENT"].search(path.read_text(encoding="utf-8"))]
    assert left == [], "run docs/statements.py"


def test_name_of_a_test_is_moved_with_the_last_words_of_its_statement() -> None:
    text = "One.\n\nA sentence of\ntwo lines. <!-- test: tests/a.py::test_a -->\n<!-- test: tests/b.py::test_b -->\n"
    row = "| `--a` `N` | what <!-- test: tests/a.py::test_a --> |\n"
    found: dict[str, list[str]] = {}
    assert MOVE["moved"](text + row, found) == "One.\n\nA sentence of\ntwo lines.\n| `--a` `N` | what |\n"
    assert found == {
        "A sentence of two lines.": ["tests/a.py::test_a", "tests/b.py::test_b"],
        "`--a` `N`": ["tests/a.py::test_a"],
    }


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_module_that_a_page_names_exists(name: str) -> None:
    """Modules are named from the root of the repository or below one of our packages."""
    text = BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8"))
    named = {code for code in codes(text) if re.fullmatch(r"[\w.][\w./]*(/|\.py)", code)}
    assert len(named) > 10
    tops = (ROOT, ROOT / "src/uploader_cli", ROOT / "server_stub/uploader_server")
    assert [code for code in sorted(named) if not any((top / code).exists() for top in tops)] == []


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub and the site write them."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    names = [re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain]
    return {*names, *(re.sub("-+", "-", name) for name in names)}


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the files that a page links to, and their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    parts = (target.partition("#") for target in targets if not re.match("[a-z]+:", target))
    return [(page.parent / file if file else page, anchor) for file, _, anchor in parts]


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {file.name}#{anchor}"
        for page in pages
        for file, anchor in links(page)
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file))
    ]
    assert broken == []


def test_readme_leads_to_every_page() -> None:
    """Directly to those of docs/, to those below it at least by a page that it links to."""
    linked = {file.resolve() for file, _ in links(ROOT / "README.md")}
    further = {file.resolve() for page in linked if page.suffix == ".md" for file, _ in links(page)}
    own = {*(ROOT / "docs").glob("*.md")} - {ROOT / "docs/index.md"}  # of the site
    assert sorted(own - linked) == []
    assert sorted({*(ROOT / "docs").rglob("*.md")} - own - linked - further) == [ROOT / "docs/index.md"]
