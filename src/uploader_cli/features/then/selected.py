"""Which files can be moved or deleted: what is checked before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache

from uploader_cli.core.plan import concealed, is_url
from uploader_cli.errors import UsageError
from uploader_cli.feature import options_of
from uploader_cli.features.then.options import Then
from uploader_cli.selection.manifest import Manifest
from uploader_cli.selection.manifest_lines import BadLine
from uploader_cli.selection.walk import SeenNames
from uploader_cli.settings import Settings
from uploader_cli.sources.files import absolute


def check(settings: Settings, paths: Sequence[str], listed: Manifest | None, wants: Callable[[str], bool]) -> None:
    """Raise `UsageError` where the files under `paths`, or those of a list, can't be moved or deleted."""
    removal = options_of(settings, Then).then
    option, top = settings.given_as("then"), removal.path if removal is not None else None
    if (url := next(filter(is_url, paths), None)) is not None:
        raise UsageError(f"{option}: {concealed(url)} is a URL", hint="only files of this machine are moved or deleted")
    if top is not None:
        if not os.path.isdir(top):
            raise UsageError(f"{option}: {top} is no directory", hint="create it, or name another")
        place = os.path.join(os.path.realpath(top), "")
        for path in filter(os.path.isdir, paths):
            own = os.path.join(os.path.realpath(path), "")
            if own.startswith(place) or place.startswith(own):
                words = f"{option}: {top} is inside {path}: what is moved there would be sent again"
                if own.startswith(place):
                    words = f"{option}: {path} is inside {top}"
                raise UsageError(words, hint="name a directory beside it")
    if listed is not None:
        _check_destinations(listed, option, wants)


def _check_destinations(listed: Manifest, option: str, wants: Callable[[str], bool]) -> None:
    """Raise `UsageError` for a file with two destinations: it would be removed before it is sent to both."""
    real, paths, files = lru_cache(os.path.realpath), SeenNames(), SeenNames()
    for item in listed.lines():
        if isinstance(item, BadLine) or is_url(item.path) or not wants(item.name):
            continue
        directory, name = os.path.split(absolute(item.path))
        path = os.path.join(real(directory), name)
        if files.add(f"{listed.local(item).destination}\0{path}") and not paths.add(path):
            words = f"{listed.kind.unit} {item.line} of {listed.shown}: {item.path} is listed for a second place"
            raise UsageError(f"{words}, and {option} would remove it after the first", hint=f"omit {option}")
