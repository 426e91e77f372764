"""What a shell offers at a press of the tab key in the place of a value. Files are the shell's own business."""

from collections.abc import Callable, Iterable
from pathlib import Path

from uploader_cli.errors import UploaderError
from uploader_cli.settings import profiles, user_config_file

Candidates = Callable[[str], list[str]]


def among(names: Iterable[str]) -> Candidates:
    """Those of `names` that begin as what was typed does."""
    known = tuple(names)

    def begin(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return begin


def smoke_checks(incomplete: str) -> list[str]:
    """The ids of the checks of `smoke`."""
    from uploader_cli.run import smoke  # the checks bring all that they check with

    return among(smoke.smoke_checks())(incomplete)


def profile_names(incomplete: str) -> list[str]:
    """The profiles of the config files, none where one of the files is broken: the command itself will say so."""
    try:
        return among(profiles(Path.cwd(), user_config_file()))(incomplete)
    except (UploaderError, OSError):
        return []
