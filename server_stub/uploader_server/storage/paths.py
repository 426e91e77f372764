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
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

MAX_PATH = 4096  # maximum bytes of a client's path in UTF-8
MAX_NAME = 255  # maximum bytes of a segment
SHALLOW = 32  # maximum segments of a path that is followed on the event loop: a thread would take longer
LONGEST_ENDING = 32  # maximum bytes of an extension that is kept where a long name gets a number
LONGEST_SHOWN = 200  # maximum characters of a refused path in messages and records
_NO_NAMES = frozenset({"", ".", ".."})

BAD_NAME = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})
"""Errors for names that the file system doesn't support."""
_NUMBER = re.compile(r"(?<=.) \((\d{1,9})\)$")  # suffix that `candidates` adds to a stem
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


def candidates(name: str, taken: Callable[[str], bool], most: int | None = None) -> Iterator[str]:
    """Yield `name.ext`, `name (2).ext`, `name (3).ext` …; after `most` names (default: `ONE_BY_ONE`) only free ones.

    The stem is cut, between characters, where a name with its number would be longer than MAX_NAME.
    """
    most = ONE_BY_ONE if most is None else min(most, ONE_BY_ONE)
    yield name
    for number in range(2, most):
        yield _numbered(name, number)
    while True:
        yield _numbered(name, _free_number(name, taken, max(2, most)))


def _numbered(name: str, number: int) -> str:
    stem, ending = _split(name)
    most = MAX_NAME - len(f" ({number})") - _bytes(ending)
    while _bytes(stem) > most:
        stem = stem[:-1]
    return f"{stem} ({number}){ending}"


def _split(name: str) -> tuple[str, str]:
    """Return the stem and the extension of a name; a very long extension is a part of the stem."""
    ending = PurePosixPath(name).suffix
    return (name.removesuffix(ending), ending) if _bytes(ending) <= LONGEST_ENDING else (name, "")


def may_become(wanted: str, path: str) -> bool:
    """Return whether a file with the path `wanted` may get `path` from `candidates`."""
    if wanted == path:
        return True
    (directory, _, name), (above, _, found) = wanted.rpartition("/"), path.rpartition("/")
    number = _NUMBER.search(_split(found)[0])
    return directory == above and number is not None and _numbered(name, int(number[1])) == found


def _free_number(name: str, taken: Callable[[str], bool], first: int) -> int:
    """Return a number >= `first` whose name is free, by exponential and then binary search."""
    used, free, step = first - 1, first, 1
    while taken(_numbered(name, free)):
        used, free, step = free, free + step, 2 * step
    while free - used > 1:
        middle = (used + free) // 2
        if taken(_numbered(name, middle)):
            used = middle
        else:
            free = middle
    return free
