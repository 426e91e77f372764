"""Flushing to disk for `--durability`.

With `fsync` confirmed data survives a power loss: file contents and directory entries are flushed before the response.
With `none` it survives the end of the process.

What waits for the disk runs in threads: flushes, comparisons, digests, copies, blocks of bodies, the removal of many
bytes or files, and with `fsync` what writes a data file of an upload. The event loop itself looks up and opens files,
writes temporary files of at most `writing.SMALL` bytes, reads what the system has in its cache or on a file system in
memory, and removes the second name of a stored file; with `none` it also writes and links small files. These calls take
1 to 20 µs, and a thread 50 µs or more, a tenth of a small upload. Where the disk does not answer they block the loop; a
signal ends the server all the same (`serving.Signals`). `tests/server/storage/test_server_loop.py` has the list of
these calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from uploader_server.storage.categories import Categories

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})  # errors of a full disk and of a used quota
RESERVE = 1 << 20  # bytes that are kept for transactions that free space
MANY = 4  # more files or directories than this are flushed by one `syncfs`, where available
MOST_KNOWN = 50_000  # maximum directories whose flushed entries are cached
LONGEST_KNOWN = 512  # maximum characters of the path of such a directory

flush_data = getattr(os, "fdatasync", os.fsync)


class Disk:
    """Flushes files below a root; does nothing unless `durable`.

    Calls block, so run them in a thread. Raises OSError if the disk fails: the bytes are not confirmed then, even if
    the next call succeeds.
    """

    def __init__(self, root: Path, categories: Categories, *, durable: bool) -> None:
        self.durable = durable
        self._categories = categories
        self._root = os.fspath(root)
        self._known: set[str] = set()  # directories whose own entry is flushed
        self.syncfs = find_syncfs() if durable else None
        self._fd = -1 if self.syncfs is None else os.open(root, os.O_RDONLY)
        """The open root: background write errors are reported only to descriptors open at that time."""

    def file(self, fd: int) -> None:
        if self.durable:
            flush_data(fd)

    def files(self, paths: Sequence[str | Path]) -> None:
        if not self.durable or self._flushed_at_once(len(paths)):
            return
        for path in paths:
            _flush(path, self._categories, self._root)

    def names(self, paths: Iterable[str | Path]) -> None:
        """Flush the directory entries from the root to these paths."""
        if not self.durable:
            return
        directories: set[str] = set()
        entered: set[str] = set()
        for directory in {os.path.dirname(path) for path in paths}:
            self._collect(directories, directory)
            while directory != self._root and not (directory in self._known or directory in entered):
                if len(directory) <= LONGEST_KNOWN:
                    entered.add(directory)
                directory = os.path.dirname(directory)
                self._collect(directories, directory)
        if not self._flushed_at_once(len(directories)):
            for directory in directories:
                _flush(directory, self._categories, self._root)
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known.update(entered)

    def _collect(self, directories: set[str], directory: str) -> None:
        """Add a directory that is to be flushed, unless all are flushed at once: deep ones need much memory."""
        if self.syncfs is None or len(directories) <= MANY:
            directories.add(directory)

    def made(self, directory: str | Path) -> None:
        """Forget that the entries of a directory and its parents are flushed, before it is created below the root."""
        path = os.fspath(directory)
        while self.durable and path != self._root:
            self._known.discard(path)
            path = os.path.dirname(path)

    def everything(self, directories: Sequence[Path]) -> None:
        """Flush everything an earlier process wrote; without `syncfs` only these directories."""
        if self.durable and not self._flushed_at_once(MANY + 1):
            for directory in directories:
                _flush(directory, self._categories, self._root)

    def _flushed_at_once(self, count: int) -> bool:
        if self.syncfs is None or count <= MANY:
            return False
        self.syncfs(self._fd)
        return True

    def close(self) -> None:
        """Close the root. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Reserve:
    """A file that keeps disk space for what frees space: without it SQLite can't record a deletion on a full disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Write what is missing of the file, on a full disk as much as fits."""
        with contextlib.suppress(OSError), self._path.open("ab", buffering=0) as file:
            while file.tell() < RESERVE:
                file.write(os.urandom(RESERVE - file.tell()))  # random, as file systems compress zeros

    def release(self) -> None:
        self._path.unlink(missing_ok=True)


def no_space(error: sqlite3.Error, directory: Path) -> OSError | None:
    """Return ENOSPC or EDQUOT if an error of SQLite in this directory means that; None for other errors.

    SQLite reports a used quota, and a full disk outside of `write`, as "disk I/O error": then the system is asked.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if code & 0xFF in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}:
        try:
            with tempfile.TemporaryFile(dir=directory) as file:
                file.write(bytes(64 << 10))
        except OSError as refusal:
            return refusal if refusal.errno in NO_SPACE else None
    return None


def _flush(path: str | Path, categories: Categories, root: str) -> None:
    below = os.fspath(path)[len(root) + 1 :]
    fd = categories.open_any(below) if below in categories else os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def in_memory(device: int) -> bool:
    """Return whether the file system with this number (`st_dev`) has its files in memory, as Linux tells it."""
    number = f"{os.major(device)}:{os.minor(device)}".encode()
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", "rb") as mounts:
        for mount in mounts:
            before, _, after = mount.partition(b" - ")  # proc(5): the type is the first field after the optional ones
            if before.split()[2] == number:
                return after.split()[0] in {b"tmpfs", b"ramfs"}
    return False


def find_syncfs() -> Callable[[int], None] | None:
    """Return Linux's `syncfs`, which Python lacks; None on other systems."""
    if sys.platform != "linux":
        return None
    import ctypes  # slow import, needed on Linux only

    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None

    def syncfs(fd: int) -> None:
        if call(fd):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return syncfs
