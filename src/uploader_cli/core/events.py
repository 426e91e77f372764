"""Everything that can happen in a run, as frozen values.

Workers put these into one queue; `reducer.reduce` takes them one by one and answers with those that changed anything.
The public ones (`PUBLIC`) are the event stream of `--json`; the others are facts only the state needs.

The closed vocabularies in their fields (`ev.Phase`, `ev.FailureCode` …) are in `codes`.

Byte counts are absolute totals since the start of an attempt, never deltas; times are seconds.
"""

# ruff: noqa: TC001 - the codes are part of this vocabulary: `ev.Phase`
from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from uploader_cli.core.bottleneck import Bottleneck
from uploader_cli.core.codes import ChannelReason as ChannelReason
from uploader_cli.core.codes import ChannelState as ChannelState
from uploader_cli.core.codes import FailureCode as FailureCode
from uploader_cli.core.codes import LimitsOrigin as LimitsOrigin
from uploader_cli.core.codes import PauseReason as PauseReason
from uploader_cli.core.codes import Phase as Phase
from uploader_cli.core.codes import SkipReason as SkipReason
from uploader_cli.core.codes import Transport as Transport
from uploader_cli.core.codes import WarningCode as WarningCode
from uploader_cli.core.metrics import Metrics

if TYPE_CHECKING:
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.core.stages import Kind

INTERNAL = {"internal": True}
"""Field metadata: needed by the state, not shown in the event stream."""


@dataclass(frozen=True, slots=True)
class Event:
    """The common root."""

    type: ClassVar[str] = ""


# --- public: the lines of the event stream ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """The first event. `files` and `bytes` are None while the selection is still being walked."""

    type: ClassVar[str] = "run.started"
    server: str
    files: int | None
    bytes: int | None
    jobs: int
    protocol: str
    resumed_from: str | None = None


@dataclass(frozen=True, slots=True)
class SessionCreated(Event):
    """The server opened a session for `files` files."""

    type: ClassVar[str] = "session.created"
    session: str
    category: str
    files: int


@dataclass(frozen=True, slots=True)
class SessionFinished(Event):
    """A session of ours ended, as its HTTP answers say (the authority, wire contract 3.4)."""

    type: ClassVar[str] = "session.finished"
    session: str
    status: str


@dataclass(frozen=True, slots=True)
class FileStarted(Event):
    """An attempt at a file begins. `wire_name` is the name under which the server will speak of it."""

    type: ClassVar[str] = "file.started"
    file: int
    path: str
    size: int
    session: str
    offset: int
    attempt: int
    wire_name: str = field(default="", metadata=INTERNAL)
    packed: bool = field(default=False, metadata=INTERNAL)
    """It travels in a pack of small files."""


@dataclass(frozen=True, slots=True)
class FileProgress(Event):
    """Where a file is: `sent` left this machine, `confirmed` what the server vouched for (bytes); rate in bytes/s."""

    type: ClassVar[str] = "file.progress"
    file: int
    attempt: int
    sent: int
    confirmed: int
    size: int | None
    rate: float
    phase: Phase
    server_percent: float | None = None


@dataclass(frozen=True, slots=True)
class FileRetry(Event):
    """An attempt failed; the next one (`attempt`) starts after `delay` seconds."""

    type: ClassVar[str] = "file.retry"
    file: int
    attempt: int
    delay: float
    code: FailureCode
    message: str


@dataclass(frozen=True, slots=True)
class FileCompleted(Event):
    """The server confirmed the file."""

    type: ClassVar[str] = "file.completed"
    file: int
    path: str
    size: int
    server_id: str | None
    location: str | None
    verified: bool
    attempts: int
    seconds: float
    checksum: str | None = None
    stored_as: str | None = None
    """The path below the category under which the server stored it, where it chose another name."""
    file_path: str | None = field(default=None, metadata=INTERNAL)
    """The server's own path of the file, which an analysis asks for (wire contract 4)."""
    local: LocalFile | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)
    """The file as selected, for the receipts."""


@dataclass(frozen=True, slots=True)
class FileFailed(Event):
    """The file is not on the server, or nobody knows (`outcome_unknown`)."""

    type: ClassVar[str] = "file.failed"
    file: int
    path: str
    code: FailureCode
    message: str
    retryable: bool
    local: LocalFile | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)


