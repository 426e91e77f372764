"""Print the notes of a release, its section of CHANGELOG.md: `python packaging/notes.py v1.0.0`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notes(tag: str, module: str, changelog: str) -> str:
    """Return the section of the version. Raises ValueError if it is missing, or the tag is not the module's version."""
    (version,) = re.findall(r'^__version__ = "(.*)"', module, re.MULTILINE)
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but the version in src/uploader_cli/__init__.py is {version}")
    found = re.search(rf"^## {re.escape(version)}(?=\s).*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise ValueError(f"CHANGELOG.md has no section for {version}")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("src/uploader_cli/__init__.py", "CHANGELOG.md")]
    try:
        sys.stdout.write(notes(sys.argv[1], *texts))
    except (IndexError, ValueError) as error:
        sys.exit(f"error: {error}")
