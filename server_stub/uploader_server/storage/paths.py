"""Where a received file goes: safe paths, and names that never overwrite anything."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})
"""Errors of a name that the file system can't spell."""
FOR_GOOD = BAD_NAME | {errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""Errors of a name that another try meets again; any other may pass (a full disk, a quota)."""
_NUMBER = re.compile(r"(?<=.) \(\d+\)$")
"""What `candidates` puts behind a stem."""
ONE_BY_ONE = 100
"""Names of a file that are tried, and whose files are compared, one after the other."""


class UnsafePathError(ValueError):
    """A relative path that must not become a path on this disk."""


def safe_parts(relative_path: str) -> list[str]:
    """The segments of a path below a category.

    Raises UnsafePathError for anything that could leave the category or that no file system can name: absolute
    paths, empty segments, `.` and `..`, NUL. Over-long names are left to the file system, which knows its limits.
    """
    parts = relative_path.split("/")
    if any(part in {"", ".", ".."} or "\0" in part for part in parts):
        raise UnsafePathError(f"not a path below the category: {relative_path!r}")
    if os.name == "nt" and any(set(part) & set('\\:*?"<>|') for part in parts):  # pragma: no cover
        raise UnsafePathError(f"not a file name on this system: {relative_path!r}")
    return parts


def check_inside(directory: Path, base: Path) -> None:
    """Raise UnsafePathError where a directory, which need not exist yet, leads out of `base` by a symbolic link."""
    if leads_out(directory, base):
        raise UnsafePathError(f"a symbolic link leads out of the category: {directory.name!r}")


def leads_out(path: Path, base: Path) -> bool:
    """Whether a path below `base`, which need not exist, is outside of it once symbolic links are followed."""
    return not path.resolve().is_relative_to(base.resolve())


def candidates(path: Path) -> Iterator[Path]:
    """`name.ext`, `name (2).ext`, `name (3).ext` …; from `ONE_BY_ONE` on only such as are free just now."""
    yield path
    for number in range(2, ONE_BY_ONE):
        yield _numbered(path, number)
    while True:
        yield _numbered(path, _free_number(path, ONE_BY_ONE))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem} ({number}){path.suffix}")


def unnumbered(path: Path) -> Path:
    """The path whose `candidates` this one may be among; itself where its name has no number."""
    return path.with_name(_NUMBER.sub("", path.stem) + path.suffix)


def _free_number(path: Path, first: int) -> int:
    """A number, from `first` on, whose name is free: found in steps that double, then by halves."""
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


def place(temporary: Path, target: Path, same: Callable[[Path], bool]) -> Path:
    """Give a received file its name and return it. The temporary name is left to the caller.

    Nothing is ever overwritten: a file already there that is the `same` is the answer, any other makes the new one
    `name (2).ext`. Raises OSError where the file system refuses the name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for candidate in candidates(target):
        try:
            claim(temporary, candidate)
        except FileExistsError:
            if not candidate.is_file() or not same(candidate):
                continue
        return candidate
    raise AssertionError("candidates() never ends")


def claim(temporary: Path, target: Path) -> None:
    """Give a file a second name in one step, but never over an existing file.

    On a file system without hard links the temporary name is gone afterwards. Raises FileExistsError, or what else the
    link raises.
    """
    try:
        os.link(temporary, target)
    except PermissionError:  # no hard links here: reserve the name, then move over our own reservation
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        temporary.replace(target)
