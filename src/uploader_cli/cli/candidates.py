"""Shell completion of option values. The shell completes file names itself."""

from collections.abc import Callable, Iterable
from pathlib import Path

from uploader_cli.errors import UploaderError
from uploader_cli.settings import profiles, user_config_file

Candidates = Callable[[str], list[str]]


def among(names: Iterable[str]) -> Candidates:
    """Return a completer for the `names` that start with the typed text."""
    known = tuple(names)

    def begin(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return begin


def smoke_checks(incomplete: str) -> list[str]:
    """Complete the IDs of the `smoke` checks."""
    from uploader_cli.run import checks  # slow to import

    return among(checks.smoke_checks())(incomplete)


def profile_names(incomplete: str) -> list[str]:
    """Complete the profiles of the config files; none if a file is invalid, which the command itself reports."""
    try:
        return among(profiles(Path.cwd(), user_config_file()))(incomplete)
    except (UploaderError, OSError):
        return []
