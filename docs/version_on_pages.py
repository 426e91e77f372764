"""Name the version on each page of the site: a hook of mkdocs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MODULE = Path(__file__).parents[1] / "src/uploader_cli/__init__.py"


def on_config(config: Any) -> Any:
    """Set the line at the end of each page."""
    (version,) = re.findall(r'^__version__ = "(.*)"', MODULE.read_text(encoding="utf-8"), re.MULTILINE)
    config.copyright = f"For uploader {version}"
    return config
