"""What `--durability` is about: whether something is on the disk, or only with the operating system, when it is told.

With `fsync` whatever was confirmed survives a loss of power: the bytes of files and the entries of directories are
flushed before the answer. With `none` it survives the end of the process.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

MANY = 4
"""Files or directories from which on the whole file system is flushed at once, where the system can."""
MOST_KNOWN = 50_000
"""Directories of which it is remembered that their own entry is on the disk."""

_flush_data = getattr(os, "fdatasync", os.fsync)


class Disk:
    """Flushes what was written below a root; with `durable` False no call does anything.

    Every call waits for the disk, so it belongs into a thread. Raises OSError where the disk failed: then nobody may
    be told that the bytes are there, although the next call may succeed.
    """

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.durable = durable
        self._root = os.fspath(root)
        self._known: set[str] = set()
        """Directories whose own entry is on the disk."""
        self._syncfs = _find_syncfs() if durable else None
        self._fd = -1 if self._syncfs is None else os.open(root, os.O_RDONLY)
        """The root: an error that the system meets in the background is told to who has a file open by then."""

    def file(self, fd: int) -> None:
        """Flush the bytes of an open file."""
        if self.durable:
            _flush_data(fd)

    def files(self, paths: Sequence[str | Path]) -> None:
        """Flush the bytes of files."""
        if not self.durable or self._flushed_at_once(len(paths)):
            return
        for path in paths:
            _flush(path, os.O_RDONLY)

    def names(self, paths: Iterable[str | Path]) -> None:
        """Flush the entries that lead from the root to these paths."""
        if not self.durable:
            return
        directories: set[str] = set()
        entered: set[str] = set()
        for directory in {os.path.dirname(path) for path in paths}:
            directories.add(directory)
            while directory != self._root and not (directory in self._known or directory in entered):
                entered.add(directory)
                directory = os.path.dirname(directory)
                directories.add(directory)
        if not self._flushed_at_once(len(directories)):
            for directory in directories:
                _flush_directory(directory)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known |= entered

    def made(self, directory: str | Path) -> None:
        """A directory is going to be made: its entry is not on the disk any more, if it ever was."""
        if self.durable:
            self._known -= {os.fspath(directory), *map(os.fspath, _parents(os.fspath(directory)))}

    def everything(self, directories: Sequence[Path]) -> None:
        """Flush all that an earlier process has left; where the system can't, at least these directories."""
        if self.durable and not self._flushed_at_once(MANY + 1):
            for directory in directories:
                _flush_directory(directory)

    def _flushed_at_once(self, count: int) -> bool:
        if self._syncfs is None or count <= MANY:
            return False
        self._syncfs(self._fd)
        return True

    def close(self) -> None:
        """Give up the root. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parents(directory: str) -> Iterable[str]:
    while (parent := os.path.dirname(directory)) != directory:
        yield parent
        directory = parent


def _flush(path: str | Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _flush_directory(path: str | Path) -> None:
    if os.name != "nt":  # Windows has no such call
        _flush(path, os.O_RDONLY)


def _find_syncfs() -> Callable[[int], None] | None:
    """`syncfs` of Linux, which Python does not have; None elsewhere."""
    if sys.platform != "linux":
        return None
    import ctypes  # late: only who needs it pays for it

    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None

    def syncfs(fd: int) -> None:
        if call(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return syncfs
