"""What the journal remembers and answers, as values."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.plan import LocalFile


@dataclass(frozen=True, slots=True)
class Target:
    """Where files go: `server` is its URL without credentials, `destination` a category or a tus endpoint."""

    server: str
    destination: str


@dataclass(frozen=True, slots=True)
class PendingPart:
    """One part of a file sent by concatenation: bytes `offset` to `offset + size` of it, an upload of its own.

    `upload_key` is what its creation carries, `url` is None until the server answered that, `checked_until` counts
    the part's own bytes (from 0) that lay in chunks whose checksum the server accepted, `pledged_until` ends the chunk
    that was under way then.
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
    """A file under way. `url` None: its creation was not answered, but may have been acted on: POST the key first.

    The first `checked_until` bytes lay in chunks whose checksum the server accepted; its offset alone says what it
    has. `chunk_size` is in bytes. `parts` is empty for a file that goes up in one piece. `pledged_until` ends the chunk
    that was under way with its checksum: a server that is just there has accepted it. 0 for none.
    """

    upload_key: str
    url: str | None = None
    session: str | None = None
    chunk_size: int | None = None
    checked_until: int = 0
    parts: tuple[PendingPart, ...] = ()
    pledged_until: int = 0

    @property
    def urls(self) -> tuple[str, ...]:
        """Every upload URL that belongs to the file: what to DELETE when it is started anew."""
        own = (self.url, *(part.url for part in self.parts))
        return tuple(url for url in own if url is not None)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A file that the server has confirmed. `path` is absolute, `completed_at` in seconds since the epoch.

    `run` is the id, at that time, of the run that sent it.
    """

    run: str
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
    DONE = "done"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Claim:
    """What the journal knows of a file that is about to be sent.

    NEW      send `upload` from 0; with --no-resume `outdated` is what an earlier run had begun.
    RESUME   go on with `upload`.
    CHANGED  size or mtime are not those of an earlier try: tell the user, send `upload` from 0. `outdated` is that
             try, to be terminated; None when it had been completed.
    DONE     this run (or the one it goes on with) has `receipt`, or another run sent the file since this one began.
    BUSY     another live run, or another entry of this one, is sending it: leave it alone.
    """

    state: ClaimState
    upload: PendingUpload | None = None
    receipt: Receipt | None = None
    outdated: PendingUpload | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run in the list. Times are in seconds since the epoch; `completed_*` count over all its continuations.

    `state` is "running", "interrupted" or "finished". `alive`: a process that still lives holds it. `open_files` are
    under way, `sessions` were not finished.
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


def path_key(file: LocalFile) -> bytes:
    """The absolute path of `file` as the journal keys it: bytes, since a path need not be text.

    A relative path is taken from the working directory of now: a resume must go there first. A NUL, which is in no
    path, sets off the file's own destination.
    """
    path = os.fsencode(os.path.abspath(file.path))
    return path + b"\0" + file.destination.encode() if file.destination else path
