"""A piped list of `--from-file`: it is copied to a file, so that it can be read repeatedly."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from uploader_cli import signals
from uploader_cli.errors import UsageError
from uploader_cli.named_files import naming, opened
from uploader_cli.private_files import check_directory
from uploader_cli.selection.selecting import LISTS, is_copy
from uploader_cli.settings import Layer, Settings
from uploader_cli.settings.places import STATE_IN_MEMORY
from uploader_cli.transfer.journal.journal import Journal

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - writable in a container whose root is read-only
LEFT_BEHIND = 86400.0
"""Seconds after which a copied list that no resumable run needs is deleted: a killed process leaves it behind."""


@contextmanager
def readable_list(settings: Settings, paths: Sequence[str]) -> Iterator[Settings]:
    """Yield the settings with a list that can be read repeatedly: a piped list is copied.

    The copy is in the state directory and deleted at the end, unless a resumable run needs it; without a writable one
    it is temporary. Raises `UsageError` if both `paths` and `--from-file` were given; paths override a list from the
    environment or a config file.
    """
    with signals.unwinding(), ExitStack() as stack:
        if paths and settings.from_file is not None:
            if settings.source("from_file").layer in (Layer.FLAG, Layer.DEFAULT):
                hint = "add the path to the list, or run twice"
                raise UsageError("--from-file and PATH exclude each other", hint=hint)
            settings = replace(settings, from_file=None)
        file = settings.from_file
        if file == "-":
            if sys.stdin is None:
                raise UsageError("--from-file -: standard input is closed", hint="give a file, or pipe the list")
            settings = replace(settings, from_file=_copy(_writable(settings, stack), sys.stdin.buffer, ""))
        elif file is not None and _is_pipe(file):  # as `<(command)`: can be read only once
            with opened(file, "--from-file") as pipe:
                settings = replace(settings, from_file=_copy(_writable(settings, stack), pipe, file.suffix))
        try:
            yield settings
        finally:
            if isinstance(settings.from_file, Path):
                drop(settings.state_path, [settings.from_file])


def _writable(settings: Settings, stack: ExitStack) -> Path:
    """Return the state directory, or a temporary one, which `stack` deletes, where the state is in memory."""
    if settings.state_path != STATE_IN_MEMORY:
        return settings.state_path
    for parent in (None, SHARED_MEMORY):
        with suppress(OSError):
            temporary = tempfile.TemporaryDirectory(prefix="uploader-", dir=parent, ignore_cleanup_errors=True)
            return Path(stack.enter_context(temporary))
    raise UsageError(
        "--from-file: there is no writable directory to save the list in", hint="name one with --state-dir"
    )


def _is_pipe(file: Path) -> bool:
    with naming("--from-file", file):
        return file.is_fifo() or file.is_char_device()


def identity(settings: Settings) -> str | None:
    """Return what identifies the list: the file's path, or the digest of a piped one."""
    file = settings.from_file
    if not isinstance(file, Path):
        return None
    return file.name.partition("-")[0] if is_copy(file) else os.path.abspath(file)


def as_typed(file: Path) -> str:
    """Return the option for the list of a run, for messages."""
    return f"--from-file {'-' if is_copy(file) else file}"


def _copy(state: Path, source: IO[bytes], suffix: str) -> Path:
    """Copy `source` to a private file named by its digest, with the suffix."""
    import hashlib

    place, digest = state / LISTS, hashlib.sha256()
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_directory(place, "name a directory of yours with --state-dir")
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
    files = [file for file in files if file.parent == state / LISTS]  # also what a kill left of a copy
    if not files:
        return
    with Journal(state) as journal:
        needed = {info.arguments.get("list") for info in journal.runs() if info.state != "finished"}
    for file in files:
        if str(file) not in needed:
            file.unlink(missing_ok=True)
