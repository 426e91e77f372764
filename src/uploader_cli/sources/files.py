"""What is read: local files, and by `sources.urls` files at URLs (`s3://bucket/key`, `zip://name::s3://…`).

All problems are `OSError`s.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from uploader_cli import extras
from uploader_cli.core.plan import Identity, concealed, is_url, unsigned
from uploader_cli.errors import UsageError


class RemoteStatus(NamedTuple):
    """The part of `os.stat_result` that is known of a file at a URL.

    The digits of `st_mtime_ns` below a second are those of the ETag if there is one: some servers of S3 give
    milliseconds only in listings.
    """

    st_mode: int
    st_size: int
    st_mtime: float
    st_mtime_ns: int


Status = os.stat_result | RemoteStatus


def absolute(path: str) -> str:
    """Return the absolute path; a URL is one."""
    return path if is_url(path) else os.path.abspath(path)


def status(path: str) -> Status:
    """Return size and mtime, following links. Raise `OSError`."""
    return _urls().status(path) if is_url(path) else os.stat(path)


def exists(path: str) -> bool:
    """Return whether there is something at the path. Raise `UsageError` for a path or URL that can't be used."""
    hint = "check the URL and its credentials" if is_url(path) else "nothing was sent; check the path"
    try:
        if is_url(path):
            _urls().find(path)
        else:
            os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL character
        return False
    except OSError as error:
        raise UsageError(f"{concealed(path)} can't be read: {error.strerror}", hint=hint) from error
    return True


def open_file(path: str, end: int | None = None) -> IO[bytes]:
    """Open a file for reading, unbuffered, up to the position `end`. Raise `OSError`."""
    return _urls().opened(path, end) if is_url(path) else open(path, "rb", buffering=0)


def status_of(source: IO[bytes]) -> Status:
    """Return the present status of an open file. Raise `OSError`."""
    return os.fstat(source.fileno()) if isinstance(source, io.FileIO) else _urls().status_of(source)


def identity_of(info: os.stat_result) -> Identity:
    """Return what a file is on its disk."""
    return Identity(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def listing(url: str) -> Iterator[tuple[str, str, RemoteStatus | OSError]]:
    """Yield URL, path below `url` (empty for itself) and status of each file, or why it can't be sent."""
    yield from _urls().listing(url)


def base_name(url: str) -> str:
    """Return the last part of a URL's path, or the name of the archive for its root; a query is no part of it."""
    first, _, container = unsigned(url).partition("::")
    return first.partition("://")[2].rstrip("/").rpartition("/")[2] or container.rpartition("/")[2] or "root"


def _urls() -> Any:
    return extras.load("urls")
