"""The events of a run, as frozen values.

Workers put them into one queue; `reducer.reduce` applies them and returns those that changed the state. `PUBLIC` events
are the event stream of `--json`; the others are for the state only. The enums of their fields (`ev.Phase`,
`ev.FailureCode` …) are in `codes`.

Byte counts are totals since the start of an attempt, never deltas; times are in seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

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
from uploader_cli.core.codes import WarningCode as WarningCode
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.stages import Kind

INTERNAL = {"internal": True}
"""Field metadata: used by the state, not part of the event stream."""


class Event:
    """The base class. `type` is that of a public event in the stream."""

    __slots__ = ()
    type: ClassVar[str] = ""

    def __init_subclass__(cls, public: str = "") -> None:
        """Set the type, also of the second class that `dataclass` makes for the slots."""
        cls.type = public or cls.type


# --- public: the lines of the event stream ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStarted(Event, public="run.started"):
    """The first event. `files` and `bytes` are None while the selection is being walked, `bytes` also if unknown.

    `dest` is that of `--dest`.
    """

    server: str
    files: int | None
    bytes: int | None
    jobs: int
    protocol: str
    resumed_from: str | None = None
    dest: str | None = None


@dataclass(frozen=True, slots=True)
class SessionCreated(Event, public="session.created"):
    """The server created a session for `files` files."""

    session: str
    category: str
    files: int


@dataclass(frozen=True, slots=True)
class SessionFinished(Event, public="session.finished"):
    """An upload session ended, according to its HTTP responses (docs/protocol.md section 3.4)."""

    session: str
    status: str


@dataclass(frozen=True, slots=True)
class FileStarted(Event, public="file.started"):
    """An attempt at a file begins. `size` is None if unknown; `wire_name` is its name in messages of the server."""

    file: int
    path: str
    size: int | None
    session: str
    offset: int
    attempt: int
    wire_name: str = field(default="", metadata=INTERNAL)
    packed: bool = field(default=False, metadata=INTERNAL)
    """The file is part of a pack of small files."""


@dataclass(frozen=True, slots=True)
class FileProgress(Event, public="file.progress"):
    """The progress of a file: `sent` bytes left this machine, `confirmed` are on the server; rate in bytes/s."""

    file: int
    attempt: int
    sent: int
    confirmed: int
    size: int | None
    rate: float
    phase: Phase
    server_percent: float | None = None


@dataclass(frozen=True, slots=True)
class FileRetry(Event, public="file.retry"):
    """An attempt failed; the next one (`attempt`) starts after `delay` seconds."""

    file: int
    attempt: int
    delay: float
    code: FailureCode
    message: str


@dataclass(frozen=True, slots=True)
class FileCompleted(Event, public="file.completed"):
    """The server confirmed the file. `size` is None if unknown, as in `watch`."""

    file: int
    path: str
    size: int | None
    server_id: str | None
    location: str | None
    verified: bool
    attempts: int
    seconds: float
    checksum: str | None = None
    stored_as: str | None = None
    """The path below the category under which the server stored it, if it chose another name."""
    file_path: str | None = field(default=None, metadata=INTERNAL)
    """The server's own path of the file, needed for an analysis (docs/protocol.md section 4)."""
    local: LocalFile | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)
    """The file as selected, for the receipts."""
    url: str | None = None
    """Where the file can be read."""


@dataclass(frozen=True, slots=True)
class FileFailed(Event, public="file.failed"):
    """The file is not on the server, or that is unknown (`outcome_unknown`)."""

    file: int
    path: str
    code: FailureCode
    message: str
    retryable: bool
    local: LocalFile | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)
    relative_path: str = field(default="", compare=False, repr=False, metadata=INTERNAL)


@dataclass(frozen=True, slots=True)
class FileSkipped(Event, public="file.skipped"):
    """The file was skipped, which is no failure."""

    file: int
    path: str
    reason: SkipReason
    local: LocalFile | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)
    relative_path: str = field(default="", compare=False, repr=False, metadata=INTERNAL)
    place: str | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)
    """The path or upload URL of a file that is on the server."""
    checksum: str | None = None
    url: str | None = None
    """Where the file can be read, if it is on the server."""


@dataclass(frozen=True, slots=True)
class ChannelChanged(Event, public="channel.changed"):
    """The realtime channel changed its state; `attempt` counts retries from 1."""

    from_: ChannelState
    to: ChannelState
    transport: Transport | None
    reason: ChannelReason
    attempt: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ServerMessage(Event, public="server.message"):
    """A text from the server for users."""

    text: str


