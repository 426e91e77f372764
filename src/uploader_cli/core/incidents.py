"""What went wrong in a run and how it ended: the newest `MOST` incidents, the others as a number.

The recovery procedure of the founding document: detected, recorded, recovered by itself or degraded, and a person where
neither helps. One incident of a kind at a time: whatever happens while it lasts is counted in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

MOST = 100
SOON = 5.0
"""Seconds in which a wait, or files that are tried again, may come to a good end without a word."""


class IncidentKind(StrEnum):
    """What had the trouble. Closed: scripts branch on it."""

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
    """How it ended: well by itself; the run went on with less; or somebody has to look. Closed, too."""

    RECOVERED = "recovered"
    DEGRADED = "degraded"
    NEEDS_PERSON = "needs_person"


@dataclass(slots=True)
class Incident:
    """One trouble from `began` to `ended` (run clock, seconds), in which `times` things went wrong, first `text`."""

    kind: IncidentKind
    began: float
    text: str
    times: int = 1
    degraded: bool = False
    """Polls were answered while the connection was lost."""
    ended: float | None = None
    ending: Ending | None = None


@dataclass(slots=True)
class IncidentLog:
    """The incidents of a run. `total` counts also those that are no longer kept."""

    total: int = 0
    kept: deque[Incident] = field(default_factory=lambda: deque(maxlen=MOST))
    going_on: dict[IncidentKind, Incident] = field(default_factory=dict)
    retrying: set[int] = field(default_factory=set)
    """Files that are tried again, as long as that has not helped."""
    given_up: bool = False
    """One of them failed."""

    def begin(self, kind: IncidentKind, now: float, text: str) -> Incident:
        """Something went wrong: a new incident, or one more time in the one that is going on."""
        known = self.going_on.get(kind)
        if known is not None:
            known.times += 1
            return known
        self.total += 1
        made = self.going_on[kind] = Incident(kind, now, " ".join(text[:500].split()))
        self.kept.append(made)
        return made

    def end(self, kind: IncidentKind, now: float, ending: Ending) -> Incident | None:
        """It is over, if it was going on."""
        over = self.going_on.pop(kind, None)
        if over is not None:
            over.ended, over.ending = now, ending
        return over

    def close(self, now: float, *, needs_person: bool) -> None:
        """The run is over, and nothing can recover any more."""
        for kind in tuple(self.going_on):
            theirs = kind in (IncidentKind.RUN, IncidentKind.TRANSFER) and needs_person
            self.end(kind, now, Ending.NEEDS_PERSON if theirs else Ending.DEGRADED)


def recovery(over: Incident) -> str:
    """The one line in which it is told that an incident ended by itself; empty where nobody needs one.

    A lost session's warning says what is done about it, and a short wait or retry is over before it was read.
    """
    seconds = (over.ended or over.began) - over.began
    took = duration(seconds)
    match over.kind:
        case IncidentKind.CHANNEL:
            return f"connection back after {took}" + (", progress was polled meanwhile" if over.degraded else "")
        case IncidentKind.UPDATES:
            return f"progress is known again after {took} without news"
        case IncidentKind.TRANSFER if seconds >= SOON:
            return f"transfer goes on after {took} and {over.times} {'retry' if over.times == 1 else 'retries'}"
        case IncidentKind.RATE_LIMIT if seconds >= SOON:
            return f"going on after {took} of waiting for the server's rate limit"
        case IncidentKind.STALL:
            return f"it moves again, {took} after the warning"
        case IncidentKind.LATENCY:
            return f"the latency is low again, {took} after the warning"
        case IncidentKind.ERROR_RATE:
            return f"the error rate is low again, {took} after the warning"
        case _:
            return ""


def duration(seconds: float) -> str:
    """`3.2 s`, `2 min 5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"
