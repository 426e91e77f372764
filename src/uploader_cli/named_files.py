"""Files and directories that an option names: what is wrong with one is a usage error with option, path and reason.

All code that opens what an option names goes through these functions. No pipe or device is opened, read or written in a
way that a signal can't end: a run counts signals, so that a system call would go on waiting.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from uploader_cli import signals
from uploader_cli.errors import UsageError

_ABSENT = (FileNotFoundError, NotADirectoryError)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOOK = 0.05  # seconds between two looks for a signal
_GRACE = 1.0  # seconds for which another process is waited for after a signal


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
        return io.BufferedReader(Pipe(path, os.O_RDONLY)) if path.is_fifo() else path.open("rb")


class Pipe(io.RawIOBase):
    """A pipe or device, whose other end is waited for until a signal comes.

    `flags` are `O_RDONLY` or `O_WRONLY`. Raise `OSError`, also (`EINTR`) if nobody is there `_GRACE` after a signal.
    """

    def __init__(self, path: Path, flags: int) -> None:
        super().__init__()
        self._handle, self._began, self._reads = -1, time.monotonic(), flags == os.O_RDONLY
        while self._handle < 0:
            try:
                self._handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            except OSError as error:
                if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                    raise
                self._wait(lambda: time.sleep(_LOOK))

    def fileno(self) -> int:
        return self._handle

    def readable(self) -> bool:
        return self._reads

    def writable(self) -> bool:
        return not self._reads

    def readinto(self, buffer: Any, /) -> int:
        """Read into `buffer`; 0 at the end: all writers have closed it."""
        while True:
            if select.select([self._handle], [], [], 0)[0]:
                try:
                    return os.readv(self._handle, [buffer])
                except BlockingIOError:
                    pass
            self._wait(lambda: select.select([self._handle], [], [], _LOOK))

    def write(self, data: Any, /) -> int:
        """Write the beginning of `data`, once the reader has space for it."""
        while True:
            try:
                return os.write(self._handle, data)
            except BlockingIOError:
                self._wait(lambda: select.select([], [self._handle], [], _LOOK))

    def close(self) -> None:
        if not self.closed and self._handle >= 0:
            os.close(self._handle)
        super().close()

    def _wait(self, pause: Callable[[], object]) -> None:
        """Pause for a moment. Raise `InterruptedError` after a signal, and `_GRACE`."""
        last = signals.noted()
        if last > self._began or (last and time.monotonic() > self._began + _GRACE):
            raise InterruptedError(errno.EINTR, "interrupted, and no other process has read it or written to it")
        pause()


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
        else:  # it is read by each connection, by code that no signal ends
            raise UsageError(f"{option}: {path} is no regular file", hint="save it to a file first")


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
