"""Locks of the operating system: they end with their process, however it ends, kill -9 included."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    """An exclusive lock on the file at `path`, made where there is none, until `release` or the process's end.

    Calls `check` between tries and lets pass what it raises. Raises `TimeoutError` when others hold the lock for longer
    than `wait` seconds (`WAIT`), other `OSError`s as they come.
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

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; `remove` deletes the file too. A second call changes nothing."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        with suppress(OSError):  # a directory that went away under a run
            os.close(handle)
            if remove:
                self._path.unlink()


@contextmanager
def locked(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock at `path` for the block; raises as `FileLock`."""
    lock = FileLock(path, check=check)
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether a live process (this one too) holds the lock at `path`. Asking takes no lock that others wait for."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _lock(handle, shared=True)
    finally:
        os.close(handle)
