"""What a protocol and the driver tell each other.

A protocol is a machine: a pure function `step(state, came)` that returns the next state and what it wants. It has no
clock, thread, socket, file or journal; the driver (`transfer.send`) does what it wants and tells it what came. A state
is a value: a test may keep it, and go on from it with every answer that a server can give.

The driver repeats nothing by itself. Where a machine asks again after `Failed`, the pacer waits, or refuses. Its
retries count from the beginning, and anew from each `Named` and `Renewed`. Between a failure and its repetition a
machine may find out what the server has: `Wait`, `Hear`, `Query` and `Find` are no requests of their own to the pacer,
and the next `Ask` repeats the one that has failed.

| wanted | what comes |
|---|---|
| `Read` | `Ready` |
| `Ask` | `Answered`; or `Failed`, and `GaveUp` where the machine asks again and the pacer does not allow that |
| `Wait` | `Waited` |
| `Hear` | `Heard` |
| `Query` | `Queried` |
| `Find` | `Found` |
| `NewKey` | `Named` |
| `Renew` | `Renewed` |
| `Certain` | what comes of its `after` |
| `End` | nothing: the job is over |

What ends the run comes as `GaveUp`, after any of these but `End`: the results that a machine ends with then count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from uploader_cli import errors
from uploader_cli.core.events import FileStatus, SessionProgress
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import NOT_YOURS
from uploader_cli.core.record import Record
from uploader_cli.transfer.results import FileResult

State = TypeVar("State")
Kinds: TypeAlias = Mapping[tuple[int, str], type[errors.AnswerError]]

SESSION_ERRORS: Kinds = {  # 500: see `refused` (docs/protocol.md, section 3.14)
    (403, NOT_YOURS): errors.SessionLost,
    (404, "SESSION_NOT_FOUND"): errors.SessionLost,
    (409, "SESSION_ENDED"): errors.SessionLost,
}


class Position(NamedTuple):
    """An upload as described by an answer, in bytes.

    `complete`: whether the server says that it is complete; None where the protocol has no words for that. `new`:
    whether it says of an upload that it was created by this request.
    """

    url: str
    offset: int | None
    headers: Mapping[str, str]
    length: int | None = None
    complete: bool | None = None
    new: bool = True


# --- the requests of resumable uploads: what their machines want, and their dialects say. Sizes are in bytes


class Create(Record, frozen=True):
    """Create an upload of `length` bytes (None: not known yet) with the first `size` of them, if it `has_body`.

    With tus it may be `partial`, or the concatenation of the URLs `parts`. `completes`: the file may be stored then.
    `again`: the `key` may have been sent before. The driver adds `metadata`, the `checksum` of the body as a header of
    tus, and of the file its `path` and its digest `sha256` (hex), where that is known already.
    """

    length: int | None
    size: int = 0
    key: str = ""
    has_body: bool = False
    completes: bool = False
    again: bool = False
    partial: bool = False
    parts: tuple[str, ...] = ()
    metadata: Mapping[str, str] = {}
    checksum: str | None = None
    path: str = ""
    sha256: str | None = None


class Append(Record, frozen=True):
    """Send `size` bytes at `offset`; with `length` the end of the upload is declared.

    `completes`: the file may be stored then. `reach` is the end of all requests before. The driver adds the `checksum`.
    """

    url: str
    offset: int
    size: int
    length: int | None = None
    completes: bool = False
    reach: int = 0
    checksum: str | None = None


class Locate(Record, frozen=True):
    """Ask for the offset of the server; after the answer to a `creation` that did not have it, for that."""

    url: str
    creation: Create | None = None


Call: TypeAlias = Create | Append | Locate


# --- what a machine wants


class Read(Record, frozen=True):
    """Read all files of the job into memory."""


class Packed(Record, frozen=True):
    """The body of a pack: its manifest, and the bytes of the files that were read."""

    manifest: bytes


class Form(Record, frozen=True):
    """The body of a batch: `fields`, then the files of the request; with `paths` the server knows them by their paths.

    The journal has before its last byte that the server may store the files. An answer before that byte is none. One
    form is sent at a time.
    """

    fields: tuple[tuple[str, str], ...]
    paths: bool


class Ask(Record, frozen=True):
    """Send one request for `files`.

    `session` is the one whose secret goes with it. `answers` are the statuses and codes (empty: any code) that are an
    answer; any other one is a refusal, whose error is that of its status and code in `kinds`. The answer comes within
    `timeout` seconds of the last byte (None: as usual).
    """

    method: str
    url: str
    session: str
    kinds: Kinds
    headers: Mapping[str, str] = {}
    body: Packed | Form | None = None
    answers: tuple[tuple[int, str], ...] = ((200, ""),)
    files: tuple[LocalFile, ...] = ()
    timeout: float | None = None


class Wait(Record, frozen=True):
    """Wait before a query: `seconds` at most, less where the server's limit of calls allows that."""

    seconds: float


