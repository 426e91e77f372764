"""Read the pages of docs/: their sections, their tables, and the tests they name."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^(?:<!-- ([^\n]*) -->\n)?```(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the comment in the line before it, its language and its text."""

    comment: str
    language: str
    text: str


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(text)]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """Return the text from this heading to the next one of the same or a higher level."""
    rank = title.partition(" ")[0]
    assert f"\n{title}\n" in text, f"no heading {title!r}"
    rest = text.partition(f"\n{title}\n")[2]
    return re.split(rf"\n#{{1,{len(rank)}}} ", rest)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables in `text`, without the headers."""
    lines = text.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" |")]
        for number, line in enumerate(lines)
        if line.startswith("| ") and not _is_header(lines, number)
    ]


def _is_header(lines: list[str], number: int) -> bool:
    return number + 1 < len(lines) and set(lines[number + 1]) == {"|", "-"}


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def missing_tests(named: Iterable[tuple[str, str]]) -> list[str]:
    """Return the tests (file, function) that do not exist."""
    return [f"{path}::{name}" for path, name in named if name not in _names_of_tests(path)]


@cache
def _names_of_tests(path: str) -> frozenset[str]:
    """Return the names of the tests in a file, or none if the file does not exist."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))
