"""The views of a run: each renderer draws from the state and counts nothing itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

Kind = Literal["live", "plain", "none"]


def choose(
    progress: Literal["auto", "live", "plain", "none"],
    *,
    stderr_is_tty: bool,
    env: Mapping[str, str],
    quiet: bool = False,
    json_on_tty: bool = False,
) -> Kind:
    """Choose the view on stderr.

    A requested view is used unless the terminal can't show it (`TERM=dumb`): then plain lines are. `json_on_tty`:
    `--json` writes to the same terminal.
    """
    able = env.get("TERM") != "dumb"
    if progress == "live":
        return "live" if able else "plain"
    if progress != "auto":
        return progress
    if quiet or json_on_tty:
        return "none"
    return "live" if stderr_is_tty and able and not in_ci(env) else "plain"


UNFOLDED = 100_000
"""Columns where there is no terminal, so that lines are not wrapped and paths can be searched."""


def columns(otherwise: int = UNFOLDED, stream: TextIO | None = None) -> int:
    """Return the columns of the terminal behind `stream`, by default stderr; `otherwise` if it is none."""
    try:
        return os.get_terminal_size((stream or sys.stderr).fileno()).columns or otherwise
    except (OSError, ValueError):
        return otherwise


def in_ci(env: Mapping[str, str]) -> bool:
    """Return True where `CI` is set and not negative."""
    return env.get("CI", "").lower() not in ("", "0", "false", "no")


def use_links(env: Mapping[str, str], *, is_tty: bool) -> bool:
    """Return True for a terminal that is known to show links (OSC 8); FORCE_HYPERLINK decides for the others.

    tmux and screen may drop them, and with them the URL.
    """
    term, vte, forced = env.get("TERM", ""), env.get("VTE_VERSION", ""), env.get("FORCE_HYPERLINK")
    if not is_tty or term == "dumb":
        return False
    if forced:
        return forced != "0"
    if term.startswith(("screen", "tmux", "linux")):
        return False
    return (
        "WT_SESSION" in env
        or "KONSOLE_VERSION" in env
        or term.startswith(("xterm-kitty", "xterm-ghostty", "alacritty", "foot", "wezterm", "contour"))
        or env.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper")
        or (vte.isdecimal() and int(vte) >= 5001)  # 0.50.0 crashes
    )


def use_color(env: Mapping[str, str], *, is_tty: bool) -> bool:
    """Return True for a terminal that shows colours, unless `NO_COLOR` is set."""
    return is_tty and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
