"""What stands behind stderr, for commands that draw a page of lines: how wide it is, and what it can show."""

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
"""Columns where there is no terminal."""


class Terminal:
    """Stderr as it is now. `moves` is True where a line may be drawn over, as long as nothing more is written to it."""

    def __init__(self, *, quiet: bool = False) -> None:
        tty = sys.stderr.isatty()
        encoding = (sys.stderr.encoding or "ascii").lower().replace("-", "")
        self.moves = tty and not quiet and os.environ.get("TERM") != "dumb" and not in_ci(os.environ)
        self.color = use_color(os.environ, is_tty=tty)
        self.glyphs = encoding == "utf8"
        self.width = _width()

    def write(self, lines: Sequence[str]) -> None:
        """These lines, at once."""
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()

    def passing(self, line: str) -> None:
        """A line that the next one replaces; nothing where that can't be."""
        if self.moves:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()


def tell_notes(settings: Settings) -> None:
    """Say what of the settings was ignored, unless `--quiet`: it may quote a config file of a stranger."""
    for note in () if settings.quiet else settings.notes:
        sys.stderr.write(f"note: {safe(note)}\n")


def _width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH
