"""The samples of the features: values of their options, for the tests of all options."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

_FOUND = [runpy.run_path(str(path)) for path in sorted((Path(__file__).parent / "features").glob("*/samples.py"))]
TEXTS: dict[str, str] = {name: text for found in _FOUND for name, text in found["TEXTS"].items()}
"""As on the command line, by the name of the option; switches need none."""
VALUES: dict[str, list[Any]] = {name: values for found in _FOUND for name, values in found["VALUES"].items()}
"""What is parsed, with the default first."""
