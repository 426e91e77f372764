"""What a server does with files after their upload: the stages of each kind of analysis, how far one is, what is left.

Percentages are 0–100 of the whole analysis; times are seconds of the run's clock, always an argument.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

LOG = 50
"""Messages of an analysis that are kept."""
UNANSWERED = 99.0
"""The most that is shown before the server has answered: 100 % is said of what is done only."""
_TOO_EARLY, _TOO_LATE = 5.0, 95.0
"""Outside of these percentages no remaining time is told: too little is known, or it is about to be over."""
_WEIGHT = 0.4
"""Of a new measurement of the remaining time, beside what was shown."""
_REASON = 1.5
"""A measurement so many times what is shown is a reason to show more: the server has become slower."""
_LEAST = 3.0
"""Seconds by which it must differ as well."""


class Kind(StrEnum):
    """What can be asked for."""

    CONTENT = "content"
    FUSION = "fusion"
    MUSIC = "music"


STAGES: dict[Kind, tuple[tuple[str, float], ...]] = {
    Kind.CONTENT: (("upload", 10), ("model analysis", 40), ("structuring", 70), ("report", 90), ("saving", 100)),
    Kind.FUSION: (("upload", 10), ("video 1", 25), ("video 2", 40), ("plan", 70), ("timeline", 85), ("saving", 100)),
    Kind.MUSIC: (("parse", 20), ("emotion", 40), ("instruments", 60), ("prompt", 85), ("saving", 100)),
}
"""The stages in order, each with the percentage at which it ends (wire contract 4)."""


def stage_at(kind: Kind, percent: float) -> int:
    """The index of the stage under way at `percent`; the last one from 100 on."""
    stages = STAGES[kind]
    return next((index for index, (_, end) in enumerate(stages) if percent < end), len(stages) - 1)


def between(kind: Kind, before: float, after: float) -> list[tuple[str, float]]:
    """Each stage that ended on the way from `before` to `after`, with its end, then where the one under way is.

    Nothing for a step of less than one percent that ends no stage.
    """
    out = [(name, float(end)) for name, end in STAGES[kind] if before < end <= after]
    if (not out or out[-1][1] < after) and int(after) > int(before):
        out.append((STAGES[kind][stage_at(kind, after)][0], float(int(after))))
    return out


def assumed(elapsed: float, limit: float) -> float:
    """A percentage for a server that says nothing: quick at first, and 95 at the most, as `limit` (seconds) nears."""
    return _TOO_LATE * (1 - math.exp(-4 * max(0.0, elapsed) / limit))


class Remaining:
    """The time left, smoothed: it counts down, and grows only where the server has really become slower."""

    def __init__(self, started: float) -> None:
        """Nothing is known yet."""
        self._started = started
        self._percent = 0.0
        self._end: float | None = None
        """When it will be over, as was last shown."""

    def update(self, now: float, percent: float) -> None:
        """`percent` was reached at `now`."""
        self._percent = percent
        if not _TOO_EARLY <= percent <= _TOO_LATE:
            return
        measured = (now - self._started) * (100 - percent) / percent
        shown = None if self._end is None else self._end - now
        if shown is None or shown <= 0 or measured > max(_REASON * shown, shown + _LEAST):
            self._end = now + measured
        else:
            self._end = now + min(shown, (1 - _WEIGHT) * shown + _WEIGHT * measured)

    def at(self, now: float) -> float | None:
        """Seconds left; None where that can't be said, also once more time has passed than was foreseen."""
        if self._end is None or self._end <= now or not _TOO_EARLY <= self._percent <= _TOO_LATE:
            return None
        return self._end - now


@dataclass(slots=True)
class Analysis:
    """One analysis as it goes on. `name` is what it is made of; `number` of `of` in this run, from 1."""

    kind: Kind
    name: str
    started: float
    number: int = 1
    of: int = 1
    percent: float = 0.0
    assumed: bool = False
    """The percentage is a guess by time: the server says nothing."""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG))
    error: str = ""
    ended: float | None = None
    _remaining: Remaining = field(init=False)

    def __post_init__(self) -> None:
        """The clock of the remaining time starts with it."""
        self._remaining = Remaining(self.started)

    @property
    def stage(self) -> int:
        """The index of the stage under way."""
        return stage_at(self.kind, self.percent)

    @property
    def complete(self) -> bool:
        """True once the server has answered with a result."""
        return self.ended is not None and not self.error

    def advance(self, now: float, percent: float, *, guess: bool = False) -> list[tuple[str, float]]:
        """Move on to `percent`, never back; answer with what `between` has to tell."""
        percent = min(percent, UNANSWERED)
        if percent <= self.percent:
            self.assumed = self.assumed and guess
            return []
        before, self.percent, self.assumed = self.percent, percent, guess
        if not guess:
            self._remaining.update(now, percent)
        return between(self.kind, before, percent)

    def end(self, now: float, error: str = "") -> list[tuple[str, float]]:
        """It is over: with what is left of the stages where it went well."""
        self.ended, self.error, self.assumed = now, error, False
        if error:
            return []
        before, self.percent = self.percent, 100.0
        return between(self.kind, before, 100.0)

    def say(self, text: str) -> bool:
        """Keep a message, unless it is the last one again; True for a new one."""
        new = bool(text) and (not self.log or self.log[-1] != text)
        if new:
            self.log.append(text)
        return new

    def elapsed(self, now: float) -> float:
        """Seconds since it began, or that it took."""
        return (now if self.ended is None else self.ended) - self.started

    def remaining(self, now: float) -> float | None:
        """Seconds left, where that can be said; never of a guess."""
        return None if self.ended is not None or self.assumed else self._remaining.at(now)
