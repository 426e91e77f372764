"""Files and directories below the categories: only this module looks them up, opens, links and renames them.

The rule: the root and its categories may be symbolic links, which the start resolves. Below a category no symbolic link
is followed, at no position of a path: directories are opened one below the other, each without following. Paths here
are below the root, with `/`, and begin with a category.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from uploader_server.storage.paths import BAD_NAME, MAX_PATH, UnsafePathError, shortened

_DIRECTORY = os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)  # O_PATH: not on macOS
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO without a writer blocks otherwise
NO_FILE = BAD_NAME | {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""Errors for a path where no file is."""


class OpenFile(NamedTuple):
    """An open stored file; who receives it closes the descriptor."""

    fd: int
    status: os.stat_result


class Categories:
    """The categories below a root. Every call may raise OSError, and UnsafePathError for a symbolic link."""

    def __init__(self, root: Path, categories: tuple[str, ...]) -> None:
        self._bases = {name: os.path.realpath(root / name) for name in categories}
        self._linked = frozenset(name for name in categories if (root / name).is_symlink())

    def __contains__(self, path: str) -> bool:
        """Return whether a path below the root is a category or below one."""
        return path.partition("/")[0] in self._bases

    def descend(self, path: str) -> Descent:
        """Open a directory; the caller closes it."""
        category, _, below = path.partition("/")
        descent = Descent(self._bases[category])
        try:
            for name in below.split("/") if below else ():
                descent.enter(name)
        except BaseException:
            descent.close()
            raise
        return descent

    def enter(self, path: str, making: Callable[[], None] = lambda: None) -> Descent:
        """Open a directory; the caller closes it. If it is missing, call `making`, then create it with its parents."""
        category, _, below = path.partition("/")
        base, made = self._bases[category], False
        try:
            descent = Descent(base)
        except FileNotFoundError:
            if category in self._linked:  # the disk that it leads to is not mounted
                raise
            making()
            made = True
            with contextlib.suppress(FileExistsError):
                os.mkdir(base)
            descent = Descent(base)
        try:
            for name in below.split("/") if below else ():
                try:
                    descent.enter(name)
                except FileNotFoundError:
                    if not made:
                        making()
                        made = True
                    descent.make(name)
                    descent.enter(name)
        except BaseException:
            descent.close()
            raise
        return descent

    def check_length(self, path: str) -> None:
        """Raise UnsafePathError for a path that the system's calls don't take with the root before it."""
        category, _, below = path.partition("/")
        if len(os.fsencode(f"{self._bases[category]}/{below}")) >= MAX_PATH:
            raise UnsafePathError("with the server's root the path is too long for its file system")

    def is_there(self, path: str) -> bool:
        """Return whether the category of a path is a directory: the disk that it leads to may not be mounted."""
        return os.path.isdir(self._bases[path.partition("/")[0]])

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of what has this name, which may be a link itself; None if nothing has it."""
        directory, _, name = path.rpartition("/")
        try:
            with self.descend(directory) as descent:
                return descent.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def known_status(self, path: str) -> os.stat_result:
        """Return the status of a regular file. Raises FileNotFoundError as `open`."""
        try:
            there = self.status(path)
        except UnsafePathError:
            there = None
        if there is None or not stat.S_ISREG(there.st_mode):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return there

    def is_file(self, path: str) -> bool:
        """Return whether a regular file has this name; a path through a link has none."""
        try:
            self.known_status(path)
        except FileNotFoundError:
            return False
        return True

    def is_directory(self, path: str) -> bool:
        """Return whether a path leads to a directory; one through a link does not."""
        try:
            self.descend(path).close()
        except (UnsafePathError, FileNotFoundError, NotADirectoryError):
            return False
        return True

    def open(self, path: str) -> OpenFile:
        """Open a regular file. Raises FileNotFoundError if there is none, also for a path through a link."""
        directory, _, name = path.rpartition("/")
        try:
            with self.descend(directory) as descent:
                return descent.open(name)
        except UnsafePathError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None

    def open_any(self, path: str) -> int:
        """Open a file or directory to flush it."""
        if "/" not in path:
            return os.open(self._bases[path], os.O_RDONLY | os.O_DIRECTORY)
        directory, _, name = path.rpartition("/")
        try:
            with self.descend(directory) as descent:
                return os.open(name, _FILE, dir_fd=descent.fd)
        except UnsafePathError as error:
            raise OSError(errno.ELOOP, str(error)) from error

    def move_out(self, path: str, target: Path) -> bool:
        """Rename a regular file to a path elsewhere on its file system; return False if there is none."""
        directory, _, name = path.rpartition("/")
        try:
            with self.descend(directory) as descent:
                there = descent.status(name)
                if there is None or not stat.S_ISREG(there.st_mode):
                    return False
                os.rename(name, target, src_dir_fd=descent.fd)
                return True
        except (UnsafePathError, FileNotFoundError, NotADirectoryError):
            return False


class Descent:
    """An open directory, from which others are entered: a call with a whole path would walk all of it each time."""

    def __init__(self, base: str) -> None:
        self.fd = os.open(base, _DIRECTORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.fd)

    def enter(self, name: str) -> None:
        """Go into a directory. Raises OSError, and UnsafePathError for a symbolic link."""
        try:
            deeper = os.open(name, _DIRECTORY, dir_fd=self.fd)
        except OSError as error:
            if error.errno in BAD_NAME:  # there can be no such entry
                raise FileNotFoundError(error.errno, error.strerror, name) from None
            if error.errno in {errno.ENOTDIR, errno.ELOOP} and self._is_link(name):
                raise UnsafePathError(f"a symbolic link below the category: {shortened(name)!r}") from None
            raise
        os.close(self.fd)
        self.fd = deeper

    def make(self, name: str) -> None:
        """Create a directory, unless another request did."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=self.fd)

    def look(self, name: str) -> os.stat_result:
        """Return the status of what has this name here."""
        return os.lstat(name, dir_fd=self.fd)

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of what has this name here; None if nothing has it."""
        try:
            return self.look(name)
        except OSError as error:
            if error.errno in NO_FILE:
                return None
            raise

    def open(self, name: str) -> OpenFile:
        """Open a regular file. Raises FileNotFoundError if there is none."""
        try:
            fd = os.open(name, _FILE, dir_fd=self.fd)
        except OSError as error:
            if error.errno in NO_FILE | {errno.ENXIO}:  # ENXIO: a socket
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
            raise
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return OpenFile(fd, status)

    def named(self, data: os.stat_result) -> str | None:
        """Return a name here of the file with this status, or None (reads the directory)."""
        if data.st_nlink == 1:
            return None
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd)
        try:
            with os.scandir(fd) as entries:
                return next((entry.name for entry in entries if _is(entry, data)), None)
        finally:
            os.close(fd)

    def _is_link(self, name: str) -> bool:
        there = self.status(name)
        return there is not None and stat.S_ISLNK(there.st_mode)


def _is(entry: os.DirEntry[str], status: os.stat_result) -> bool:
    return entry.inode() == status.st_ino and os.path.samestat(entry.stat(follow_symlinks=False), status)
