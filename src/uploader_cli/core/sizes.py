"""How large chunks and packs are: they follow the rate of the connection and what the server refuses.

All workers share these objects, without a lock: a number that another thread overwrites is corrected by the next chunk
or pack.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uploader_cli.core.packs import PackOffer
    from uploader_cli.core.plan import LocalFile

FIRST_CHUNK = 8 << 20  # bytes of the first chunks where their size is found automatically
MOST_CHUNK = 64 << 20  # bytes of the largest of them
SAFE_CHUNK = 5 << 20
"""Bytes of the smallest of them, unless a 413 asks for less: Cloudflare Stream takes no smaller ones."""
GRAIN = 256 << 10  # their sizes are multiples of this: some servers take no others
CHUNK_SECONDS = 1.5  # seconds that such a chunk is to take
FLAT = 0.75  # share of its rate alone that a connection has beside others, if the limit is its own
LEAST_CHUNK = 64 << 10
"""Bytes below which a 413 is not answered with a smaller chunk any more (docs/protocol.md, section 5)."""

LARGEST_PACKED = 1 << 20
"""Bytes above which a file goes by tus, whatever the server would take in a pack: there it resumes in the middle."""
MOST_PACK_FILES = 500
MOST_PACK = 8 << 20
"""Bytes that one pack has at most: no more than a chunk, so that an interruption costs no more than a chunk does."""
FIRST_PACK = 2 << 20
LEAST_PACK = 64 << 10
"""Where the bytes of packs begin, before one was measured, and where they end on a slow link."""
SLOW_PACK = 2.0  # seconds that a pack may take before the next ones get smaller
PACK_MEMORY = 64 << 20  # bytes in all packs that are being sent; each is in memory twice while its body is made


class ChunkSize:
    """Bytes of a chunk: what one worker meets changes the chunks of all.

    `auto` begins with `FIRST_CHUNK` and follows the rate of a connection: a chunk is to take `CHUNK_SECONDS`, and has
    `FIRST_CHUNK` to `MOST_CHUNK` bytes, or less after a failure. A number is changed by 413 alone.
    """

    def __init__(self, size: int | Literal["auto"], known: int | None = None) -> None:
        """`known` is the `limit` of an earlier run. A number is tried all the same: so a limit can be lifted again."""
        self.adapts, self.limit = size == "auto", known
        """`limit`: bytes of the largest chunk that the server takes, known from a 413; None elsewhere."""
        self._most = min(MOST_CHUNK, max(LEAST_CHUNK, known or MOST_CHUNK)) if size == "auto" else size
        self.size = min(FIRST_CHUNK, self._most) if self.adapts else self._most
        self._least = LEAST_CHUNK if self.adapts else min(LEAST_CHUNK, max(1, self.size // 2))
        self._refused = False  # True from a 413 until a smaller chunk has arrived
        self._under_way: set[object] = set()
        self._meetings = 0  # chunks that began while another was under way
        self._alone = self._beside = 0.0  # bytes a second of the last chunk that travelled alone, or beside others

    @property
    def capped(self) -> bool:
        """True where a connection is as fast beside others as alone: several of them are faster than one."""
        return self._beside > FLAT * self._alone > 0

    def refuse(self, size: int) -> bool:
        """Make chunks smaller than `size` bytes, which are too many; False where no smaller one is tried."""
        smaller = max(self._least, (size + 1) // 2)
        if self.adapts:
            smaller = smaller // GRAIN * GRAIN or smaller
        if smaller >= size:
            return False
        self._refused = True
        self._most = min(self._most, smaller)
        self.size = min(self.size, smaller)
        return True

    def failed(self) -> None:
        """Make chunks smaller, because one did not arrive."""
        if self.adapts:
            self.size = min(self.size, max(SAFE_CHUNK, self.size // 2 // GRAIN * GRAIN))

    def arrived(self, size: int) -> None:
        """Note that the server has taken a body of `size` bytes."""
        if self._refused and size <= self._most:
            self.limit, self._refused = self._most, False
        elif self.limit is not None and size > self.limit:
            self.limit = None

    @contextmanager
    def travelling(self, size: int, clock: Callable[[], float]) -> Iterator[None]:
        """Measure how long a chunk of `size` bytes takes to arrive, if it does; `clock()` is in seconds."""
        chunk, beside, began = object(), bool(self._under_way), clock()
        self._meetings += beside
        met = self._meetings
        self._under_way.add(chunk)
        try:
            yield
        except BaseException:
            self._under_way.discard(chunk)
            raise
        self._under_way.discard(chunk)
        if size >= min(self.size, FIRST_CHUNK):
            rate = size / max(1e-6, clock() - began)
            if not beside and met == self._meetings:
                self._alone = rate
            elif beside and self._under_way:
                self._beside = rate
            if self.adapts:
                wanted = int(min(max(rate * CHUNK_SECONDS, FIRST_CHUNK), self._most))
                self.size = wanted // GRAIN * GRAIN or wanted


class PackSize:
    """What goes into one pack: `files` and `bytes` at most, and no file that is larger than `largest` bytes."""

    def __init__(self, offer: PackOffer, chunk_size: int | Literal["auto"], jobs: int) -> None:
        chunk = MOST_PACK if chunk_size == "auto" else max(chunk_size, LARGEST_PACKED)
        self.endpoint, self.files = offer.endpoint, min(offer.max_files, MOST_PACK_FILES)
        self._most = min(offer.max_bytes, MOST_PACK, chunk)
        self.bytes = min(self._most, FIRST_PACK)
        self.share(jobs)
        self.largest = min(offer.max_file_size, LARGEST_PACKED, self._most)
        self.refused = False
        """True once the server turned out to have no packs: files go by tus for the rest of the run."""

    def share(self, jobs: int) -> None:
        """Make packs so small that those of `jobs` workers fit into `PACK_MEMORY`."""
        self._most = min(self._most, max(LARGEST_PACKED, PACK_MEMORY // (2 * jobs)))
        self.bytes = min(self.bytes, self._most)

    def takes(self, file: LocalFile) -> bool:
        """Return whether a file goes into a pack."""
        return not self.refused and file.size <= self.largest

    def measured(self, size: int, seconds: float) -> None:
        """Take how long a pack of `size` bytes took: the next ones should take 1 to 2 s at most."""
        if seconds > SLOW_PACK:
            self.bytes = max(LEAST_PACK, min(self.bytes, int(size * SLOW_PACK / (2 * seconds))))
        elif seconds < SLOW_PACK / 2 and 2 * size > self.bytes:
            self.bytes = min(self._most, 2 * self.bytes)

    def shrink(self, size: int) -> None:
        """Halve the bytes of a pack, because one of `size` bytes was too large."""
        self.bytes = max(1, min(self.bytes, size // 2))
        self._most = max(self.bytes, min(self._most, size))


class Groups:
    """Files in line for a check: small ones in groups of a pack each, others in groups of `most`."""

    def __init__(self, packs: PackSize | None, most: int, put: Callable[[list[LocalFile], bool], None]) -> None:
        """`put(files, packed)` takes each group that is full."""
        self._packs, self._most, self._put = packs, most, put
        self._groups: dict[bool, list[LocalFile]] = {True: [], False: []}
        self._bytes = 0  # of the group for a pack

    def __bool__(self) -> bool:
        return any(self._groups.values())

    def add(self, file: LocalFile) -> None:
        """Put a file at the end of its group."""
        packs = self._packs
        if packs is None or not packs.takes(file):
            self._append(file, self._most, packed=False)
            return
        if self._bytes + file.size > packs.bytes:
            self._flush(packed=True)
        self._bytes += file.size
        self._append(file, packs.files, packed=True)

    def flush(self) -> None:
        """Pass on the groups that are not full, too."""
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
