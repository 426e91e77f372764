"""What the journal takes and returns."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from uploader_cli.core.plan import LocalFile


@dataclass(frozen=True, slots=True)
class Target:
    """Where files go: `server` is its URL without credentials, `destination` a category or a tus endpoint."""

    server: str
    destination: str


def new_key() -> str:
    """Return a random `uploadKey` (docs/protocol.md, section 5), which nobody can guess."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class PendingPart:
    """One part of a file sent by concatenation: `size` bytes of it from `offset`, in an upload of its own.

    `checked_until` and `pledged_until` are as in `PendingUpload`, in bytes of the part.
    """

    index: int
    offset: int
    size: int
    upload_key: str
    url: str | None = None
    checked_until: int = 0
    pledged_until: int = 0


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """An upload under way. With `url` None its creation was not answered, but may have worked: POST `upload_key` first.

    Bytes up to `checked_until` lay in chunks whose checksum the server accepted; only the server's offset says what it
    has. `pledged_until` is the end of the chunk that was being sent with its checksum, 0 for none: a server whose
    offset is there has accepted it. `chunk_size` is in bytes. `parts` is empty for a file that is sent in one piece.
    """

    upload_key: str = field(default_factory=new_key)
    url: str | None = None
    session: str | None = None
    chunk_size: int | None = None
    checked_until: int = 0
    parts: tuple[PendingPart, ...] = ()
    pledged_until: int = 0

    @property
    def urls(self) -> tuple[str, ...]:
        """Every upload URL that belongs to the file: what to DELETE when it is sent anew."""
        return tuple(url for url in (self.url, *(part.url for part in self.parts)) if url is not None)


def packed_uploads() -> Iterator[PendingUpload]:
    """Yield the uploads of the files of one pack: they share a new key, with the position of each."""
    key = new_key()
    for index in count():
        yield PendingUpload(f"{key}:{index}")


@dataclass(frozen=True, slots=True)
class Pending:
    """What is under way for a file of this size and mtime, by run number `run`. `busy`: that is another, live run."""

    size: int
    mtime_ns: int
    run: int
    upload: PendingUpload
    uncertain: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that the server says it has stored. `checksum` is a hex SHA-256; `verified`: it was compared."""

    file: LocalFile
    server_id: str | None = None
    location: str | None = None
    checksum: str | None = None
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """A file that the server has confirmed. `path` is absolute, `completed_at` in whole seconds since the epoch.

    `run` is the id of the run that sent it, None where that run is forgotten.
    """

    run: str | None
    path: str
    size: int
    mtime_ns: int
    server_id: str | None
    location: str | None
    checksum: str | None
    verified: bool
    completed_at: float


class ClaimState(StrEnum):
    """What a claim found."""

    NEW = "new"
    RESUME = "resume"
    CHANGED = "changed"
    UNKNOWN = "unknown"
    DONE = "done"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the journal knows of a file that is about to be sent.

    NEW      send `upload` from 0; with --no-resume `outdated` is what an earlier run had begun.
    RESUME   resume `upload`.
    CHANGED  size or mtime differ from those of an earlier try: tell the user, send `upload` from 0. `outdated` is that
             try, to be terminated; None when it had been completed.
    UNKNOWN  an earlier try of `upload` ended without knowing whether the server stored the file.
    DONE     this run (or the one it resumes) has `receipt`, or another run sent the file since this one began.
    BUSY     another live run, or another entry of this one, is sending the file: do not touch it.
    """

    state: ClaimState
    upload: PendingUpload | None = None
    receipt: Receipt | None = None
    outdated: PendingUpload | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run in the list. Times are in seconds since the epoch; `completed_*` count over all its continuations.

    `state` is "running", "interrupted" or "finished". `alive`: a live process holds it. `open_files` are under way,
    `sessions` are not finished.
    """

    id: str
    server: str
    destination: str
    arguments: Mapping[str, object]
    started_at: float
    updated_at: float
    state: str
    alive: bool
    completed_files: int
    completed_bytes: int
    open_files: int
    sessions: tuple[str, ...]


def pack_position(claim: Claim) -> tuple[str, int] | None:
    """Return the key of the pack that a file was claimed for, and its position; None where it was for none."""
    key, colon, index = claim.upload.upload_key.partition(":") if claim.upload is not None else ("", "", "")
    return (key, int(index)) if colon else None


def path_key(file: LocalFile) -> bytes:
    """Return the absolute path of `file` as the journal keys it: bytes, since a path need not be text.

    A relative path is taken from the current working directory: a resume must change to the run's directory first. A
    NUL, which is in no path, separates the file's own destination.
    """
    name = file.path
    if name[:1] != "/" or "//" in name or "/." in name or name[-1:] == "/":  # else it is absolute: `abspath` costs 5 µs
        name = os.path.abspath(name)
    path = os.fsencode(name)
    return path + b"\0" + file.destination.encode() if file.destination else path


def is_of(file: LocalFile, row: Pending | Receipt) -> bool:
    """Return whether `row` has the size and mtime of `file`."""
    return row.size == file.size and row.mtime_ns == file.mtime_ns
