"""Turn paths from the command line into `LocalFile`s, in a stable order.

Directories are walked depth first, names sorted, with a bounded number of names in memory. Files that can't be sent
are reported with a reason.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import count, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.core.plan import LocalFile
from uploader_cli.selection import ignores
from uploader_cli.selection.dedup import SeenNames
from uploader_cli.selection.ignores import BadIgnoreFile, Ignores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from uploader_cli.selection.filters import Filters

AT_ONCE = 20_000
"""Maximum names of a directory sorted in memory; a larger one is read several times."""
HIDDEN_CONTENT = "has content although its size is 0: copy it to a regular file first"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path skipped by a rule; `relative_path` as in `LocalFile`."""

    file: int
    path: str
    reason: SkipReason
    relative_path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A path that can't be read or must not be sent; `local` as far as it is known."""

    file: int
    path: str
    code: FailureCode
    message: str
    local: LocalFile | None = None
    relative_path: str = field(default="", compare=False)


Selected = LocalFile | Skipped | Unusable
Step = Selected | None
"""None: something was examined that is not selected."""


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory to enter; `above` are the identities (device, inode) of it and of its parents.

    `ignores` are the patterns of its parent directory.
    """

    path: str
    relative: str
    above: tuple[tuple[int, int], ...]
    ignores: Ignores

    def below(self, name: str) -> str:
        """Return the path of an entry below the argument."""
        return f"{self.relative}/{name}".split("/", 1)[1]


def missing(paths: Iterable[str]) -> list[str]:
    """Return those of `paths` that don't exist, in order."""
    return [path for path in paths if not os.path.lexists(path)]


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


class _Walker:
    def __init__(self, filters: Filters, *, follow_links: bool, may_repeat: bool) -> None:
        self._filters = filters
        self._follow = follow_links
        self._seen = SeenNames() if may_repeat else None
        self._numbers = count()

    def argument(self, path: str) -> Iterator[Step]:
        base = os.path.basename(os.path.abspath(path))
        try:
            info = os.stat(path)
        except OSError as error:
            yield self._unusable(path, base, error)
            return
        if stat.S_ISDIR(info.st_mode):
            yield from self._tree(_Directory(path, base, ((info.st_dev, info.st_ino),), Ignores()))
        elif self._filters.wants(base):
            yield self._file(path, base, info, named=True)
        else:
            yield None

    def _tree(self, root: _Directory) -> Iterator[Step]:
        """Walk depth first, on a stack of our own: directories can nest deeper than Python's recursion limit."""
        stack = [self._entries(root)]
        while stack:
            item = next(stack[-1], _LEFT)
            if isinstance(item, _Left):
                stack.pop()
            elif isinstance(item, _Directory):
                stack.append(self._entries(item))
                yield None
            else:
                yield item

    def _entries(self, directory: _Directory) -> Iterator[Step | _Directory]:
        relative = directory.relative
        try:
            patterns = directory.ignores.within(directory.path, directory.below("")[:-1])
        except BadIgnoreFile as error:  # the excluded files are unknown
            words, name = f"{error}; its directory is not uploaded", f"{relative}/{ignores.NAME}"
            path = os.path.join(directory.path, ignores.NAME)
            yield Unusable(next(self._numbers), path, FailureCode.UNREADABLE, words, relative_path=name)
            return
        except OSError as error:
            yield self._unusable(directory.path, relative, error)
            return
        try:
            for entry in _sorted_entries(directory.path):
                yield self._entry(directory, entry, patterns)
        except OSError as error:
            yield self._unusable(directory.path, relative, error)

    def _entry(self, directory: _Directory, entry: os.DirEntry[str], patterns: Ignores) -> Step | _Directory:
        name, below = f"{directory.relative}/{entry.name}", directory.below(entry.name)
        if entry.is_symlink() and not self._follow:
            if not self._wants(below, patterns):
                return None
            return Skipped(next(self._numbers), entry.path, SkipReason.SYMLINK, name)
        try:
            info = entry.stat()
        except OSError as error:
            return self._unusable(entry.path, name, error) if self._wants(below, patterns) else None
        if stat.S_ISDIR(info.st_mode):
            identity = (info.st_dev, info.st_ino)
            left_out = patterns.leave_out(below, is_directory=True) or not self._filters.enters(below)
            if left_out or identity in directory.above:
                return None
            return _Directory(entry.path, name, (*directory.above, identity), patterns)
        return self._file(entry.path, name, info, named=False) if self._wants(below, patterns) else None

    def _wants(self, below: str, patterns: Ignores) -> bool:
        return below.rpartition("/")[2] != ignores.NAME and self._filters.wants(below) and not patterns.leave_out(below)

    def _file(self, path: str, relative: str, info: os.stat_result, *, named: bool) -> Selected:
        number = next(self._numbers)
        special = "" if stat.S_ISREG(info.st_mode) else "not a regular file"
        if not special and not info.st_size and has_hidden_content(path):
            special = HIDDEN_CONTENT
        if special:
            if named:
                return Unusable(number, path, FailureCode.UNREADABLE, special, relative_path=relative)
            return Skipped(number, path, SkipReason.SPECIAL, relative)
        if self._seen is not None and not self._seen.add(_identity(path, info)):
            return Skipped(number, path, SkipReason.DUPLICATE, relative)
        return LocalFile(number, path, relative, info.st_size, info.st_mtime_ns, named)

    def _unusable(self, path: str, relative: str, error: OSError) -> Unusable:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        code = FailureCode.VANISHED if gone else FailureCode.UNREADABLE
        dangling = gone and os.path.islink(path)
        words = "a symbolic link to a file that does not exist" if dangling else error.strerror or str(error)
        return Unusable(next(self._numbers), path, code, words, relative_path=relative)


def has_hidden_content(path: str) -> bool:
    """Return True for a file of size 0 with content, as in /proc: it would be sent as an empty one."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
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


class _Left:
    """Marks the end of a directory."""


_LEFT = _Left()


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
