"""docs/founding-document.md leaves no statement without its place here and its test."""

from __future__ import annotations

import re

import pytest
from pages import ROOT, codes, names_of_tests, page, rows

ROWS = rows(page("founding-document.md"))
TEST = re.compile(r"`(tests/\S+\.py)::(test_\w+)`")


@pytest.mark.parametrize("row", ROWS, ids=[f"{number}-{row[0][:40]}" for number, row in enumerate(ROWS)])
def test_a_row_is_complete_and_its_test_exists(row: list[str]) -> None:
    statement, here, proof = row
    assert statement
    assert here
    named = TEST.fullmatch(proof)
    assert named is not None, f"{proof!r} names no test"
    path, name = named.groups()
    assert name in names_of_tests(path), f"{path} has no {name}"


@pytest.mark.parametrize("room", sorted({code for row in ROWS for code in codes(row[1]) if "/" in code}))
def test_a_place_that_is_named_exists(room: str) -> None:
    """Modules are named as in the map: below `src/uploader_cli/`, or from the top."""
    if room.startswith("/"):
        return  # a route of the server, proven by the row's test
    places = [ROOT / room, ROOT / "src" / "uploader_cli" / room]
    assert any(place.exists() or place.with_suffix(".py").exists() for place in places)


def test_every_section_has_its_table() -> None:
    titles = re.findall(r"^## (\d+)\. ", page("founding-document.md"), re.MULTILINE)
    assert titles == [str(number) for number in range(1, 11)]
