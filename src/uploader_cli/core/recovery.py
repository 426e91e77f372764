"""Begin and end incidents by events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelState, PauseReason, Transport, WarningCode
from uploader_cli.core.incidents import Ending, IncidentKind, recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from uploader_cli.core.incidents import Incident
    from uploader_cli.core.state import ProgressState

_NO_CASE = (0, 130, 143)
"""Exit codes that need no attention: success and interrupts."""
_ALARMS = {
    WarningCode.STALLED: IncidentKind.STALL,
    WarningCode.LATENCY: IncidentKind.LATENCY,
    WarningCode.ERROR_RATE: IncidentKind.ERROR_RATE,
    WarningCode.SESSION_LOST: IncidentKind.SESSION,
}


def needs_person(outcome: ev.RunFinished | None) -> bool:
    """Return True for a run that needs attention; None is one that ended with an exception."""
    return outcome is None or outcome.exit_code not in _NO_CASE


def track_incidents(state: ProgressState, event: ev.Event, now: float) -> list[ev.Event]:
    """Begin or end incidents after `event` has changed the state; return a warning about a recovery."""
    handler = _HANDLERS.get(type(event))
    over = handler(state, event, now) if handler is not None else None
    if over is None or over.ending is not Ending.RECOVERED:
        return []
    text = recovery(over)
    if not text:
        return []
    state.news = ev.RunWarning(WarningCode.RECOVERED, text)
    return [state.news]


def _channel_changed(state: ProgressState, event: ev.ChannelChanged, now: float) -> Incident | None:
    log = state.incidents
    match event.to:
        case ChannelState.LIVE:
            return log.end(IncidentKind.CHANNEL, now, Ending.RECOVERED)
        case ChannelState.CLOSED:
            return log.end(IncidentKind.CHANNEL, now, Ending.DEGRADED)
        case ChannelState.RECONNECTING | ChannelState.POLLING:
            log.begin(IncidentKind.CHANNEL, now, f"no realtime connection: {event.reason.replace('_', ' ')}")
    return None


def _poll_failed(state: ProgressState, event: ev.PollFailed, now: float) -> None:
    state.incidents.begin(IncidentKind.UPDATES, now, event.reason)


def _news(state: ProgressState, event: ev.Event, now: float) -> Incident | None:
    channel = state.incidents.active.get(IncidentKind.CHANNEL)
    if channel is not None and isinstance(event, ev.SessionProgress) and event.source is Transport.HTTP:
        channel.degraded = True
    return None if state.channel.stale else state.incidents.end(IncidentKind.UPDATES, now, Ending.RECOVERED)


def _file_retry(state: ProgressState, event: ev.FileRetry, now: float) -> None:
    file = state.running.get(event.file)
    if file is not None and file.phase is ev.Phase.QUEUED:
        state.incidents.retrying.add(event.file)
        state.incidents.begin(IncidentKind.TRANSFER, now, f"{event.code}: {event.message}")


def _confirmed(state: ProgressState, event: ev.BytesConfirmed, now: float) -> Incident | None:
    file = state.running.get(event.file)
    if file is None or event.attempt != file.attempt or event.confirmed <= file.offset:
        return None
    return _remove_retrying(state, (event.file,), now)


def _went_well(state: ProgressState, event: ev.FileCompleted | ev.FileSkipped, now: float) -> Incident | None:
    return _remove_retrying(state, (event.file,), now)


def _failed(state: ProgressState, event: ev.FileFailed, now: float) -> Incident | None:
    state.incidents.given_up |= event.file in state.incidents.retrying
    return _remove_retrying(state, (event.file,), now)


def _cancelled(state: ProgressState, event: ev.FilesCancelled, now: float) -> Incident | None:
    return _remove_retrying(state, event.files, now, Ending.DEGRADED)


def _remove_retrying(
    state: ProgressState, files: Iterable[int], now: float, ending: Ending = Ending.RECOVERED
) -> Incident | None:
    """Remove files from those being retried; the last one ends the incident."""
    log = state.incidents
    if not log.retrying:
        return None
    log.retrying.difference_update(files)
    if log.retrying:
        return None
    ending, log.given_up = Ending.NEEDS_PERSON if log.given_up else ending, False
    return log.end(IncidentKind.TRANSFER, now, ending)


def _paused(state: ProgressState, event: ev.Paused, now: float) -> None:
    if event.reason is PauseReason.RATE_LIMIT:
        state.incidents.begin(IncidentKind.RATE_LIMIT, now, "the server's rate limit")


def _ticked(state: ProgressState, _event: ev.Ticked, now: float) -> Incident | None:
    if state.paused_until is None or state.paused(now):
        return None
    return state.incidents.end(IncidentKind.RATE_LIMIT, now, Ending.RECOVERED)


def _warning(state: ProgressState, event: ev.RunWarning, now: float) -> None:
    kind = _ALARMS.get(event.code)
    if kind is not None:
        state.incidents.begin(kind, now, event.text)


def _alarm_over(state: ProgressState, event: ev.AlarmOver, now: float) -> Incident | None:
    return state.incidents.end(_ALARMS[event.code], now, Ending.RECOVERED)


def _session_created(state: ProgressState, _event: ev.SessionCreated, now: float) -> Incident | None:
    return state.incidents.end(IncidentKind.SESSION, now, Ending.RECOVERED)


def _engine_stopped(state: ProgressState, event: ev.EngineStopped, now: float) -> None:
    if event.error is not None:
        state.incidents.begin(IncidentKind.RUN, now, str(event.error))


def _run_finished(state: ProgressState, event: ev.RunFinished, now: float) -> None:
    state.incidents.close(now, needs_person=needs_person(event))


_HANDLERS: dict[type[ev.Event], Callable[[ProgressState, Any, float], Incident | None]] = {
    ev.ChannelChanged: _channel_changed,
    ev.PollFailed: _poll_failed,
    ev.SessionProgress: _news,
    ev.SessionMissing: _news,
    ev.FileRetry: _file_retry,
    ev.BytesConfirmed: _confirmed,
    ev.FileCompleted: _went_well,
    ev.FileSkipped: _went_well,
    ev.FileFailed: _failed,
    ev.FilesCancelled: _cancelled,
    ev.Paused: _paused,
    ev.Ticked: _ticked,
    ev.RunWarning: _warning,
    ev.AlarmOver: _alarm_over,
    ev.SessionCreated: _session_created,
    ev.EngineStopped: _engine_stopped,
    ev.RunFinished: _run_finished,
}