@dataclass(frozen=True, slots=True)
class Stage(Event, public="stage"):
    """The progress of the analysis: a stage, and the percentage (0–100) of the whole analysis."""

    name: str
    percent: float


@dataclass(frozen=True, slots=True)
class RunWarning(Event, public="warning"):
    """A problem that is no failure."""

    code: WarningCode
    text: str


@dataclass(frozen=True, slots=True)
class RunPaused(Event, public="run.paused"):
    """The user paused the run: what is being sent is completed, nothing else begins."""


@dataclass(frozen=True, slots=True)
class RunResumed(Event, public="run.resumed"):
    """The user ended the pause."""


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """The statistics of the realtime channel, for `run.finished`."""

    connect_ms: float | None = None
    events: int = 0
    polls: int = 0
    reconnects: int = 0
    fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a measurement, in its unit."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """The measurements of a run, for `run.finished`. None marks what was not measured.

    Times are in ms, `clock_offset` in seconds (the server's clock less ours), rates in bytes/s; `error_percent` is of
    requests, dials and files together.
    """

    calls: int = 0
    failed_calls: int = 0
    latency_ms: Spread | None = None
    dials: int = 0
    failed_dials: int = 0
    connect_ms: Spread | None = None
    failed_polls: int = 0
    events_per_second: float = 0.0
    event_lag_ms: Spread | None = None
    clock_offset: float | None = None
    retries: int = 0
    error_percent: float = 0.0
    rate: Spread | None = None


@dataclass(frozen=True, slots=True)
class RunFinished(Event, public="run.finished"):
    """The last event. `bytes` are the confirmed ones, `rate` their bytes/s, `peak_rss` is in bytes."""

    ok: bool
    completed: int
    failed: int
    skipped: int
    cancelled: int
    bytes: int
    seconds: float
    rate: float
    exit_code: int
    channel: ChannelStats
    peak_rss: int
    metrics: Metrics = field(default_factory=Metrics)


# --- public as well: the lines of a dry run --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlanStarted(Event, public="plan.started"):
    """The first line. `max_files` of a session (None: no limit), `max_file_size` in bytes (None: no limit), `types`."""

    server: str
    protocol: str
    jobs: int
    limits: LimitsOrigin
    max_files: int | None
    max_file_size: int | None
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanSession(Event, public="plan.session"):
    """A planned session (`session_number` from 1) with the number of its requests; its files follow.

    `category` is None at a tus endpoint, which has no sessions: there it is a group of as many files. `first` are the
    names of the first ones on the server.
    """

    session_number: int
    category: str | None
    files: int
    bytes: int
    calls: int
    kinds: tuple[str, ...] = field(default=(), metadata=INTERNAL)
    first: tuple[str, ...] = field(default=(), metadata=INTERNAL)


@dataclass(frozen=True, slots=True)
class PlanFile(Event, public="plan.file"):
    """A file that would be sent, with its name on the server."""

    file: int
    path: str
    size: int
    name: str
    session_number: int


@dataclass(frozen=True, slots=True)
class PlanFinished(Event, public="plan.finished"):
    """The last line. `exit_code` is that of a run in which everything succeeds; `calls` excludes polls."""

    files: int
    bytes: int
    sessions: int
    calls: int
    skipped: int
    failed: int
    exit_code: int


@dataclass(frozen=True, slots=True)
class CheckFile(Event, public="check.file"):
    """A local file was compared with the server's. `name` is its path below the category.

    `stored_size` and `location` are those of the stored file, None if it is missing.
    """

    file: int
    path: str
    size: int
    name: str
    result: CheckResult
    stored_size: int | None
    location: str | None


@dataclass(frozen=True, slots=True)
class CheckFinished(Event, public="check.finished"):
    """The last line of a check: the number of files by result, and the bytes of the compared files."""

    same: int
    different: int
    missing: int
    failed: int
    skipped: int
    bytes: int
    seconds: float
    exit_code: int


# --- for the log only ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallMade(Event):
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
    error: str | None = None
    carries: bool = field(default=False, metadata=INTERNAL)

    @property
    def well(self) -> bool:
        """False without a response, and for 429 and 5xx."""
        return self.status is not None and self.status != 429 and self.status < 500


# --- internal: facts for the state -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileSelected(Event):
    """The walk found a file that will be sent, or failed with a reason. `size` is None if unknown."""

    file: int
    path: str
    size: int | None


@dataclass(frozen=True, slots=True)
class ContentChecked(Event):
    """The content of a large listed file is being checked; an empty path ends the check."""

    path: str


@dataclass(frozen=True, slots=True)
class SelectionEnded(Event):
    """The walk has ended: totals are final."""


@dataclass(frozen=True, slots=True)
class BytesSent(Event):
    """The kernel accepted `sent` bytes of the file in this attempt, counted from the file's start."""

    file: int
    attempt: int
    sent: int


@dataclass(frozen=True, slots=True)
class BytesConfirmed(Event):
    """The server has the first `confirmed` bytes of the file (a tus offset)."""

    file: int
    attempt: int
    confirmed: int


@dataclass(frozen=True, slots=True)
class BodySent(Event):
    """The request with these files is completely sent: the server processes it."""

    files: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FilesCancelled(Event):
    """An interrupt stopped these files; `local` are the files as selected."""

    files: tuple[int, ...]
    local: tuple[LocalFile, ...] = field(default=(), compare=False, repr=False)


@dataclass(slots=True)  # each file has one, and a frozen one takes four times as long to create
class FileEnded(Event):
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
    upload_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class FileStatus:
    """The server's status of one file. `percent` is 0–100; `name` as it was sent."""

    name: str
    status: str
    percent: float | None = None
    server_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SessionProgress(Event):
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
    received: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SessionLeft(Event):
    """No more messages of a finished session are expected (docs/protocol.md section 3.8)."""

    session: str


@dataclass(frozen=True, slots=True)
class SessionWatched(Event):
    """A session of another uploader is followed; its messages tell its files."""

    session: str


@dataclass(frozen=True, slots=True)
class PollFailed(Event):
    """A poll failed: the known progress becomes stale. `error` is the exception, if there was one."""

    session: str
    reason: str
    error: Exception | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SessionMissing(Event):
    """A poll was answered: the server does not know the session, yet or any longer."""

    session: str


@dataclass(frozen=True, slots=True)
class ServerClock(Event):
    """A response had the server's time: its clock is `offset` ± `uncertainty` seconds ahead of ours."""

    offset: float
    uncertainty: float


@dataclass(frozen=True, slots=True)
class Ticked(Event):
    """A frame ended."""


@dataclass(frozen=True, slots=True)
class AlarmOver(Event):
    """The condition of an alarm ended."""

    code: WarningCode


@dataclass(frozen=True, slots=True)
class WorkersChanged(Event):
    """An import runs in `workers` processes now."""

    workers: int


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """All requests wait `seconds` from now; 0 ends the pause. `waited` is how long it has lasted already."""

    seconds: float
    reason: PauseReason
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class AnalysisStarted(Event):
    """An analysis was requested: `name` are its files, `number` of `of` counts from 1."""

    kind: Kind
    name: str
    number: int = 1
    of: int = 1


@dataclass(frozen=True, slots=True)
class AnalysisMessage(Event):
    """The progress of the running analysis; `percent` is 0–100, None if unknown.

    `failed`: the server gave up; its HTTP response follows. `assumed`: an estimate by time, without a message.
    """

    percent: float | None = None
    message: str = ""
    failed: bool = False
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class AnalysisEnded(Event):
    """The running analysis ended: with a summary of its result, or with an error."""

    summary: str = ""
    error: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class AnalysisSaved(Event):
    """The results were saved in this file."""

    path: str


@dataclass(frozen=True, slots=True)
class EngineStopped(Event):
    """The transfer ended; `error` ended it early, `bottleneck` limited its speed."""

    error: BaseException | None = None
    bottleneck: Bottleneck | None = None


PUBLIC = tuple(
    kind for kind in list(globals().values()) if isinstance(kind, type) and issubclass(kind, Event) and kind.type
)
"""The events of the event stream: those with a type."""


def as_fields(event: Event) -> dict[str, Any]:
    """Return the fields of a public event or a `CallMade` by their names in the stream.

    Optional fields that are None are omitted.
    """
    out: dict[str, Any] = {}
    for name, key, optional in _COLUMNS[type(event)]:
        value = getattr(event, name)
        if value is not None or not optional:
            out[key] = asdict(value) if name in _NESTED else value
    return out


_OPTIONAL = frozenset(
    {"resumed_from", "dest", "server_percent", "checksum", "stored_as", "url", "attempt", "latency_ms"}
)
_NESTED = frozenset({"channel", "metrics"})
_COLUMNS = {
    kind: [(spec.name, spec.name.rstrip("_"), spec.name in _OPTIONAL) for spec in fields(kind) if not spec.metadata]
    for kind in (*PUBLIC, CallMade)
}
"""The public fields of each event: name here, name in the stream, and whether None is omitted."""
