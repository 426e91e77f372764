"""The events of a run, as frozen values.

Workers put them into one queue; `reducer.reduce` applies them and returns those that changed the state. `PUBLIC` events
are the event stream of `--json`; the others are for the state only. The enums of their fields (`ev.Phase`,
`ev.FailureCode` …) are in `codes`.

Byte counts are totals since the start of an attempt, never deltas; times are in seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self, TypeVar

from msgspec import Meta, field, to_builtins
from msgspec.structs import astuple, replace

from uploader_cli.analysis.stages import Kind
from uploader_cli.core.bottleneck import Bottleneck
from uploader_cli.core.codes import ChannelReason as ChannelReason
from uploader_cli.core.codes import ChannelState as ChannelState
from uploader_cli.core.codes import CheckResult as CheckResult
from uploader_cli.core.codes import FailureCode as FailureCode
from uploader_cli.core.codes import LimitsOrigin as LimitsOrigin
from uploader_cli.core.codes import PauseReason as PauseReason
from uploader_cli.core.codes import Phase as Phase
from uploader_cli.core.codes import SkipReason as SkipReason
from uploader_cli.core.codes import Transport as Transport
from uploader_cli.core.codes import VerifiedBy as VerifiedBy
from uploader_cli.core.codes import WarningCode as WarningCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.record import Record

T = TypeVar("T")
Internal = Annotated[T, "internal"]
"""A field for the state, with a default: it is neither compared nor in the event stream."""
FileNumber = Annotated[int, Meta(ge=0, description="Number of the file, stable in the run")]
Count = Annotated[int, Meta(ge=0)]
Ordinal = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Milliseconds = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0, description="Per second")]
Percent = Annotated[float, Meta(ge=0, le=100)]
Measured = Annotated[float, Meta(ge=0)]


class Event(Record, frozen=True, omit_defaults=True):
    """The base class. A public event is tagged with its type in the stream, which omits fields with their default."""

    type: ClassVar[str] = ""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and astuple(self.public) == astuple(other.public)

    def __hash__(self) -> int:
        return hash(astuple(self.public))

    @property
    def public(self) -> Self:
        """The event as it is encoded for the stream: internal fields have their defaults."""
        internal = _INTERNAL.get(type(self))
        return replace(self, **internal) if internal else self


# --- public: the lines of the event stream ---------------------------------------------------------------------------


class RunStarted(Event, frozen=True, tag="run.started"):
    """The first event. `files` and `bytes` are None while the selection is being walked, `bytes` also if unknown.

    `dest` is that of `--dest`.
    """

    server: str
    files: Count | None
    bytes: Bytes | None
    jobs: Count
    protocol: str
    resumed_from: str | None = None
    dest: str | None = None


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

    file: FileNumber
    attempt: Ordinal
    delay: Seconds
    code: FailureCode
    message: str


class FileCompleted(Event, frozen=True, tag="file.completed"):
    """The server confirmed the file. `size` is None if unknown, as in `watch`."""

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
    """The server's own path of the file, needed for an analysis (docs/protocol.md section 4)."""
    local: Internal[LocalFile | None] = None
    """The file as selected, for the receipts."""
    url: str | None = None
    """Where the file can be read."""
    verified_by: VerifiedBy | None = None
    """What showed that the stored bytes are those of the file; None also for SHA-1."""


class FileFailed(Event, frozen=True, tag="file.failed"):
    """The file is not on the server, or that is unknown (`outcome_unknown`)."""

    file: FileNumber
    path: str
    code: FailureCode
    message: str
    retryable: bool
    local: Internal[LocalFile | None] = None
    relative_path: Internal[str] = ""


class FileSkipped(Event, frozen=True, tag="file.skipped"):
    """The file was skipped, which is no failure."""

    file: FileNumber
    path: str
    reason: SkipReason
    local: Internal[LocalFile | None] = None
    relative_path: Internal[str] = ""
    place: Internal[str | None] = None
    """The path or upload URL of a file that is on the server."""
    checksum: str | None = None
    url: str | None = None
    """Where the file can be read, if it is on the server."""


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

    text: str


class Stage(Event, frozen=True, tag="stage"):
    """The progress of the analysis: a stage, and the percentage (0–100) of the whole analysis."""

    name: str
    percent: Percent


class RunWarning(Event, frozen=True, tag="warning"):
    """A problem that is no failure."""

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


# --- public as well: the lines of a dry run --------------------------------------------------------------------------


class PlanStarted(Event, frozen=True, tag="plan.started"):
    """The first line. `max_files` of a session (None: no limit), `max_file_size` in bytes (None: no limit), `types`."""

    server: str
    protocol: str
    jobs: Count
    limits: LimitsOrigin
    max_files: Count | None
    max_file_size: Bytes | None
    types: tuple[str, ...]


class PlanSession(Event, frozen=True, tag="plan.session"):
    """A planned session (`session_number` from 1) with the number of its requests; its files follow.

    `category` is None at a tus endpoint, which has no sessions: there it is a group of as many files. `first` are the
    names of the first ones on the server.
    """

    session_number: Ordinal
    category: str | None
    files: Count
    bytes: Bytes
    calls: Count
    kinds: Internal[tuple[str, ...]] = ()
    first: Internal[tuple[str, ...]] = ()


