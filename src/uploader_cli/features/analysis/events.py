"""The events of an analysis, which change its part of the state."""

from __future__ import annotations

from uploader_cli.core.events import Event, Percent, RunWarning, WarningCode, public_among
from uploader_cli.core.state import FeatureEvent, ProgressState
from uploader_cli.features.analysis.stages import AnalysesState, Analysis, Kind

ANALYSIS_FAILED = WarningCode("analysis_failed")


class Stage(Event, frozen=True, tag="stage"):
    """The progress of the analysis: a stage, and the percentage (0–100) of the whole analysis."""

    name: str
    percent: Percent


class AnalysisStarted(FeatureEvent, frozen=True):
    """An analysis was requested: `name` are its files, `number` of `of` counts from 1."""

    kind: Kind
    name: str
    number: int = 1
    of: int = 1

    def apply(self, state: ProgressState, now: float) -> list[Event]:
        _analyses(state).begun.append(Analysis(self.kind, self.name, now, self.number, self.of))
        state.advanced = now
        return []


class AnalysisMessage(FeatureEvent, frozen=True):
    """The progress of the running analysis; `percent` is 0–100, None if unknown.

    `failed`: the server gave up; its HTTP response follows. `assumed`: an estimate by time, without a message.
    """

    texts = ("message",)
    percent: float | None = None
    message: str = ""
    failed: bool = False
    assumed: bool = False

    def apply(self, state: ProgressState, now: float) -> list[Event]:
        analysis = _analyses(state).running
        if analysis is None:
            return []
        before = analysis.percent
        is_new = analysis.say(self.message)
        moves = [] if self.percent is None else analysis.advance(now, self.percent, guess=self.assumed)
        if is_new or (analysis.percent > before and not self.assumed):
            state.advanced = now
        return [Stage(*move) for move in moves]


class AnalysisEnded(FeatureEvent, frozen=True):
    """The running analysis ended: with a summary of its result, or with an error."""

    texts = ("summary", "error")
    summary: str = ""
    error: str = ""
    retryable: bool = False

    def apply(self, state: ProgressState, now: float) -> list[Event]:
        analysis = _analyses(state).running
        if analysis is None:
            return []
        moves = analysis.end(now, self.summary, self.error, retryable=self.retryable)
        failed = [RunWarning(ANALYSIS_FAILED, analysis.warning)] if analysis.error else []
        return [*(Stage(*move) for move in moves), *failed]


class AnalysisSaved(FeatureEvent, frozen=True):
    """The results were saved in this file."""

    path: str

    def apply(self, state: ProgressState, _now: float) -> list[Event]:
        _analyses(state).file = self.path
        return []


def _analyses(state: ProgressState) -> AnalysesState:
    """Return this feature's part of the state."""
    analyses: AnalysesState = state.added.setdefault("analysis", AnalysesState())
    return analyses


LINES = public_among((Stage,))
