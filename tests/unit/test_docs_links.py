"""The modules, pages and headings that the pages name exist."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import pytest
from docs_pages import BLOCK, ROOT, codes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_module_that_a_page_names_exists(name: str) -> None:
    """Modules are named from the root of the repository or below one of our packages."""
    text = BLOCK.sub("", (ROOT / name).read_text(encoding="utf-8"))
    named = {code for code in codes(text) if re.fullmatch(r"[\w.][\w./]*(/|\.py)", code)}
    assert len(named) > 5
    tops = (ROOT, ROOT / "src/uploader_cli", ROOT / "src/uploader_cli/transfer", ROOT / "server_stub/uploader_server")
    assert [code for code in sorted(named) if not any((top / code).exists() for top in tops)] == []


def test_every_page_that_code_names_exists() -> None:
    files = [file for top in ("src", "server_stub", "tests") for file in (ROOT / top).rglob("*.py")]
    named = {name for file in files for name in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@cache
def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub and the site write them."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
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
    assert sorted({*(ROOT / "docs").rglob("*.md")} - linked - further) == [ROOT / "docs/index.md"]
