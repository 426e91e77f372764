"""Paths of received files: limits, checks for safety, and names that never overwrite a file.

The rule: a client's path or file name is passed to `safe_parts` or `check_short` before anything else uses it. Where a
request names many files, one that they refuse fails alone (`INVALID_PATH`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

MAX_PATH = 4096  # maximum bytes of a client's path in UTF-8
MAX_NAME = 255  # maximum bytes of a segment
SHALLOW = 32  # maximum segments of a path that is followed on the event loop: a thread would take longer
LONGEST_SHOWN = 200  # maximum characters of a refused path in messages and records
_NO_NAMES = frozenset({"", ".", ".."})

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


def check_short(path: str) -> None:
    """Raise UnsafePathError for a client's path that is too long: the first check of every path and file name.

    It reads the text once. Patterns, `pathlib` and the file system may need the square of the length.
    """
    size = len(path)  # characters; there are at least as many bytes
    if size <= MAX_PATH and not path.isascii():
        size = _bytes(path)
    if size > MAX_PATH:
        raise UnsafePathError(f"the path has more than {MAX_PATH} bytes")
    if size > MAX_NAME and any(_bytes(part) > MAX_NAME for part in path.split("/")):
        raise UnsafePathError(f"a name in the path has more than {MAX_NAME} bytes")


def is_shallow(path: str) -> bool:
    """Return whether a path is short and has few segments: each may be a directory to open or create."""
    return is_short(path) and path.count("/") < SHALLOW


def is_short(path: str) -> bool:
    try:
        check_short(path)
    except UnsafePathError:
        return False
    return True


def _bytes(text: str) -> int:
    try:
        return len(text.encode("utf-8", "surrogateescape"))  # names on the disk may have other bytes than UTF-8
    except UnicodeEncodeError:
        raise UnsafePathError("the path is not valid Unicode: it has a lone surrogate") from None


def safe_parts(relative_path: str) -> list[str]:
    """Return the segments of a path below a category.

    Raises UnsafePathError as `check_short`, and for absolute paths, empty segments, `.`, `..` and NUL.
    """
    check_short(relative_path)
    parts = relative_path.split("/")
    if "\0" in relative_path or not _NO_NAMES.isdisjoint(parts):
        raise UnsafePathError(f"not a path below the category: {shortened(relative_path)!r}")
    return parts


def shortened(path: str) -> str:
    """Return what is kept and shown of a path that is refused: the beginning of a long one, and a digest."""
    if len(path) <= LONGEST_SHOWN:
        return path
    return f"{path[:LONGEST_SHOWN]}…{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def check_inside(directory: str | Path, base: str | Path) -> None:
    """Raise UnsafePathError if symbolic links lead from `directory` (which may not exist) out of `base`."""
    if leads_out(directory, base):
        name = os.path.basename(directory)
        raise UnsafePathError(f"a symbolic link leads out of the category: {shortened(name)!r}")


def leads_out(path: str | Path, base: str | Path) -> bool:
    """Return whether `path`, which is below `base` and may not exist, resolves to a path outside it. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), Descent(base) as descent:
        for name in _names(path, base):
            if not descent.enter(name, follow=False):
                there = Path(os.path.realpath(descent.path(name)))
                if not there.is_relative_to(os.path.realpath(base)):
                    return True
                descent.enter(name, follow=True)
    return False


def make_directories(path: str | Path, base: str | Path) -> None:
    """Create a directory below `base` and its missing parents, of which there may be 2,000. Raises OSError."""
    with Descent(base) as descent:
        for name in _names(path, base):
            try:
                descent.enter(name, follow=True)
            except FileNotFoundError:
                descent.make(name)
                descent.enter(name, follow=True)


def remove_tree(directory: Path) -> None:
    """Remove a directory with everything in it, as far as possible; without recursion, unlike `shutil.rmtree`."""
    directories = [os.fspath(directory)]
    with contextlib.suppress(OSError):
        for parent in directories:
            with os.scandir(parent) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.path)
                    else:
                        os.unlink(entry.path)
        for empty in reversed(directories):
            os.rmdir(empty)


def _names(path: str | Path, base: str | Path) -> list[str]:
    below = os.fspath(path)[len(os.fspath(base)) + 1 :]
    return below.split("/") if below else []


_DIRECTORY = os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY)  # O_PATH: not on macOS


class Descent:
    """Opens directories one below the other: a call with a whole path would walk all of it for each segment."""

    def __init__(self, base: str | Path) -> None:
        self._path = [os.fspath(base)]
        self._fd = os.open(base, _DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def path(self, name: str) -> str:
        return "/".join([*self._path, name])

    def enter(self, name: str, *, follow: bool) -> bool:
        """Go into a directory; return False for a symbolic link without `follow`. Raises OSError."""
        try:
            deeper = os.open(name, _DIRECTORY | (0 if follow else os.O_NOFOLLOW), dir_fd=self._fd)
        except OSError as error:
            if error.errno in BAD_NAME:  # there can be no such entry
                raise FileNotFoundError(error.errno, error.strerror, name) from None
            if not follow and self._is_link(name):
                return False
            raise
        os.close(self._fd)
        self._fd = deeper
        self._path.append(name)
        return True

    def make(self, name: str) -> None:
        """Create a directory, unless another request did. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=self._fd)

    def _is_link(self, name: str) -> bool:
        return stat.S_ISLNK(os.lstat(name, dir_fd=self._fd).st_mode)


def candidates(path: Path, most: int | None = None) -> Iterator[Path]:
    """Yield `name.ext`, `name (2).ext`, `name (3).ext` …; after `most` names (default: `ONE_BY_ONE`) only free ones."""
    most = ONE_BY_ONE if most is None else min(most, ONE_BY_ONE)
    yield path
    for number in range(2, most):
        yield _numbered(path, number)
    while True:
        yield _numbered(path, _free_number(path, max(2, most)))


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
