"""The terminal behind stderr, for commands that print a page: its width and capabilities."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from uploader_cli.render import in_ci, use_color
from uploader_cli.render.words import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.settings import Settings

WIDTH = 80
"""Columns without a terminal."""


class Terminal:
    """The current stderr. `moves` is True where the current line can be overwritten."""

    def __init__(self, *, quiet: bool = False) -> None:
        tty = sys.stderr.isatty()
        encoding = (sys.stderr.encoding or "ascii").lower().replace("-", "")
        self.moves = tty and not quiet and os.environ.get("TERM") != "dumb" and not in_ci(os.environ)
        self.color = use_color(os.environ, is_tty=tty)
        self.glyphs = encoding == "utf8"
        self.width = _width()

    def write(self, lines: Sequence[str]) -> None:
        """Write the lines at once."""
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()

    def passing(self, line: str) -> None:
        """Show a line until the next one replaces it; nothing where that is impossible."""
        if self.moves:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()


def print_notes(settings: Settings) -> None:
    """Print the notes about ignored settings, unless `--quiet`."""
    for note in () if settings.quiet else settings.notes:
        sys.stderr.write(f"note: {safe(note)}\n")


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH
