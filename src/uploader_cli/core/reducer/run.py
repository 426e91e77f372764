"""Apply events of the run: start and end, warnings, the channel, measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.core import events as ev
from uploader_cli.core.state import MOST_KEPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.state import ProgressState


def _run_started(state: ProgressState, event: ev.RunStarted, now: float) -> list[ev.Event]:
    state.server, state.protocol = event.server, event.protocol
    state.started = state.advanced = now
    state.meter.update(now, 0)
    state.measures.sample(now, 0)
    return [event]


def _file_selected(state: ProgressState, event: ev.FileSelected, _now: float) -> list[ev.Event]:
    state.selected += 1
    state.selected_bytes += event.size
    state.sizes[event.file] = event.size
    return []


def _selection_ended(state: ProgressState, _event: ev.SelectionEnded, _now: float) -> list[ev.Event]:
    state.walking = False
    return []


def _engine_stopped(state: ProgressState, event: ev.EngineStopped, now: float) -> list[ev.Event]:
    state.stopped, state.bottleneck = now, event.bottleneck
    state.measures.sample(now, state.sent_total, last=True)
    state.trouble = str(event.error or "")
    state.advice = getattr(event.error, "hint", "")
    return []


def _run_finished(state: ProgressState, event: ev.RunFinished, _now: float) -> list[ev.Event]:
    state.outcome = event
    return [event]


def warned(state: ProgressState, event: ev.RunWarning, _now: float) -> list[ev.Event]:
    """Store a warning for the view and the summary."""
    if len(state.warnings) < MOST_KEPT or event.code is ev.WarningCode.MAY_BE_STORED:
        state.warnings.append(event)
    state.news = event
    return [event]


def _content_checked(state: ProgressState, event: ev.ContentChecked, _now: float) -> list[ev.Event]:
    state.checking = event.path
    return []


def _paused(state: ProgressState, event: ev.Paused, now: float) -> list[ev.Event]:
    state.paused_until = now + event.seconds if event.seconds else None
    state.pause_reason, state.paused_since = event.reason, now - event.waited
    return []


def _channel_changed(state: ProgressState, event: ev.ChannelChanged, _now: float) -> list[ev.Event]:
    channel = state.channel
    channel.state, channel.transport, channel.reason = event.to, event.transport, event.reason
    channel.attempt = event.attempt
    if event.latency_ms is not None:
        channel.latency_ms = event.latency_ms
        state.measures.connected(event.latency_ms)
    return [event]


def _call_made(state: ProgressState, event: ev.CallMade, _now: float) -> list[ev.Event]:
    state.measures.call(event)
    return [event]


def _server_clock(state: ProgressState, event: ev.ServerClock, _now: float) -> list[ev.Event]:
    state.measures.clock(event.offset, event.uncertainty)
    return []


def _ticked(state: ProgressState, _event: ev.Ticked, now: float) -> list[ev.Event]:
    if state.stopped is None:
        state.measures.sample(now, state.sent_total)
    return []


def _poll_failed(state: ProgressState, event: ev.PollFailed, _now: float) -> list[ev.Event]:
    state.measures.failed_polls += 1
    state.channel.stale, state.channel.failure = event.reason, event.error
    return []


HANDLERS: dict[type[ev.Event], Callable[[ProgressState, Any, float], list[ev.Event]]] = {
    ev.RunStarted: _run_started,
    ev.FileSelected: _file_selected,
    ev.SelectionEnded: _selection_ended,
    ev.EngineStopped: _engine_stopped,
    ev.RunFinished: _run_finished,
    ev.ContentChecked: _content_checked,
    ev.Paused: _paused,
    ev.ChannelChanged: _channel_changed,
    ev.PollFailed: _poll_failed,
    ev.CallMade: _call_made,
    ev.ServerClock: _server_clock,
    ev.Ticked: _ticked,
    ev.RunWarning: warned,
}
