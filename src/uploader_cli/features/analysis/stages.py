"""The stages, progress and remaining time of an analysis after the upload, and the analyses of a run.

Percentages are 0–100 of the whole analysis; times are in seconds of the run's clock, always an argument.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from msgspec import Struct, field

LOG = 50  # maximum messages kept
UNANSWERED = 99.0  # maximum percentage before the server has answered
_TOO_EARLY, _TOO_LATE = 5.0, 95.0
"""Outside of these percentages no remaining time is shown: it is unknown, or nearly over."""
_WEIGHT = 0.4  # weight of a new measurement of the remaining time against the shown one
_REASON = 1.5  # factor from which a measurement raises the shown time: the server has become slower
_LEAST = 3.0  # minimum difference in seconds for that


class Kind(StrEnum):
    CONTENT = "content"
    FUSION = "fusion"
    MUSIC = "music"


STAGES: dict[Kind, tuple[tuple[str, float], ...]] = {
    Kind.CONTENT: (("upload", 10), ("model analysis", 40), ("structuring", 70), ("report", 90), ("saving", 100)),
    Kind.FUSION: (("upload", 10), ("video 1", 25), ("video 2", 40), ("plan", 70), ("timeline", 85), ("saving", 100)),
    Kind.MUSIC: (("parse", 20), ("emotion", 40), ("instruments", 60), ("prompt", 85), ("saving", 100)),
}
"""The stages in order, each with the percentage at its end (docs/protocol.md section 4)."""


def stage_at(kind: Kind, percent: float) -> int:
    """Return the index of the stage at `percent`; the last one from 100 on."""
    stages = STAGES[kind]
    return next((index for index, (_, end) in enumerate(stages) if percent < end), len(stages) - 1)


def between(kind: Kind, before: float, after: float) -> list[tuple[str, float]]:
    """Return each stage that ended between `before` and `after`, then the running one with its percentage.

    Return nothing for a step of less than one percent that ends no stage.
    """
    out = [(name, float(end)) for name, end in STAGES[kind] if before < end <= after]
    if (not out or out[-1][1] < after) and int(after) > int(before):
        out.append((STAGES[kind][stage_at(kind, after)][0], float(int(after))))
    return out


class Analysis(Struct):
    """A running or finished analysis. `name` are its files; `number` of `of` in this run counts from 1.

    A finished one has a `summary` of its result, or an `error`.
    """

    kind: Kind
    name: str
    started: float
    number: int = 1
    of: int = 1
    percent: float = 0.0
    assumed: bool = False  # the percentage is estimated by time: the server is silent
    log: deque[str] = field(default_factory=lambda: deque(maxlen=LOG))
    summary: str = ""
    error: str = ""
    retryable: bool = False
    ended: float | None = None
    first: tuple[str, float] | None = None  # the first of what `advance` and `end` have returned
    _end: float | None = None  # the estimated end last shown

    @property
    def stage(self) -> int:
        return stage_at(self.kind, self.percent)

    @property
    def complete(self) -> bool:
        """True after a response with a result."""
        return self.ended is not None and not self.error

    def advance(self, now: float, percent: float, *, guess: bool = False) -> list[tuple[str, float]]:
        """Advance to `percent`, never back; return the result of `between`."""
        percent = min(percent, UNANSWERED)
        if percent <= self.percent:
            self.assumed = self.assumed and guess
            return []
        before, self.percent, self.assumed = self.percent, percent, guess
        if not guess:
            self._estimate(now)
        return self._moved(before)

    @property
    def warning(self) -> str:
        """The warning about a failure, else empty."""
        return f"no {self.kind} analysis of {self.name}: {self.error}" if self.error else ""

    def end(self, now: float, summary: str, error: str, *, retryable: bool) -> list[tuple[str, float]]:
        """End the analysis; return the remaining stages if it succeeded."""
        self.ended, self.assumed = now, False
        self.summary, self.error, self.retryable = summary, error, retryable
        if error:
            return []
        before, self.percent = self.percent, 100.0
        return self._moved(before)

    def _moved(self, before: float) -> list[tuple[str, float]]:
        moves = between(self.kind, before, self.percent)
        self.first = self.first or next(iter(moves), None)
        return moves

    def say(self, text: str) -> bool:
        """Store a message, unless it repeats the last one; return True for a new one."""
        new = bool(text) and (not self.log or self.log[-1] != text)
        if new:
            self.log.append(text)
        return new

    def elapsed(self, now: float) -> float:
        """Return the seconds since the start, or the duration."""
        return (now if self.ended is None else self.ended) - self.started

    def remaining(self, now: float) -> float | None:
        """Return the remaining seconds; None if unknown, for an estimated percentage, or after the estimated end."""
        if self.ended is not None or self.assumed or not _TOO_EARLY <= self.percent <= _TOO_LATE:
            return None
        return self._end - now if self._end is not None and self._end > now else None

    def _estimate(self, now: float) -> None:
        """Estimate the end from the time so far: it gets later only if the server has become slower."""
        if not _TOO_EARLY <= self.percent <= _TOO_LATE:
            return
        measured = (now - self.started) * (100 - self.percent) / self.percent
        shown = None if self._end is None else self._end - now
        if shown is None or shown <= 0 or measured > max(_REASON * shown, shown + _LEAST):
            self._end = now + measured
        else:
            self._end = now + min(shown, (1 - _WEIGHT) * shown + _WEIGHT * measured)


class AnalysesState(Struct):
    """The analyses of a run, one after the other."""

    begun: list[Analysis] = field(default_factory=list)
    file: str = ""  # the file with their results

    @property
    def running(self) -> Analysis | None:
        return next((analysis for analysis in self.begun[-1:] if analysis.ended is None), None)

    @property
    def ended(self) -> list[Analysis]:
        return [analysis for analysis in self.begun if analysis.ended is not None]
