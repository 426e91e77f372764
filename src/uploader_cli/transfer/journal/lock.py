"""Locks of the operating system: they end with their process, however it ends, kill -9 included."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WAIT = 60.0
"""Seconds to wait for a lock that others hold for milliseconds."""
_PAUSE = 0.005

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, *, shared: bool) -> bool:  # noqa: ARG001  # Windows knows exclusive locks only
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(handle: int, *, shared: bool) -> bool:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FileLock:
    """An exclusive lock on the file at `path`, which is made if missing. It ends with `release`, a block, the process.

    `check` is called between tries, and may raise. Raises `TimeoutError` after `wait` seconds (`WAIT`), and `OSError`.
    """

    def __init__(self, path: Path, *, wait: float | None = None, check: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._handle: int | None = None
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + (WAIT if wait is None else wait)
        try:
            while not _lock(handle, shared=False):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{path} is locked by another process")
                check()
                time.sleep(_PAUSE)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self, *, remove: bool = False) -> None:
        """Release the lock; `remove` deletes the file too. A second call changes nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            with suppress(OSError):  # a directory that went away under a run
                os.close(handle)
                if remove:
                    self._path.unlink()


def is_held(path: Path) -> bool:
    """Return whether a live process (this one too) holds the lock at `path`, without taking it from others."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _lock(handle, shared=True)
    finally:
        os.close(handle)