class Hear(Record, frozen=True):
    """Tell what the server has said of files of a session, on any channel, by the names that it knows."""

    session: str
    names: tuple[str, ...]


class Query(Record, frozen=True):
    """Request the progress of a session."""

    session: str


class Find(Record, frozen=True):
    """Look for files at the paths where the server would have stored them, and compare their digests."""

    files: tuple[LocalFile, ...]


class NewKey(Record, frozen=True):
    """Journal a new key for the files of the job, because of `error`, if one made it necessary."""

    error: errors.UploaderError | None = None


class Renew(Record, frozen=True):
    """Replace the session `lost`, in which the job can't go on because of `error`."""

    lost: str
    error: errors.UploaderError


class How(StrEnum):
    """How files are sent that a job gives back."""

    HALVED = "halved"  # in two jobs of the same protocol: one request was too large
    SINGLY = "singly"  # one by one, by another protocol
    LATER = "later"  # again, beside others that are given back


class Again(Record, frozen=True):
    """Files that a job gives back because of `error`; `counts`: as one of their retries."""

    files: tuple[LocalFile, ...]
    how: How
    error: errors.UploaderError
    counts: bool = True


class End(Record, frozen=True):
    """End the job. `fetched`: the server had stored the files before it was asked, maybe in another session."""

    results: tuple[FileResult, ...] = ()
    again: tuple[Again, ...] = ()
    fetched: bool = False


Look: TypeAlias = Wait | Hear | Query | Find
Act: TypeAlias = Read | Ask | Look | NewKey | Renew | End


class Certain(Record, frozen=True):
    """Journal that it is certain whether the server has stored `files`; `after` is wanted."""

    files: tuple[LocalFile, ...]
    after: Act


Wanted: TypeAlias = Act | Certain


# --- what comes


class Begin(Record, frozen=True):
    """The job begins."""


class Ready(Record, frozen=True):
    """The files were read: the SHA-256 (hex) of each, None for one that can't be, which has ended."""

    digests: tuple[str | None, ...]


class Answered(Record, frozen=True):
    """The answer to an `Ask`: its status, and its JSON, or None."""

    status: int
    body: object = None


class Failed(Record, frozen=True):
    """A request failed; `sent`: the server may have the whole of it.

    `accepted`: an upload server has accepted the token in this run, for the creation of an upload.
    """

    error: errors.UploaderError
    sent: bool = False
    accepted: bool = False


class Waited(Record, frozen=True):
    """The wait is over."""


class Heard(Record, frozen=True):
    """The last status of each file; None for one of which nothing was said."""

    said: tuple[FileStatus | None, ...]


class Queried(Record, frozen=True):
    """The progress of a session; None without an answer about it. `limited`: the server takes no more calls."""

    progress: SessionProgress | None
    limited: bool = False


class Found(Record, frozen=True):
    """The result of each file that the server has; False for one that it does not have, None without an answer."""

    results: tuple[FileResult | Literal[False] | None, ...]


class GaveUp(Record, frozen=True):
    """The request that has failed because of `error` is not repeated: that can't help, or all retries are used up."""

    error: errors.UploaderError


class Named(Record, frozen=True):
    """The files have a new key, which the journal has."""

    key: str


class Renewed(Record, frozen=True):
    """The job goes on in another session; empty where `error` ends it instead."""

    session: str
    error: errors.UploaderError


Came: TypeAlias = Begin | Ready | Answered | Failed | Waited | Heard | Queried | Found | GaveUp | Named | Renewed
Step: TypeAlias = Callable[[State, Came], tuple[State, Wanted]]
