"""Put the commit that is built into the packages, where `uploader --version -v` reads it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface[Any]):
    """Adds `uploader_cli/commit.txt`. A wheel that is built from the sdist takes the one that is there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the commit into the wheel or the sdist."""
        root = Path(self.root)
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
