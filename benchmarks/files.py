"""The files that are uploaded, and the check that a server stored the same bytes."""

from __future__ import annotations

import hashlib
import math
import os
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
IN_ONE_DIRECTORY = 1000
HASHED = 20_000
"""Of more files than these only the number and the sum of their sizes are compared."""
LARGE = MIB


@dataclass(frozen=True)
class Files:
    """The files in a directory. Each has a name of its own, whatever directory below it is in."""

    directory: Path
    count: int
    bytes: int

    def paths(self) -> Iterator[Path]:
        """Yield them in order."""
        return _below(self.directory)

    def listed(self, path: Path) -> Path:
        """Write their paths to a file, one a line, and return that."""
        with path.open("w") as out:
            out.writelines(f"{file}\n" for file in self.paths())
        return path

    @cached_property
    def _print(self) -> tuple[int, int, str]:
        return fingerprint(self.paths(), hashed=self.count <= HASHED)

    def check(self, stored: Iterable[Path]) -> None:
        """Raise BenchmarkError where other bytes are stored; names are not compared."""
        found = fingerprint(stored, hashed=self.count <= HASHED)
        if found != self._print:
            raise BenchmarkError(f"stored are {found[:2]} (files, bytes), sent were {self._print[:2]}, or bytes differ")


def make(directory: Path, sizes: Sequence[int], suffix: str = ".bin") -> Files:
    """Fill a new directory with files of random bytes; more than a thousand go to directories below it."""
    block = os.urandom(MIB)
    for number, size in enumerate(sizes):
        below = directory / f"{number // IN_ONE_DIRECTORY:04}" if len(sizes) > IN_ONE_DIRECTORY else directory
        if number % IN_ONE_DIRECTORY == 0:
            below.mkdir(parents=True, exist_ok=True)
        with (below / f"{number:07}{suffix}").open("wb") as out:
            # Random bytes at the front of every block: no two blocks, and no two files, are equal.
            for start in range(0, size, MIB):
                length = min(MIB, size - start)
                fresh = os.urandom(min(length, 64))
                out.write(fresh + block[len(fresh) : length])
    return Files(directory, len(sizes), sum(sizes))


def log_normal(count: int, least: int, most: int) -> list[int]:
    """Return sizes in bytes whose logarithms are normally distributed between the two, the same in each run."""
    middle, spread = math.log(least * most) / 2, math.log(most / least) / 6
    chance = random.Random(count)
    return [min(most, max(least, round(chance.lognormvariate(middle, spread)))) for _ in range(count)]


def fingerprint(paths: Iterable[Path], *, hashed: bool) -> tuple[int, int, str]:
    """Return the number of files, the sum of their sizes, and a hash over the sorted SHA-256 of each."""
    count, size, digests = 0, 0, []
    for path in paths:
        count += 1
        size += path.stat().st_size
        if hashed:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").digest())
    return count, size, hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def drop_large(directory: Path) -> None:
    """Delete what would fill the disk, and leave small files: ext4 creates files slowly after a mass deletion."""
    for path in _below(directory):
        if path.stat().st_size > LARGE:
            path.unlink()


def _below(directory: Path) -> Iterator[Path]:
    for top, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            yield Path(top, name)
