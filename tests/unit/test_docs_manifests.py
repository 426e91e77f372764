"""docs/manifests.md tells the formats and columns that there are, and names tests that exist."""

from __future__ import annotations

import re

import pytest
from pages import codes, names_of_tests, page, rows, section

from uploader_cli.selection.manifest import format_of
from uploader_cli.selection.manifest_lines import COLUMNS, Format

PAGE = page("manifests.md")


def test_the_formats_are_those_of_the_program() -> None:
    told = {codes(row[0])[0]: codes(row[1]) for row in rows(section(PAGE, "## Formats")) if len(row) == 3}
    assert list(told) == [kind.value for kind in Format]
    for kind, suffixes in told.items():
        assert {format_of(f"list{suffix}") for suffix in suffixes} <= {Format(kind)}


def test_the_columns_are_those_of_the_program() -> None:
    told = [codes(row[0])[0] for row in rows(section(PAGE, "## Formats")) if len(row) == 2]
    assert told == list(COLUMNS)


@pytest.mark.parametrize(("path", "name"), sorted(set(re.findall(r"<!-- test: (\S+?)::(\w+) -->", PAGE))))
def test_the_named_test_exists(path: str, name: str) -> None:
    assert name in names_of_tests(path)
