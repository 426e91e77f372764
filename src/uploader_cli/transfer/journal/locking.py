"""Locks of the journal's files, and waiting for other processes that use them."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from uploader_cli.private_files import opened_private

Checkpoint = Callable[[], None]
T = TypeVar("T")

BUSY_SECONDS = 60.0  # wait for other processes
OURS = "another user could read or change what is resumed: name a directory of yours with --state-dir"
_PAUSE = 0.005
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


@contextmanager
def locked(path: Path, checkpoint: Checkpoint, seconds: float | None = None, *, shared: bool = False) -> Iterator[None]:
    """Lock the file at `path`, created by an exclusive lock, which also ends with the process. Raise `OSError`."""
    how = fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    handle = opened_private(path, os.O_RDWR if shared else os.O_RDWR | os.O_CREAT, OURS)
    try:
        persist(lambda: fcntl.flock(handle, how), checkpoint, seconds)
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    try:
        with locked(path, lambda: None, 0.0, shared=True):
            return False
    except (BlockingIOError, FileNotFoundError) as error:
        return isinstance(error, BlockingIOError)


def persist(action: Callable[[], T], checkpoint: Checkpoint, seconds: float | None = None) -> T:
    """Repeat `action` while the file is busy, for `seconds`; `checkpoint` between tries may raise."""
    deadline = time.monotonic() + (BUSY_SECONDS if seconds is None else seconds)
    while True:
        try:
            return action()
        except (sqlite3.Error, BlockingIOError) as error:
            if not is_busy(error) or time.monotonic() >= deadline:
                raise
        checkpoint()
        time.sleep(_PAUSE)


def is_busy(error: BaseException) -> bool:
    """Return whether another process uses the file, or SQLite could not get its lock in time."""
    return error_code(error) in _BUSY


def error_code(error: BaseException) -> int:
    """Return SQLite's primary error code, also for a lock; 0 for none."""
    if isinstance(error, BlockingIOError):
        return sqlite3.SQLITE_BUSY
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def words(error: BaseException) -> str:
    if is_busy(error):
        return f"other programs locked it for {BUSY_SECONDS:.0f} s"
    if error_code(error) == sqlite3.SQLITE_FULL:
        return "no space left"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
