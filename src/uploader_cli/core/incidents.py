"""The incidents of a run and how they ended: the newest `MOST`, and the total number.

There is at most one incident of a kind at a time; further problems are counted in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

MOST = 100
SOON = 5.0
"""Seconds within which a wait or a retry may end without a message."""


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


class Ending(StrEnum):
    """How an incident ended: recovered, continued degraded, or needs attention. A closed enum."""

    RECOVERED = "recovered"
    DEGRADED = "degraded"
    NEEDS_PERSON = "needs_person"


@dataclass(slots=True)
class Incident:
    """A problem from `began` to `ended` (run clock, seconds) with `times` occurrences, the first one in `text`."""

    kind: IncidentKind
    began: float
    text: str
    times: int = 1
    degraded: bool = False
    """Polls succeeded while the connection was lost."""
    ended: float | None = None
    ending: Ending | None = None


@dataclass(slots=True)
class IncidentLog:
    """The incidents of a run. `total` includes those no longer kept."""

    total: int = 0
    kept: deque[Incident] = field(default_factory=lambda: deque(maxlen=MOST))
    active: dict[IncidentKind, Incident] = field(default_factory=dict)
    retrying: set[int] = field(default_factory=set)
    """Files being retried without success so far."""
    given_up: bool = False
    """One of them failed."""

    def begin(self, kind: IncidentKind, now: float, text: str) -> Incident:
        """Begin an incident, or count another occurrence in the active one."""
        known = self.active.get(kind)
        if known is not None:
            known.times += 1
            return known
        self.total += 1
        made = self.active[kind] = Incident(kind, now, " ".join(text[:500].split()))
        self.kept.append(made)
        return made

    def end(self, kind: IncidentKind, now: float, ending: Ending) -> Incident | None:
        """End the active incident of this kind, if there is one."""
        over = self.active.pop(kind, None)
        if over is not None:
            over.ended, over.ending = now, ending
        return over

    def close(self, now: float, *, needs_person: bool) -> None:
        """End all incidents with the run."""
        for kind in tuple(self.active):
            theirs = kind in (IncidentKind.RUN, IncidentKind.TRANSFER) and needs_person
            self.end(kind, now, Ending.NEEDS_PERSON if theirs else Ending.DEGRADED)


def recovery(over: Incident) -> str:
    """Return the message about an incident that recovered; empty where none is needed.

    A lost session has a warning of its own, and short waits and retries need no message.
    """
    seconds = (over.ended or over.began) - over.began
    took = duration(seconds)
    match over.kind:
        case IncidentKind.CHANNEL:
            return f"reconnected after {took}" + (", progress was polled meanwhile" if over.degraded else "")
        case IncidentKind.UPDATES:
            return f"progress is updated again after {took}"
        case IncidentKind.TRANSFER if seconds >= SOON:
            return f"transfer resumed after {took} and {over.times} {'retry' if over.times == 1 else 'retries'}"
        case IncidentKind.RATE_LIMIT if seconds >= SOON:
            return f"resumed after waiting {took} for the server's rate limit"
        case IncidentKind.STALL:
            return f"progress again, {took} after the warning"
        case IncidentKind.LATENCY:
            return f"latency is normal again, {took} after the warning"
        case IncidentKind.ERROR_RATE:
            return f"error rate is normal again, {took} after the warning"
        case _:
            return ""


def duration(seconds: float) -> str:
    """Format `3.2 s` or `2 min 5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"
