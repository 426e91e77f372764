"""`.uploaderignore` files: in the directory that was named, and in those below it, as git has its own."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

NAME = ".uploaderignore"


class BadIgnoreFile(Exception):
    """The file can't be read, or a line of it is no pattern: `str(error)` says which and why."""


class Ignores:
    """The patterns that hold in one directory: those of its own file, and of the files above it up to the argument.

    Paths are below the argument, with `/`. Of several files the deepest that says something decides, of its lines the
    last that matches.
    """

    def __init__(self, chain: tuple[tuple[int, GitIgnoreSpec], ...] = ()) -> None:
        """`chain`: for each file the length of its directory's path, with the `/`, and its patterns."""
        self._chain = chain

    def within(self, directory: str, below: str) -> Ignores:
        """What holds in `directory`, which is `below` the argument (empty for the argument itself).

        Raises `BadIgnoreFile`: what should have been left out is not known then; and `PermissionError` for a directory
        in which nothing can be looked up.
        """
        spec = _read(os.path.join(directory, NAME))
        return self if spec is None else Ignores((*self._chain, (len(below) + 1 if below else 0, spec)))

    def leave_out(self, below: str, *, is_directory: bool = False) -> bool:
        """True for a path that is not to be sent, or not to be entered."""
        for start, spec in reversed(self._chain):
            said = spec.check_file(below[start:] + "/" * is_directory).include
            if said is not None:
                return said
        return False


def _read(path: str) -> GitIgnoreSpec | None:
    """Return the patterns of a file, None where there is none."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return None
    except PermissionError:  # of the directory: to look at a file takes no permission of its own
        raise
    except OSError as error:
        raise BadIgnoreFile(f"it can't be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        return None
    try:
        with open(path, "rb") as file:
            lines = os.fsdecode(file.read()).splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadIgnoreFile(f"it can't be read: {error.strerror}") from None
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    for number, line in enumerate(lines, 1):
        try:
            GitIgnoreSpec.from_lines([line])
        except (GitIgnorePatternError, re.error) as error:  # pathspec hands a bad range, [z-a], to re as it is
            raise BadIgnoreFile(f"line {number} is no gitignore pattern: {error}") from None
    return GitIgnoreSpec.from_lines(lines) if lines else None
