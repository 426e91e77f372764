"""Read files at URLs, as `sources.files.Reader` describes it, with the extra `fsspec`.

A file at a URL needs a size, and an ETag or a modification time: without them a change would not be noticed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from operator import itemgetter
from typing import IO, Any, cast

from uploader_cli import extras
from uploader_cli.core.plan import concealed
from uploader_cli.errors import UploaderError, UsageError
from uploader_cli.features.urls import FEATURE
from uploader_cli.sources.files import RemoteStatus

_has_password = re.compile(r"[^/?#]*://[^/?#@:]*:[^/?#]*@").match
_is_http = re.compile(r"https?://", re.IGNORECASE).match
_WORD = re.compile(r"[^\s'\"<>]+")
RANGE_BLOCK = 4 << 20  # bytes of one request for a range
NO_PATH = "no path leads to it: its name has an empty part, ends with a slash, or is below another file"
_SECOND = 1_000_000_000  # nanoseconds, which hold a digest of the ETag
_TAGS = ("ETag", "etag", "CRC")
_TIMES = ("mtime", "LastModified", "Last-Modified", "last_modified", "updated", "modified", "date_time", "created")
"""Names in the details of file systems."""
_PLAIN_PATHS = ("sftp://", "ssh://")  # URLs whose paths may have ? and #; fsspec would end the path there
_LINK = RemoteStatus(stat.S_IFLNK, 0, 0.0, 0)


def find(url: str) -> Mapping[str, Any]:
    """Return what the file system knows of a file or directory. Raise `OSError`."""
    with _os_errors():
        system, name = _file_system(url)
        details: Mapping[str, Any] = system.info(name)  # its `exists` would hide the reason
        return details


def status(url: str) -> RemoteStatus:
    """Return size and mtime. Raise `OSError`."""
    return _status(find(url))


def opened(url: str, end: int | None) -> IO[bytes]:
    """Open a file for reading up to the position `end`. Raise `OSError`."""
    with _os_errors():
        return cast("IO[bytes]", _OpenFile(url, end))


def base_name(url: str) -> str:
    """Return the last part of a URL's path, or the name of the archive for its root; a query is no part of it."""
    parts = (part.partition("?")[0] if _is_http(part) else part for part in url.split("::"))
    first, _, container = "::".join(parts).partition("::")
    return first.partition("://")[2].rstrip("/").rpartition("/")[2] or container.rpartition("/")[2] or "root"


def listing(url: str) -> Iterator[tuple[str, str, RemoteStatus | OSError]]:
    """Yield URL, path below `url` (empty for itself) and status of each file, or why it can't be sent.

    The path of a directory that can't be listed ends with a slash. fsspec's own walk leaves such directories out, and
    names to which no path leads: those with an empty part (`a//b`), with a slash at the end, or below a file.
    """
    with _os_errors():
        system, root = _file_system(url)
        details = system.info(root)
    if details["type"] != "directory":
        yield url, "", _status_or_error(details)
        return
    yield from (_keys if hasattr(system, "call_s3") else _tree)(system, url, root)


def _tree(system: Any, url: str, root: str) -> Iterator[tuple[str, str, RemoteStatus | OSError]]:
    """Yield what is below a directory as `listing` does, directory by directory."""
    directories, listed = [root], set[str]()
    archived: Mapping[str, Mapping[str, Any]] = getattr(system, "dir_cache", None) or {}  # all names of an archive
    while directories:
        directory = directories.pop()
        try:
            with _os_errors():
                found = sorted(system.ls(directory, detail=True), key=itemgetter("name"))
                system.invalidate_cache(directory)  # else all listings are kept in memory
        except OSError as error:
            below = _below(root, directory)
            yield _member(url, below), f"{below}/", error
            continue
        itself = [details for details in found if details["name"].strip("/") == directory.strip("/")]
        found = [details for details in found if details not in itself] if itself else found
        if itself and not archived:
            for name in _unreachable(system, directory, itself):
                below = name[len(root.rstrip("/")) + 1 :]
                yield _member(url, below), below, OSError(errno.EINVAL, NO_PATH)
        directories += [details["name"] for details in reversed(found) if details["type"] == "directory"]
        for details in found:
            below = _below(root, details["name"])
            if archived:
                listed.add(details["name"])
            if details["type"] == "link" or details.get("islink"):
                yield _member(url, below), below, _LINK
            elif details["type"] != "directory":
                yield _member(url, below), below, _status_or_error(details)

    for name, details in archived.items():
        below = name.removeprefix(root).removeprefix("/") if root else name
        if name.startswith(root) and details["type"] != "directory" and name not in listed:
            yield _member(url, below), below, OSError(errno.EINVAL, NO_PATH)


