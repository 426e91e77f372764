"""Paths from the command line → `LocalFile`s, in a stable order.

Directories are walked depth first, names sorted, no more than some thousand names of a directory in memory at a time.
What can't be sent is told apart by a reason and never dropped in silence.
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
"""Names of one directory that are sorted in memory; one with more is read again for the next so many."""
HIDDEN_CONTENT = "it has content, though the system gives its size as 0: copy it to a file first"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that was left out by a rule; `relative_path` as of a `LocalFile`."""

    file: int
    path: str
    reason: SkipReason
    relative_path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Unusable:
    """A path that can't be read, or must not be sent; `local` as far as it is known."""

    file: int
    path: str
    code: FailureCode
    message: str
    local: LocalFile | None = None
    relative_path: str = field(default="", compare=False)


Selected = LocalFile | Skipped | Unusable
Step = Selected | None
"""None: something was looked at and passed by."""


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory to be entered; `above` are the identities (device, inode) of it and of those above it.

    `ignores` are the patterns that hold in the directory that it is in.
    """

    path: str
    relative: str
    above: tuple[tuple[int, int], ...]
    ignores: Ignores

    def below(self, name: str) -> str:
        """The path of one of its entries below the argument."""
        return f"{self.relative}/{name}".split("/", 1)[1]


def missing(paths: Iterable[str]) -> list[str]:
    """Those of `paths` that aren't there, in their order: a reason to send nothing at all."""
    return [path for path in paths if not os.path.lexists(path)]


def walk(paths: Sequence[str], filters: Filters, *, follow_links: bool = False) -> Iterator[Step]:
    """Every file under `paths`, numbered from 0 in the order found; None for what the filters passed by.

    A file reached twice (by its real path) is selected once. Symbolic links are skipped unless `follow_links`; loops
    are broken by the identity (device, inode) of the directories above.
    """
    walker = _Walker(filters, follow_links=follow_links, may_repeat=follow_links or _overlap(paths))
    for path in paths:
        yield from walker.argument(path)


def _overlap(paths: Sequence[str]) -> bool:
    """True where one of `paths` is, or lies under, another: only then is a file reached twice without any link."""
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
        """Depth first, on a stack of our own: directories nest deeper than Python calls may."""
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
            held = directory.ignores.within(directory.path, directory.below("")[:-1])
        except BadIgnoreFile as error:  # what it should keep from being sent is not known
            words, name = f"{error}; nothing of its directory is sent", f"{relative}/{ignores.NAME}"
            path = os.path.join(directory.path, ignores.NAME)
            yield Unusable(next(self._numbers), path, FailureCode.UNREADABLE, words, relative_path=name)
            return
        except OSError as error:
            yield self._unusable(directory.path, relative, error)
            return
        try:
            for entry in _sorted_entries(directory.path):
                yield self._entry(directory, entry, held)
        except OSError as error:
            yield self._unusable(directory.path, relative, error)

    def _entry(self, directory: _Directory, entry: os.DirEntry[str], held: Ignores) -> Step | _Directory:
        name, below = f"{directory.relative}/{entry.name}", directory.below(entry.name)
        if entry.is_symlink() and not self._follow:
            if not self._wants(below, held):
                return None
            return Skipped(next(self._numbers), entry.path, SkipReason.SYMLINK, name)
        try:
            info = entry.stat()
        except OSError as error:
            return self._unusable(entry.path, name, error) if self._wants(below, held) else None
        if stat.S_ISDIR(info.st_mode):
            identity = (info.st_dev, info.st_ino)
            left_out = held.leave_out(below, is_directory=True) or not self._filters.enters(below)
            if left_out or identity in directory.above:
                return None
            return _Directory(entry.path, name, (*directory.above, identity), held)
        return self._file(entry.path, name, info, named=False) if self._wants(below, held) else None

    def _wants(self, below: str, held: Ignores) -> bool:
        return below.rpartition("/")[2] != ignores.NAME and self._filters.wants(below) and not held.leave_out(below)

    def _file(self, path: str, relative: str, info: os.stat_result, *, named: bool) -> Selected:
        number = next(self._numbers)
        special = "" if stat.S_ISREG(info.st_mode) else "it is no regular file"
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
        words = "it is a symbolic link to a file that does not exist" if dangling else error.strerror or str(error)
        return Unusable(next(self._numbers), path, code, words, relative_path=relative)


def has_hidden_content(path: str) -> bool:
    """True for a file of size 0 that yields bytes, as those of /proc do: it would be sent as an empty one."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:  # what is wrong is found when it is read
        return False
    try:
        return bool(os.read(handle, 1)) and not os.fstat(handle).st_size  # else it was written to just now
    except BlockingIOError:  # there will be some
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


class _Left:
    """Stands for the end of a directory."""


_LEFT = _Left()


def _identity(path: str, info: os.stat_result) -> str:
    """Hard links are files of their own: only for them the path has to tell."""
    return f"{info.st_dev}:{info.st_ino}" if info.st_nlink == 1 else os.path.realpath(path)


def _sorted_entries(path: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a directory by name, `AT_ONCE` of them in memory. Raises `OSError`."""
    last = ""
    while True:
        with os.scandir(path) as scan:
            entries = nsmallest(AT_ONCE, (entry for entry in scan if entry.name > last), key=attrgetter("name"))
        yield from entries
        if len(entries) < AT_ONCE:
            return
        last = entries[-1].name
