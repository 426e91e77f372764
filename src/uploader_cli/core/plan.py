"""Plan sessions from files and the server's limits, and requests from sessions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from uploader_cli.core.codes import FailureCode
from uploader_cli.core.record import Record

_is_url = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://").match
_is_http = re.compile(r"https?://", re.IGNORECASE).match

MIB = 1024 * 1024
SESSION_FILES = 1000
"""Maximum files in one session, even if the server accepts more, so that uploads start early."""
REQUEST_SECONDS = 150.0
"""Target seconds for a request: half of the reference backend's limit (docs/protocol.md section 3.10)."""
UNMEASURED_RATE = 1e6
"""Assumed bytes/s before a measurement: the minimum for a file of 300 MiB (docs/protocol.md section 3.10)."""
UNMETERED_FILES = 16
UNMETERED_BYTES = 64 * MIB
"""Without rate limit requests stay small: less is resent after a failure, and files are confirmed sooner."""


class Content(Protocol):
    """Standard input or a file object; `length` in bytes is None until the end of content that is read `once`."""

    once: bool
    length: int | None

    def open(self) -> IO[bytes]:
        """Return a reader that can seek. Raise `FileError` for content that is read once."""


class Identity(Record, frozen=True, gc=False):
    """What a local file is on its disk: any change of the file, or another file in its place, changes it."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class LocalFile(Record, frozen=True):
    """A selected file. `path` is as selected, `relative_path` its name on the server; `mtime_ns` as at the walk.

    `size` and `mtime_ns` are 0 for a listed file that could not be read, which is reported and never sent. `named` is
    True for a file given as an argument or in a list, which must not be skipped silently. A list may set `category`,
    the `sha256` (hex) that it must have, and `metadata` (key, value). `destination` distinguishes a file that is sent
    to several places; it is empty where path and run determine the destination. `upload_url` is its upload where a
    service has created that already: a secret. `signed` is the URL to read where its query, which `path` conceals, may
    be one. `content` has the bytes that are not read from `path`.
    `identity` is that of a local file at the walk; a station may take that of a regular file before it is read.
    `directory` is the absolute path, without links, of the directory in which it is; empty for a link that is followed.
    """

    file: int
    path: str
    relative_path: str
    size: int
    mtime_ns: int
    named: bool = False
    category: str | None = None
    sha256: str | None = None
    destination: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    upload_url: str = ""
    signed: str = ""
    content: Content | None = None
    identity: Identity | None = None
    directory: str = ""

    def __repr__(self) -> str:
        return f"LocalFile({self.file}, {self.path!r})"

    @property
    def is_remote(self) -> bool:
        """True for a file at a URL."""
        return self.identity is None and self.content is None and is_url(self.path)

    @property
    def source(self) -> str:
        """The path or URL to read, which may be a secret: all that shows or keeps a file has `path`."""
        return self.signed or self.path

    @property
    def once(self) -> bool:
        """True for content that can be read only once; `size` is 0 then."""
        return self.content is not None and self.content.once

    @property
    def known_size(self) -> int | None:
        """The bytes; None while the end of content that can be read only once is unknown."""
        return self.content.length if self.content is not None else self.size

    @property
    def name(self) -> str:
        return self.relative_path.rsplit("/", 1)[-1]

    def below(self, dest: str) -> LocalFile:
        """Return the file with its place on the server below the directory `dest`."""
        return replace(self, relative_path=f"{dest}/{self.relative_path}")

    @property
    def kind(self) -> str:
        """The type as servers use it: the extension in lower case, without the dot."""
        stem, dot, suffix = self.name.rpartition(".")
        return suffix.lower() if dot and stem else ""


def is_url(path: str) -> bool:
    """Return whether a path of a selection is a URL, as `s3://bucket/key`."""
    return "://" in path and _is_url(path) is not None  # few paths get as far as the slower pattern


def concealed(path: str) -> str:
    """Return what may be shown and kept of a path: the queries of http URLs, which may be signatures, are secrets.

    Their digests keep two URLs apart. Each URL of a chain (`zip://a::https://…`) counts.
    """
    if "?" not in path or not is_url(path):
        return path
    return "::".join(map(_without_query, path.split("::")))


def is_secret_url(path: str) -> bool:
    """Return whether a path of a selection is a URL with a query that is a secret, also where it is `concealed`."""
    return concealed(path) != path


def _without_query(part: str) -> str:
    head, mark, query = part.partition("?")
    if not mark or not _is_http(part):  # other names may have a question mark
        return part
    return f"{head}?***{hashlib.sha256(query.encode(errors='surrogateescape')).hexdigest()[:12]}"


def of_upload(url: str) -> str:
    """Return what distinguishes a file sent to an existing upload, without the URL; empty for no URL."""
    return f" upload {hashlib.sha256(url.encode()).hexdigest()[:16]}" if url else ""


class Limits(Record, frozen=True):
    """The limits of a server: files per session, bytes per file (inclusive), extensions (`*` for any)."""

    max_files: int
    max_file_size: int
    allowed_types: frozenset[str]
    mixed_types: bool = False
    relative_paths: bool = False
    empty_files: bool = False  # whether empty files can be sent, as with tus


ASSUMED = Limits(max_files=3, max_file_size=300 * MIB, allowed_types=frozenset({"mp4", "avi"}))
"""The reference backend's limits (docs/protocol.md section 3.12), for a server that has not reported its own."""

