"""What a run sends: the files under its PATHs, or those of a list."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.core import events as ev
from uploader_cli.core.masking import hide, remember
from uploader_cli.core.plan import LocalFile, concealed, is_url, of_upload
from uploader_cli.errors import UsageError
from uploader_cli.feature import used
from uploader_cli.selection.filters import Filters
from uploader_cli.selection.selection import Part, Selection, placed, within
from uploader_cli.selection.walk import Step, missing, walk
from uploader_cli.settings import OPTIONS, Layer, Settings
from uploader_cli.settings.places import DELETED_DIRECTORY, working_directory

if TYPE_CHECKING:
    from uploader_cli.selection.manifest import Manifest

LISTS = "lists"
"""The directory of the copies of piped lists, below that of the state."""
_is_named_by_digest = re.compile(r"[0-9a-f]{64}-").match
FILTERS = ("include", "exclude", "exclude_from", "min_size", "max_size", "newer_than")


def select(
    settings: Settings, paths: Sequence[str], is_stored: Callable[[LocalFile], bool] = lambda _file: False
) -> Selection:
    """Return everything under `paths`, or without paths the list of `settings`, that passes the filters.

    Raises `UsageError` for a missing path, a list with invalid lines, or an empty selection; an empty list is no error.
    A missing file that `is_stored` is no error. Only the start of a large selection is read here; if it turns out to be
    empty, that is raised at its end.
    """
    filters, listed = filters_of(settings), _manifest(settings)
    parts = parts_of(settings)
    if listed is not None and not paths:
        listed.check(lambda name: filters.wants(name) and all(part.holds(name) for part in parts), is_stored)
        check_selection(settings, paths, listed, filters.wants)
        steps, what = listed.files(filters), listed.shown
    else:
        check_selection(settings, paths, None, filters.wants)
        check_paths(paths, is_stored)
        steps, what = walk(paths, filters, follow_links=settings.follow_links), ", ".join(paths[:3])
    used = [OPTIONS[name].flag for name in FILTERS if getattr(settings, name) != OPTIONS[name].default]
    hint = f"check {', '.join(used)}" if used else "the directories contain no regular files"
    nothing = UsageError(f"nothing to upload in {what}", hint=hint)
    whole = steps if settings.consumes else _never_empty(steps, nothing, listed=not paths)
    found = located(settings, _concealed(within(whole, parts)))
    found.parts = parts
    return found


def _manifest(settings: Settings) -> Manifest | None:
    """Return the list of the settings. Raise `UsageError` for options that need a list if there is none."""
    file = settings.from_file
    if not isinstance(file, Path):
        for flag, name in (("-0", "null"), ("--lenient", "lenient"), ("--from-format", "from_format")):
            if settings.source(name).layer is Layer.FLAG and getattr(settings, name) not in (False, "auto"):
                raise UsageError(f"{flag} needs a list", hint="give --from-file FILE, or - for standard input")
        for item in settings.metadata:
            if item.template is None:
                hint = f"give --metadata {item.name}=VALUE, or a list with a column {item.name}"
                raise UsageError(f"the metadata {item.name} has no value", hint=hint)
        return None
    from uploader_cli.selection.manifest import Manifest, format_of
    from uploader_cli.selection.manifest_lines import RESERVED, Format

    if settings.null and settings.from_format not in ("auto", "nul"):
        raise UsageError(f"-0 and --from-format {settings.from_format} exclude each other", hint="omit one of them")
    named = Format.NUL if settings.null else settings.from_format
    kind = format_of(file.name) if named == "auto" else Format(named)
    shown = "the piped list" if is_copy(file) else str(file)
    keys = {item.name: item.template is None for item in settings.metadata}
    for key in RESERVED & {key for key, needed in keys.items() if needed}:
        raise UsageError(
            f"the metadata {key} has no value: the column {key} of a list means something else",
            hint=f"give a template, as in --metadata '{key}={{name}}'",
        )
    category, strict = settings.session_category, not settings.lenient
    return Manifest(file, shown, kind, category, strict, settings.follow_links, keys)


def is_copy(file: Path) -> bool:
    """Return whether `file` is the copy of a piped list: its digest is the beginning of its name."""
    return file.parent.name == LISTS and _is_named_by_digest(file.name) is not None


def check_together(settings: Settings) -> None:
    """Raise `UsageError` for options that exclude each other, as features declare."""
    need_end = tuple((feature.options[0].name, feature.needs_end) for feature in used(settings) if feature.needs_end)
    for feature in used(settings):
        for option in feature.options:
            for name, why in option.excludes + (need_end if feature.unending else ()):
                if all(getattr(settings, one) != OPTIONS[one].default for one in (option.name, name)):
                    words = f"{settings.given_as(option.name)} and {settings.given_as(name)} exclude each other"
                    raise UsageError(f"{words}: {why}", hint="omit one of them")


def parts_of(settings: Settings) -> list[Part]:
    """Return the parts of the selection that features leave to this run: it sends what is in all of them."""
    return [feature.load(feature.part)(settings) for feature in used(settings) if feature.part]


def located(settings: Settings, steps: Iterable[Step]) -> Selection:
    """Return the selection with the files below `--dest`, or the only one with `--upload-url`."""
    found = Selection(placed(steps, settings.dest) if settings.dest else steps, unending=settings.unending)
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
    for file in found.ahead:  # none if it is in another part
        if not found.complete or len(found.ahead) > 1 or (isinstance(file, LocalFile) and not file.named):
            hint = "give one file; a list has a column upload_url for several ones"
            option = settings.given_as("upload_url")
            raise UsageError(f"{option} is the upload of one file, not of a directory or of several", hint=hint)
        if isinstance(file, LocalFile):
            found.ahead[0] = replace(file, upload_url=url, destination=of_upload(url))


def filters_of(settings: Settings, exclude: Sequence[str] | None = None) -> Filters:
    return Filters(
        settings.include,
        settings.exclude if exclude is None else exclude,
        exclude_from=settings.exclude_from,
        min_size=settings.min_size,
        max_size=settings.max_size,
        newer_than=settings.newer_than.at if settings.newer_than else None,
    )


def check_paths(paths: Sequence[str], is_stored: Callable[[LocalFile], bool] = lambda _file: False) -> None:
    if not paths:
        raise UsageError("no path given", hint="give files or directories, or a list: --from-file FILE")
    if working_directory() is DELETED_DIRECTORY and not all(os.path.isabs(path) or is_url(path) for path in paths):
        raise UsageError("the working directory was deleted", hint="change to another, or give full paths")
    for path in filter(is_url, paths):
        if concealed(path) != path:
            remember(path.partition("?")[2])
    if gone := [concealed(path) for path in missing(paths) if not is_stored(LocalFile(0, concealed(path), "", 0, 0))]:
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        raise UsageError(f"{gone[0]}: no such file or directory{more}", hint="nothing was sent; check the path")


def check_selection(
    settings: Settings, paths: Sequence[str], listed: Manifest | None, wants: Callable[[str], bool]
) -> None:
    """Let features check a selection. Raise `UsageError`."""
    for feature in used(settings):
        if feature.checks_selection:
            feature.load(feature.checks_selection)(settings, paths, listed, wants)


def _never_empty(steps: Iterable[Step], error: UsageError, *, listed: bool) -> Iterator[Step]:
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
