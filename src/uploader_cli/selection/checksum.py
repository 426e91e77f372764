"""Compare files with the SHA-256 of their list."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from uploader_cli.core.events import FailureCode
from uploader_cli.selection.walk import Unusable

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.plan import LocalFile

PIECE = 1 << 20
"""Bytes per read."""


def differs(file: LocalFile, check: Callable[[], None] = lambda: None) -> Unusable | None:
    """Return why `file` must not be sent; None without an expected digest, or if it matches.

    `check` is called between reads and raises to stop.
    """
    if file.sha256 is None:
        return None
    try:
        found = _sha256(file, check)
    except FileNotFoundError:
        return Unusable(file.file, file.path, FailureCode.VANISHED, "the file no longer exists", file)
    except OSError as error:
        return Unusable(file.file, file.path, FailureCode.UNREADABLE, f"can't be read: {error.strerror}", file)
    if found == file.sha256:
        return None
    words = f"the SHA-256 is {found}, not {file.sha256} as listed" if found else "modified while it was checked"
    return Unusable(file.file, file.path, FailureCode.MISMATCH, f"{words}; not sent", file)


def _sha256(file: LocalFile, check: Callable[[], None]) -> str:
    """Return the hex digest; empty for a file that has changed since it was selected. Raises `OSError`."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    with open(file.path, "rb", buffering=0) as source:
        while count := source.readinto(buffer):
            check()
            digest.update(buffer[:count])
        info = os.fstat(source.fileno())
    return digest.hexdigest() if (info.st_size, info.st_mtime_ns) == (file.size, file.mtime_ns) else ""