@dataclass(frozen=True, slots=True)
class FileSkipped(Event):
    """The file was left out for a reason that is no failure."""

    type: ClassVar[str] = "file.skipped"
    file: int
    path: str
    reason: SkipReason
    local: LocalFile | None = field(default=None, compare=False, repr=False, metadata=INTERNAL)


@dataclass(frozen=True, slots=True)
class ChannelChanged(Event):
    """The realtime channel moved from one state to another; `attempt` counts retries from 1."""

    type: ClassVar[str] = "channel.changed"
    from_: ChannelState
    to: ChannelState
    transport: Transport | None
    reason: ChannelReason
    attempt: int | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class ServerMessage(Event):
    """A sentence from the server, for people."""

    type: ClassVar[str] = "server.message"
    text: str


@dataclass(frozen=True, slots=True)
class Stage(Event):
    """How far the analysis after the upload is: a stage, and the percentage (0–100) of the whole analysis."""

    type: ClassVar[str] = "stage"
    name: str
    percent: float


@dataclass(frozen=True, slots=True)
class RunWarning(Event):
    """Something a person should know that failed nothing."""

    type: ClassVar[str] = "warning"
    code: WarningCode
    text: str


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """The realtime channel in numbers, for `run.finished`."""

    connect_ms: float | None = None
    events: int = 0
    polls: int = 0
    reconnects: int = 0
    fallbacks: int = 0


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """Always the last event. `bytes` are the confirmed ones, `rate` their bytes/s, `peak_rss` is in bytes."""

    type: ClassVar[str] = "run.finished"
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
class PlanStarted(Event):
    """The first line. `max_files` of a session (None: any number), `max_file_size` in bytes (None: any), `types`."""

    type: ClassVar[str] = "plan.started"
    server: str
    protocol: str
    jobs: int
    limits: LimitsOrigin
    max_files: int | None
    max_file_size: int | None
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanSession(Event):
    """What would go into one session (`session_number` from 1) and the calls that it would take; its files follow.

    `category` is None at a tus endpoint, which knows no sessions: there it is just as many files.
    """

    type: ClassVar[str] = "plan.session"
    session_number: int
    category: str | None
    files: int
    bytes: int
    calls: int
    kinds: tuple[str, ...] = field(default=(), metadata=INTERNAL)
    first: tuple[str, ...] = field(default=(), metadata=INTERNAL)


@dataclass(frozen=True, slots=True)
class PlanFile(Event):
    """A file that would be sent, and what it would be called there."""

    type: ClassVar[str] = "plan.file"
    file: int
    path: str
    size: int
    name: str
    session_number: int


@dataclass(frozen=True, slots=True)
class PlanFinished(Event):
    """The last line. `exit_code` is that of a run in which all goes well; `calls` are all, polls not counted."""

    type: ClassVar[str] = "plan.finished"
    files: int
    bytes: int
    sessions: int
    calls: int
    skipped: int
    failed: int
    exit_code: int


# --- for the log alone -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CallMade(Event):
    """An HTTP call came to its end, or a websocket was dialled. Observers hear of it, the event stream does not.

    `url` is without its query. `request_id` went along as `X-Request-ID`, None where the host is not the server's;
    `status` is None where no answer came, and `error` says why. `carries`: bytes of files went along, which `seconds`
    hold too.
    """

    method: str
    url: str
    request_id: str | None
    status: int | None
    seconds: float
    error: str | None = None
    carries: bool = field(default=False, metadata=INTERNAL)


# --- internal: facts for the state -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileSelected(Event):
    """The walk found a file that will be sent, or refused with a reason."""

    file: int
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class ContentChecked(Event):
    """A large file is being compared with the digest that its list tells; with an empty path: no longer."""

    path: str


@dataclass(frozen=True, slots=True)
class SelectionEnded(Event):
    """The walk is over: totals are final."""


@dataclass(frozen=True, slots=True)
class BytesSent(Event):
    """The kernel took `sent` bytes of the file in this attempt, counted from the file's start."""

    file: int
    attempt: int
    sent: int


@dataclass(frozen=True, slots=True)
class BytesConfirmed(Event):
    """The server vouches for the first `confirmed` bytes of the file (a tus offset)."""

    file: int
    attempt: int
    confirmed: int


