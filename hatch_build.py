"""Put the commit that is built into the packages, where `uploader --version -v` reads it, and the man pages."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuiltFiles(BuildHookInterface[Any]):
    """Adds `uploader_cli/commit.txt`, and what `docs/man_page.py` has made.

    A wheel that is built from the sdist takes those that are there.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the man pages and the commit into the wheel or the sdist."""
        root = Path(self.root)
        for page in (root / "build/man").glob("*.1"):
            wheel = self.target_name == "wheel"
            build_data["shared_data" if wheel else "force_include"][str(page)] = (
                f"share/man/man1/{page.name}" if wheel else f"build/man/{page.name}"
            )
        if version == "editable" or not (root / ".git").exists():
            return
        try:
            commit = subprocess.check_output(["git", "-C", self.root, "rev-parse", "HEAD"], text=True)  # noqa: S603, S607
        except (OSError, subprocess.SubprocessError):  # no git, or not the user's directory
            return
        file = Path(tempfile.mkdtemp()) / "commit.txt"
        file.write_text(commit, encoding="ascii")
        below = "" if self.target_name == "wheel" else "src/"
        build_data["force_include"][str(file)] = f"{below}uploader_cli/commit.txt"
        self._file = file

    def finalize(self, *_: object) -> None:
        """Remove the temporary file."""
        if file := getattr(self, "_file", None):
            file.unlink()
            file.parent.rmdir()