class PlanFile(Event, frozen=True, tag="plan.file"):
    """A file that would be sent, with its name on the server."""

    file: FileNumber
    path: str
    size: Bytes
    name: str
    session_number: Ordinal


class PlanFinished(Event, frozen=True, tag="plan.finished"):
    """The last line. `exit_code` is that of a run in which everything succeeds; `calls` excludes polls."""

    files: Count
    bytes: Bytes
    sessions: Count
    calls: Count
    skipped: Count
    failed: Count
    exit_code: int


class CheckFile(Event, frozen=True, tag="check.file"):
    """A local file was compared with the server's. `name` is its path below the category.

    `stored_size` and `location` are those of the stored file, None if it is missing.
    """

    file: FileNumber
    path: str
    size: Bytes
    name: str
    result: CheckResult
    stored_size: Bytes | None
    location: str | None


class CheckFinished(Event, frozen=True, tag="check.finished"):
    """The last line of a check: the number of files by result, and the bytes of the compared files."""

    same: Count
    different: Count
    missing: Count
    failed: Count
    skipped: Count
    bytes: Bytes
    seconds: Seconds
    exit_code: int


# --- for the log only ------------------------------------------------------------------------------------------------


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


# --- internal: facts for the state -----------------------------------------------------------------------------------


class FileSelected(Event, frozen=True):
    """The walk found a file that will be sent, or failed with a reason. `size` is None if unknown."""

    file: int
    path: str
    size: int | None


class ContentChecked(Event, frozen=True):
    """The content of a large listed file is being checked; an empty path ends the check."""

    path: str


class SelectionEnded(Event, frozen=True):
    """The walk has ended: totals are final."""


class BytesSent(Event, frozen=True):
    """The kernel accepted `sent` bytes of the file in this attempt, counted from the file's start."""

    file: int
    attempt: int
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
    """The server's status of one file. `percent` is 0–100; `name` as it was sent."""

    name: str
    status: str
    percent: float | None = None
    server_id: str | None = None
    error: str | None = None


class SessionProgress(Event, frozen=True):
    """A message of the server about a session, from the socket or from a poll.

    `timestamp` is the server's clock in unix seconds, `received` ours for a pushed message; `percent` is 0–100. None
    marks a missing field.
    """

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


class SessionLeft(Event, frozen=True):
    """No more messages of a finished session are expected (docs/protocol.md section 3.8)."""

    session: str


class SessionWatched(Event, frozen=True):
    """A session of another uploader is followed; its messages tell its files."""

    session: str


class PollFailed(Event, frozen=True):
    """A poll failed: the known progress becomes stale. `error` is the exception, if there was one."""

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


class WorkersChanged(Event, frozen=True):
    """An import runs in `workers` processes now."""

    workers: int


class Paused(Event, frozen=True):
    """All requests wait `seconds` from now; 0 ends the pause. `waited` is how long it has lasted already."""

    seconds: float
    reason: PauseReason
    waited: float = 0.0


class AnalysisStarted(Event, frozen=True):
    """An analysis was requested: `name` are its files, `number` of `of` counts from 1."""

    kind: Kind
    name: str
    number: int = 1
    of: int = 1


class AnalysisMessage(Event, frozen=True):
    """The progress of the running analysis; `percent` is 0–100, None if unknown.

    `failed`: the server gave up; its HTTP response follows. `assumed`: an estimate by time, without a message.
    """

    percent: float | None = None
    message: str = ""
    failed: bool = False
    assumed: bool = False


class AnalysisEnded(Event, frozen=True):
    """The running analysis ended: with a summary of its result, or with an error."""

    summary: str = ""
    error: str = ""
    retryable: bool = False


class AnalysisSaved(Event, frozen=True):
    """The results were saved in this file."""

    path: str


class EngineStopped(Event, frozen=True):
    """The transfer ended; `error` ended it early, `bottleneck` limited its speed."""

    error: BaseException | None = None
    bottleneck: Bottleneck | None = None


PUBLIC = tuple(kind for kind in Event.__subclasses__() if kind.__struct_config__.tag)
"""The events of the event stream."""
for _kind in PUBLIC:
    _kind.type = str(_kind.__struct_config__.tag)


def internal_fields(kind: type[Event]) -> dict[str, Any]:
    """Return the internal fields of an event with their defaults."""
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    last = zip(names[len(names) - len(defaults) :], defaults, strict=True)
    return {name: default for name, default in last if kind.__annotations__[name].startswith("Internal[")}


_INTERNAL = {kind: internal_fields(kind) for kind in Event.__subclasses__()}


def as_fields(event: Event) -> dict[str, Any]:
    """Return the fields of a public event or a `CallMade` by their names in the stream, as JSON values.

    Optional fields that are None are omitted.
    """
    fields: dict[str, Any] = to_builtins(event.public)
    fields.pop("type", None)
    return fields
