"""Apply events of the analysis after an upload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.core import events as ev
from uploader_cli.core.reducer.run import warned
from uploader_cli.core.reducer.sessions import clamped
from uploader_cli.core.stages import Analysis
from uploader_cli.core.state import Analysed

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.state import ProgressState


def _analysis_started(state: ProgressState, event: ev.AnalysisStarted, now: float) -> list[ev.Event]:
    state.analysis = Analysis(event.kind, event.name, now, event.number, event.of)
    state.advanced = now
    return []


def _analysis_message(state: ProgressState, event: ev.AnalysisMessage, now: float) -> list[ev.Event]:
    analysis = state.analysis
    if analysis is None or analysis.ended is not None:
        return []
    before = analysis.percent
    is_new = analysis.say(event.message)
    moves = [] if event.percent is None else analysis.advance(now, clamped(event.percent), guess=event.assumed)
    if is_new or (analysis.percent > before and not event.assumed):
        state.advanced = now
    return _stages(moves)


def _analysis_ended(state: ProgressState, event: ev.AnalysisEnded, now: float) -> list[ev.Event]:
    analysis = state.analysis
    if analysis is None or analysis.ended is not None:
        return []
    out = _stages(analysis.end(now, event.error))
    done = Analysed(analysis.kind, analysis.name, event.summary, event.error, event.retryable)
    state.analyses.append(done)
    if done.error:
        out += warned(state, ev.RunWarning(ev.WarningCode.ANALYSIS_FAILED, done.warning), now)
    return out


def _analysis_saved(state: ProgressState, event: ev.AnalysisSaved, _now: float) -> list[ev.Event]:
    state.analysis_file = event.path
    return []


def _stages(moves: list[tuple[str, float]]) -> list[ev.Event]:
    return [ev.Stage(name, percent) for name, percent in moves]


HANDLERS: dict[type[ev.Event], Callable[[ProgressState, Any, float], list[ev.Event]]] = {
    ev.AnalysisStarted: _analysis_started,
    ev.AnalysisMessage: _analysis_message,
    ev.AnalysisEnded: _analysis_ended,
    ev.AnalysisSaved: _analysis_saved,
}
