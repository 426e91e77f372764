"""What was last seen of each server, so that a dry run can plan without a call (wire contract 3.12)."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import as_object, number, parse_limits
from uploader_cli.core.tus import parse_capabilities

if TYPE_CHECKING:
    from uploader_cli.core.plan import Limits
    from uploader_cli.core.tus import Capabilities

MOST = 100
"""Servers remembered."""


@dataclass(frozen=True, slots=True)
class KnownServer:
    """What a server takes, what it offers of resumable uploads, and whether it counts calls."""

    limits: Limits
    tus: Capabilities | None = None
    metered: bool = False
    chunk: int | None = None
    """Bytes of the largest chunk that it takes, where a 413 has told (`ChunkSize.limit`)."""


def state_dir() -> Path:
    """Where this user's state lives."""
    from platformdirs import user_state_path

    return user_state_path("uploader")


def recall(server: str) -> KnownServer | None:
    """How `server` (its URL, or that of a tus endpoint) was when it was last asked; None where that isn't known."""
    known = as_object(_read().get(server))
    limits = parse_limits(known)
    if limits is None:
        return None
    tus, chunk = parse_capabilities(known.get("tus"), server), number(known.get("chunk"))
    return KnownServer(limits, tus, known.get("metered") is True, int(chunk) if chunk is not None else None)


def remember(server: str, seen: KnownServer) -> None:
    """Keep `seen` for `server`. A state directory that can't be written costs a dry run its knowledge, no more."""
    known, limits = _read(), seen.limits
    entry: dict[str, object] = {
        "maxFiles": limits.max_files,
        "maxFileSize": limits.max_file_size,
        "allowedTypes": sorted(limits.allowed_types),
        "mixedTypes": limits.mixed_types,
        "relativePaths": limits.relative_paths,
        "metered": seen.metered,
        "chunk": seen.chunk,
    }
    if seen.tus is not None:
        entry["tus"] = {
            "endpoint": seen.tus.endpoint,
            "version": seen.tus.version,
            "extensions": sorted(seen.tus.extensions),
            "checksumAlgorithms": sorted(seen.tus.checksum_algorithms),
            "maxSize": seen.tus.max_size,
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
