"""Turn paths from the command line into `LocalFile`s, in a stable order.

Directories are walked depth first, names sorted, with a bounded number of names in memory. Files that can't be sent
are reported with a reason.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import nsmallest
from itertools import count, pairwise
from operator import attrgetter
from typing import Any

from msgspec.structs import replace

from uploader_cli.core.events import FailureCode, FileFailed, FileSkipped, SkipReason
from uploader_cli.core.plan import LocalFile, concealed, is_url
from uploader_cli.core.record import Record
from uploader_cli.errors import FileFailure
from uploader_cli.feature import features
from uploader_cli.selection.filters import IGNORE_FILE, BadIgnoreFile, Filters, Ignores
from uploader_cli.sources import files as sources
from uploader_cli.sources.directories import real_directory

AT_ONCE = 20_000  # maximum names of a directory sorted in memory; a larger one is read several times
NOT_ENTERED = frozenset(feature.directory for feature in features() if feature.directory)
HIDDEN_CONTENT = "has content although its size is 0: copy it to a regular file first"


Selected = LocalFile | FileSkipped | FileFailed
"""A file, or what becomes of a path that a rule skips, that can't be read or that must not be sent."""
Step = Selected | None  # None: something was examined that is not selected


def missing(paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that don't exist, in order; what an interrupted run has set aside is put back."""
    gone = [path for path in paths if not sources.exists(path)]
    for directory in {os.path.dirname(path) for path in gone}:
        restore(directory)
    return [path for path in gone if not sources.exists(path)]


def forgiven(item: Selected, is_stored: Callable[[LocalFile], bool]) -> Selected:
    """Return an item, and a skip for a missing file that the run has stored: it is consumed (`Feature`)."""
    if not isinstance(item, FileFailed) or item.code is not FailureCode.VANISHED:
        return item
    file = item.local or LocalFile(item.file, item.path, item.relative_path, 0, 0)
    if not is_stored(file):
        return item
    added: dict[str, Any] = {}
    for feature in features():
        added |= feature.load(feature.fields_of_missing) if feature.fields_of_missing else {}
    known = (item.file, item.path, SkipReason.RECEIPT, item.local)
    return FileSkipped(*known, relative_path=item.relative_path, gone=True, **added)


def restore(directory: str) -> dict[str, FileFailure]:
    """Let features put back what an interrupted run has left; return the paths that stay, and why."""
    left: dict[str, FileFailure] = {}
    for feature in features():
        if feature.directory and os.path.lexists(os.path.join(directory, feature.directory)):
            left |= feature.load(feature.restores)(directory)
    return left


def walk(paths: Sequence[str], filters: Filters, *, follow_links: bool = False) -> Iterator[Step]:
    """Yield every file under `paths`, numbered from 0 in the order found; None for those that the filters reject.

    A file reached twice (by its real path) is selected once. Symbolic links are skipped unless `follow_links`; loops
    are detected by the identities (device, inode) of the parent directories.
    """
    walker = _Walker(filters, follow_links=follow_links, may_repeat=follow_links or _overlap(paths))
    for path in paths:
        yield from walker.argument(path)


def _overlap(paths: Sequence[str]) -> bool:
    """Return True if one of `paths` is or contains another: otherwise no file is reached twice without links."""
    real = sorted(os.path.join(os.path.realpath(path), "") for path in paths)
    return any(below.startswith(above) for above, below in pairwise(real))


class _Directory(Record, frozen=True):
    """A directory to enter, with the patterns of its parent; `above` identifies it and its parents: (device, inode).

    `real` is its absolute path without links.
    """

    path: str
    relative: str
    real: str
    above: tuple[tuple[int, int], ...]
    ignores: Ignores

    def below(self, name: str) -> str:
        """Return the path of an entry below the argument."""
        return f"{self.relative}/{name}".split("/", 1)[1]


class _Walker:
    def __init__(self, filters: Filters, *, follow_links: bool, may_repeat: bool) -> None:
        self._filters = filters
        self._follow = follow_links
        self._seen = SeenNames() if may_repeat else None
        self._numbers = count()

    def argument(self, path: str) -> Iterator[Step]:
        if is_url(path):
            yield from self._remote(path)
            return
        base = os.path.basename(os.path.abspath(path))
        try:
            info = os.stat(path)
        except OSError as error:
            yield self._unreadable(path, base, error)
            return
        if stat.S_ISDIR(info.st_mode):
            yield from self._tree(
                _Directory(path, base, os.path.realpath(path), ((info.st_dev, info.st_ino),), Ignores())
            )
        elif self._filters.wants(base):
            yield self._file(path, base, info, real_directory(path), named=True)
        else:
            yield None

    def _remote(self, url: str) -> Iterator[Step]:
        reader = sources.reader(url)
        base = reader.base_name(url)
        try:
            for place, below, status in reader.listing(url):
                is_directory = below.endswith("/")
                if self._filters.enters(below[:-1]) if is_directory else self._filters.wants(below.strip("/") or base):
                    yield self._remote_file(place, f"{base}/{below}".rstrip("/"), status, named=not below)
                else:
                    yield None
        except OSError as error:
            yield self._unreadable(concealed(url), base, error)

    def _remote_file(self, url: str, name: str, status: sources.Status | OSError, *, named: bool) -> Step:
        signed, url = url, concealed(url)
        try:
            if isinstance(status, OSError):
                raise status
            if stat.S_ISLNK(status.st_mode):
                if not self._follow:
                    return FileSkipped(next(self._numbers), url, SkipReason.SYMLINK, relative_path=name)
                status = sources.status(signed)
        except OSError as error:
            return self._unreadable(url, name, error)
        if stat.S_ISDIR(status.st_mode):
            return self._failed(url, name, "a link to a directory, which is not followed at a URL")
        if not self._filters.fits(status):
            return None
        if self._seen is not None and not self._seen.add(url):
            return FileSkipped(next(self._numbers), url, SkipReason.DUPLICATE, relative_path=name)
        file = LocalFile(next(self._numbers), url, name, status.st_size, status.st_mtime_ns, named)
        return file if signed == url else replace(file, signed=signed)

    def _tree(self, root: _Directory) -> Iterator[Step]:
        """Walk depth first, on a stack of our own: directories can nest deeper than Python's recursion limit."""
        stack = [self._entries(root)]
        while stack:
            for item in stack[-1]:
                if isinstance(item, _Directory):
                    stack.append(self._entries(item))
                    yield None
                    break
                yield item
            else:
                stack.pop()

    def _entries(self, directory: _Directory) -> Iterator[Step | _Directory]:
        left = restore(directory.path)
        try:
            ignores = directory.ignores.within(directory.path, directory.below("")[:-1])
            for path, failure in left.items():
                name = os.path.basename(path)
                if self._wants(directory.below(name), ignores):
                    number, relative = next(self._numbers), f"{directory.relative}/{name}"
                    code, retryable = failure.code, failure.retryable
                    yield FileFailed(number, path, code, str(failure), retryable=retryable, relative_path=relative)
            for entry in _sorted_entries(directory.path):
                yield self._entry(directory, entry, ignores)
        except BadIgnoreFile as error:  # the excluded files are unknown
            path, name = os.path.join(directory.path, IGNORE_FILE), f"{directory.relative}/{IGNORE_FILE}"
            yield self._failed(path, name, f"{error}; its directory is not uploaded")
        except OSError as error:
            yield self._unreadable(directory.path, directory.relative, error)

    def _entry(self, directory: _Directory, entry: os.DirEntry[str], ignores: Ignores) -> Step | _Directory:
        name, below = f"{directory.relative}/{entry.name}", directory.below(entry.name)
        if entry.name in NOT_ENTERED:
            return None
        is_link = entry.is_symlink()
        if is_link and not self._follow:
            if not self._wants(below, ignores):
                return None
            return FileSkipped(next(self._numbers), entry.path, SkipReason.SYMLINK, relative_path=name)
        try:
            info = entry.stat()
        except OSError as error:
            return self._unreadable(entry.path, name, error) if self._wants(below, ignores) else None
        if stat.S_ISDIR(info.st_mode):
            identity = (info.st_dev, info.st_ino)
            left_out = ignores.leave_out(below, is_directory=True) or not self._filters.enters(below)
            if left_out or identity in directory.above:
                return None
            real = os.path.realpath(entry.path) if is_link else os.path.join(directory.real, entry.name)
            return _Directory(entry.path, name, real, (*directory.above, identity), ignores)
        real = "" if is_link else directory.real
        return self._file(entry.path, name, info, real, named=False) if self._wants(below, ignores) else None

    def _wants(self, below: str, ignores: Ignores) -> bool:
        return below.rpartition("/")[2] != IGNORE_FILE and self._filters.wants(below) and not ignores.leave_out(below)

    def _file(self, path: str, relative: str, info: os.stat_result, directory: str, *, named: bool) -> Step:
        special = "" if stat.S_ISREG(info.st_mode) else "not a regular file"
        if not special and not self._filters.fits(info):
            return None
        if not special and not info.st_size and has_hidden_content(path):
            special = HIDDEN_CONTENT
        if special and named:
            return self._failed(path, relative, special)
        number = next(self._numbers)
        if special:
            return FileSkipped(number, path, SkipReason.SPECIAL, relative_path=relative)
        if self._seen is not None and not self._seen.add(_identity(path, info)):
            return FileSkipped(number, path, SkipReason.DUPLICATE, relative_path=relative)
        return LocalFile(
            number,
            path,
            relative,
            info.st_size,
            info.st_mtime_ns,
            named,
            identity=sources.identity_of(info),
            directory=directory,
        )

    def _unreadable(self, path: str, relative: str, error: OSError) -> FileFailed:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        dangling = gone and os.path.islink(path)
        words = "a symbolic link to a file that does not exist" if dangling else error.strerror or str(error)
        return self._failed(path, relative, words, FailureCode.VANISHED if gone else FailureCode.UNREADABLE)

    def _failed(self, path: str, relative: str, message: str, code: FailureCode = FailureCode.UNREADABLE) -> FileFailed:
        return FileFailed(next(self._numbers), path, code, message, retryable=False, relative_path=relative)


def has_hidden_content(path: str) -> bool:
    """Return True for a file of size 0 with content, as in /proc: it would be sent as an empty one."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # reported when it is read
        return False
    try:
        return bool(os.read(handle, 1)) and not os.fstat(handle).st_size  # else it has just been written
    except BlockingIOError:  # data will follow
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _identity(path: str, info: os.stat_result) -> str:
    """Return an identity that keeps hard links apart: only for them the real path is needed."""
    return f"{info.st_dev}:{info.st_ino}" if info.st_nlink == 1 else os.path.realpath(path)


def _sorted_entries(path: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a directory by name, with at most `AT_ONCE` in memory. Raises `OSError`."""
    last = ""
    while True:
        with os.scandir(path) as scan:
            entries = nsmallest(AT_ONCE, (entry for entry in scan if entry.name > last), key=attrgetter("name"))
        yield from entries
        if len(entries) < AT_ONCE:
            return
        last = entries[-1].name


class SeenNames:
    """The names seen before, in bounded memory: SQLite stores them in a temporary file beyond its cache.

    Not for concurrent use; the file is deleted with the object.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA cache_size = -8192;"  # KiB
            "CREATE TABLE seen (name BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        )

    def add(self, name: str) -> bool:
        """Add a name; return True if it is new."""
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (os.fsencode(name),)).rowcount == 1
