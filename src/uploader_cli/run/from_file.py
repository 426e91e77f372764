"""The list of `--from-file`: its path, its format, and the copy of a piped list."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from uploader_cli import signals
from uploader_cli.errors import UsageError
from uploader_cli.named_files import naming, opened
from uploader_cli.settings import Layer, Settings
from uploader_cli.transfer.journal import Journal

if TYPE_CHECKING:
    from uploader_cli.selection.manifest import Manifest

LEFT_BEHIND = 86400.0
"""Seconds after which a copied list that no resumable run needs is deleted: a killed process leaves it behind."""


@contextmanager
def readable_list(settings: Settings, paths: Sequence[str]) -> Iterator[Settings]:
    """Yield the settings with a list that can be read repeatedly: a piped list is copied.

    The copy is in the state directory and deleted at the end, unless a resumable run needs it. Raises `UsageError` if
    both `paths` and `--from-file` were given; paths override a list from the environment or a config file.
    """
    with signals.unwinding():
        if paths and settings.from_file is not None:
            source = settings.sources.get("from_file")
            if source is None or source.layer is Layer.FLAG:
                hint = "add the path to the list, or run twice"
                raise UsageError("--from-file and PATH exclude each other", hint=hint)
            settings = replace(settings, from_file=None)
        file = settings.from_file
        if file == "-":
            if sys.stdin is None:
                raise UsageError("--from-file -: standard input is closed", hint="give a file, or pipe the list")
            settings = replace(settings, from_file=_copy(settings.state_path, sys.stdin.buffer, ""))
        elif file is not None and _is_pipe(file):  # as `<(command)`: can be read only once
            with opened(file, "--from-file") as pipe:
                settings = replace(settings, from_file=_copy(settings.state_path, pipe, file.suffix))
        try:
            yield settings
        finally:
            if isinstance(settings.from_file, Path):
                drop(settings.state_path, [settings.from_file])


def manifest(settings: Settings) -> Manifest | None:
    """Return the list of the settings. Raise `UsageError` for options that need a list if there is none."""
    file = settings.from_file
    if not isinstance(file, Path):
        for flag, name in (("-0", "null"), ("--lenient", "lenient"), ("--from-format", "from_format")):
            source = settings.sources.get(name)
            if source is not None and source.layer is Layer.FLAG and getattr(settings, name) not in (False, "auto"):
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
    shown = "the piped list" if _is_copy(file, settings.state_path) else str(file)
    category = None if settings.foreign else settings.category
    keys = {item.name: item.template is None for item in settings.metadata}
    for key in RESERVED & {key for key, needed in keys.items() if needed}:
        raise UsageError(
            f"the metadata {key} has no value: the column {key} of a list means something else",
            hint=f"give a template, as in --metadata '{key}={{name}}'",
        )
    return Manifest(file, shown, kind, category, not settings.lenient, keys)


def _is_pipe(file: Path) -> bool:
    with naming("--from-file", file):
        return file.is_fifo() or file.is_char_device()


def identity(settings: Settings) -> str | None:
    """Return what identifies the list: the file's path, or the digest of a piped one."""
    file = settings.from_file
    if not isinstance(file, Path):
        return None
    return file.name.partition("-")[0] if _is_copy(file, settings.state_path) else os.path.abspath(file)


def as_typed(file: Path, state: Path) -> str:
    """Return the option for the list of a run, for messages."""
    return f"--from-file {'-' if _is_copy(file, state) else file}"


def _is_copy(file: Path, state: Path) -> bool:
    return file.parent == state / "lists"


def _copy(state: Path, source: IO[bytes], suffix: str) -> Path:
    """Copy `source` to a private file named by its digest, with the suffix."""
    import hashlib
    import tempfile

    place, digest = state / "lists", hashlib.sha256()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        drop(state, [file for file in place.iterdir() if _age(file) > LEFT_BEHIND])
        handle, name = tempfile.mkstemp(dir=place)
        try:
            with open(handle, "wb") as file:
                while piece := source.read(1 << 20):
                    digest.update(piece)
                    file.write(piece)
            return Path(name).rename(place / f"{digest.hexdigest()}-{Path(name).name}{suffix}")
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"--from-file: the list can't be saved in {place}: {error.strerror}", hint="use another --state-dir"
        ) from error


def _age(file: Path) -> float:
    """Return the seconds since the last write; 0 if another run has just deleted the file."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def drop(state: Path, files: Sequence[Path]) -> None:
    """Delete copied lists that no resumable run needs."""
    files = [file for file in files if _is_copy(file, state)]
    if not files:
        return
    with Journal(state) as journal:
        needed = {info.arguments.get("list") for info in journal.runs() if info.state != "finished"}
    for file in files:
        if str(file) not in needed:
            file.unlink(missing_ok=True)