ENDLESS = 1 << 62  # the limit of a tus server that names none


def endless(max_size: int | None) -> Limits:
    """Return the limits of a tus server, which has no sessions, for files of at most `max_size` bytes."""
    return Limits(ENDLESS, max_size or ENDLESS, frozenset({"*"}), mixed_types=True)


class Refusal(Record, frozen=True):
    """Why the server would refuse a file."""

    code: FailureCode
    message: str


class PlannedSession(Struct, eq=False):
    """The files of one session, in order; `names` are those on the server."""

    files: list[LocalFile] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def category(self) -> str | None:
        """The category of the files; None for the run's own."""
        return self.files[0].category if self.files else None


def refusal(file: LocalFile, limits: Limits) -> Refusal | None:
    """Return why `file` would be refused, or None. The server would refuse it only after the whole body."""
    if "*" not in limits.allowed_types and file.kind not in limits.allowed_types:
        allowed = ", ".join(sorted(limits.allowed_types))
        kind = f"is .{file.kind}" if file.kind else "has no extension"
        return Refusal(FailureCode.REFUSED_TYPE, f"the server accepts only {allowed}; this file {kind}")
    if file.size == 0 and not limits.empty_files:
        return Refusal(FailureCode.EMPTY, "the server does not accept empty files")
    if file.size > limits.max_file_size:
        why = f"{file.size} bytes exceed the server's limit of {limits.max_file_size}"
        return Refusal(FailureCode.REFUSED_SIZE, why)
    return None


class Planner:
    """Groups files into sessions of at most `max_files` and `SESSION_FILES` files of one type and category.

    Files with the same base name are in different sessions unless the server uses relative paths (`relative_paths`).
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._most = limits, min(limits.max_files, SESSION_FILES)
        self._open: list[PlannedSession] = []

    def add(self, file: LocalFile) -> PlannedSession | None:
        """Add a file; return its session if that is full now."""
        name = file.relative_path if self._limits.relative_paths else file.name
        target = next(
            (item for item in self._open if name not in item.names and self._alike(file, item.files[0])), None
        )
        if target is None:
            target = PlannedSession()
            self._open.append(target)
        target.files.append(file)
        target.names.add(name)
        if len(target.files) < self._most:
            return None
        self._open.remove(target)
        return target

    def cut(self) -> PlannedSession | None:
        """Return the session that was started first, full or not; None if there is none."""
        return self._open.pop(0) if self._open else None

    def _alike(self, file: LocalFile, other: LocalFile) -> bool:
        return file.category == other.category and (self._limits.mixed_types or file.kind == other.kind)


def plan_sessions(files: Iterable[LocalFile], limits: Limits) -> Iterator[PlannedSession]:
    """Group acceptable `files` into sessions, as `Planner` does.

    Full sessions are yielded at once, the others at the end, in the order of their first files.
    """
    planner = Planner(limits)
    for file in files:
        session = planner.add(file)
        if session is not None:
            yield session
    while (session := planner.cut()) is not None:
        yield session


def request_length(files: Sequence[LocalFile], rate: float | None, *, metered: bool) -> int:
    """Return how many of `files` go into the next request: what arrives in 150 s at `rate` (bytes/s), at least one.

    `metered`: the server counts requests; if it does not, requests also stay small.
    """
    budget = (rate if rate is not None else UNMEASURED_RATE) * REQUEST_SECONDS
    most = len(files)
    if not metered:
        budget = min(budget, UNMETERED_BYTES)
        most = min(most, UNMETERED_FILES)
    total = 0
    for count, file in enumerate(files[:most]):
        total += file.size
        if total > budget:
            return max(1, count)
    return most
