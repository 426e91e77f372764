"""The one state of a run. Only `reducer.reduce` writes it; renderers draw from it and never count.

Kept small on purpose: running files and sessions are held, finished files become numbers (and the last few, and the
failures, for people). A terminal mark per file is one byte.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uploader_cli.core.events import ChannelState, PauseReason, Phase, Transport
from uploader_cli.core.incidents import IncidentLog
from uploader_cli.core.metrics import Measures
from uploader_cli.core.rate import Meter, eta

if TYPE_CHECKING:
    from uploader_cli.core import events as ev
    from uploader_cli.core.bottleneck import Bottleneck
    from uploader_cli.core.stages import Analysis, Kind

HISTORY = 50
"""Finished files and messages kept for the view."""
MOST_KEPT = 1000
"""Failures, warnings and renamed files kept for the summary: the first ones. Of others only the number is known."""

SERVER_TERMINAL = frozenset({"completed", "partial", "cancelled"})
"""`overallStatus` values that end a session."""


@dataclass(slots=True)
class FileState:
    """A file under way. Bytes are absolute; `offset` is where this attempt began (resumed bytes are no speed)."""

    file: int
    path: str
    size: int | None
    session: str
    wire_name: str
    attempt: int
    offset: int
    started: float
    sent: int = 0
    confirmed: int = 0
    phase: Phase = Phase.SENDING
    server_percent: float | None = None
    server_status: str = ""
    server_id: str | None = None
    server_time: float = float("-inf")
    retry_at: float | None = None
    """When the next attempt starts (run clock, seconds), while the file waits for it."""
    retry_reason: str = ""
    """What went wrong in the attempt before."""
    packed: bool = False
    """It is sent together with other small files: nothing is reported between its start and its end."""
    meter: Meter = field(default_factory=lambda: Meter(window=4.0))


@dataclass(slots=True)
class SessionState:
    """What is known of a session: ours, or one that is watched."""

    session: str
    category: str = ""
    expected: int | None = None
    watched: bool = False
    over: bool = False
    """Its HTTP answers are all in; the last messages may still come."""
    status: str = "pending"
    percent: float = 0.0
    completed: int = 0
    failed: int = 0
    total: int | None = None
    server_time: float = float("-inf")
    by_name: dict[str, int] = field(default_factory=dict)
    heard: float | None = None
    """When the server last said anything of it (run clock, seconds)."""
    answered: float | None = None
    """The same, for what it said when it was asked: the answer names all files."""
    missing: int = 0
    """Answers in a row that did not know it."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that is over, for the list of the last few."""

    file: int
    path: str
    phase: Phase
    size: int
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Analysed:
    """An analysis that is over: a sentence of its result, or why there is none."""

    kind: Kind
    name: str
    summary: str = ""
    error: str = ""
    retryable: bool = False

    @property
    def warning(self) -> str:
        """What is said of the failure when it happens; empty where there is none."""
        return f"no {self.kind} analysis of {self.name}: {self.error}" if self.error else ""


@dataclass(slots=True)
class Channel:
    """The realtime channel as the view shows it."""

    state: ChannelState = ChannelState.CLOSED
    transport: Transport | None = None
    attempt: int | None = None
    latency_ms: float | None = None
    reason: str = ""
    heard: float | None = None
    """When the last message came in (run clock, seconds)."""
    stale: str = ""
    """Why what is known is old: the last poll's failure. Empty while it is fresh."""
    failure: Exception | None = None
    """The same, as it was raised."""


