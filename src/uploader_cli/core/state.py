"""The state of a run, and the interface of its observers. Only `reducer.reduce` changes it; renderers draw from it.

It is small: only running files and sessions are stored, finished files are counted (plus the last ones, the failures,
and one byte for each file since the oldest that has not ended).
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from msgspec import Struct, field

from uploader_cli.core import events as ev
from uploader_cli.core.bottleneck import Bottleneck
from uploader_cli.core.events import ChannelState, FailureCode, PauseReason, Phase, SkipReason, Transport
from uploader_cli.core.incidents import IncidentLog
from uploader_cli.core.metrics import Measures
from uploader_cli.core.rate import SILENCE, Meter, Timeline
from uploader_cli.core.tree import Tree
from uploader_cli.feature import counted

HISTORY = 50  # maximum finished files and messages kept for the view
BRIEF = 1.0  # seconds; a file that ends within is only counted by the view
MOST_KEPT = 1000  # maximum failures, warnings and renamed files kept for the summary; the others are counted

THERE = (SkipReason.PRESENT, SkipReason.RECEIPT)
"""Reasons of files that were on the server before the run: they are done."""
LEFT_OUT = frozenset(SkipReason) - {*THERE, SkipReason.FAIL_FAST, SkipReason.NOT_TRIED}
"""Reasons of files that are not sent: no total counts them."""
VERDICTS = frozenset(
    {
        FailureCode.REFUSED_TYPE,
        FailureCode.REFUSED_SIZE,
        FailureCode.EMPTY,
        FailureCode.BAD_LINE,
        FailureCode.MISMATCH,
        FailureCode.VANISHED,
        FailureCode.EXISTS,
        FailureCode.SERVER_REFUSED,
    }
)
"""Failures that concern the file or its line: if they are not retryable, the file fails again until it is corrected."""
AFTER_SENDING = 2.0  # the same where all bytes are sent: an answer to small files may take longer than a frame
PACED = 2.0  # seconds without a completed file after which there is no number of files per second
FILLING = 0.5  # seconds in which a new connection takes more than the network does
SERVER_TERMINAL = frozenset({"completed", "partial", "cancelled"})  # `overallStatus` values that end a session


class FileState(Struct):
    """A running file. Bytes are totals; `offset` is where this attempt began, so that resumed bytes are no speed."""

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
    reached: int = 0  # the most that earlier attempts sent: what exceeds `sent` must be sent again
    phase: Phase = Phase.SENDING
    processing: float | None = None  # when the server had all of it (run clock, seconds)
    server_percent: float | None = None
    counts_bytes: bool = False  # whether this is the part of its bytes that the server has, and no step of processing
    server_status: str = ""
    server_id: str | None = None
    server_time: float = float("-inf")
    retry_at: float | None = None  # start of the next attempt (run clock, seconds), while the file waits for it
    retry_reason: str = ""  # why the last attempt failed
    packed: bool = False  # the file is part of a pack: nothing is reported between its start and its end
    meter: Meter = field(default_factory=lambda: Meter(burst=FILLING, silence=SILENCE))

    @property
    def unsent(self) -> bool:
        """True while bytes of it are to be sent, also of a stream, whose size is unknown."""
        return self.phase is Phase.SENDING and (self.size is None or self.sent < self.size)

    def silent(self, now: float) -> bool:
        """Return whether it has bytes to send, and none has left for a while."""
        return self.unsent and self.meter.idle(now) >= SILENCE


class SessionState(Struct):
    """The state of an own or watched session."""

    session: str
    watched: bool = False
    over: bool = False  # all its HTTP responses have arrived; last messages may follow
    status: str = "pending"
    percent: float = 0.0
    completed: int = 0
    failed: int = 0
    total: int | None = None
    bytes: int | None = None  # what arrived of its files, where the server tells; None if unknown
    size: int | None = None  # of all its files
    server_time: float = float("-inf")
    by_name: dict[str, int] = field(default_factory=dict)
    heard: float | None = None  # time of the last message about it (run clock, seconds)
    answered: float | None = None  # time of the last poll response, which lists all files
    missing: int = 0  # consecutive responses that did not know it


class ChannelStatus(Struct):
    """The realtime channel as shown in the view."""

    state: ChannelState = ChannelState.CLOSED
    transport: Transport | None = None
    attempt: int | None = None
    latency_ms: float | None = None
    since: float = 0.0  # when it came into this state (run clock, seconds)
    heard: float | None = None  # time of the last message (run clock, seconds)
    stale: str = ""  # the last poll's failure, while the known progress is stale; else empty
    failure: Exception | None = None  # its exception


class ProgressState(Struct):
    """Everything that renderers show. Only `reduce` writes it."""

    server: str = ""
    protocol: str = ""
    dest: str | None = None
    finishes_late: bool = False  # whether the server finishes uploads after their last byte
    elsewhere: bool = False  # whether other processes send the files
    resumable: bool = False  # whether the journal keeps the run: one that is resumed, or that a server has answered
    resumed: bool = False  # whether the run continues an earlier one
    answered: bool = False  # whether the server has answered anything
    started: float = 0.0  # time of the command's start (run clock, seconds); 0 before it is known
    sending: float | None = None  # time of the first attempt of a file (run clock, seconds): speeds count from it
    walking: bool = True
    of_all: dict[str, Any] = field(default_factory=dict)  # what features tell of all that was found, of a part
    incomplete: int | None = None  # number of files that are still written, in an unending run; else None
    unsized: bool = False  # the only file is a stream whose length is not known yet
    selected: int = 0
    selected_bytes: int = 0
    completed: int = 0
    failed: int = 0
    refused_in_part: int = 0  # number of refused files of which the server has bytes that the journal knows
    kept_here: int = 0  # number of failed files that are stored: a later step failed
    kept_here_bytes: int = 0  # total size of these
    skipped: int = 0
    cancelled: int = 0
    completed_bytes: int = 0
    verified: int = 0  # number of completed files whose bytes were compared, at the latest when they were stored
    settled_bytes: int = 0  # total size of completed files and those that were there before, and `kept_bytes`
    kept_bytes: int = 0  # what the server has of cancelled files
    kept: int = 0  # number of these files
    lost_bytes: int = 0  # total size of failed files and those left out, which are excluded from the total
    earlier_bytes: int = 0  # total size of the files before the run last waited for files, excluded as well
    retries: int = 0
    running: dict[int, FileState] = field(default_factory=dict)
    sessions: dict[str, SessionState] = field(default_factory=dict)
    session: str = ""  # the newest session
    sessions_done: int = 0
    sessions_in: Counter[str] = field(default_factory=Counter)  # number of sessions created, by category
    channel: ChannelStatus = field(default_factory=ChannelStatus)
    finished: deque[ev.FileEnded] = field(default_factory=lambda: deque(maxlen=HISTORY))
    failures: list[ev.FileFailed] = field(default_factory=list)  # the first `MOST_KEPT`
    last_failures: deque[ev.FileFailed] = field(default_factory=lambda: deque(maxlen=HISTORY))
    failed_as: Counter[tuple[ev.FailureCode, bool]] = field(default_factory=Counter)
    """Number of failures by code and retryability."""
    renamed: int = 0  # number of completed files that the server stored under another name
    renames: list[ev.FileCompleted] = field(default_factory=list)  # the first `MOST_KEPT` of them
    skips: Counter[ev.SkipReason] = field(default_factory=Counter)
    counted: dict[str, Counter[Any]] = field(default_factory=lambda: {one.counts: Counter() for one in counted()})
    """By the field of a feature, the number of files that ended with each value of it."""
    messages: deque[str] = field(default_factory=lambda: deque(maxlen=HISTORY))
    warnings: list[ev.RunWarning] = field(default_factory=list)
    news: ev.RunWarning | None = None  # the newest warning or recovery
    incidents: IncidentLog = field(default_factory=IncidentLog)
    checking: str = ""  # the listed file whose digest is being checked
    held: float | None = None  # time of the user's pause (run clock, seconds); None without one
    paused_until: float | None = None  # time of the next request (run clock, seconds); None without a pause
    paused_since: float = 0.0
    pause_reason: PauseReason = PauseReason.RATE_LIMIT
    repeat_at: float = float("-inf")  # time of the next try of a call that belongs to no file (run clock, seconds)
    repeat_reason: str = ""  # why the last try failed
    advanced: float = 0.0  # time of the last progress (run clock, seconds)
    trouble: str = ""  # the error that ended the run early
    advice: str = ""  # the hint of that error
    bottleneck: Bottleneck | None = None  # what limited the speed
    outcome: ev.RunFinished | None = None
    stopped: float | None = None
    """Time of the transfer's end (run clock, seconds), which ends the measurement of rates."""
    added: dict[str, Any] = field(default_factory=dict)
    """By the name of a feature, its part of the state, which its first event adds."""
    sent_total: int = 0  # bytes sent in all attempts, from which the speed is computed
    meter: Meter = field(default_factory=lambda: Meter(burst=FILLING, silence=SILENCE))
    pace: Meter = field(default_factory=lambda: Meter(silence=PACED))  # files per second; updated by completed files
    meters: list[Meter] = field(default_factory=list)  # those of features; they restart with the others
    tree: Tree = field(default_factory=Tree)
    measures: Measures = field(default_factory=Measures)
    timeline: Timeline = field(default_factory=Timeline)
    marks: bytearray = field(default_factory=bytearray)  # one byte per file from `unmarked` on: 1 if it has ended
    unmarked: int = 0  # the files with smaller numbers have all ended
    unstarted: dict[int, ev.FileSelected] = field(default_factory=dict)  # selected files that have not started

    # -- computed values -----------------------------------------------------------------------------------------------

    @property
    def over(self) -> int:
        """The number of files that have ended."""
        return self.completed + self.failed + self.skipped + self.cancelled

    @property
    def begun(self) -> bool:
        """True once any file is being sent or has ended."""
        return bool(self.over or self.running)

    @property
    def there(self) -> int:
        """The number of files that were on the server before the run."""
        return sum(self.skips[reason] for reason in THERE)

    @property
    def waiting(self) -> bool:
        """True where all files that an unending run has found have ended."""
        return self.incomplete is not None and self.over >= self.selected

    @property
    def idle(self) -> bool:
        """True where `waiting` holds, and no file is incomplete."""
        return self.waiting and self.incomplete == 0

    def resuming_helps(self, *, permanent: bool) -> bool:
        """Return whether to offer to resume the run.

        It is offered where the run was stopped, where it has resumed another one, where `--fail-fast` left out files,
        where a failure may pass, and where the server has bytes of a refused file, or other files of the run. It is not
        where all failed files have one of the `VERDICTS`, nor where a `permanent` error ended the run before anything
        was stored: no upload server at that URL, a refused session.
        """
        if not self.resumable:
            return False
        if self.skips[SkipReason.FAIL_FAST] or (self.resumed and (self.cancelled or self.failed or self.walking)):
            return True
        if any(retryable or code not in VERDICTS for code, retryable in self.failed_as):
            return True
        refused = any(code is FailureCode.SERVER_REFUSED for code, _ in self.failed_as)
        if self.refused_in_part or (refused and self.completed):  # the same command may send again what is stored
            return True
        stored = self.completed or self.kept
        return bool((self.cancelled or self.walking) and (stored or not permanent))

    @property
    def growing(self) -> bool:
        """True while the totals are lower bounds, because the walk goes on."""
        return self.walking and self.incomplete is None and not self.watched

    @property
    def measurable(self) -> bool:
        """True where the size of the whole is known."""
        return not (self.unsized or self.growing)

    @property
    def total_bytes(self) -> int:
        """Total size of the files that are stored or may still be; of watched sessions 0 if it is unknown."""
        if self.watched:
            sizes = [session.size for session in self.sessions.values()]
            return 0 if None in sizes else sum(size for size in sizes if size)
        return max(0, self.selected_bytes - self.lost_bytes - self.earlier_bytes)

    @property
    def bytes_through(self) -> int:
        """The part of `total_bytes` that has ended or been sent; of a file that is sent again, what is confirmed."""
        if self.watched:
            return sum(session.bytes or 0 for session in self.sessions.values())
        return self.settled_bytes - self.earlier_bytes + sum(file.sent for file in self.running.values())

    @property
    def bytes_confirmed(self) -> int:
        """The part of `bytes_through` that the server has."""
        if self.watched:
            return self.bytes_through
        return self.settled_bytes - self.earlier_bytes + sum(file.confirmed for file in self.running.values())

    @property
    def bytes_reached(self) -> int:
        """`bytes_through` with what must be sent again."""
        return self.bytes_through + sum(max(0, file.reached - file.sent) for file in self.running.values())

    @property
    def watched(self) -> bool:
        """True while watching sessions of others, whose messages are all that is known."""
        return not self.selected_bytes and any(session.watched for session in self.sessions.values())

    @property
    def files_done(self) -> tuple[int, int]:
        """The numbers of files that are on the server, and of those that are or shall be."""
        done = self.completed + self.there + self.kept_here
        total = self.selected - sum(self.skips[reason] for reason in LEFT_OUT)
        if self.watched:
            done = max(done, sum(session.completed for session in self.sessions.values()))
            total = sum(session.total or len(session.by_name) for session in self.sessions.values())
        return done, max(total, done + self.failed - self.kept_here + self.cancelled)

    @property
    def fraction(self) -> float:
        """The total progress from 0 to 1; 1 only when every file is confirmed or skipped.

        Where the size of a watched session is unknown, its percentage is the server's, in which files have equal weight
        and failed ones count as done; here they are excluded.
        """
        done, total = float(self.bytes_through), self.total_bytes
        if self.watched:
            if all(session.status == "completed" and not session.failed for session in self.sessions.values()):
                return 1.0
            if total:
                return min(0.99, done / total)
            done = 0.0
            for session in self.sessions.values():
                known = session.total or len(session.by_name) or 1
                done += max(0.0, session.percent / 100 * known - session.failed)
                total += max(0, known - session.failed)
        elif self.waiting or not (
            self.running or self.over < self.selected or self.growing or self.failed or self.cancelled
        ):
            return 1.0
        return min(0.99, done / total) if total else 0.0

    def paused(self, now: float) -> bool:
        """Return whether all requests wait. A rate limit has a known end; other pauses are ended by an event."""
        if self.held is not None:
            return True
        if self.paused_until is None or self.outcome is not None:
            return False
        return self.paused_until > now or self.pause_reason is not PauseReason.RATE_LIMIT

    def hears(self, now: float) -> bool:
        """Return whether the server is heard; a channel may only have not noticed yet that it is gone."""
        channel = self.channel
        is_live = channel.state is ChannelState.LIVE
        if self.paused_until is not None and self.pause_reason is PauseReason.UNREACHABLE:
            return max(channel.heard or 0.0, channel.since if is_live else 0.0) > self.paused_since
        if not is_live:
            return False
        return now - max(channel.since, channel.heard or 0.0) < SILENCE or not self.silent(now)

    def halted(self, now: float) -> bool:
        """Return whether nothing is sent in a pause: the requests of an outage are lost, others are completed first."""
        if not self.paused(now):
            return False
        lost = self.held is None and self.pause_reason is not PauseReason.RATE_LIMIT
        return lost or self.meter.idle(now) >= BRIEF

    def silent(self, now: float) -> bool:
        """Return whether there are bytes to send, and none has left for a while, although no pause holds them."""
        idle = self.stopped is None and self.meter.idle(now) >= SILENCE and not self.paused(now)
        return idle and any(file.unsent for file in self.running.values())

    def still(self, now: float) -> bool:
        """Return whether nothing moves: in a pause, a silence, or while all wait for a retry or the server's answer.

        Then nothing that is shown has a rate or an end.
        """
        limit = SILENCE if any(file.unsent for file in self.running.values()) else AFTER_SENDING
        return self.halted(now) or (bool(self.running) and self.stopped is None and self.meter.idle(now) >= limit)

    def rate(self, now: float) -> float:
        """Return the bytes per second of the last seconds; after the transfer, from its first file to its end."""
        if self.stopped is not None:
            return self.average(now)
        return 0.0 if self.still(now) else self.meter.rate(now)

    def average(self, now: float) -> float:
        """Return the bytes per second from the first file on, with all pauses: start-up is no time of the transfer."""
        began = self.started if self.sending is None else self.sending
        return self.sent_total / max(1e-3, (now if self.stopped is None else self.stopped) - began)

    def eta(self, now: float) -> float | None:
        """Return the remaining seconds of the transfer; None if unknown."""
        left, rate = self.total_bytes - self.bytes_through, self.rate(now)
        if left <= 0:
            return 0.0
        if self.cancelled and self.stopped is not None:
            return None
        return left / rate if rate > 0 else None


class FeatureEvent(ev.Event, frozen=True):
    """An event of a feature, which is no line of the stream."""

    def apply(self, state: ProgressState, now: float) -> list[ev.Event]:
        """Change the feature's part of the state; return events that follow from it, which are applied as well."""
        raise NotImplementedError


def file_fraction(file: FileState) -> float:
    """Return the progress of a running file from 0 to 1; below 1 until it is confirmed."""
    if not file.size:
        return min(0.99, (file.server_percent or 0.0) / 100)
    return min(0.99, file.sent / file.size)


class Observer:
    """An observer of a run, as a view, a log or a report. Times are of the run clock (monotonic seconds).

    It is called in the loop's thread. The events of a frame arrive before its `refresh`, each with its own time
    and the state after it.
    """

    def handle(self, event: ev.Event, state: ProgressState, now: float) -> None:
        """Process a public event, a `CallMade` or a `FileEnded`."""

    def refresh(self, state: ProgressState, now: float) -> None:
        """Draw; called about ten times a second, with or without events."""

    def close(self, state: ProgressState, now: float) -> None:
        """Restore the terminal: the run has ended, possibly with an error."""
