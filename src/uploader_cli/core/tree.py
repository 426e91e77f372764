"""The directories of a selection: their common prefix, and which of them have ended."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from uploader_cli.core.codes import Phase
from uploader_cli.core.events import FileEnded

LATEST = 20  # maximum ended directories and files kept


class Directory(Struct):
    """The selected files directly in a directory: their number and total size, and how many failed and are left.

    `path` ends with a separator.
    """

    path: str
    files: int = 0
    bytes: int = 0
    failed: int = 0
    left: int = 0


def parent_of(path: str) -> str:
    """Return the part up to the last separator."""
    return path[: path.rfind("/") + 1]


class Tree:
    """Counts the files of each directory that has not ended, and stores what ended last."""

    def __init__(self) -> None:
        self.common = ""
        """The longest common directory, with a separator at its end; of one file the whole path."""
        self.latest: deque[FileEnded | Directory] = deque(maxlen=LATEST)
        self._open: dict[str, Directory] = {}
        self._ended: list[Directory] = []  # that may get more files, because the walk is in them
        self._walking: str | None = None
        self._files = 0

    def select(self, path: str, size: int) -> None:
        self._files += 1
        if self._files == 1:
            self.common = path
        elif self._files == 2:
            self.common = parent_of(self.common)
        while not path.startswith(self.common):
            self.common = parent_of(self.common[:-1])
        parent = parent_of(path)
        if parent != self._walking:
            self.leave(parent)
        directory = self._open.get(parent)
        if directory is None:
            directory = self._open[parent] = Directory(parent)
        directory.files += 1
        directory.left += 1
        directory.bytes += size

    def leave(self, walking: str | None) -> None:
        """End the directories whose files have all ended and that the walk, now in `walking`, has left."""
        self._walking = walking
        waiting, self._ended = self._ended, []
        for directory in waiting:
            self._end(directory)

    def end(self, done: FileEnded, *, listed: bool) -> None:
        """Count the end of a file; a `listed` one is stored until its directory ends."""
        if listed and done.outcome is not Phase.FAILED:
            self.latest.append(done)
        directory = self._open.get(parent_of(done.path))
        if directory is None:
            return
        directory.left -= 1
        directory.failed += done.outcome is Phase.FAILED
        if directory.left == 0:
            self._end(directory)

    def _end(self, directory: Directory) -> None:
        inside = self._walking is not None and self._walking.startswith(directory.path)
        if directory.left or self._open.get(directory.path) is not directory:
            return
        if inside:
            self._ended.append(directory)
            return
        del self._open[directory.path]
        if directory.files > 1 and directory.path != self.common:
            kept = [one for one in self.latest if isinstance(one, Directory) or parent_of(one.path) != directory.path]
            self.latest = deque([*kept, directory], LATEST)
