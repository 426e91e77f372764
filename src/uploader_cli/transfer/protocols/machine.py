"""What a protocol and the driver tell each other.

A protocol is a machine: a pure function `step(state, came)` that returns the next state and what it wants. It has no
clock, thread, socket, file or journal; the driver (`transfer.send`) does what it wants and tells it what came. A state
is a value: a test may keep it, and go on from it with every answer that a server can give.

The driver repeats nothing by itself: where a machine wants a `Retry`, the pacer waits, or refuses. Its retries count
from the beginning, and anew once the `progress` of the state has grown, and in another session.

| wanted | what comes |
|---|---|
| `Read` | `Ready` |
| `Create` | `Interim`, as often as the server tells the URL before its answer; `Told` |
| `Locate`, `Append` | `Told` |
| `Ask` | `BodyOut`, for a form; `Answered` |
| `Wait` | `Waited` |
| `Hear` | `Heard` |
| `Query` | `Queried` |
| `Find` | `Found` |
| `ReadLast` | `ReadBack` |
| `Recall` | `Recalled` |
| `NewKey` | `Named` |
| `Renew` | `Renewed` |
| `Retry` | `Waited`; or `GaveUp`, after which the server may be asked once more |
| `End`, `Done` | nothing: it is over |

`Failed` comes in place of any of these but `Retry`. What stops the run comes as `GaveUp`: the results that a machine
ends with then count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from uploader_cli import errors
from uploader_cli.core.confirmation import UploadState
from uploader_cli.core.events import FileStatus, SessionProgress
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.protocol import NOT_YOURS
from uploader_cli.core.record import Record
from uploader_cli.transfer.results import FileResult


class Machine(Protocol):
    """The state of a machine."""

    @property
    def progress(self) -> int:
        """A number that grows when retries count anew."""


State = TypeVar("State", bound=Machine)
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
    """Make the chunk at `offset` ready, and take the leave for the request that follows, which may be a creation."""

    offset: int
    creates: bool


class Packed(Record, frozen=True):
    """The body of a pack: its manifest, and the bytes of the files that were read."""

    manifest: bytes


class Form(Record, frozen=True):
    """The body of a batch: `fields`, then the files of the request; with `paths` the server knows them by their paths.

    An answer before its last byte is none. One form is sent at a time.
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


class ReadLast(Record, frozen=True):
    """Read the last byte of the file at a position with its full offset.

    `refused`: the creation of the empty file succeeded, and the server refused the PATCH after it.
    """

    position: Position
    refused: bool = False


class Recall(Record, frozen=True):
    """Look for a receipt of the file, all of which the server had before the upload was created."""

    position: Position
    accepted: bool


class NewKey(Record, frozen=True):
    """Journal a new key for what is sent, because of `error`, if one made it necessary.

    `failed` is the URL of an upload with the key before, which the server failed to store.
    """

    error: errors.UploaderError | None = None
    failed: str | None = None


class Renew(Record, frozen=True):
    """Replace the session `lost`, in which the job can't go on because of `error`."""

    lost: str
    error: errors.UploaderError


class Retry(Record, frozen=True):
    """Wait until what has failed may be repeated."""

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


class Done(Record, frozen=True):
    """End an upload at a `position`, or because of an `error`."""

    position: Position = Position("", None, {})
    error: errors.UploaderError | None = None


Look: TypeAlias = Wait | Hear | Query | Find
Wanted: TypeAlias = Read | Call | Ask | Look | ReadLast | Recall | NewKey | Renew | Retry | End | Done


# --- what comes


class Begin(Record, frozen=True):
    """The work begins."""


class Ready(Record, frozen=True):
    """The chunk has `length` bytes, the upload `size` (`ENDLESS`: the end of a stream is not found).

    `at_creation` of its bytes are sent with the creation where all of them fit in one request, else None.
    """

    length: int
    size: int
    at_creation: int | None = None


class Interim(Record, frozen=True):
    """The URL of an upload whose creation is not answered yet."""

    url: str


class BodyOut(Record, frozen=True):
    """The last bytes of a request are about to leave: from now on the server may have all of it."""


class Told(Record, frozen=True):
    """The answer to a call: where the upload is, and of a new one the ID of its file.

    Before it `sent` bytes of the body went, with `through` all.
    """

    position: Position
    sent: int = 0
    through: bool = True
    server_id: str | None = None


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


class ReadBack(Record, frozen=True):
    """What a reading of the last byte says."""

    found: UploadState


class Recalled(Record, frozen=True):
    """Whether there is a receipt of the file, which counts."""

    stored: bool


class Waited(Record, frozen=True):
    """The wait is over; what has failed may be repeated."""


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
    """What has failed because of `error` is not repeated: it can't help, or all retries are used, or it was stopped."""

    error: errors.UploaderError


class Named(Record, frozen=True):
    """There is a new key, which the journal has."""

    key: str


class Renewed(Record, frozen=True):
    """The job goes on in another session; empty where `error` ends it instead."""

    session: str
    error: errors.UploaderError


Came: TypeAlias = (
    Begin
    | Ready
    | Interim
    | BodyOut
    | Told
    | Answered
    | Failed
    | Waited
    | Heard
    | Queried
    | Found
    | ReadBack
    | Recalled
    | GaveUp
    | Named
    | Renewed
)
Step: TypeAlias = Callable[[State, Came], tuple[State, Wanted]]
