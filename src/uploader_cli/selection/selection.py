"""The files of a run, as a stream whose first items are known before anything is sent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from uploader_cli.core.events import FileFailed
from uploader_cli.core.names import raw_bytes
from uploader_cli.core.plan import LocalFile, Shard
from uploader_cli.selection.walk import Selected, Step

AHEAD = 1000  # maximum steps taken before anything is sent; a selection that ends within them is completely known
AHEAD_SECONDS = 1.0  # maximum seconds for these steps, for a slow file system
MOST_AHEAD = 10_000  # maximum items taken if none of them can be sent


class Selection:
    """Items in a stable order, to be iterated once.

    `ahead` are the first ones; `complete` is True if there are no others.
    """

    def __init__(self, steps: Iterable[Step], clock: Callable[[], float] = time.monotonic) -> None:
        """Take the first steps; raise their errors."""
        self._later = iter(steps)
        self.ahead: list[Selected] = []
        self.complete = False
        found = taken = 0
        end = clock() + AHEAD_SECONDS
        while clock() < end and (taken < AHEAD or (not found and len(self.ahead) < MOST_AHEAD)):
            try:
                step = next(self._later)
            except StopIteration:
                self.complete = True
                break
            taken += 1
            if step is not None:
                self.ahead.append(step)
                found += isinstance(step, LocalFile)

    @property
    def files(self) -> list[LocalFile]:
        """The files of `ahead`."""
        return [item for item in self.ahead if isinstance(item, LocalFile)]

    def steps(self) -> Iterator[Step]:
        """Return an iterator of all items, with None for a step without one."""
        return chain(self.ahead, self._later)

    def __iter__(self) -> Iterator[Selected]:
        return (item for item in self.steps() if item is not None)


def sharded(steps: Iterable[Step], shard: Shard | None) -> Iterator[Step]:
    """Yield the steps, with None for items of other shards; all items without a shard."""
    for step in steps:
        other = shard is not None and step is not None and not holds(shard, step.relative_path or step.path)
        yield None if other else step


def placed(steps: Iterable[Step], dest: str) -> Iterator[Step]:
    """Yield the steps with files whose place on the server is below the directory `dest`."""
    for step in steps:
        if isinstance(step, LocalFile):
            step = step.below(dest)
        elif isinstance(step, FileFailed) and step.local is not None:
            step = replace(step, local=step.local.below(dest))
        yield step


def holds(shard: Shard, relative_path: str) -> bool:
    """Return whether a file belongs to this shard: by a hash of its name on the server, the same on every machine."""
    digest = hashlib.blake2b(raw_bytes(relative_path), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shard.count == shard.index - 1
