"""The limits last seen on each server, so that a dry run can plan without a call (wire contract 3.12)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import as_object, parse_limits

if TYPE_CHECKING:
    from uploader_cli.core.plan import Limits

MOST = 100
"""Servers remembered."""


def state_dir() -> Path:
    """Where this user's state lives."""
    from platformdirs import user_state_path

    return user_state_path("uploader")


def recall(server: str) -> Limits | None:
    """What `server` took when it was last asked; None where that isn't known."""
    return parse_limits(_read().get(server))


def remember(server: str, limits: Limits) -> None:
    """Keep `limits` for `server`. A state directory that can't be written costs a dry run its knowledge, no more."""
    known = _read()
    entry = {
        "maxFiles": limits.max_files,
        "maxFileSize": limits.max_file_size,
        "allowedTypes": sorted(limits.allowed_types),
        "mixedTypes": limits.mixed_types,
        "relativePaths": limits.relative_paths,
    }
    if known.pop(server, None) == entry:
        return
    known[server] = entry
    newest = dict(list(known.items())[-MOST:])
    try:
        _write(newest)
    except OSError:
        return


def _path() -> Path:
    return state_dir() / "limits.json"


def _read() -> dict[str, object]:
    try:
        return as_object(json.loads(_path().read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write(known: dict[str, object]) -> None:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        fresh = Path(scratch, path.name)
        fresh.write_text(json.dumps(known), encoding="utf-8")
        fresh.replace(path)
