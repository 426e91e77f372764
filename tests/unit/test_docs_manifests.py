"""docs/manifests.md names every manifest format and column."""

from __future__ import annotations

from docs_pages import codes, page, rows, section

from uploader_cli.selection.manifest import format_of
from uploader_cli.selection.manifest_lines import COLUMNS, Format

PAGE = page("manifests.md")


def test_the_formats_are_those_of_the_program() -> None:
    documented = {codes(row[0])[0]: codes(row[1]) for row in rows(section(PAGE, "## Formats")) if len(row) == 3}
    assert list(documented) == [kind.value for kind in Format]
    for kind, suffixes in documented.items():
        assert {format_of(f"list{suffix}") for suffix in suffixes} <= {Format(kind)}


def test_the_columns_are_those_of_the_program() -> None:
    documented = [codes(row[0])[0] for row in rows(section(PAGE, "## Formats")) if len(row) == 2]
    assert documented == list(COLUMNS)
