"""The list of `--from-file`: its path, its format, and the copy of a piped list."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from uploader_cli import signals
from uploader_cli.errors import UsageError
from uploader_cli.settings import Layer
from uploader_cli.transfer.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from uploader_cli.selection.manifest import Manifest
    from uploader_cli.selection.manifest_lines import Format
    from uploader_cli.settings import Settings

LEFT_BEHIND = 86400.0
"""Seconds after which a copied list that no resumable run needs is deleted: a killed process leaves it behind."""
_PIECE = 1 << 20


@contextmanager
def readable_list(settings: Settings, paths: Sequence[str]) -> Iterator[Settings]:
    """Yield the settings with a list that can be read repeatedly: a piped list is copied.

    The copy is in the state directory and deleted at the end, unless a resumable run needs it. Raises `UsageError` if
    both `paths` and `--from-file` were given; paths override a list from the environment or a config file.
    """
    with signals.unwinding():
        yield from _readable_list(settings, paths)


def _readable_list(settings: Settings, paths: Sequence[str]) -> Iterator[Settings]:
    if paths and settings.from_file is not None:
        source = settings.sources.get("from_file")
        if source is None or source.layer is Layer.FLAG:
            raise UsageError("--from-file and PATH exclude each other", hint="add the path to the list, or run twice")
        settings = replace(settings, from_file=None)
    if settings.from_file == "-":
        if sys.stdin is None:
            raise UsageError("--from-file -: standard input is closed", hint="give a file, or pipe the list")
        settings = replace(settings, from_file=_spool(settings, sys.stdin.buffer, ""))
    elif isinstance(settings.from_file, Path) and _is_pipe(settings.from_file):
        with settings.from_file.open("rb") as pipe:
            settings = replace(settings, from_file=_spool(settings, pipe, settings.from_file.suffix))
    try:
        yield settings
    finally:
        if isinstance(settings.from_file, Path):
            drop(settings.state_path, [settings.from_file])


def manifest(settings: Settings) -> Manifest | None:
    """Return the list of the settings. Raise `UsageError` for options that need a list if there is none."""
    file = settings.from_file
    if not isinstance(file, Path):
        for name in ("null", "lenient", "from_format"):
            source = settings.sources.get(name)
            if source is not None and source.layer is Layer.FLAG and getattr(settings, name) not in (False, "auto"):
                raise UsageError(
                    f"--{name.replace('_', '-')} needs a list",
                    hint="give --from-file FILE, or - for standard input",
                )
        return None
    from uploader_cli.selection.manifest import Manifest

    shown = "the piped list" if file.parent == _place(settings.state_path) else str(file)
    category = None if settings.tus_endpoint else settings.category
    return Manifest(file, shown, _format(settings, file.name), category, strict=not settings.lenient)


def identity(settings: Settings) -> str | None:
    """Return what identifies the list: the file's path, or the digest of a piped one."""
    file = settings.from_file
    if not isinstance(file, Path):
        return None
    return file.name.partition("-")[0] if file.parent == _place(settings.state_path) else os.path.abspath(file)


def as_typed(file: Path, state: Path) -> str:
    """Return the option for the list of a run, for messages."""
    return "--from-file -" if file.parent == _place(state) else f"--from-file {file}"


def _format(settings: Settings, name: str) -> Format:
    from uploader_cli.selection.manifest import format_of
    from uploader_cli.selection.manifest_lines import Format

    if settings.null:
        if settings.from_format not in ("auto", "nul"):
            raise UsageError(
                f"--null and --from-format {settings.from_format} exclude each other", hint="omit one of them"
            )
        return Format.NUL
    return format_of(name) if settings.from_format == "auto" else Format(settings.from_format)


def _place(state: Path) -> Path:
    return state / "lists"


def _is_pipe(file: Path) -> bool:
    """Return True for a file that can be read only once: a pipe, such as `<(command)`, or a device."""
    return file.is_fifo() or file.is_char_device()


def _spool(settings: Settings, source: IO[bytes], suffix: str) -> Path:
    """Copy `source` to a private file named by its digest, with the suffix."""
    import hashlib
    import tempfile

    place, digest = _place(settings.state_path), hashlib.sha256()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        drop(settings.state_path, [file for file in place.iterdir() if _age(file) > LEFT_BEHIND])
        handle, name = tempfile.mkstemp(dir=place)
        try:
            with open(handle, "wb") as file:
                while piece := source.read(_PIECE):
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
    files = [file for file in files if file.parent == _place(state)]
    if not files:
        return
    with Journal(state) as journal:
        needed = {info.arguments.get("list") for info in journal.runs() if info.state != "finished"}
    for file in files:
        if str(file) not in needed:
            file.unlink(missing_ok=True)
