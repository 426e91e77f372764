"""The batches of an import: what a task gets, and how many files it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli.core.plan import LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SECONDS = 15.0  # target duration of a task
FILE_COST = 128 << 10  # bytes that take as long as the fixed part of a file
FIRST = 256 << 20  # cost of the first batches: 2,048 empty files, or 256 MiB; a task alone takes tens of milliseconds
GROWTH = 4.0  # most times that the next batch costs more than a measured one
LAST = 50 * FILE_COST  # least cost of a batch while the last files are shared out
MOST_FILES = 20_000  # in a batch: its files and outcomes travel in one message


@dataclass(frozen=True, slots=True)
class Batch:
    """What travels to a task.

    `options` are stored settings, without secrets. `secret` is that of the run's upload keys. `again`: an earlier try
    may have stored files of it. `files` are the fields of each `LocalFile`, with an absolute path.
    """

    run: str
    number: int
    version: str
    options: Mapping[str, object]
    secret: bytes
    again: bool
    files: tuple[tuple[object, ...], ...]

    def local_files(self) -> Iterator[LocalFile]:
        """Yield the files."""
        return (LocalFile(*item) for item in self.files)  # type: ignore[arg-type]  # made by `fields_of`


def fields_of(file: LocalFile, path: str) -> tuple[object, ...]:
    """Return the fields of a file for a batch, with `path` for its path; most files need the first five."""
    few = (file.file, path, file.relative_path, file.size, file.mtime_ns)
    more = (file.named, file.category, file.sha256, file.destination, file.metadata)
    return (*few, *more) if any(more) else few


def cost(files: Sequence[LocalFile]) -> int:
    """Return the cost of files, in bytes."""
    return sum(file.size for file in files) + FILE_COST * len(files)


class BatchSize:
    """The cost of the next batch, so that a task takes `SECONDS`, adapted to what tasks took."""

    def __init__(self) -> None:
        self.cost = FIRST

    def limit(self, left: int, slots: int) -> int:
        """Return the cost of the next batch of the last files, which cost `left`, for `slots` tasks at once."""
        return min(self.cost, max(LAST, left // (2 * slots)))

    def measured(self, spent: int, seconds: float) -> None:
        """Adapt to a task whose files cost `spent`. Faster than measured batches grow in steps."""
        wanted = spent * SECONDS / max(seconds, 1e-3)
        self.cost = int(max(FILE_COST, min(wanted, max(self.cost, spent) * GROWTH)))
