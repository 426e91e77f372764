"""Choose the sizes of chunks and packs by the rate of the connection and by what the server refuses.

All workers share these objects, without a lock: a number that another thread overwrites is corrected by the next chunk
or pack. Sizes are in bytes, times in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from uploader_cli.core.packs import PackOffer
from uploader_cli.core.plan import LocalFile

FIRST_CHUNK = 8 << 20  # first chunks with `auto`
MOST_CHUNK = 64 << 20  # largest chunk with `auto`
SAFE_CHUNK = 5 << 20  # smallest chunk with `auto`, unless a 413 requires less: Cloudflare Stream takes no smaller ones
CHUNK_GRAIN = 256 << 10  # chunks are multiples of this with `auto`: some servers accept no others
CHUNK_SECONDS = 1.5  # target time of a chunk
FLAT = 0.75  # share of its rate alone that a connection keeps beside others, if the limit is its own
LEAST_AFTER_413 = 64 << 10  # a 413 for a smaller chunk is final (docs/resumable-uploads.md)

LARGEST_PACKED = 1 << 20  # larger files are sent by tus, which can resume within a file
MOST_PACK_FILES = 500  # or what the server offers, if that is less
MOST_PACK = 8 << 20  # as a chunk, so that an interruption costs no more than a chunk does; PACK_MEMORY limits all
FIRST_PACK, FIRST_FAR_PACK = 2 << 20, 256 << 10  # the latter at a distant server, whose connection may be slow
PACK_SECONDS = 2.0  # target time of a pack: a slower one makes the next ones smaller
REMOTE = 64 << 10  # bytes for which a file at a URL counts beside its own: the requests to its store take time
PACK_MEMORY = 64 << 20  # all packs being sent; each is in memory twice while its body is built


class ChunkSize:
    """The size of the chunks of all workers.

    With `auto` it follows the rate of a connection, so that a chunk takes `CHUNK_SECONDS`: `FIRST_CHUNK` to
    `MOST_CHUNK`, less after a failure. A fixed size is changed only by a 413.
    """

    def __init__(
        self,
        size: int | Literal["auto"],
        known: int | None = None,
        rule: tuple[int, int, int] | None = None,
    ) -> None:
        """`known` is the `limit` of an earlier run. A fixed size is tried all the same: the limit may have changed.

        `rule`: the server accepts only chunks from the first to the second number, in multiples of the third.
        """
        self.adapts, self.limit = size == "auto", known
        """`limit`: the largest chunk that the server accepts, known from a 413, else None."""
        least, most, self._grain = rule or (LEAST_AFTER_413, MOST_CHUNK, CHUNK_GRAIN)
        self._most = max(least, min(most, MOST_CHUNK, known or most)) if size == "auto" else size
        self.least = least if rule else 1
        """The smallest chunk that the server accepts."""
        self.size = self._grained(min(FIRST_CHUNK, self._most)) if self.adapts else self._most
        self.most_in_memory = max(self.size, self.least, MOST_CHUNK)
        """The largest chunk that is kept in memory, whatever the server announces later."""
        self._least = least if self.adapts or rule else min(LEAST_AFTER_413, max(1, self.size // 2))
        self._refused = False  # True from a 413 until a smaller chunk has arrived
        self._sending: set[object] = set()
        self._begun = 0  # number of chunks so far
        self._alone = self._beside = 0.0  # bytes/s of the last chunk that was sent alone, or beside others

    @property
    def capped(self) -> bool:
        """True if a connection is as fast beside others as alone: several are faster than one."""
        return self._beside > FLAT * self._alone > 0

    def restrict(self, least: int | None, most: int | None) -> None:
        """Take the fewest and the most bytes of a request that the server announces; None: no such limit."""
        if most is not None:
            self._most = min(self._most, most)
            self.size = min(self.size, most)
        if least is not None:
            self._least = self.least = max(self.least, least)
            self.size = max(self.size, least)

    def refuse(self, size: int) -> bool:
        """Make chunks smaller than `size`, which is too large; return False if no smaller one is tried."""
        smaller = max(self._least, (size + 1) // 2)
        if self.adapts or self.least > 1:
            smaller = self._grained(smaller)
        if smaller >= size:
            return False
        self._refused = True
        self._most = min(self._most, smaller)
        self.size = min(self.size, smaller)
        return True

    def failed(self) -> None:
        if self.adapts:
            self.size = min(self.size, max(SAFE_CHUNK, self._grained(self.size // 2)))

    def arrived(self, size: int) -> None:
        """Record that the server accepted a body of `size` bytes."""
        if self._refused and size <= self._most:
            self.limit, self._refused = self._most, False
        elif self.limit is not None and size > self.limit:
            self.limit = None

    @contextmanager
    def travelling(self, size: int, clock: Callable[[], float]) -> Iterator[None]:
        """Measure how long a chunk of `size` bytes takes, if it arrives."""
        chunk, beside, began = object(), bool(self._sending), clock()
        self._begun = number = self._begun + 1
        self._sending.add(chunk)
        try:
            yield
        finally:
            self._sending.discard(chunk)
        if size >= min(self.size, FIRST_CHUNK):
            rate = size / max(1e-6, clock() - began)
            if not beside and number == self._begun:  # none has begun since
                self._alone = rate
            elif beside and self._sending:
                self._beside = rate
            if self.adapts:
                wanted = int(min(max(rate * CHUNK_SECONDS, FIRST_CHUNK), self._most))
                self.size = self._grained(wanted)

    def _grained(self, size: int) -> int:
        """Round `size` down to what the server accepts."""
        return max(self.least, size // self._grain * self._grain or size)


class PackSize:
    """The limits of a pack: at most `files` and `bytes`, and no file larger than `largest`.

    Packs are planned ahead, and cut when they are sent: to what takes `PACK_SECONDS` by `--limit-rate` or by the last
    one, and to one file at least.
    """

    def __init__(
        self,
        offer: PackOffer,
        chunk_size: int | Literal["auto"],
        jobs: int,
        *,
        limit_rate: float | None = None,
        far: bool = False,
    ) -> None:
        """`limit_rate` is in bytes/s for all `jobs`; `far`: the server is distant."""
        chunk = MOST_PACK if chunk_size == "auto" else max(chunk_size, LARGEST_PACKED)
        self.endpoint, self.files = offer.endpoint, min(offer.max_files, MOST_PACK_FILES)
        self._most = min(offer.max_bytes, MOST_PACK, chunk)
        allowed = self._most if limit_rate is None else max(1, int(limit_rate * PACK_SECONDS / jobs))
        self.bytes = self.planned = min(self._most, FIRST_FAR_PACK if far else FIRST_PACK, allowed)
        """Those of a pack when it is sent, and those of a planned one: only the first ones may have to be small."""
        self.share(jobs)
        self.largest = min(offer.max_file_size, LARGEST_PACKED, self._most)
        self.refused = False
        """The server has no packs after all: files are sent by tus for the rest of the run."""

    def share(self, jobs: int) -> None:
        """Limit packs so that those of `jobs` workers fit into `PACK_MEMORY`."""
        self._most = min(self._most, max(LARGEST_PACKED, PACK_MEMORY // (2 * jobs)))
        self._resize(min(self.bytes, self._most))

    def _resize(self, size: int) -> None:
        self.bytes, self.planned = size, max(size, min(self._most, FIRST_PACK))

    def count(self, files: Sequence[LocalFile]) -> int:
        """Return how many of the files the next pack takes: at least one."""
        size = 0
        for number, file in enumerate(files):
            size += self.cost(file)
            if number and size > self.bytes:
                return number
        return len(files)

    @staticmethod
    def cost(file: LocalFile) -> int:
        """Return the bytes for which a file counts in a pack."""
        return file.size + REMOTE * file.is_remote

    def takes(self, file: LocalFile) -> bool:
        return not (self.refused or file.once or file.upload_url) and file.size <= self.largest

    def measured(self, size: int, seconds: float) -> None:
        """Record how long a pack that counts `size` bytes took; the next ones should take about `PACK_SECONDS`."""
        if seconds > PACK_SECONDS:
            self._resize(max(1, min(self.bytes, int(size * PACK_SECONDS / seconds))))
        elif seconds < PACK_SECONDS / 2 and 2 * size > self.bytes:
            self._resize(min(self._most, 2 * self.bytes))

    def shrink(self, size: int) -> None:
        """Halve packs, because one of `size` bytes was too large."""
        smaller = max(1, min(self.bytes, size // 2))
        self._most = max(smaller, min(self._most, size))
        self._resize(smaller)


class Groups:
    """Groups files for checks: small ones by packs, others by `most`."""

    def __init__(self, packs: PackSize | None, most: int, put: Callable[[list[LocalFile], bool], None]) -> None:
        """`put(files, packed)` gets each full group."""
        self._packs, self._most, self._put = packs, most, put
        self._groups: dict[bool, list[LocalFile]] = {True: [], False: []}
        self._bytes = 0  # of the group for a pack

    def __bool__(self) -> bool:
        return any(self._groups.values())

    def add(self, file: LocalFile) -> None:
        packs = self._packs
        if packs is None or not packs.takes(file):
            self._append(file, self._most, packed=False)
            return
        cost = packs.cost(file)
        if self._bytes + cost > packs.planned:
            self._flush(packed=True)
        self._bytes += cost
        self._append(file, packs.files, packed=True)

    def flush(self) -> None:
        """Pass on the incomplete groups."""
        self._flush(packed=True)
        self._flush(packed=False)

    def _append(self, file: LocalFile, most: int, *, packed: bool) -> None:
        self._groups[packed].append(file)
        if len(self._groups[packed]) >= most:
            self._flush(packed=packed)

    def _flush(self, *, packed: bool) -> None:
        group, self._groups[packed] = self._groups[packed], []
        self._bytes = 0 if packed else self._bytes
        if group:
            self._put(group, packed)
