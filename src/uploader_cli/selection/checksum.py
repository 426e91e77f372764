"""A file whose SHA-256 the list tells: whether it is that file."""

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
"""Bytes read at a time."""


def differs(file: LocalFile, check: Callable[[], None] = lambda: None) -> Unusable | None:
    """Why `file` must not be sent; None where nothing is expected of it, or all is as expected.

    `check` raises to stop, and is called between two pieces.
    """
    if file.sha256 is None:
        return None
    try:
        found = _sha256(file, check)
    except FileNotFoundError:
        return Unusable(file.file, file.path, FailureCode.VANISHED, "it is gone", file)
    except OSError as error:
        return Unusable(file.file, file.path, FailureCode.UNREADABLE, f"it can't be read: {error.strerror}", file)
    if found == file.sha256:
        return None
    words = f"its SHA-256 is {found}, not {file.sha256} as listed" if found else "it is written to while it is checked"
    return Unusable(file.file, file.path, FailureCode.MISMATCH, f"{words}: not sent", file)


def _sha256(file: LocalFile, check: Callable[[], None]) -> str:
    """Hex; empty for a file that is not, or no longer, as it was selected. Raises `OSError`."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    with open(file.path, "rb", buffering=0) as source:
        while count := source.readinto(buffer):
            check()
            digest.update(buffer[:count])
        info = os.fstat(source.fileno())
    return digest.hexdigest() if (info.st_size, info.st_mtime_ns) == (file.size, file.mtime_ns) else ""
