"""The volumes of the long and the short form."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from acceptance.bench import MIB, make_files

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Volume:
    """`large` files of a few chunks and a rest, and small files of less than a chunk."""

    large: tuple[int, ...]
    small: int
    chunk: int

    def make(self, top: Path, seed: int) -> dict[str, str]:
        """Make the files; return the SHA-256 of each by its path on the server."""
        source = random.Random(seed)
        sizes = {f"large-{number}.bin": size + source.randrange(self.chunk) for number, size in enumerate(self.large)}
        sizes |= {f"small/{number:03}.bin": source.randrange(1, 64 << 10) for number in range(self.small)}
        return make_files(top, sizes, seed)


LONG = Volume((96 * MIB, 80 * MIB, 64 * MIB), 200, MIB)
IN_PARTS = Volume((272 * MIB,), 0, MIB)
"""One file, large enough for all workers to take a part each."""
SHORT = Volume((3 * MIB, 2 * MIB, 3 * MIB // 2), 40, MIB // 8)
