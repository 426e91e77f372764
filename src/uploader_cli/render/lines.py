"""Wrapped lines with a glyph in the first column."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from uploader_cli.render.words import plural, safe, wrap

MOST_ENTRIES = 10  # maximum failed files, warnings, watched sessions and others listed
NO_BREAK = "\xa0"
"""Between a number and its unit. `safe` replaces it in names by a plain space."""
_LINKABLE = re.compile("https?://[!-~]+")


class Lines:
    """Lines with a glyph in the first column and wrapped text beside it."""

    def __init__(self, width: int, *, links: bool) -> None:
        self.out: list[str] = []
        self.width, self.links = width, links

    def add(self, glyph: str, text: str, *, indent: int = 0, url: str = "") -> None:
        """Add wrapped text, as a link to `url` where the terminal knows links."""
        space = " " * indent
        folded = wrap(text, self.width, first=f"{space}{glyph} ", rest=f"{space}  ")
        if self.links and _LINKABLE.fullmatch(url):
            start = indent + 2
            folded = [f"{line[:start]}\x1b]8;;{url}\x1b\\{line[start:]}\x1b]8;;\x1b\\" for line in folded]
        self.out += [line.replace(NO_BREAK, " ") for line in folded]

    def list(
        self,
        glyph: str,
        texts: Sequence[str],
        total: int | None = None,
        *,
        most: int = MOST_ENTRIES,
        indent: int = 0,
        mark: str = "…",
        noun: str = "",
        urls: Sequence[str] = (),
    ) -> None:
        """Add the first `most` untrusted texts, and the number of the others, of `total` if that is larger."""
        for text, url in zip_longest(texts[:most], urls[:most], fillvalue=""):
            self.add(glyph, safe(text), indent=indent, url=url)
        rest = (len(texts) if total is None else total) - most
        if rest > 0:
            words = plural(rest, f"more {noun}") if noun else f"{rest:,} more"
            self.add(mark, f"and {words}", indent=indent)
