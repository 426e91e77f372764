"""The tasks of an import: which files they get, and how these travel."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from uploader_cli.core.plan import LocalFile, concealed
from uploader_cli.transfer.journal.reading import PendingUpload
from uploader_cli.transfer.journal.receipts import Stored

SECONDS = 15.0  # target duration of a task
SHORTEST = 0.25  # duration of the last tasks: each takes tens of milliseconds beside its files
FILE_COST = 128 << 10  # bytes that take as long as the fixed part of a file
FIRST = 256 << 20  # cost of the first tasks: 2,048 empty files, or 256 MiB
GROWTH = 4.0  # most times that the next task costs more than a measured one
LAST = 50 * FILE_COST  # least cost of a task while the last files are shared out
IN_PROGRESS = 200_000  # most files that have not ended, in memory and in tasks
MOST_FILES = 5_000  # in a task: its files and outcomes travel in one message


@dataclass(frozen=True, slots=True)
class TaskInput:
    """What travels to a task.

    `process` is the mark of the worker process that was checked for it. `options` are stored settings, without secrets.
    `secret` is that of the run's upload keys. `again`: an earlier try may have stored files of it. `files` are the
    fields of each `LocalFile`, with an absolute path. `uploads` are what is known of uploads, by the numbers of their
    files, where the driver keeps the journal of them, because the server does not find them by keys; else None.
    `receipts` are those of files that an earlier run has sent, which are compared (`--verify`).
    """

    run: str
    number: int
    process: str
    options: Mapping[str, object]
    secret: bytes
    again: bool
    files: tuple[tuple[object, ...], ...]
    uploads: Mapping[int, PendingUpload] | None
    receipts: Mapping[int, Stored]

    def local_files(self) -> Iterator[LocalFile]:
        return map(local_file, self.files)


def local_file(fields: tuple[object, ...]) -> LocalFile:
    """Return the file of `fields_of`."""
    file = LocalFile(*fields)  # type: ignore[arg-type]
    shown = concealed(file.path)
    return file if shown == file.path else replace(file, path=shown, signed=file.path)


def fields_of(file: LocalFile, path: str) -> tuple[object, ...]:
    """Return the fields of a file for a task, with `path` for its path; most files need the first five."""
    few = (file.file, path, file.relative_path, file.size, file.mtime_ns)
    more = (file.named, file.category, file.sha256, file.destination, file.metadata)
    return (*few, *more) if any(more) else few


def cost(files: Sequence[LocalFile]) -> int:
    return sum(file.size for file in files) + FILE_COST * len(files)


class Cutter:
    """Cuts files into tasks of about `SECONDS`, as the tasks before took."""

    def __init__(self) -> None:
        self.files: deque[LocalFile] = deque()  # for the next tasks
        self.size = FIRST  # cost of the next task
        self._cost = 0  # of `files`

    def add(self, file: LocalFile) -> None:
        self.files.append(file)
        self._cost += cost([file])

    def clear(self) -> None:
        self.files.clear()
        self._cost = 0

    def cut(self, slots: int, *, last: bool) -> list[LocalFile]:
        """Return the files of the next task; none until it is full, unless these are the `last` files.

        `slots` tasks run at once; the last files are divided among them.
        """
        least = max(LAST, int(self.size * SHORTEST / SECONDS))
        limit = min(self.size, max(least, self._cost // (2 * slots))) if last else self.size
        most = min(MOST_FILES, max(1, IN_PROGRESS // (2 * slots)))
        if not last and self._cost < limit and len(self.files) < most:
            return []
        files: list[LocalFile] = []
        spent = 0
        while self.files and spent < limit and len(files) < most:
            files.append(self.files.popleft())
            spent += cost(files[-1:])
        self._cost -= spent
        return files

    def measured(self, spent: int, seconds: float) -> None:
        """Adapt to a task whose files cost `spent`. Beyond what was measured, tasks grow in steps."""
        wanted = spent * SECONDS / max(seconds, 1e-3)
        self.size = int(max(FILE_COST, min(wanted, max(self.size, spent) * GROWTH)))
