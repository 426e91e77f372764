"""The journal of a run: where it is, and what identifies the run there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from uploader_cli.core.plan import concealed
from uploader_cli.feature import part_options, used
from uploader_cli.named_files import exists
from uploader_cli.run import piped_lists
from uploader_cli.settings import Settings, storable
from uploader_cli.settings.places import DELETED_DIRECTORY, STATE_IN_MEMORY, user_state_directory, working_directory
from uploader_cli.sources.files import absolute
from uploader_cli.transfer.journal.journal import History, Journal
from uploader_cli.transfer.journal.reading import RunTarget
from uploader_cli.transfer.journal.run_handle import RunHandle
from uploader_cli.transfer.journal.schema import NAME


def writable_state(settings: Settings) -> tuple[Settings, tuple[str, ...]]:
    """Return settings whose state can be written, and a notice if it is in memory, so that resume is lost.

    A directory of `--state-dir` is never replaced.
    """
    directory = user_state_directory()
    if settings.state_dir is not None or (directory is not None and _can_write(directory)):
        return settings, ()
    why = f"{directory} can't be written" if directory else "this user has no home directory"
    notice = f"{why}: an interrupted run can't be resumed (--state-dir names another directory)"
    return replace(settings, state_dir=STATE_IN_MEMORY), (notice,)


def _can_write(directory: Path) -> bool:
    """Return whether a file can be created in the directory, or in the nearest one above it that exists."""
    existing = next(place for place in (directory, *directory.parents) if os.path.exists(place))
    try:
        with tempfile.TemporaryFile(dir=existing):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC  # the journal reports it


def named(settings: Settings, paths: Sequence[str]) -> tuple[RunTarget, dict[str, object], dict[str, object]]:
    """Return the journal's keys of a run: its target, the arguments to resume it, and the identity of its command."""
    # Other metadata may mean another bucket: what is known of a file there says nothing about this one.
    destination = settings.session_category or " ".join(["tus", *map(str, settings.metadata)])
    target = RunTarget(settings.target_url, f"{destination}/{settings.dest}" if settings.dest else destination)
    here = working_directory()
    cwd = here.anchor if here is DELETED_DIRECTORY else str(here)  # without it all paths are absolute
    arguments: dict[str, object] = {"paths": list(map(concealed, paths)), "cwd": cwd, "options": storable(settings)}
    identity: dict[str, object] = {
        "paths": [absolute(path) for path in paths],
        "include": list(settings.include),
        "exclude": list(settings.exclude),
        "exclude_from": list(map(str, settings.exclude_from)),
        "min_size": settings.min_size,
        "max_size": settings.max_size,
        "newer_than": settings.newer_than.written if settings.newer_than else None,
        "follow_links": settings.follow_links,
        **{name: getattr(settings, name) for name in part_options()},
        **{feature.options[0].name: True for feature in used(settings) if feature.unending},
    }
    if settings.from_file is not None:
        arguments["list"] = str(settings.from_file)
        identity["list"] = piped_lists.identity(settings)
    return target, arguments, identity


@contextmanager
def existing_journal(settings: Settings) -> Iterator[Journal | None]:
    """Yield the journal; None without one, which is not created."""
    state = settings.state_dir or user_state_directory()
    if state is None or state == STATE_IN_MEMORY or not exists(state / NAME, settings.given_as("state_dir")):
        yield None
        return
    with Journal(state) as journal:
        yield journal


@contextmanager
def history_of(settings: Settings, paths: Sequence[str]) -> Iterator[History | None]:
    """Yield the history of the existing journal, if there is one."""
    with existing_journal(settings) as journal:
        if journal is None:
            yield None
        else:
            target, _, identity = named(settings, paths)
            yield journal.history(target, identity, fresh=not settings.resume)


def begin(settings: Settings, paths: Sequence[str], journal: Journal, *, lasting: bool = True) -> RunHandle:
    """Begin this run in the journal; it resumes an unfinished one of the same server, destination and selection.

    A run that is not `lasting` reads what can't be read again, so it can't be resumed.
    """
    target, arguments, identity = named(settings, paths)
    fresh = not (settings.resume and lasting)
    return journal.begin(target, arguments, identity=identity, fresh=fresh, lasting=lasting)
