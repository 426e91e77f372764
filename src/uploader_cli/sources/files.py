"""What is read: local files, and files at URLs (`s3://bucket/key`), if a feature reads those.

All problems are `OSError`s.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import IO, NamedTuple, Protocol, cast

from uploader_cli.core.plan import Identity, concealed, is_url
from uploader_cli.errors import UsageError
from uploader_cli.feature import features
from uploader_cli.settings.spelling import lacking_sources


class RemoteStatus(NamedTuple):
    """The part of `os.stat_result` that is known of a file at a URL."""

    st_mode: int
    st_size: int
    st_mtime: float
    st_mtime_ns: int


Status = os.stat_result | RemoteStatus


class RemoteFile(Protocol):
    """What an open file at a URL has besides the methods of a file."""

    def status(self) -> RemoteStatus:
        """Return the status of the opening, or the present one once something was read. Raise `OSError`."""


class Reader(Protocol):
    """A module of a feature that reads files at URLs (`Feature.sources`).

    All problems are `OSError`s; a `UsageError` is raised for a URL that can't be used.
    """

    def find(self, url: str) -> object:
        """Look for a file or directory. Raise `FileNotFoundError` if there is none."""

    def status(self, url: str) -> RemoteStatus:
        """Return size and mtime."""

    def opened(self, url: str, end: int | None) -> IO[bytes]:
        """Open a file for reading, unbuffered, up to the position `end`. Return a `RemoteFile`."""

    def listing(self, url: str) -> Iterator[tuple[str, str, RemoteStatus | OSError]]:
        """Yield URL, path below `url` (empty for itself) and status of each file, or why it can't be sent."""

    def base_name(self, url: str) -> str:
        """Return the name of the file or directory."""


def absolute(path: str) -> str:
    """Return the absolute path; a URL is one."""
    return path if is_url(path) else os.path.abspath(path)


def status(path: str) -> Status:
    """Return size and mtime, following links. Raise `OSError`."""
    return reader(path).status(path) if is_url(path) else os.stat(path)


def exists(path: str) -> bool:
    """Return whether there is something at the path. Raise `UsageError` for a path or URL that can't be used."""
    hint = "check the URL and its credentials" if is_url(path) else "nothing was sent; check the path"
    try:
        if is_url(path):
            reader(path).find(path)
        else:
            os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL character
        return False
    except OSError as error:
        raise UsageError(f"{concealed(path)} can't be read: {error.strerror}", hint=hint) from error
    return True


def open_file(path: str, end: int | None = None) -> IO[bytes]:
    """Open a file for reading, unbuffered, up to the position `end`. Raise `OSError`."""
    return reader(path).opened(path, end) if is_url(path) else open(path, "rb", buffering=0)


def status_of(source: IO[bytes]) -> Status:
    """Return the present status of an open file. Raise `OSError`."""
    return os.fstat(source.fileno()) if isinstance(source, io.FileIO) else cast("RemoteFile", source).status()


def identity_of(info: os.stat_result) -> Identity:
    """Return what a file is on its disk."""
    return Identity(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def reader(url: str) -> Reader:
    """Return what reads a URL. Raise `UsageError` if no feature does."""
    for feature in features():
        if feature.sources:
            return cast("Reader", feature.load(feature.sources))
    raise UsageError(f"{concealed(url)} is a URL", hint=lacking_sources())
