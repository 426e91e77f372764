"""`.uploaderignore` files in the named directory and below, with the rules of .gitignore."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

NAME = ".uploaderignore"


class BadIgnoreFile(Exception):
    """An unreadable file or an invalid pattern; `str(error)` names the line and the reason."""


class Ignores:
    """The patterns that apply in one directory: of its own file, and of the files above it up to the argument.

    Paths are below the argument, with `/`. The deepest file with a matching line decides, and in it the last such line.
    """

    def __init__(self, chain: tuple[tuple[int, GitIgnoreSpec], ...] = ()) -> None:
        """`chain`: for each file the length of its directory's path including `/`, and its patterns."""
        self._chain = chain

    def within(self, directory: str, below: str) -> Ignores:
        """Return the patterns for `directory`, which is `below` the argument (empty for the argument itself).

        Raises `BadIgnoreFile`, because the excluded files are unknown then, and `PermissionError` for an unreadable
        directory.
        """
        spec = _read(os.path.join(directory, NAME))
        return self if spec is None else Ignores((*self._chain, (len(below) + 1 if below else 0, spec)))

    def leave_out(self, below: str, *, is_directory: bool = False) -> bool:
        """Return True for a file not to send, or a directory not to enter."""
        for start, spec in reversed(self._chain):
            said = spec.check_file(below[start:] + "/" * is_directory).include
            if said is not None:
                return said
        return False


def _read(path: str) -> GitIgnoreSpec | None:
    """Return the patterns of a file, None if it does not exist."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except PermissionError:  # of the directory: stat needs no permission on the file
        raise
    except OSError as error:
        raise BadIgnoreFile(f"can't be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        return None
    try:
        with open(path, "rb") as file:
            lines = os.fsdecode(file.read()).splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadIgnoreFile(f"can't be read: {error.strerror}") from None
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    for number, line in enumerate(lines, 1):
        try:
            GitIgnoreSpec.from_lines([line])
        except (GitIgnorePatternError, re.error) as error:  # re.error: an invalid range, as [z-a]
            raise BadIgnoreFile(f"line {number} is not a gitignore pattern: {error}") from None
    return GitIgnoreSpec.from_lines(lines) if lines else None
