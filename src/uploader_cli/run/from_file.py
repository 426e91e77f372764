"""The list of `--from-file`: where it lies, how it is written, and what becomes of one that came through a pipe."""

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
"""Seconds after which a list that no interrupted run needs is swept away: a killed process could not do it."""
_PIECE = 1 << 20


@contextmanager
def at_hand(settings: Settings, paths: Sequence[str]) -> Iterator[Settings]:
    """The settings with a list that can be read as often as it takes: what comes through a pipe is kept.

    It lies in the state directory, and is removed at the end unless a run that can be resumed needs it. Raises
    `UsageError` where both `paths` and a list were given; paths outrank a list that the environment or a config names.
    """
    with signals.unwinding():
        yield from _at_hand(settings, paths)


def _at_hand(settings: Settings, paths: Sequence[str]) -> Iterator[Settings]:
    if paths and settings.from_file is not None:
        source = settings.sources.get("from_file")
        if source is None or source.layer is Layer.FLAG:
            raise UsageError("--from-file and PATH exclude each other", hint="list the path in the file, or run twice")
        settings = replace(settings, from_file=None)
    if settings.from_file == "-":
        if sys.stdin is None:
            raise UsageError("--from-file -: standard input is closed", hint="name the list, or give it through a pipe")
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
    """Return the list that the settings name. Raise `UsageError` for options that need a list where there is none."""
    file = settings.from_file
    if not isinstance(file, Path):
        for name in ("null", "lenient", "from_format"):
            source = settings.sources.get(name)
            if source is not None and source.layer is Layer.FLAG and getattr(settings, name) not in (False, "auto"):
                raise UsageError(
                    f"--{name.replace('_', '-')} says how to read a list, and there is none",
                    hint="give --from-file FILE, or - for standard input",
                )
        return None
    from uploader_cli.selection.manifest import Manifest

    shown = "the piped list" if file.parent == _place(settings.state_path) else str(file)
    category = None if settings.tus_endpoint else settings.category
    return Manifest(file, shown, _format(settings, file.name), category, strict=not settings.lenient)


def identity(settings: Settings) -> str | None:
    """What makes two lists the same: the file; of one that came through a pipe, what is in it."""
    file = settings.from_file
    if not isinstance(file, Path):
        return None
    return file.name.partition("-")[0] if file.parent == _place(settings.state_path) else os.path.abspath(file)


def as_typed(file: Path, state: Path) -> str:
    """The list of a run, for a person."""
    return "--from-file -" if file.parent == _place(state) else f"--from-file {file}"


def _format(settings: Settings, name: str) -> Format:
    from uploader_cli.selection.manifest import format_of
    from uploader_cli.selection.manifest_lines import Format

    if settings.null:
        if settings.from_format not in ("auto", "nul"):
            raise UsageError(
                f"--null and --from-format {settings.from_format} exclude each other", hint="leave one of them out"
            )
        return Format.NUL
    return format_of(name) if settings.from_format == "auto" else Format(settings.from_format)


def _place(state: Path) -> Path:
    return state / "lists"


def _is_pipe(file: Path) -> bool:
    """True for what can be read once: a pipe, such as the shell's `<(command)`, or a device."""
    return file.is_fifo() or file.is_char_device()


def _spool(settings: Settings, source: IO[bytes], suffix: str) -> Path:
    """Copy `source` to a file that only the user can read, named by its digest, with that suffix."""
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
            f"--from-file: the list can't be kept in {place}: {error.strerror}", hint="name another --state-dir"
        ) from error


def _age(file: Path) -> float:
    """Seconds since it was written; 0 where another run has removed it just now."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def drop(state: Path, files: Sequence[Path]) -> None:
    """Remove those that were kept and that no run needs which can be resumed."""
    files = [file for file in files if file.parent == _place(state)]
    if not files:
        return
    with Journal(state) as journal:
        needed = {info.arguments.get("list") for info in journal.runs() if info.state != "finished"}
    for file in files:
        if str(file) not in needed:
            file.unlink(missing_ok=True)
