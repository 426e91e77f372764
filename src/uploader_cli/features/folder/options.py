"""The values of `--watch` and `--settle`."""

from __future__ import annotations

from typing import NamedTuple

from uploader_cli.settings.values import seconds

settle = seconds(zero=True)
"""Parse the time in which a complete file has not changed, in seconds."""


class FolderOptions(NamedTuple):
    """The settings of the feature."""

    watch: bool
    settle: float
