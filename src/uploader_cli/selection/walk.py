"""Paths from the command line → `LocalFile`s, in a stable order.

Directories are walked depth first, names sorted, one directory in memory at a time. What can't be sent is told apart
by a reason and never dropped in silence.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.core.plan import LocalFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uploader_cli.selection.filters import Filters


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that was left out by a rule."""

    file: int
    path: str
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Unusable:
    """A path that can't be read."""

    file: int
    path: str
    code: FailureCode
    message: str


Selected = LocalFile | Skipped | Unusable


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory to be entered; `above` are the identities (device, inode) of it and of those above it."""

    path: str
    relative: str
    above: tuple[tuple[int, int], ...]


def missing(paths: Iterable[str]) -> list[str]:
    """Those of `paths` that aren't there, in their order: a reason to send nothing at all."""
    return [path for path in paths if not os.path.lexists(path)]


def walk(paths: Iterable[str], filters: Filters, *, follow_links: bool = False) -> Iterator[Selected]:
    """Every file under `paths`, numbered from 0 in the order found.

    A file reached twice (by its real path) is selected once. Symbolic links are skipped unless `follow_links`; loops
    are broken by the identity (device, inode) of the directories above.
    """
    arguments = list(paths)
    walker = _Walker(filters, follow_links=follow_links, may_repeat=follow_links or len(arguments) > 1)
    for path in arguments:
        yield from walker.argument(path)


class _Walker:
    def __init__(self, filters: Filters, *, follow_links: bool, may_repeat: bool) -> None:
        self._filters = filters
        self._follow = follow_links
        self._may_repeat = may_repeat
        self._numbers = count()
        self._seen: set[tuple[int, int] | str] = set()

    def argument(self, path: str) -> Iterator[Selected]:
        base = os.path.basename(os.path.abspath(path))
        try:
            info = os.stat(path)
        except OSError as error:
            yield self._unusable(path, error)
            return
        if stat.S_ISDIR(info.st_mode):
            yield from self._tree(_Directory(path, base, ((info.st_dev, info.st_ino),)))
        elif self._filters.wants(base):
            yield self._file(path, base, info, named=True)

    def _tree(self, root: _Directory) -> Iterator[Selected]:
        """Depth first, on a stack of our own: directories nest deeper than Python calls may."""
        stack = [self._entries(root)]
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
            elif isinstance(item, _Directory):
                stack.append(self._entries(item))
            else:
                yield item

    def _entries(self, directory: _Directory) -> Iterator[Selected | _Directory]:
        try:
            with os.scandir(directory.path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield self._unusable(directory.path, error)
            return
        for entry in entries:
            name = f"{directory.relative}/{entry.name}"
            below = name.split("/", 1)[1]
            if entry.is_symlink() and not self._follow:
                if self._filters.wants(below):
                    yield Skipped(next(self._numbers), entry.path, SkipReason.SYMLINK)
                continue
            try:
                info = entry.stat()
            except OSError as error:
                if self._filters.wants(below):
                    yield self._unusable(entry.path, error)
                continue
            if stat.S_ISDIR(info.st_mode):
                identity = (info.st_dev, info.st_ino)
                if identity not in directory.above and self._filters.enters(below):
                    yield _Directory(entry.path, name, (*directory.above, identity))
            elif self._filters.wants(below):
                yield self._file(entry.path, name, info, named=False)

    def _file(self, path: str, relative: str, info: os.stat_result, *, named: bool) -> Selected:
        number = next(self._numbers)
        if not stat.S_ISREG(info.st_mode):
            if named:
                return Unusable(number, path, FailureCode.UNREADABLE, "it is no regular file")
            return Skipped(number, path, SkipReason.SPECIAL)
        if self._may_repeat and self._is_repeated(path, info):
            return Skipped(number, path, SkipReason.DUPLICATE)
        return LocalFile(number, path, relative, info.st_size, info.st_mtime_ns, named)

    def _is_repeated(self, path: str, info: os.stat_result) -> bool:
        """Hard links are files of their own: only for them the path has to tell."""
        key = (info.st_dev, info.st_ino) if info.st_nlink == 1 else os.path.realpath(path)
        if key in self._seen:
            return True
        self._seen.add(key)
        return False

    def _unusable(self, path: str, error: OSError) -> Unusable:
        gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
        code = FailureCode.VANISHED if gone else FailureCode.UNREADABLE
        return Unusable(next(self._numbers), path, code, error.strerror or str(error))
