"""What features have for the tests of the core: `tests/features/*/samples.py`."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest


def of(feature: str, *values: object) -> Any:
    """Return the values of one case of a parametrised test that needs a feature."""
    return pytest.param(*values, marks=pytest.mark.feature(feature))


_FOUND = [runpy.run_path(str(path)) for path in sorted((Path(__file__).parent / "features").glob("*/samples.py"))]


def _samples(kind: str) -> dict[str, Any]:
    return {name: value for found in _FOUND for name, value in found.get(kind, {}).items()}


TEXTS = _samples("TEXTS")
"""Values of options, as on the command line; switches need none."""
VALUES = _samples("VALUES")
"""Lists of their parsed values."""
ENUMS = _samples("ENUMS")
"""Enums of fields of events, as docs/cli.md names the fields."""
EXITS = _samples("EXITS")
"""Exit codes of files with failures that have one of their own."""
CALLED = _samples("CALLED")
"""The commands, and the module that each of them calls, below the package."""
SECRETS = _samples("SECRETS")
"""Values of secret options that contain `hunter2`, each with what is shown of it."""
EVENTS = _samples("EVENTS")
"""Events of their own."""
JOURNALS = _samples("JOURNALS")
"""Functions that make a journal of their own, by what they are shown as."""
NEEDED = _samples("NEEDED")
"""Options without which others have no effect, with values of the command line: by the names of the others."""
WRITTEN = _samples("WRITTEN")
"""Options that name a file to write: the command, and a suffix of the file."""
