"""What a run sends: the files under its PATHs, or those of a list."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.plan import LocalFile, Shard, of_upload
from uploader_cli.run import from_file
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.selection import Selection, holds, placed, sharded
from uploader_cli.selection.walk import Step, missing, walk
from uploader_cli.settings import OPTIONS, Settings, hide
from uploader_cli.settings.places import GONE, working_directory
from uploader_cli.sources.files import is_url

FILTERS = ("include", "exclude", "exclude_from", "min_size", "max_size", "newer_than")


def select(settings: Settings, paths: Sequence[str]) -> Selection:
    """Return everything under `paths`, or without paths the list of `settings`, that passes the filters.

    Raises `UsageError` for a missing path, a list with invalid lines, or an empty selection; an empty list is no error.
    Only the start of a large selection is read here; if it turns out to be empty, that is raised at its end.
    """
    filters, listed = _filters(settings), from_file.manifest(settings)
    shard = Shard.of(settings.shard)
    if listed is not None and not paths:
        listed.check(lambda name: filters.wants(name) and (shard is None or holds(shard, name)))
        steps, what = listed.files(filters), listed.shown
    else:
        _check_paths(paths)
        steps, what = walk(paths, filters, follow_links=settings.follow_links), ", ".join(paths[:3])
    used = [OPTIONS[name].flag for name in FILTERS if getattr(settings, name) != OPTIONS[name].default]
    hint = f"check {', '.join(used)}" if used else "the directories contain no regular files"
    whole = _never_empty(steps, errors.UsageError(f"nothing to upload in {what}", hint=hint), listed=not paths)
    return located(settings, _concealed(sharded(whole, shard)))


def located(settings: Settings, steps: Iterable[Step]) -> Selection:
    """Return the selection with the files below `--dest`, or the only one with `--upload-url`."""
    found = Selection(placed(steps, settings.dest) if settings.dest else steps)
    if settings.upload_url:
        _use_existing(settings, settings.upload_url, found)
    return found


def _concealed(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps; from then on nothing that is printed contains their upload URLs."""
    for step in steps:
        if isinstance(step, LocalFile) and step.upload_url:
            hide(step.upload_url)
        yield step


def _use_existing(settings: Settings, url: str, found: Selection) -> None:
    """Give `--upload-url` to the only file of a selection. Raise `UsageError` for a directory or several files."""
    for file in found.ahead:  # none in another shard
        if not found.complete or len(found.ahead) > 1 or (isinstance(file, LocalFile) and not file.named):
            hint = "give one file; a list has a column upload_url for several ones"
            option = settings.given_as("upload_url")
            raise errors.UsageError(f"{option} is the upload of one file, not of a directory or of several", hint=hint)
        if isinstance(file, LocalFile):
            found.ahead[0] = replace(file, upload_url=url, destination=of_upload(url))


def _filters(settings: Settings) -> Filters:
    return Filters(
        settings.include,
        settings.exclude,
        exclude_from=settings.exclude_from,
        min_size=settings.min_size,
        max_size=settings.max_size,
        newer_than=settings.newer_than.at if settings.newer_than else None,
    )


def _check_paths(paths: Sequence[str]) -> None:
    if not paths:
        hint = "give files or directories: uploader upload PATH…, or a list: --from-file FILE"
        raise errors.UsageError("no path given", hint=hint)
    if working_directory() is GONE and not all(os.path.isabs(path) or is_url(path) for path in paths):
        raise errors.UsageError("the working directory was deleted", hint="change to another, or give full paths")
    if gone := missing(paths):
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise errors.UsageError(f"{gone[0]}: no such file or directory{more}", hint="nothing was sent; check the path")


def _never_empty(steps: Iterable[Step], error: errors.UsageError, *, listed: bool) -> Iterator[Step]:
    """Yield the steps; raise `error` at the end if there was nothing to send and nothing failed.

    A list may be empty: `--failed-to` writes one when nothing failed.
    """
    empty, any_step = True, False
    for step in steps:
        any_step = True
        empty = empty and (step is None or isinstance(step, ev.FileSkipped))
        yield step
    if empty and (any_step or not listed):
        raise error
