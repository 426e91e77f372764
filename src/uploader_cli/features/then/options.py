"""The values of `--then` and `--then-unverified`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from uploader_cli.settings.values import Invalid, path, text


class Removal(NamedTuple):
    """What happens to a stored file here: it is moved below the directory `path`, or without one deleted."""

    path: Path | None = None

    def __str__(self) -> str:
        return "delete" if self.path is None else f"move:{self.path}"


class Then(NamedTuple):
    """The settings of the feature (`Settings.of`)."""

    then: Removal | None
    then_unverified: bool


def removal(raw: object) -> Removal | None:
    """Parse `keep` (None), `delete` or `move:DIR`."""
    written = text(raw)
    if written in ("keep", "none"):
        return None
    action, _, directory = written.partition(":")
    if written == "delete" or (action == "move" and directory):
        return Removal(path(directory) if directory else None)
    raise Invalid(f"must be keep, delete or move:DIR, not {raw!r}", hint="for example move:/srv/sent")
