"""The incidents of a run and how they ended: the newest `MOST_INCIDENTS`, and the total number.

There is at most one incident of a kind at a time; further problems are counted in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct, field

from uploader_cli.core.events import RunFinished

MOST_INCIDENTS = 100
SHORT_WAIT = 5.0  # seconds within which a wait or a retry may end without a message
_NO_CASE = (0, 130, 143)  # exit codes that need no attention: success and interrupts


class IncidentKind(StrEnum):
    """What failed. A closed enum: scripts depend on it."""

    CHANNEL = "channel"
    UPDATES = "updates"
    TRANSFER = "transfer"
    RATE_LIMIT = "rate_limit"
    SESSION = "session"
    STALL = "stall"
    LATENCY = "latency"
    ERROR_RATE = "error_rate"
    RUN = "run"


class IncidentEnding(StrEnum):
    """How an incident ended: recovered, continued degraded, or needs attention. A closed enum."""

    RECOVERED = "recovered"
    DEGRADED = "degraded"
    NEEDS_PERSON = "needs_person"


class Incident(Struct):
    """A problem from `began` to `ended` (run clock, seconds) with `times` occurrences, the first one in `text`."""

    kind: IncidentKind
    began: float
    text: str
    times: int = 1
    degraded: bool = False  # polls succeeded while the connection was lost
    ended: float | None = None
    ending: IncidentEnding | None = None


class IncidentLog(Struct):
    """The incidents of a run. `total` includes those no longer kept."""

    total: int = 0
    kept: deque[Incident] = field(default_factory=lambda: deque(maxlen=MOST_INCIDENTS))
    active: dict[IncidentKind, Incident] = field(default_factory=dict)
    retrying: set[int] = field(default_factory=set)  # files being retried without success so far
    given_up: bool = False  # one of them failed
    moved: float | None = None  # when bytes of any file were sent first after the last failure
    goes_on: bool = False  # whether the server has confirmed some since

    def begin(self, kind: IncidentKind, now: float, text: str) -> str:
        """Begin an incident, or count another occurrence in the active one; return the message about a recovery.

        A failure of one file while the server confirms others is a further incident: the transfer did not stand still.
        """
        recovery = self.end(kind, now) if kind is IncidentKind.TRANSFER and self.goes_on else ""
        if kind is IncidentKind.TRANSFER:
            self.moved, self.goes_on = None, False
        if (known := self.active.get(kind)) is not None:
            known.times += 1
            return recovery
        self.total += 1
        made = self.active[kind] = Incident(kind, now, " ".join(text[:500].split()))
        self.kept.append(made)
        return recovery

    def sent(self, now: float) -> None:
        """Note that bytes of a file were sent: the transfer goes on, also where its retries are not confirmed yet."""
        if self.retrying and self.moved is None:
            self.moved = now

    def confirmed(self) -> None:
        """Note that the server has confirmed bytes of a file, whether or not it is one that is retried."""
        self.goes_on = self.goes_on or self.moved is not None

    def end(self, kind: IncidentKind, now: float, ending: IncidentEnding = IncidentEnding.RECOVERED) -> str:
        """End the active incident of this kind, if there is one; return the message about a recovery."""
        over = self.active.pop(kind, None)
        if over is None:
            return ""
        if kind is IncidentKind.TRANSFER and ending is IncidentEnding.RECOVERED and self.moved is not None:
            now = self.moved
        over.ended, over.ending = now, ending
        return _recovery(over, now - over.began) if ending is IncidentEnding.RECOVERED else ""

    def end_retries(self, files: Iterable[int], now: float, ending: IncidentEnding = IncidentEnding.RECOVERED) -> str:
        """Remove files from those being retried; the last one ends the incident, as in `end`."""
        if not self.retrying:
            return ""
        self.retrying.difference_update(files)
        if self.retrying:
            return ""
        ending, self.given_up = IncidentEnding.NEEDS_PERSON if self.given_up else ending, False
        return self.end(IncidentKind.TRANSFER, now, ending)

    def close(self, now: float, outcome: RunFinished) -> None:
        for kind in tuple(self.active):
            theirs = kind in (IncidentKind.RUN, IncidentKind.TRANSFER) and needs_person(outcome)
            self.end(kind, now, IncidentEnding.NEEDS_PERSON if theirs else IncidentEnding.DEGRADED)


def needs_person(outcome: RunFinished | None) -> bool:
    """Return True for a run that needs attention; None is one that ended with an exception."""
    return outcome is None or outcome.exit_code not in _NO_CASE


def _recovery(over: Incident, seconds: float) -> str:
    """Return the message about a recovery; empty for a lost session, which has a warning, and for short waits."""
    took = duration(seconds)
    match over.kind:
        case IncidentKind.CHANNEL:
            return f"reconnected after {took}" + (", progress was polled meanwhile" if over.degraded else "")
        case IncidentKind.UPDATES:
            return f"progress is updated again after {took}"
        case IncidentKind.TRANSFER if seconds >= SHORT_WAIT:
            return f"transfer resumed after {took} and {over.times} {'retry' if over.times == 1 else 'retries'}"
        case IncidentKind.RATE_LIMIT if seconds >= SHORT_WAIT:
            return f"resumed after waiting {took} for the server's rate limit"
        case IncidentKind.STALL:
            return f"progress again, {took} after the warning"
        case IncidentKind.LATENCY | IncidentKind.ERROR_RATE:
            return f"{over.kind.replace('_', ' ')} is normal again, {took} after the warning"
    return ""


def duration(seconds: float) -> str:
    """Format `3.2 s` or `2 min 5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"
