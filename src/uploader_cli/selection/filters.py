"""`--include` and `--exclude`: gitignore-style patterns on the path below the argument."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pathspec import GitIgnoreSpec


class Filters:
    """Includes select (none: everything), excludes remove; an exclude overrides an include."""

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Raises `UsageError` for an invalid gitignore pattern."""
        self._include = _spec("--include", include)
        self._exclude = _spec("--exclude", exclude)

    def wants(self, relative: str) -> bool:
        """Return True for a file to upload; `relative` is its path below the argument, with `/`."""
        if self._include is not None and not self._include.match_file(relative):
            return False
        return self._exclude is None or not self._exclude.match_file(relative)

    def enters(self, relative: str) -> bool:
        """Return True for a directory that may contain wanted files."""
        return self._exclude is None or not self._exclude.match_file(relative + "/")


def _spec(option: str, patterns: Sequence[str]) -> GitIgnoreSpec | None:
    if not patterns:
        return None
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except (GitIgnorePatternError, re.error) as error:  # re.error: an invalid range, as [z-a]
        message = f"{option}: not a gitignore pattern: {error}"
        raise UsageError(message, hint="use the syntax of .gitignore, as '*.tmp' or 'raw/'") from error
