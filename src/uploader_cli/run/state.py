"""The state directory of a run: a temporary one where the user's can't be written."""

from __future__ import annotations

import errno
import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.settings.places import user_state_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.settings import Settings

MEMORY = "/dev/shm"  # noqa: S108 - writable in a container whose root is read-only


@contextmanager
def writable_state(settings: Settings) -> Iterator[tuple[Settings, tuple[str, ...]]]:
    """Yield settings whose state directory can be written, and a notice if it is temporary, so that resume is lost.

    A directory of `--state-dir` is never replaced.
    """
    directory = user_state_directory()
    if settings.state_dir is not None or (directory is not None and _can_write(directory)):
        yield settings, ()
        return
    why = f"{directory} can't be written" if directory else "this user has no home directory"
    with _temporary(why) as temporary:
        notice = f"{why}: an interrupted run can't be resumed (--state-dir names another directory)"
        yield replace(settings, state_dir=Path(temporary)), (notice,)


def _can_write(directory: Path) -> bool:
    """Return whether a file can be created in the directory, or in the nearest one above it that exists."""
    existing = next(place for place in (directory, *directory.parents) if os.path.exists(place))
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC  # the journal reports it


def _temporary(why: str) -> tempfile.TemporaryDirectory[str]:
    for place in (None, MEMORY):
        try:
            return tempfile.TemporaryDirectory(prefix="uploader-state-", dir=place, ignore_cleanup_errors=True)
        except OSError:
            continue
    raise UsageError(f"{why}, nor a temporary directory", hint="name a writable directory with --state-dir")
