"""Files and directories that no other user of this machine may choose, read or replace.

A private directory belongs to this user or to root, and nobody else may write there: neither others nor a group, but
for the primary group of the process if it lists no other member (umask 002, volumes of containers). A sticky directory,
such as `/tmp`, is allowed: nobody renames or deletes the files of others there. A private file is a regular file of
this user with mode 0600. One that others may write, by the rule of directories, is refused: they may have done it.
Another wide mode is narrowed.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from uploader_cli.errors import UsageError


def check_directory(directory: Path, hint: str) -> None:
    """Raise `UsageError` unless `directory` is private, or sticky. Raise `OSError` if it can't be looked at."""
    known = os.stat(directory)
    if owner_of(known) not in (os.geteuid(), 0):
        why = f"it belongs to another user (uid {owner_of(known)})"
    elif known.st_mode & stat.S_ISVTX or not (known.st_mode & stat.S_IWOTH or _shared_by_group(known)):
        return
    else:
        why = f"other users may write there (mode {stat.S_IMODE(known.st_mode):04o})"
    raise UsageError(f"{directory} is not private: {why}", hint=hint)


def opened_private(path: Path, flags: int, hint: str) -> int:
    """Open a private file without following a link; it is created with `O_CREAT`. Raise `UsageError` or `OSError`."""
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UsageError(f"{path} is not private: it is a symbolic link", hint=hint) from None
    try:
        known = os.fstat(handle)
        if why := _reason(known):
            raise UsageError(f"{path} is not private: {why}", hint=hint)
        if stat.S_IMODE(known.st_mode) & 0o177:
            os.fchmod(handle, 0o600)
    except BaseException:
        os.close(handle)
        raise
    return handle


def check_file(path: Path, hint: str) -> None:
    """Raise `UsageError` if there is a file at `path` that is not private; narrow a wide mode. `OSError`: a directory.

    Nothing is opened: closing any descriptor of a file ends all POSIX locks that this process has on it, and with them
    SQLite's protection of an open database. The directory is private, so nobody replaces the file in between.
    """
    with suppress(FileNotFoundError):
        known = os.lstat(path)
        if stat.S_ISDIR(known.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if why := "it is a symbolic link" if stat.S_ISLNK(known.st_mode) else _reason(known):
            raise UsageError(f"{path} is not private: {why}", hint=hint)
        if stat.S_IMODE(known.st_mode) & 0o177:
            os.chmod(path, 0o600)


def check_own(handle: int, path: Path) -> None:
    """Raise `UsageError` if the file at `path`, opened as `handle`, or a link there, is another user's choice.

    A device, a pipe and the user's or the system's own links (`/dev/stderr`) are not. Raise `OSError`.
    """
    known, me = os.fstat(handle), os.geteuid()
    if stat.S_ISREG(known.st_mode) and (owner_of(known) != me or owner_of(os.lstat(path)) not in (me, 0)):
        raise UsageError(f"{path} belongs to another user, who could read it", hint="name a file of yours")


def _reason(known: os.stat_result) -> str:
    if not stat.S_ISREG(known.st_mode):
        return "it is no regular file"
    if owner_of(known) != os.geteuid():
        return f"it belongs to another user (uid {owner_of(known)})"
    if known.st_mode & stat.S_IWOTH or _shared_by_group(known):
        return f"other users may write it (mode {stat.S_IMODE(known.st_mode):04o})"
    return ""


def owner_of(known: os.stat_result) -> int:
    """Return the user to whom a file belongs. All rules here ask this function."""
    return known.st_uid


def _shared_by_group(known: os.stat_result) -> bool:
    """Return whether a group may write that is not the user's own."""
    if not known.st_mode & stat.S_IWGRP:
        return False
    if known.st_gid != os.getegid():
        return True
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # as in a container
        user = ""
    try:
        return bool(set(grp.getgrgid(known.st_gid).gr_mem) - {user})
    except KeyError:
        return False
