"""What this program was built from, for bug reports."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent


def build() -> str:
    """Return the commit of the program and the version of Python, a line each."""
    return f"commit {_commit()}\nPython {platform.python_version()} on {platform.platform()}\n"


def _commit() -> str:
    """Return what hatch_build.py has written into the package, or what is checked out around an editable one."""
    try:
        return (PACKAGE / "commit.txt").read_text(encoding="ascii").strip()
    except OSError:
        clone = PACKAGE.parent.parent
    command = ["git", "-C", str(clone), "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    try:
        if (clone / ".git").exists():
            return subprocess.check_output(command, text=True).strip()  # noqa: S603 - no input of others
    except (OSError, subprocess.SubprocessError):
        pass
    return "unknown"
