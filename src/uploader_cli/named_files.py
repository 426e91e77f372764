"""Files and directories that an option names: what is wrong with one is a usage error with option, path and reason.

All code that opens what an option names goes through these functions.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from uploader_cli.errors import UsageError

_ABSENT = (FileNotFoundError, NotADirectoryError)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def naming(option: object, path: object, doing: str = "read", *, hint: str = "") -> Iterator[None]:
    """Raise `UsageError` in place of an `OSError`: what `option` names can't be `doing` (read, written)."""
    try:
        yield
    except OSError as error:
        text = f"{option}: {path} can't be {doing}: {error.strerror or error}"
        raise UsageError(text, hint=hint) from error


def opened(path: Path, option: object) -> BinaryIO:
    """Open a file to be read. Raises `UsageError`; so does `naming` for errors of later reads."""
    with naming(option, path):
        return path.open("rb")


def check_input(path: Path, option: object, *, directory: bool = False) -> None:
    """Raise `UsageError` unless `path` is a file, or where that is allowed a directory, that this user may read."""
    with naming(option, path):
        try:
            mode = os.stat(path).st_mode
        except _ABSENT:
            raise UsageError(f"{option}: no such file: {path}") from None
        if stat.S_ISDIR(mode) and directory:
            os.scandir(path).close()
        elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            path.open("rb").close()  # the error of a directory is its own
        elif not os.access(path, os.R_OK):  # a pipe may be opened once only
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_output(path: Path, option: object) -> None:
    """Raise `UsageError` if no file can be written at `path`. A full disk is no such error: it may have space later."""
    with naming(option, path, "written", hint="give another path"):
        try:
            mode = os.stat(path).st_mode
        except _ABSENT:
            mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise UsageError(f"{option}: {path} is a directory", hint="give a file")
    if not stat.S_ISREG(mode):
        if not os.access(path, os.W_OK):
            raise UsageError(f"{option}: {path} is not writable", hint="give a writable path")
        return
    where = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(where):
        raise UsageError(f"{option}: no such directory: {where}", hint="create it, or give another path")
    try:
        tempfile.TemporaryFile(dir=where).close()
    except OSError as error:
        if error.errno not in _FULL:
            text = f"{option}: {where} is not writable: {error.strerror}"
            raise UsageError(text, hint="give a writable path") from error


def exists(path: Path, option: object) -> bool:
    """Return whether there is something at `path`. Raises `UsageError` where that can't be found out."""
    with naming(option, path):
        try:
            os.stat(path)
        except FileNotFoundError:
            return False
    return True
