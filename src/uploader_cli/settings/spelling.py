"""Say what is wrong with a name: misspelled, or of a feature that is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

NEAR = 0.76
"""Least similarity of a name and its misspelling."""


def nearest(given: str, known: Iterable[str]) -> str:
    """Return the name that begins with the given text, or that is likely meant by it; empty if none is."""
    from difflib import SequenceMatcher  # deferred: it is slow

    rated = [(1.0 if name.startswith(given) else SequenceMatcher(None, given, name).ratio(), name) for name in known]
    ratio, name = max(rated, default=(0.0, ""))
    return name if ratio >= NEAR else ""


def guess(given: str, known: Iterable[str], otherwise: str) -> str:
    """Return a hint: the name that is likely meant, or what to do `otherwise`."""
    name = nearest(given, known)
    return f"did you mean {name}?" if name else otherwise


def lacking(name: str, of: Literal["option", "command", "action", "format"] = "option") -> str:
    """Return a hint for a name of a feature that this installation lacks; empty for any other name."""
    from uploader_cli.settings import keywords  # deferred: few names are unknown

    known = {
        "option": keywords.FEATURE_OF,
        "command": keywords.FEATURE_OF_COMMAND,
        "action": keywords.FEATURE_OF_ACTION,
        "format": keywords.FEATURE_OF_FORMAT,
    }
    part = known[of].get(name)
    return f"it is of the feature {part}, which this installation lacks" if part else ""


def lacking_sources() -> str:
    """Return a hint for a URL that no feature of this installation reads."""
    from uploader_cli.settings import keywords  # deferred: such URLs are rare

    return f"files at URLs are read by the feature {keywords.FEATURE_OF_SOURCES}, which this installation lacks"
