"""The events that are no lines of the stream: facts for the state, for reports and for the log."""

from __future__ import annotations

from typing import Any

from msgspec import field

from uploader_cli.core.bottleneck import Bottleneck
from uploader_cli.core.codes import (
    FailureCode,
    PauseReason,
    Phase,
    SkipReason,
    Transport,
    VerifiedBy,
    WarningCode,
)
from uploader_cli.core.events.event import Event, Internal, with_features
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.record import Record


class CallMade(Event, frozen=True):
    """An HTTP request or the dial of a websocket ended. Observers get it; it is not part of the event stream.

    `url` excludes the query. `request_id` was sent as `X-Request-ID`, None for a host that is not the server's;
    `status` is None without a response, and `error` says why. `carries`: the request carried bytes of files, which
    `seconds` include.
    """

    method: str
    url: str
    request_id: str | None
    status: int | None
    seconds: float
    error: str | None
    carries: Internal[bool] = False

    @property
    def well(self) -> bool:
        """False without a response, and for 429 and 5xx."""
        return self.status is not None and self.status != 429 and self.status < 500


class FileSelected(Event, frozen=True):
    """The walk found a file that will be sent, or failed with a reason. `size` is None if unknown."""

    file: int
    path: str
    size: int | None


class ContentChecked(Event, frozen=True):
    """The content of a large listed file is being checked; an empty path ends the check."""

    path: str


class CaughtUp(Event, frozen=True):
    """An unending run has found all files that are there; `incomplete` others are still written."""

    incomplete: int


class SelectionEnded(Event, frozen=True):
    """The walk has ended: totals are final. `of_all`: what a report's head says of all that was found, of a part."""

    of_all: dict[str, Any] = field(default_factory=dict)


class BytesSent(Event, frozen=True):
    """The kernel accepted `sent` bytes of the file in this attempt, counted from the file's start.

    `through`: these are all, and the server processes the file.
    """

    file: int
    attempt: int
    sent: int
    through: bool = False


class PackSent(Event, frozen=True):
    """The kernel accepted `sent` of the bytes of these files, one after the other, in the pack that carries them."""

    files: tuple[int, ...]
    sent: int


class BytesConfirmed(Event, frozen=True):
    """The server has the first `confirmed` bytes of the file (a tus offset)."""

    file: int
    attempt: int
    confirmed: int


class BodySent(Event, frozen=True):
    """The request with these files is completely sent: the server processes it."""

    files: tuple[int, ...]


class FilesCancelled(Event, frozen=True):
    """An interrupt stopped these files; `local` are the files as selected."""

    files: tuple[int, ...]
    local: Internal[tuple[LocalFile, ...]] = ()


@with_features
class FileEnded(Event, frozen=True):
    """The end of a file, for reports and receipts: observers get it, it is not part of the event stream.

    `outcome` is a terminal phase. `size` is None if unknown, `bytes` is the confirmed part, `attempts` is 0 for a file
    never tried; `seconds` are from the first attempt to the end. `code`, `message` and `retryable` are set for a
    failure, `reason` for a skip; `stored_as` if the server chose another name, `url` for a file on the server.
    `relative_path` is the file's name on the server, None if it was not selected to be sent. `category`, `sha256`,
    `upload_metadata` and `upload_url` (a secret) are from a list, `destination` distinguishes a file that is sent to
    several places.
    """

    file: int
    path: str
    size: int | None
    outcome: Phase
    session: str | None = None
    attempts: int = 0
    bytes: int = 0
    seconds: float = 0.0
    server_id: str | None = None
    location: str | None = None
    checksum: str | None = None
    verified: bool = False
    code: FailureCode | None = None
    message: str | None = None
    retryable: bool | None = None
    reason: SkipReason | None = None
    relative_path: str | None = None
    category: str | None = None
    sha256: str | None = None
    destination: str | None = None
    stored_as: str | None = None
    url: str | None = None
    upload_metadata: dict[str, str] | None = None
    upload_url: str | None = None
    verified_by: VerifiedBy | None = None

    def __repr__(self) -> str:
        return f"FileEnded({self.file}, {self.path!r}, {self.outcome!r})"


class FileStatus(Record, frozen=True):
    """The server's status of one file: `percent` is 0–100, `bytes` have arrived of `size`; `name` as it was sent."""

    name: str
    status: str
    percent: float | None = None
    server_id: str | None = None
    error: str | None = None
    bytes: int | None = None
    size: int | None = None


class SessionProgress(Event, frozen=True):
    """A message of the server about a session, from the socket or from a poll.

    `timestamp` is the server's clock in unix seconds, `received` ours for a pushed message; `percent` is 0–100, `bytes`
    have arrived of `size`. None marks a missing field.
    """

    texts = ("message",)
    session: str
    source: Transport
    timestamp: float | None
    status: str | None
    percent: float | None = None
    completed: int | None = None
    failed: int | None = None
    total: int | None = None
    files: tuple[FileStatus, ...] = ()
    message: str = ""
    received: Internal[float | None] = None
    bytes: int | None = None
    size: int | None = None


class SessionLeft(Event, frozen=True):
    """No more messages of a finished session are expected (docs/protocol.md section 3.8)."""

    session: str


class SessionWatched(Event, frozen=True):
    """A session of another uploader is followed; its messages tell its files."""

    session: str


class PollFailed(Event, frozen=True):
    """A poll failed: the known progress becomes stale. `error` is the exception, if there was one."""

    texts = ("reason",)
    session: str
    reason: str
    error: Internal[Exception | None] = None


class SessionMissing(Event, frozen=True):
    """A poll was answered: the server does not know the session, yet or any longer."""

    session: str


class ServerClock(Event, frozen=True):
    """A response had the server's time: its clock is `offset` ± `uncertainty` seconds ahead of ours."""

    offset: float
    uncertainty: float


class Ticked(Event, frozen=True):
    """A frame ended."""


class AlarmOver(Event, frozen=True):
    """The condition of an alarm ended."""

    code: WarningCode


class Paused(Event, frozen=True):
    """All requests wait `seconds` from now; 0 ends the pause. `waited` is how long it has lasted already."""

    seconds: float
    reason: PauseReason
    waited: float = 0.0


class CallRepeats(Event, frozen=True):
    """A call that belongs to no file has failed, and is repeated in `seconds`."""

    seconds: float
    reason: str


class EngineStopped(Event, frozen=True):
    """The transfer ended; `error` ended it early, `bottleneck` limited its speed."""

    error: BaseException | None = None
    bottleneck: Bottleneck | None = None
