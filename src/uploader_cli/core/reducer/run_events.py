"""Apply events of the run: start and end, warnings, the channel, measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from uploader_cli.core import events as ev
from uploader_cli.core.bottleneck import LEAST_RUN, Bottleneck
from uploader_cli.core.events import ChannelState, PauseReason, WarningCode
from uploader_cli.core.incidents import IncidentEnding, IncidentKind, duration
from uploader_cli.core.state import MOST_KEPT, ProgressState

Handlers: TypeAlias = "dict[type[ev.Event], Callable[[ProgressState, Any, float], list[ev.Event] | None]]"
_ALARMS = {
    WarningCode.STALLED: IncidentKind.STALL,
    WarningCode.LATENCY: IncidentKind.LATENCY,
    WarningCode.ERROR_RATE: IncidentKind.ERROR_RATE,
    WarningCode.SESSION_LOST: IncidentKind.SESSION,
}


def recovered(state: ProgressState, text: str) -> list[ev.Event]:
    """Return the warning about a recovery; nothing for an empty text."""
    if not text:
        return []
    state.news = ev.RunWarning(WarningCode.RECOVERED, text)
    return [state.news]


def _run_started(state: ProgressState, event: ev.RunStarted, now: float) -> list[ev.Event]:
    state.server, state.protocol, state.dest = event.server, event.protocol, event.dest
    state.finishes_late, state.elsewhere = event.finishes_late, event.elsewhere
    state.started, state.advanced = state.started or now, now
    state.resumed = event.resumed_from is not None
    state.resumable |= state.resumed
    state.meter.update(now, 0)
    state.measures.sample(now, 0)
    return [event]


def _file_selected(state: ProgressState, event: ev.FileSelected, now: float) -> None:
    size = event.size or 0
    if state.waiting:
        state.earlier_bytes = state.settled_bytes
        measure_from(state, now)
    state.selected += 1
    state.selected_bytes += size
    state.unsized = event.size is None
    state.unstarted[event.file] = event
    state.tree.select(event.path, size)


def measure_from(state: ProgressState, now: float) -> None:
    """Measure speed and progress from now on."""
    state.advanced = now
    for meter in (state.meter, state.pace, *state.meters, *(file.meter for file in state.running.values())):
        meter.restart(now)


def _caught_up(state: ProgressState, event: ev.CaughtUp, _now: float) -> None:
    state.incomplete = event.incomplete


def _selection_ended(state: ProgressState, event: ev.SelectionEnded, _now: float) -> None:
    state.walking = False
    state.of_all = event.of_all
    state.tree.leave(None)


def _content_checked(state: ProgressState, event: ev.ContentChecked, _now: float) -> None:
    state.checking = event.path


def _engine_stopped(state: ProgressState, event: ev.EngineStopped, now: float) -> None:
    state.stopped, state.held = now, None
    if event.bottleneck is Bottleneck.LIMIT_RATE or (state.sending is not None and now - state.sending >= LEAST_RUN):
        state.bottleneck = (
            event.bottleneck
        )  # the search for files and the start of the command are no waits of a transfer
    if state.paused_until is not None and state.pause_reason in _WAITS:
        took = duration(now - state.paused_since)
        _rewrite(state, _WAITS[state.pause_reason], f"for {took}, until the end of the run")
    state.measures.sample(now, state.sent_total, last=True)
    state.timeline.update(now - state.started, state.sent_total, state.completed)
    state.trouble = str(event.error or "")
    state.advice = getattr(event.error, "hint", "")
    if event.error is not None:
        state.incidents.begin(IncidentKind.RUN, now, str(event.error))


def _run_finished(state: ProgressState, event: ev.RunFinished, now: float) -> list[ev.Event]:
    state.outcome = event
    state.incidents.close(now, event)
    return [event]


# --- warnings, pauses and measurements --------------------------------------------------------------------------------


def _warned(state: ProgressState, event: ev.RunWarning, now: float) -> list[ev.Event]:
    if event.code is WarningCode.RECOVERED:
        return recovered(state, event.text)
    if len(state.warnings) < MOST_KEPT or event.code in (WarningCode.MAY_BE_STORED, WarningCode.DEADLINE):
        state.warnings.append(event)
    state.news = event
    if (kind := _ALARMS.get(event.code)) is not None:
        state.incidents.begin(kind, now, event.text)
    return [event]


def _alarm_over(state: ProgressState, event: ev.AlarmOver, now: float) -> list[ev.Event]:
    kind = _ALARMS[event.code]
    goes_on = kind is not IncidentKind.STALL or not state.incidents.retrying  # a retry is no progress
    ending = IncidentEnding.RECOVERED if goes_on else IncidentEnding.DEGRADED
    return recovered(state, state.incidents.end(kind, now, ending))


def _paused(state: ProgressState, event: ev.Paused, now: float) -> list[ev.Event]:
    if not event.seconds:
        return _pause_over(state, now)
    state.paused_until = now + event.seconds
    state.pause_reason, state.paused_since = event.reason, now - event.waited
    if event.reason is PauseReason.RATE_LIMIT:
        state.incidents.begin(IncidentKind.RATE_LIMIT, now, "the server's rate limit")
    return []


def _call_repeats(state: ProgressState, event: ev.CallRepeats, now: float) -> None:
    state.repeat_at, state.repeat_reason = now + event.seconds, event.reason


def _pause_over(state: ProgressState, now: float) -> list[ev.Event]:
    """End a pause: measure from now on, and say how long an outage or a full disk lasted instead of what was awaited.

    A full disk ends with the first progress after a try, the others by their event or their time.
    """
    if state.paused_until is None:
        return []
    reason, took = state.pause_reason, duration(now - state.paused_since)
    state.paused_until = None
    measure_from(state, now)
    if reason is PauseReason.RATE_LIMIT:
        return recovered(state, state.incidents.end(IncidentKind.RATE_LIMIT, now))
    _rewrite(state, _WAITS[reason], f"recovered after {took}")
    return recovered(state, f"{_WAITS[reason][1]}: recovered after {took}")


_WAITS = {
    PauseReason.UNREACHABLE: (WarningCode.UNREACHABLE, "server unreachable"),
    PauseReason.DISK_FULL: (WarningCode.DISK_FULL, "the server's disk is full"),
}


def _rewrite(state: ProgressState, wait: tuple[WarningCode, str], end: str) -> None:
    """Put how a wait ended into its warning, for the summary: what it would wait for is no longer true."""
    code, what = wait
    places = [place for place, warning in enumerate(state.warnings) if warning.code is code]
    if places:
        state.warnings[places[-1]] = ev.RunWarning(code, f"{what}: {end}")


def _run_paused(state: ProgressState, event: ev.RunPaused, now: float) -> list[ev.Event]:
    state.held = now
    return [event]


def _run_resumed(state: ProgressState, event: ev.RunResumed, now: float) -> list[ev.Event]:
    state.held = None
    measure_from(state, now)
    return [event]


def _ticked(state: ProgressState, _event: ev.Ticked, now: float) -> list[ev.Event]:
    if state.stopped is None:
        state.measures.sample(now, state.sent_total)
        state.timeline.update(now - state.started, state.sent_total, state.completed)
    if (until := state.paused_until) is None:
        return []
    over = not state.paused(now) if state.held is None else until <= now
    if state.pause_reason is PauseReason.DISK_FULL:
        over = state.advanced > until
    return _pause_over(state, now) if over and state.pause_reason is not PauseReason.UNREACHABLE else []


def _call_made(state: ProgressState, event: ev.CallMade, _now: float) -> list[ev.Event]:
    state.measures.call(event)
    state.resumable |= event.status is not None
    state.answered |= event.status is not None
    return [event]


def _server_clock(state: ProgressState, event: ev.ServerClock, _now: float) -> None:
    state.measures.clock(event.offset, event.uncertainty)


# --- the realtime channel ---------------------------------------------------------------------------------------------


def _channel_changed(state: ProgressState, event: ev.ChannelChanged, now: float) -> list[ev.Event]:
    channel, incidents = state.channel, state.incidents
    channel.state, channel.transport, channel.attempt, channel.since = event.to, event.transport, event.attempt, now
    if event.latency_ms is not None:
        channel.latency_ms = event.latency_ms
        state.measures.connected(event.latency_ms)
    match event.to:
        case ChannelState.LIVE:
            return [event, *recovered(state, incidents.end(IncidentKind.CHANNEL, now))]
        case ChannelState.CLOSED:
            incidents.end(IncidentKind.CHANNEL, now, IncidentEnding.DEGRADED)
        case ChannelState.RECONNECTING | ChannelState.POLLING:
            why = event.reason.replace("_", " ")
            incidents.begin(IncidentKind.CHANNEL, now, f"no realtime connection: {why}")
            if state.news is not None and state.news.code is WarningCode.RECOVERED:
                state.news = None  # it may have said that the channel is back
    return [event]


def _poll_failed(state: ProgressState, event: ev.PollFailed, now: float) -> None:
    state.measures.failed_polls += 1
    state.channel.stale, state.channel.failure = event.reason, event.error
    state.incidents.begin(IncidentKind.UPDATES, now, event.reason)


RUN_HANDLERS: Handlers = {
    ev.RunStarted: _run_started,
    ev.FileSelected: _file_selected,
    ev.SelectionEnded: _selection_ended,
    ev.CaughtUp: _caught_up,
    ev.ContentChecked: _content_checked,
    ev.EngineStopped: _engine_stopped,
    ev.RunFinished: _run_finished,
    ev.RunWarning: _warned,
    ev.AlarmOver: _alarm_over,
    ev.Paused: _paused,
    ev.CallRepeats: _call_repeats,
    ev.RunPaused: _run_paused,
    ev.RunResumed: _run_resumed,
    ev.Ticked: _ticked,
    ev.CallMade: _call_made,
    ev.ServerClock: _server_clock,
    ev.ChannelChanged: _channel_changed,
    ev.PollFailed: _poll_failed,
}
