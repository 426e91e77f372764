"""Paths of received files: checks for safety, and names that never overwrite a file."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})
"""Errors for names that the file system doesn't support."""
_NUMBER = re.compile(r"(?<=.) \(\d+\)$")  # suffix that `candidates` adds to a stem
ONE_BY_ONE = 100  # numbers below this are tried one by one, comparing existing files


class UnsafePathError(ValueError):
    """A relative path that is not allowed below a category."""


class NameTakenError(Exception):
    """A file has the requested name, and the new one must not be renamed."""

    def __init__(self) -> None:
        super().__init__("A file with other content has this name")


def safe_parts(relative_path: str) -> list[str]:
    """Return the segments of a path below a category.

    Raises UnsafePathError for absolute paths, empty segments, `.`, `..` and NUL. The file system rejects overlong
    names.
    """
    parts = relative_path.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise UnsafePathError(f"not a path below the category: {relative_path!r}")
    if os.name == "nt" and any(set(part) & set('\\:*?"<>|') for part in parts):  # pragma: no cover
        raise UnsafePathError(f"not a file name on this system: {relative_path!r}")
    return parts


def check_inside(directory: Path, base: Path) -> None:
    """Raise UnsafePathError if symbolic links lead from `directory` (which may not exist) out of `base`."""
    if leads_out(directory, base):
        raise UnsafePathError(f"a symbolic link leads out of the category: {directory.name!r}")


def leads_out(path: Path, base: Path) -> bool:
    """Return whether `path` (which may not exist) resolves to a path outside `base`."""
    return not path.resolve().is_relative_to(base.resolve())


def candidates(path: Path) -> Iterator[Path]:
    """Yield `name.ext`, `name (2).ext`, `name (3).ext` …; from `ONE_BY_ONE` on only free names."""
    yield path
    for number in range(2, ONE_BY_ONE):
        yield _numbered(path, number)
    while True:
        yield _numbered(path, _free_number(path, ONE_BY_ONE))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem} ({number}){path.suffix}")


def unnumbered(path: Path) -> Path:
    """Return the path without the number that `candidates` may have added."""
    return path.with_name(_NUMBER.sub("", path.stem) + path.suffix)


def _free_number(path: Path, first: int) -> int:
    """Return a number >= `first` whose name is free, by exponential and then binary search."""
    taken, free, step = first - 1, first, 1
    while os.path.lexists(_numbered(path, free)):
        taken, free, step = free, free + step, 2 * step
    while free - taken > 1:
        middle = (taken + free) // 2
        if os.path.lexists(_numbered(path, middle)):
            taken = middle
        else:
            free = middle
    return free
