"""The public events: the lines of the event stream."""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from uploader_cli.core.codes import (
    ChannelReason,
    ChannelState,
    FailureCode,
    Phase,
    SkipReason,
    Transport,
    VerifiedBy,
    WarningCode,
)
from uploader_cli.core.events.event import (
    Bytes,
    Count,
    Event,
    Extended,
    FileNumber,
    Internal,
    Measured,
    Milliseconds,
    Ordinal,
    Percent,
    Rate,
    Seconds,
    public_among,
    with_features,
)
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.record import Record
from uploader_cli.feature import features


class RunStarted(Event, frozen=True, tag="run.started"):
    """The first event. `files` and `bytes` are None while the selection is being walked, `bytes` also if unknown.

    `dest` is that of `--dest`. `left_out` is the number of `files` that the walk itself skips, as links.
    `finishes_late`: the server finishes uploads after their last byte. `elsewhere`: other processes send the files.
    """

    server: str
    files: Count | None
    bytes: Bytes | None
    jobs: Count
    protocol: str
    resumed_from: str | None = None
    dest: str | None = None
    finishes_late: Internal[bool] = False
    left_out: Internal[int] = 0
    elsewhere: Internal[bool] = False


class SessionCreated(Event, frozen=True, tag="session.created"):
    """The server created a session for `files` files."""

    session: str
    category: str
    files: Count


class SessionFinished(Event, frozen=True, tag="session.finished"):
    """An upload session ended, according to its HTTP responses (docs/protocol.md section 3.4)."""

    session: str
    status: str


class FileStarted(Event, frozen=True, tag="file.started"):
    """An attempt at a file begins at `offset`. `size` is None if unknown."""

    file: FileNumber
    path: str
    size: Bytes | None
    session: str
    offset: Bytes
    attempt: Ordinal
    wire_name: Internal[str] = ""
    """Its name in messages of the server."""
    packed: Internal[bool] = False
    """The file is part of a pack of small files."""


class FileProgress(Event, frozen=True, tag="file.progress"):
    """`sent` bytes left this machine, `confirmed` are on the server; within an attempt neither falls.

    Lines of a file come at most four times a second. `rate` is in bytes/s.
    """

    file: FileNumber
    attempt: Ordinal
    sent: Bytes
    confirmed: Bytes
    size: Bytes | None
    rate: Rate
    phase: Phase
    server_percent: Percent | None = None


class FileRetry(Event, frozen=True, tag="file.retry"):
    """An attempt failed; the next one (`attempt`) starts after `delay` seconds."""

    texts = ("message",)
    file: FileNumber
    attempt: Ordinal
    delay: Seconds
    code: FailureCode
    message: str


@with_features
class FileCompleted(Extended, frozen=True, tag="file.completed"):
    """The server confirmed the file. `size` is None if unknown, as in `watch` of some servers."""

    file: FileNumber
    path: str
    size: Bytes | None
    server_id: str | None
    location: str | None
    verified: bool
    attempts: Ordinal
    seconds: Seconds
    checksum: str | None = None
    stored_as: str | None = None
    """The path below the category under which the server stored it, if it chose another name."""
    file_path: Internal[str | None] = None
    """The server's own path of the file (docs/protocol.md section 3)."""
    local: Internal[LocalFile | None] = None
    """The file as selected, for the receipts."""
    url: str | None = None
    """Where the file can be read."""
    verified_by: VerifiedBy | None = None
    """What showed that the stored bytes are those of the file; None also for SHA-1."""
    gone: Internal[bool] = False
    """The local file is no longer at its path."""
    link: Internal[str | None] = None
    """`url` where it is not the location, for the receipts."""


class FileFailed(Event, frozen=True, tag="file.failed"):
    """The file is not on the server, or that is unknown (`outcome_unknown`), or it is `stored` and a step failed."""

    texts = ("message",)
    file: FileNumber
    path: str
    code: FailureCode
    message: str
    retryable: bool
    local: Internal[LocalFile | None] = None
    relative_path: Internal[str] = ""
    stored: Internal[bool] = False
    forgotten: Internal[bool] = False
    """Whether the journal forgets the upload."""


@with_features
class FileSkipped(Extended, frozen=True, tag="file.skipped"):
    """The file was skipped, which is no failure."""

    file: FileNumber
    path: str
    reason: SkipReason
    local: Internal[LocalFile | None] = None
    relative_path: Internal[str] = ""
    location: str | None = None
    """The path or upload URL of a file that is on the server."""
    checksum: str | None = None
    url: str | None = None
    """Where the file can be read, if it is on the server."""
    gone: Internal[bool] = False
    """The local file is no longer at its path."""


class ChannelChanged(Event, frozen=True, tag="channel.changed", rename={"from_": "from"}):
    """The realtime channel changed its state; `attempt` counts retries from 1."""

    from_: ChannelState
    to: ChannelState
    transport: Transport | None
    reason: ChannelReason
    attempt: Ordinal | None = None
    latency_ms: Milliseconds | None = None


class ServerMessage(Event, frozen=True, tag="server.message"):
    """A text from the server for users."""

    texts = ("text",)
    text: str


class RunWarning(Event, frozen=True, tag="warning"):
    """A problem that is no failure."""

    texts = ("text",)
    code: WarningCode
    text: str


class RunPaused(Event, frozen=True, tag="run.paused"):
    """The user paused the run: what is being sent is completed, nothing else begins."""


class RunResumed(Event, frozen=True, tag="run.resumed"):
    """The user ended the pause."""


class ChannelStats(Record, frozen=True):
    """The statistics of the realtime channel, for `run.finished`."""

    connect_ms: Milliseconds | None = None
    events: Count = 0
    polls: Count = 0
    reconnects: Count = 0
    fallbacks: Count = 0


class Spread(Record, frozen=True):
    """Percentiles of a measurement, in its unit, with an error of at most 1 %."""

    p50: Measured
    p90: Measured
    p99: Measured
    max: Measured


class Metrics(Record, frozen=True):
    """The measurements of a run, for `run.finished`. None marks what was not measured.

    Times are in ms, `clock_offset` in seconds (the server's clock less ours), rates in bytes/s; `error_percent` is of
    requests, dials and files together.
    """

    calls: Count = 0
    failed_calls: Count = 0
    latency_ms: Spread | None = None
    dials: Count = 0
    failed_dials: Count = 0
    connect_ms: Spread | None = None
    failed_polls: Count = 0
    events_per_second: Rate = 0.0
    event_lag_ms: Spread | None = None
    clock_offset: float | None = None
    retries: Count = 0
    error_percent: Percent = 0.0
    rate: Spread | None = None


class RunFinished(Event, frozen=True, tag="run.finished"):
    """The last event. `bytes` are the confirmed ones, `rate` their bytes/s, `peak_rss` is in bytes."""

    ends: ClassVar[bool] = True
    ok: bool
    completed: Count
    failed: Count
    skipped: Count
    cancelled: Count
    bytes: Bytes
    seconds: Seconds
    rate: Rate
    exit_code: int
    channel: ChannelStats
    peak_rss: Bytes
    metrics: Metrics = field(default_factory=Metrics)


PUBLIC = public_among(globals().values())


def public_events() -> tuple[type[Event], ...]:
    """Return all events that are lines of the stream, also those of features."""
    found = [feature.load(feature.events) for feature in features() if feature.events]
    return (*PUBLIC, *(event for events in found for event in events))