def _keys(system: Any, url: str, root: str) -> Iterator[tuple[str, str, RemoteStatus | OSError]]:
    """Yield the keys of a bucket of S3 as `listing` does, page by page: a listing of fsspec is whole in memory."""
    bucket, _, prefix = root.strip("/").partition("/")
    asked = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
    while True:
        with _os_errors():
            page = system.call_s3("list_objects_v2", **asked)
        for key in page.get("Contents", ()):
            below = key["Key"].removeprefix(asked["Prefix"])
            if (not below or below.endswith("/")) and not key["Size"]:
                continue  # a directory
            reachable = below and not below.startswith("/") and not below.endswith("/") and "//" not in below
            details = {**key, "size": key["Size"]}
            status = _status_or_error(details) if reachable else OSError(errno.EINVAL, NO_PATH)
            yield _member(url, below), below, status
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _unreachable(system: Any, directory: str, itself: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the names to which no path leads below a directory whose listing has entries for `itself`.

    An object store has one for a name that ends with a slash (an empty directory, if it is empty), and one for all
    names with an empty part after that of the directory.
    """
    yield from (details["name"] for details in itself if details["type"] != "directory" and details.get("size"))
    with _os_errors():
        names: Mapping[str, Mapping[str, Any]] = system.find(directory, prefix="/", detail=True)
        system.invalidate_cache(directory)
    for name, details in sorted(names.items()):
        is_directory = details["type"] == "directory" or (name.endswith("/") and not details.get("size"))
        if name.startswith(f"{directory.rstrip('/')}//") and not is_directory:
            yield name


def _below(root: str, path: str) -> str:
    return path.strip("/").removeprefix(root.strip("/")).strip("/")


def _member(url: str, below: str) -> str:
    first, chained, container = url.partition("::")
    slash = "" if first.endswith("/") else "/"
    return f"{first}{slash}{below}{chained}{container}"


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system and the path in it. Raise `UsageError` for one that can't be used."""
    plain = url.startswith(_PLAIN_PATHS) and "::" not in url
    scheme, _, rest = url.partition("://")
    host, _, below = rest.partition("/")
    if any(map(_has_password, url.split("::"))):
        raise UsageError("credentials don't belong in the URL of a file", hint="use the config of its file system")
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        extras.need(FEATURE.extra, ["fsspec"], concealed(url), "fsspec")
        raise
    try:
        system, path = url_to_fs(f"{scheme}://{host}/" if plain else url, **_bounded(url))
    except (ImportError, ValueError) as error:
        why, hint = str(error), "install the package of its protocol, as s3fs for s3://"
        if "range requests" in why or "Cannot seek" in why:  # fsspec reads an archive's directory, which is at its end
            why = "the server does not answer requests for ranges, which reading an archive needs"
            hint = "download the archive, and name the downloaded file in the URL"
        raise UsageError(f"{concealed(url)}: {why}", hint=hint) from error
    system.invalidate_cache()
    return system, f"/{below.strip('/')}" if plain else path


def _bounded(url: str) -> dict[str, Any]:
    """Return the arguments of fsspec for HTTP in a chain: answers end where what was asked for ends."""
    parts = [part for part in url.split("::") if part.startswith(("http:", "https:"))]
    if not parts:
        return {}
    try:
        from uploader_cli.features.urls.http_ranges import BoundedResponse
    except ImportError:  # without aiohttp, which fsspec names
        return {}
    how = {"client_kwargs": {"response_class": BoundedResponse}}
    return {"http": how, "https": how} if "::" in url else how


def _status_or_error(details: Mapping[str, Any]) -> RemoteStatus | OSError:
    try:
        with _os_errors():
            return _status(details)
    except OSError as error:
        return error


def _status(details: Mapping[str, Any]) -> RemoteStatus:
    """Return the status of a file from the details of its file system. Raise `OSError` without a version.

    The digits of `st_mtime_ns` below a second are those of the ETag if there is one: some servers of S3 give
    milliseconds only in listings.
    """
    if details.get("type") == "directory":
        return RemoteStatus(stat.S_IFDIR, 0, 0.0, 0)
    size, tag = details.get("size"), next((str(details[name]) for name in _TAGS if details.get(name)), "")
    modified = next((_epoch(details[name]) for name in _TIMES if details.get(name) is not None), None)
    if size is None:
        raise OSError(errno.EINVAL, "its source gives no size")
    if not tag and modified is None:
        raise OSError(errno.EINVAL, "its source gives neither an ETag nor a modification time")
    ns = round((modified or 0.0) * 1e9)
    if tag:
        digest = hashlib.blake2b(tag.encode(), digest_size=8).digest()
        ns = ns // _SECOND * _SECOND + int.from_bytes(digest, "big") % _SECOND
    return RemoteStatus(stat.S_IFREG, int(size), modified or 0.0, ns)


def _epoch(value: Any) -> float:
    """Return seconds since the epoch; times without a zone are UTC."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, tuple):
        value = datetime(*value)  # noqa: DTZ001 - UTC below
    elif isinstance(value, str):
        value = datetime.fromisoformat(value) if value[:1].isdigit() else parsedate_to_datetime(value)  # of HTTP
    at: datetime = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return at.timestamp()


class _OpenFile(io.RawIOBase):
    """A file at a URL, read by ranges of `RANGE_BLOCK` bytes."""

    _file: Any = None  # until it is open: `close` is called for each object

    def __init__(self, url: str, end: int | None) -> None:
        """Nothing beyond `end` will be read. Raise any error of the file system."""
        super().__init__()
        self._system, self._path = _file_system(url)
        self._file = self._system.open(self._path, "rb", block_size=RANGE_BLOCK, cache_type="none")
        details = getattr(self._file, "details", None) or {}  # some file systems have asked for all of them
        known = details if any(map(details.get, (*_TAGS, *_TIMES))) else self._system.info(self._path)
        self._known: RemoteStatus | None = _status(known)
        self._end = min(self._known.st_size, self._known.st_size if end is None else end)
        self._position = self._start = 0
        self._block = memoryview(b"")  # bytes from `_start` on

    def status(self) -> RemoteStatus:
        """Return that of the opening, or the present one once something was read. Raise `OSError`."""
        if self._known is not None:
            return self._known
        with _os_errors():
            self._system.invalidate_cache()
            return _status(self._system.info(self._path))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET:
            raise OSError(errno.EINVAL, "seek counts from the start")
        self._position = offset
        return offset

    def readinto(self, buffer: Any, /) -> int:
        """Read into `buffer`; 0 at the end. Raise `OSError`."""
        wanted = memoryview(buffer).cast("B")
        at = self._position - self._start
        if not 0 <= at < len(self._block):
            with _os_errors():
                length = min(max(RANGE_BLOCK, len(wanted)), self._end - self._position)
                self._known = None
                self._file.seek(self._position)
                self._block, self._start, at = memoryview(self._read(max(0, length))), self._position, 0
        data = self._block[at : at + len(wanted)]
        wanted[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, length: int) -> bytes:
        try:
            data = bytes(self._file.read(length))
        except ValueError as error:  # of fsspec, for HTTP
            raise OSError(errno.EOPNOTSUPP, "its server does not answer requests for ranges") from error
        if len(data) > length:
            raise OSError(errno.EIO, "its source gives more than what was asked for")
        return data

    def close(self) -> None:
        if not self.closed:
            self._block = memoryview(b"")
            if self._file is not None:
                self._file.close()
        super().close()


@contextmanager
def _os_errors() -> Iterator[None]:
    """Raise each error of a file system as an `OSError` with its words, without the queries of URLs in them."""
    try:
        yield
    except UploaderError:
        raise
    except OSError as error:
        if error.errno == errno.EBUSY:  # of s3fs: an object was replaced
            raise OSError(errno.EIO, error.strerror) from error
        if error.strerror is not None:
            raise
        cause = error.__cause__  # fsspec says of HTTP that a file is missing whatever the server has answered
        if getattr(cause, "status", None) in (401, 403):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        if isinstance(error, FileNotFoundError) and _is_outage(cause):
            raise OSError(errno.EIO, _words(cause)) from error
        kind = type(error) if isinstance(error, FileNotFoundError | PermissionError) else OSError
        code = errno.ENOENT if kind is FileNotFoundError else errno.EACCES if kind is PermissionError else errno.EIO
        raise kind(code, os.strerror(code) if kind is not OSError else _words(error)) from error
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {_words(error)}") from error


def _words(error: object) -> str:
    """Return the text of an error without the queries of http URLs, which may be signatures."""
    return _WORD.sub(lambda word: _without_query(word[0]), str(error))


def _without_query(word: str) -> str:
    begin = min((at for at in map(word.lower().find, ("http://", "https://")) if at >= 0), default=None)
    end = -1 if begin is None else word.find("?", begin) + 1
    return f"{word[:end]}***" if 0 < end < len(word) else word


def _is_outage(cause: BaseException | None) -> bool:
    """Return whether a file is said to be missing because its server failed."""
    if isinstance(cause, FileNotFoundError):
        return False
    return isinstance(cause, OSError) or getattr(cause, "status", 404) not in (404, 410)
