"""`--shard I/N`: assign items to runs by a hash that is the same on every machine and in every run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from uploader_cli.core.names import raw_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uploader_cli.core.plan import Shard
    from uploader_cli.selection.walk import Step


def sharded(steps: Iterable[Step], shard: Shard | None) -> Iterator[Step]:
    """Yield the steps, with None for items of other shards; all items without a shard."""
    for step in steps:
        other = shard is not None and step is not None and not holds(shard, step.relative_path or step.path)
        yield None if other else step


def holds(shard: Shard, relative_path: str) -> bool:
    """Return whether a file belongs to this shard; `relative_path` is its name on the server."""
    digest = hashlib.blake2b(raw_bytes(relative_path), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shard.count == shard.index - 1
