"""Open local files below real directories: no link is followed that has taken the place of a file or a directory."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import IO

KEPT_OPEN = 32
"""Most directories that a run keeps open, and most files in doubt: the number of workers takes both into account."""
_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", 0)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO in its place would never open
_real = lru_cache(os.path.realpath)


def real_directory(path: str) -> str:
    """Return the directory of a file without links; empty for a file that is a link itself, which is followed."""
    return "" if os.path.islink(path) else _real(os.path.dirname(os.path.abspath(path)))


class _Handle:
    """An open directory, until nothing uses it."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.number)  # at the end of the process the module `os` may be gone


class Directories:
    """A few open directories, by their absolute paths without links. Thread-safe."""

    def __init__(self, most: int = KEPT_OPEN) -> None:
        self._most = most
        self._kept: OrderedDict[str, _Handle] = OrderedDict()
        self._lock = threading.Lock()

    def open_file(self, directory: str, name: str) -> IO[bytes]:
        """Open a file, unbuffered. Raise `OSError`: ELOOP for a link, ENOTDIR where a directory became one."""
        number = os.open(name, _FILE, dir_fd=self._opened(directory).number)
        try:
            return io.FileIO(number, "rb")
        except OSError:
            os.close(number)
            raise

    def forget(self) -> None:
        """Close all that are not in use: others may be at these paths now, and disks can be unmounted."""
        _real.cache_clear()
        with self._lock:
            self._kept.clear()

    def _opened(self, directory: str) -> _Handle:
        """Return a directory, from the nearest one above it that is open."""
        with self._lock:
            found = self._kept.get(directory)
            if found is not None:
                self._kept.move_to_end(directory)
                return found
        above, missing = directory, list[str]()
        while found is None and above != "/":
            above, _, name = above.rpartition("/")
            above = above or "/"
            missing.append(name)
            found = self._kept.get(above)
        handle = found or _Handle(os.open("/", _DIRECTORY))
        while missing:
            handle = _Handle(os.open(missing.pop(), _DIRECTORY, dir_fd=handle.number))
        with self._lock:
            self._kept[directory] = handle
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return handle


directories = Directories()
"""Those of this process."""
