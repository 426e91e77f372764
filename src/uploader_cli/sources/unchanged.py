"""Whether a local file is still the one that was selected: while it is read, and once it was sent."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from uploader_cli.core.codes import FailureCode
from uploader_cli.core.plan import LocalFile, is_url
from uploader_cli.errors import TOO_MANY_FILES, FileError
from uploader_cli.sources.directories import KEPT_OPEN, directories
from uploader_cli.sources.files import Status, open_file, status, status_of

OnDoubt = Callable[[LocalFile, IO[bytes]], None]
"""Gets a file, and its open source, whose bytes were read while it may have changed."""


def ignore_doubt(_file: LocalFile, _source: IO[bytes]) -> None:
    """Do nothing with a doubt."""


def unchanged(file: LocalFile, info: Status) -> bool | None:
    """Return whether a file is the selected one; None where only its bytes can tell.

    Size and mtime decide at once: another one is a change. Another ctime, inode or device alone is no change, and no
    proof: chmod, another link, a backup and FUSE change them, and so does a program that restores the mtime of what it
    has rewritten. Then the file is read and compared with the digest of what was sent, or of what the server has
    (`Doubts`). For a file that an earlier run has sent, `journal.reading.is_recorded` has the same rule.
    """
    if info.st_size != file.size or info.st_mtime_ns != file.mtime_ns:
        return False
    known = file.identity
    if known is None or not isinstance(info, os.stat_result):
        return True
    same = info.st_ctime_ns == known.ctime_ns and info.st_ino == known.inode and info.st_dev == known.device
    return True if same else None


def open_unchanged(file: LocalFile, end: int | None = None) -> IO[bytes]:
    """Open the selected file, unbuffered, for reading up to `end`.

    No link is followed that the selection has not followed: a file is opened in its real directory, and the target of a
    link must be the file, by device and inode, that was selected. Raise `FileError` (vanished, unreadable, changed), as
    all readers do.
    """
    if file.content is not None:
        return file.content.open()
    try:
        return _opened(file, end)
    except FileError:
        if not file.directory:
            raise
    directories.forget()  # another directory may be at its path by now
    return _opened(file, end)


def _opened(file: LocalFile, end: int | None) -> IO[bytes]:
    try:
        if file.directory:
            source = directories.open_file(file.directory, file.path.rpartition("/")[2])
        else:
            source = open_file(file.source, end)
    except OSError as error:
        raise unreadable(file, error) from error
    try:
        check_unchanged(file, source)
        if not file.directory and file.identity is not None and isinstance(source, io.FileIO):
            info = os.fstat(source.fileno())
            if (info.st_dev, info.st_ino) != (file.identity.device, file.identity.inode):
                raise failure(file, "the link leads to another file now")
    except FileError:
        source.close()
        raise
    return source


def check_unchanged(file: LocalFile, source: IO[bytes], on_doubt: OnDoubt = ignore_doubt) -> None:
    """Check by `unchanged` that an open file is the selected one; a file object always is."""
    if file.content is not None:
        return
    try:
        info = status_of(source)
    except OSError as error:
        raise unreadable(file, error) from error
    same = unchanged(file, info)
    if same is None:
        on_doubt(file, source)
    elif not same:
        raise failure(file, "it changed while it was being read")


def unreadable(file: LocalFile, error: OSError | ValueError) -> FileError:
    """Return the error of a file that can't be read."""
    if isinstance(error, FileNotFoundError):
        return failure(file, "it is gone", FailureCode.VANISHED)
    if file.directory and getattr(error, "errno", None) in (errno.ELOOP, errno.ENOTDIR):
        return failure(file, "a link has taken its place, or that of its directory, and is not followed")
    words = getattr(error, "strerror", None) or error
    failed = failure(file, f"it can't be read: {words}", FailureCode.UNREADABLE)
    code = getattr(error, "errno", None)
    failed.retryable = code in (*TOO_MANY_FILES, errno.EAGAIN)  # EAGAIN: another program has a lease on it
    if is_url(file.path) and code == errno.EIO:
        with suppress(OSError):  # some services refuse a range of an old version
            if unchanged(file, status(file.source)) is False:
                return failure(file, "it changed while it was being read")
        failed.retryable = True  # its server may be unreachable
    return failed


def failure(file: LocalFile, how: str, code: FailureCode = FailureCode.CHANGED) -> FileError:
    """Return the error of a file of the selection."""
    hint = "upload it again when nothing changes it any more" if code is FailureCode.CHANGED else ""
    return FileError(how, path=file.path, code=code, hint=hint)


class Doubts:
    """Files that were read while only their ctime, inode or device was another one. Thread-safe.

    A file is kept open until its doubt is settled, because its path may lead to another one by then, or to none; so are
    `KEPT_OPEN` files at once.
    """

    def __init__(self) -> None:
        self._again = set[int]()  # numbers of files that are sent once more
        self._sources: dict[int, IO[bytes] | None] = {}
        self._lock = threading.Lock()

    def add(self, file: LocalFile, source: IO[bytes] | None = None) -> None:
        """Note a doubt about what was read from `source`, or by an earlier run."""
        with self._lock:
            if self._sources.get(file.file) is not None:
                return
            kept = None
            if source is not None and sum(one is not None for one in self._sources.values()) < KEPT_OPEN:
                with suppress(OSError):
                    kept = open(os.dup(source.fileno()), "rb", buffering=0)  # noqa: SIM115 - closed by `settled`
            self._sources[file.file] = kept

    def __bool__(self) -> bool:
        return bool(self._sources)

    def __contains__(self, file: LocalFile) -> bool:
        return file.file in self._sources

    def source(self, file: LocalFile) -> IO[bytes] | None:
        """Return the file that was read, if it is still open."""
        return self._sources.get(file.file)

    def send_again(self, file: LocalFile) -> None:
        """Note that a file is sent once more, because nothing settles its doubt."""
        self._again.add(file.file)

    def is_sent_again(self, file: LocalFile) -> bool:
        return file.file in self._again

    def settled(self, file: LocalFile) -> None:
        """Forget a doubt, and close the file."""
        with self._lock:
            source = self._sources.pop(file.file, None)
        if source is not None:
            source.close()
