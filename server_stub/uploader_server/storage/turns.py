"""Turns for long jobs in threads: reading whole files, storing many files and following deep paths."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

HASHING = 2  # maximum files that are read at a time to compute their digests
JOINING = 2  # maximum files that are joined at a time
LOOKING = 1  # maximum lookups at a time: they need the processor, not the disk
LINKING = 1  # maximum packs, batches and files with a deep path that are stored at a time: they contend for directories
COMPARING = 2  # maximum large files that are compared at a time with stored ones of the same name
LONG_JOBS = HASHING + JOINING + LOOKING + LINKING + COMPARING


class Turns:
    """Lets at most `most` jobs of one kind run at a time, one for each client (see `shares`).

    So the threads that write uploads are never all busy with long jobs, and no client delays those of others by more
    than one job. Used on the event loop only.
    """

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._clients: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def of(self, client: str) -> AsyncIterator[None]:
        mine = self._clients.setdefault(client, asyncio.Lock())
        async with mine, self._all:
            yield
