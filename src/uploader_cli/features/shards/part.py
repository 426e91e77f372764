"""One of several runs that share a selection."""

from __future__ import annotations

import hashlib
from typing import Any

from uploader_cli.core.names import raw_bytes
from uploader_cli.features.shards.head import parsed
from uploader_cli.settings import Settings


class Shard:
    """A run's part of a selection, by hashes of the names on the server, which are the same on every machine."""

    def __init__(self, settings: Settings) -> None:
        """Take the shard of `--shard`."""
        shard = parsed(settings)
        self._index, self._count = shard["index"], shard["count"]
        self._files = self._digest = 0

    def holds(self, name: str) -> bool:
        return _number(name) % self._count == self._index - 1

    def takes(self, name: str) -> bool:
        number = _number(name)
        self._files += 1
        self._digest ^= number
        return number % self._count == self._index - 1

    def totals(self) -> dict[str, Any]:
        """Return the number of files of all shards, and a digest of their names that is the same in any order."""
        return {"all_shards": {"files": self._files, "digest": f"{self._digest:016x}"}}


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(raw_bytes(name), digest_size=8).digest(), "big")