@dataclass(slots=True)
class ProgressState:
    """Everything a renderer may want to know. Only `reduce` writes here."""

    server: str = ""
    protocol: str = ""
    started: float = 0.0
    walking: bool = True
    selected: int = 0
    selected_bytes: int = 0
    completed: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    completed_bytes: int = 0
    settled_bytes: int = 0
    """Sizes of files that are over: completed or skipped."""
    lost_bytes: int = 0
    """Sizes of files that failed or were cancelled: they leave the total."""
    retries: int = 0
    running: dict[int, FileState] = field(default_factory=dict)
    sessions: dict[str, SessionState] = field(default_factory=dict)
    session: str = ""
    """The session in the foreground: the newest."""
    sessions_done: int = 0
    channel: Channel = field(default_factory=Channel)
    finished: deque[Finished] = field(default_factory=lambda: deque(maxlen=HISTORY))
    failures: list[ev.FileFailed] = field(default_factory=list)
    """The first `MOST_KEPT`."""
    last_failures: deque[ev.FileFailed] = field(default_factory=lambda: deque(maxlen=HISTORY))
    failed_as: Counter[tuple[ev.FailureCode, bool]] = field(default_factory=Counter)
    """How many failed, by code and by whether trying again can help."""
    renamed: int = 0
    """Completed files that the server stored under another name."""
    renames: list[ev.FileCompleted] = field(default_factory=list)
    """The first `MOST_KEPT` of them."""
    skips: Counter[ev.SkipReason] = field(default_factory=Counter)
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=HISTORY))
    warnings: list[ev.RunWarning] = field(default_factory=list)
    news: ev.RunWarning | None = None
    """The newest warning, or the word that a trouble is over."""
    incidents: IncidentLog = field(default_factory=IncidentLog)
    checking: str = ""
    """The listed file whose content is being compared with its digest, before it is sent."""
    paused_until: float | None = None
    """When the next call is made (run clock, seconds); None while nothing is paused."""
    paused_since: float = 0.0
    pause_reason: PauseReason = PauseReason.RATE_LIMIT
    advanced: float = 0.0
    """When anything last moved (run clock, seconds)."""
    trouble: str = ""
    """The error that ended the run early."""
    advice: str = ""
    """What to do about it."""
    bottleneck: Bottleneck | None = None
    """What limited the speed."""
    outcome: ev.RunFinished | None = None
    stopped: float | None = None
    """When the transfer side was done (run clock, seconds): what comes after it is no part of any rate."""
    analysis: Analysis | None = None
    """The one under way, or the last one."""
    analyses: list[Analysed] = field(default_factory=list)
    analysis_file: str = ""
    """Where the results are saved."""
    sent_total: int = 0
    """Bytes that left this machine, in all attempts: what the speed is made of."""
    meter: Meter = field(default_factory=Meter)
    measures: Measures = field(default_factory=Measures)
    marks: bytearray = field(default_factory=bytearray)
    """One byte a file: 1 once it is over."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Sizes of files that are selected and not yet started."""

    # -- what renderers ask -------------------------------------------------------------------------------------------

    @property
    def over(self) -> int:
        """Files that are over."""
        return self.completed + self.failed + self.skipped + self.cancelled

    @property
    def total_bytes(self) -> int:
        """Bytes of the files that are stored or may still be."""
        return max(0, self.selected_bytes - self.lost_bytes)

    @property
    def bytes_through(self) -> int:
        """Bytes of `total_bytes` that are over, and what has been sent of the rest."""
        return self.settled_bytes + sum(file.sent for file in self.running.values())

    @property
    def fraction(self) -> float:
        """0–1 for the bar of the whole; 1 only when every file is confirmed or skipped."""
        unfinished = self.running or self.over < self.selected or self.walking
        if unfinished or self.failed or self.cancelled:
            return min(0.99, self.bytes_through / self.total_bytes) if self.total_bytes else 0.0
        return 1.0

    def paused(self, now: float) -> bool:
        """Return whether every call waits. The end of a rate limit is known; that of an outage is an event."""
        if self.paused_until is None or self.outcome is not None:
            return False
        return self.paused_until > now or self.pause_reason is not PauseReason.RATE_LIMIT

    def rate(self, now: float) -> float:
        """Bytes a second of the whole run, over the last seconds; once all is sent, over all of it."""
        if self.stopped is not None:
            return self.sent_total / max(1e-3, self.stopped - self.started)
        return self.meter.rate(now)

    def eta(self, now: float) -> float | None:
        """Seconds that the bytes still to be sent will take; None where that can't be said."""
        return eta(self.total_bytes - self.bytes_through, self.rate(now))


def file_fraction(file: FileState) -> float:
    """0–1 for a running file's bar; below 1 until the server has confirmed it."""
    if not file.size:
        return min(0.99, (file.server_percent or 0.0) / 100)
    return min(0.99, file.sent / file.size)