@dataclass(frozen=True, slots=True)
class BodySent(Event):
    """The last byte of the request that carries these files is out: the server works now."""

    files: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FilesCancelled(Event):
    """An interrupt stopped these files; `local` are the same ones as selected."""

    files: tuple[int, ...]
    local: tuple[LocalFile, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class FileCancelled(Event):
    """One of them, for the receipts: observers are told of it, the event stream counts it in its last line."""

    local: LocalFile


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What the server says of one file. `percent` 0–100; `name` as it was sent."""

    name: str
    status: str
    percent: float | None = None
    server_id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SessionProgress(Event):
    """One message of the server about a session, from the socket or from a poll.

    `timestamp` is the server's clock in unix seconds, `received` ours where the message was pushed; `percent` is 0–100;
    None stands for a field that was missing.
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
    """Nothing more is expected of a finished session: its last messages had their time (wire contract 3.8)."""

    session: str


@dataclass(frozen=True, slots=True)
class SessionWatched(Event):
    """A session that somebody else uploads is to be followed: its files become known from its messages."""

    session: str


@dataclass(frozen=True, slots=True)
class PollFailed(Event):
    """A poll brought nothing: what is known stays, and is shown as stale. `error` is what came instead of an answer."""

    session: str
    reason: str
    error: Exception | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class SessionMissing(Event):
    """A poll was answered: the server does not know the session, not yet or not any more."""

    session: str


@dataclass(frozen=True, slots=True)
class ServerClock(Event):
    """An answer told the server's time: its clock is `offset` ± `uncertainty` seconds ahead of ours."""

    offset: float
    uncertainty: float


@dataclass(frozen=True, slots=True)
class Ticked(Event):
    """A frame has passed."""


@dataclass(frozen=True, slots=True)
class AlarmOver(Event):
    """What an alarm warned of is as it should be again."""

    code: WarningCode


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """Every call waits `seconds` from now; 0 ends the pause. `waited` are the seconds of it that have passed."""

    seconds: float
    reason: PauseReason
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class AnalysisStarted(Event):
    """The server is asked to analyse what was uploaded: `name`, the analysis `number` of `of`, from 1."""

    kind: Kind
    name: str
    number: int = 1
    of: int = 1


@dataclass(frozen=True, slots=True)
class AnalysisMessage(Event):
    """How the analysis under way goes on; `percent` is 0–100, None where it was not told.

    `failed`: the server gave up, its HTTP answer follows. `assumed`: a guess by time, the server says nothing.
    """

    percent: float | None = None
    message: str = ""
    failed: bool = False
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class AnalysisEnded(Event):
    """The analysis under way is over: with a sentence from its result, or with why there is none."""

    summary: str = ""
    error: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class AnalysisSaved(Event):
    """The results are in this file."""

    path: str


@dataclass(frozen=True, slots=True)
class EngineStopped(Event):
    """The transfer is over; `error` says what ended it early, `bottleneck` what limited its speed."""

    error: BaseException | None = None
    bottleneck: Bottleneck | None = None


PUBLIC: tuple[type[Event], ...] = (
    RunStarted,
    SessionCreated,
    SessionFinished,
    FileStarted,
    FileProgress,
    FileRetry,
    FileCompleted,
    FileFailed,
    FileSkipped,
    ChannelChanged,
    ServerMessage,
    Stage,
    RunWarning,
    RunFinished,
    PlanStarted,
    PlanSession,
    PlanFile,
    PlanFinished,
)


def as_fields(event: Event) -> dict[str, Any]:
    """Return the fields of a public event or a `CallMade` by their names in the stream.

    Optional ones that are None are left out.
    """
    out: dict[str, Any] = {}
    for name, key, optional in _COLUMNS[type(event)]:
        value = getattr(event, name)
        if value is not None or not optional:
            out[key] = asdict(value) if name in _NESTED else value
    return out


_OPTIONAL = frozenset({"resumed_from", "server_percent", "checksum", "stored_as", "attempt", "latency_ms"})
_NESTED = frozenset({"channel", "metrics"})


_COLUMNS = {
    kind: [
        (spec.name, "from" if spec.name == "from_" else spec.name, spec.name in _OPTIONAL)
        for spec in fields(kind)
        if not spec.metadata.get("internal")
    ]
    for kind in (*PUBLIC, CallMade)
}
"""Each public field of an event: its name here, its name in the stream, and whether it is left out when it is None."""
