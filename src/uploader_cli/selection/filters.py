"""What to send: gitignore patterns on the path below the argument (with `/`), of options and files; sizes and times."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.named_files import naming, opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pathspec import GitIgnoreSpec

    from uploader_cli.sources.files import Status

IGNORE_FILE = ".uploaderignore"
SYNTAX = "use the syntax of .gitignore, as '*.tmp' or 'raw/'"


class Filters:
    """Includes select (none: everything), excludes remove; an exclude overrides an include."""

    def __init__(
        self,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        *,
        exclude_from: Sequence[Path] = (),
        min_size: int = 0,
        max_size: int | None = None,
        newer_than: float | None = None,
    ) -> None:
        """Raises `UsageError` for an invalid gitignore pattern. `newer_than` is in seconds since the epoch."""
        self._include = _of_option("--include", include)
        self._exclude = _of_option("--exclude", [*_of_files(exclude_from), *exclude])
        self._min_size, self._max_size, self._newer_than = min_size, max_size, newer_than

    def wants(self, below: str) -> bool:
        """Return True for a file to upload."""
        if self._include is not None and not self._include.match_file(below):
            return False
        return self._exclude is None or not self._exclude.match_file(below)

    def enters(self, below: str) -> bool:
        """Return True for a directory that may contain wanted files."""
        return self._exclude is None or not self._exclude.match_file(below + "/")

    def fits(self, info: Status) -> bool:
        """Return True for a file whose size and time of change are wanted."""
        if info.st_size < self._min_size or (self._max_size is not None and info.st_size > self._max_size):
            return False
        return self._newer_than is None or info.st_mtime >= self._newer_than


class BadIgnoreFile(Exception):
    """An unreadable file or an invalid pattern; `str(error)` names the line and the reason."""


class Ignores:
    """The patterns that apply in one directory: of its own file, and of the files above it up to the argument.

    The deepest file with a matching line decides, and in it the last such line.
    """

    def __init__(self, chain: tuple[tuple[int, GitIgnoreSpec], ...] = ()) -> None:
        """`chain`: for each file the length of its directory's path including `/`, and its patterns."""
        self._chain = chain

    def within(self, directory: str, below: str) -> Ignores:
        """Return the patterns for `directory`, which is `below` the argument (empty for the argument itself).

        Raises `BadIgnoreFile`, because the excluded files are unknown then, and `PermissionError` for an unreadable
        directory.
        """
        lines = _checked(_lines(os.path.join(directory, IGNORE_FILE)))
        return Ignores((*self._chain, (len(below) + 1 if below else 0, _spec(lines)))) if lines else self

    def leave_out(self, below: str, *, is_directory: bool = False) -> bool:
        """Return True for a file not to send, or a directory not to enter."""
        for start, spec in reversed(self._chain):
            ignored = spec.check_file(below[start:] + "/" * is_directory).include
            if ignored is not None:
                return ignored
        return False


def _of_files(files: Sequence[Path]) -> Iterator[str]:
    for file in files:
        with naming("--exclude-from", file), opened(file, "--exclude-from") as stream:
            lines = os.fsdecode(stream.read()).splitlines()
        try:
            yield from _checked(lines)
        except BadIgnoreFile as error:
            raise UsageError(f"--exclude-from: {file}, {error}", hint=SYNTAX) from error


def _checked(lines: list[str]) -> list[str]:
    for number, line in enumerate(lines, 1):
        try:
            _spec([line])
        except ValueError as error:
            raise BadIgnoreFile(f"line {number} is not a gitignore pattern: {error}") from None
    return lines


def _lines(path: str) -> list[str]:
    """Return the lines of a regular file, none if there is no such file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return []
        with open(path, "rb") as file:
            return os.fsdecode(file.read()).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        if isinstance(error, PermissionError) and not os.path.lexists(path):  # the directory is unreadable
            raise
        raise BadIgnoreFile(f"can't be read: {error.strerror}") from None


def _of_option(option: str, patterns: Sequence[str]) -> GitIgnoreSpec | None:
    try:
        return _spec(patterns) if patterns else None
    except ValueError as error:
        message = f"{option}: not a gitignore pattern: {error}"
        raise UsageError(message, hint=SYNTAX) from error


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    """Compile the patterns. Raises `ValueError` for an invalid one."""
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except re.error as error:  # an invalid range, as [z-a]
        raise ValueError(str(error)) from None
