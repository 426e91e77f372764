"""The directories of the user and of the process, some of which may be missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

DELETED_DIRECTORY = Path(os.devnull, "the deleted working directory")
"""Stands for a deleted working directory: nothing can be read or created there."""
STATE_IN_MEMORY = Path(os.devnull, "memory")
"""Stands for a state directory where none can be written: the journal ends with the process."""


def working_directory() -> Path:
    """Return the working directory, or `DELETED_DIRECTORY`."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return DELETED_DIRECTORY


def user_config_file() -> Path | None:
    """Return the path of the user's config file, which may not exist; None for a user without a home directory."""
    import platformdirs

    directory = _known(platformdirs.user_config_path)
    return None if directory is None else directory / "config.toml"


def user_state_directory() -> Path | None:
    """Return the directory of the user's journal, which may not exist; None for a user without a home directory."""
    import platformdirs

    return _known(platformdirs.user_state_path)


def _known(look_up: Callable[[str], Path]) -> Path | None:
    try:
        path = look_up("uploader")
    except RuntimeError:
        return None
    return path if path.is_absolute() else None  # below "~" with earlier versions of platformdirs
