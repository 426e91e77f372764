"""Move the names of tests from the pages into docs/statements.txt: `python docs/statements.py`.

Write `<!-- test: tests/FILE.py::NAME -->` behind a new statement, or in the line below it, and run this. The index has
the last words of the statement, or the first cell of its row, and below them the tests.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent
INDEX = DOCS / "statements.txt"
HEAD = "# The tests of the statements on the pages. docs/statements.py adds to it; the words must be on the page.\n"
COMMENT = re.compile(r"[ \t]*<!-- test: (\S+?::\w+) -->")
WORDS = 60
"""Characters of a statement that the index has at most."""

Index = dict[str, dict[str, list[str]]]


def read(text: str) -> Index:
    """Return the tests of each page by the words of their statements."""
    index: Index = {}
    page: dict[str, list[str]] = {}
    tests: list[str] = []
    for line in text.splitlines()[1:]:
        if line.startswith("        "):
            tests.append(line.strip())
        elif line.startswith("    "):
            tests = page.setdefault(line.strip(), [])
        elif line:
            page = index.setdefault(line, {})
    return index


def written(index: Index) -> str:
    """Return the text of the index."""
    lines = [HEAD]
    for page in sorted(filter(index.get, index)):
        lines.append(f"{page}\n")
        for words, tests in index[page].items():
            lines += [f"    {words}\n", *(f"        {test}\n" for test in tests)]
    return "".join(lines)


def moved(text: str, statements: dict[str, list[str]]) -> str:
    """Return the page without its comments, which are added to `statements`."""
    lines: list[str] = []
    for line in text.splitlines():
        named = COMMENT.findall(line)
        rest = COMMENT.sub("", line) if named else line
        if rest.strip() or not named:
            lines.append(rest)
        for test in named:
            before = COMMENT.sub("", line.partition(f"<!-- test: {test}")[0]) if rest.strip() else ""
            words = words_of(before, lines[:-1] if rest.strip() else lines)
            tests = statements.setdefault(words, [])
            if test not in tests:
                tests.append(test)
    return "\n".join(lines) + "\n"


def words_of(before: str, lines: list[str]) -> str:
    """Return the words of the statement that ends with `before`, or with the last line that is no fence."""
    lines = [*lines, before] if before else lines[: max(n for n, line in enumerate(lines, 1) if line.strip(" `"))]
    if lines[-1].startswith("| "):
        return cell(lines[-1])
    paragraph: list[str] = []
    for line in reversed(lines):
        if not line.strip() or line.startswith(("|", "```")):
            break
        paragraph.insert(0, line)
    text = plain(" ".join(paragraph))
    return text if len(text) <= WORDS else text[-WORDS:].partition(" ")[2]


def cell(row: str) -> str:
    """Return the first cell of a row."""
    return plain(row.removeprefix("| ").partition(" |")[0])


def plain(text: str) -> str:
    """Return the text on one line."""
    return " ".join(text.split())


def pages() -> dict[str, Path]:
    """Return the pages by their path below docs."""
    return {str(path.relative_to(DOCS)): path for path in sorted(DOCS.glob("**/*.md"))}


def main() -> None:
    """Empty the pages of comments."""
    index = read(INDEX.read_text(encoding="utf-8")) if INDEX.exists() else {}
    for name, path in pages().items():
        text = path.read_text(encoding="utf-8")
        if COMMENT.search(text):
            path.write_text(moved(text, index.setdefault(name, {})), encoding="utf-8")
    INDEX.write_text(written(index), encoding="utf-8")


if __name__ == "__main__":
    main()
