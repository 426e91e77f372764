"""The one function that changes the state.

`reduce` takes an event and the time, and answers with the public events that follow: the event itself where it
changed something, nothing where it was stale, a duplicate, or a step backwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uploader_cli.core import events as ev
from uploader_cli.core.events import Phase, Transport
from uploader_cli.core.recovery import hear
from uploader_cli.core.stages import Analysis
from uploader_cli.core.state import (
    MOST_KEPT,
    SERVER_TERMINAL,
    Analysed,
    FileState,
    Finished,
    ProgressState,
    SessionState,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def reduce(state: ProgressState, event: ev.Event, now: float) -> list[ev.Event]:
    """Apply `event`, which happened at `now` (run clock, seconds); answer with what observers are told of.

    That is public events, and `FileCancelled`.
    """
    handler = _HANDLERS.get(type(event))
    if handler is None:
        return [event] if event.type else []
    out = handler(state, event, now)
    if out and isinstance(event, _ADVANCES):
        state.advanced = now
    return [*out, *hear(state, event, now)]


# --- the run ---------------------------------------------------------------------------------------------------------


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
    state.stopped = now
    state.measures.sample(now, state.sent_total, last=True)
    state.trouble = str(event.error or "")
    state.advice = getattr(event.error, "hint", "")
    return []


def _run_finished(state: ProgressState, event: ev.RunFinished, _now: float) -> list[ev.Event]:
    state.outcome = event
    return [event]


def _warning(state: ProgressState, event: ev.RunWarning, _now: float) -> list[ev.Event]:
    if len(state.warnings) < MOST_KEPT or event.code is ev.WarningCode.MAY_BE_STORED:
        state.warnings.append(event)
    state.news = event
    return [event]


def _content_checked(state: ProgressState, event: ev.ContentChecked, _now: float) -> list[ev.Event]:
    state.checking = event.path
    return []


def _paused(state: ProgressState, event: ev.Paused, now: float) -> list[ev.Event]:
    state.paused_until, state.pause_reason = now + event.seconds, event.reason
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


# --- files -----------------------------------------------------------------------------------------------------------


def _file_started(state: ProgressState, event: ev.FileStarted, now: float) -> list[ev.Event]:
    if _is_over(state, event.file):
        return []
    before = state.running.get(event.file)
    if before is not None and event.attempt <= before.attempt:
        return []
    file = FileState(
        event.file,
        event.path,
        event.size,
        event.session,
        event.wire_name,
        event.attempt,
        event.offset,
        now if before is None else before.started,
        sent=event.offset,
        confirmed=event.offset,
    )
    session = state.sessions.get(event.session)
    if before is not None and session is not None:
        file.server_time = session.server_time  # what the server said of the attempt before is old
    file.meter.update(now, event.offset)
    state.running[event.file] = file
    state.sizes.pop(event.file, None)
    if session is not None:
        session.by_name[event.wire_name] = event.file
    return [event]


def _bytes_sent(state: ProgressState, event: ev.BytesSent, now: float) -> list[ev.Event]:
    file = state.running.get(event.file)
    if file is None or event.attempt != file.attempt or file.phase is Phase.QUEUED or event.sent <= file.sent:
        return []
    state.sent_total += event.sent - file.sent
    state.meter.update(now, state.sent_total)
    file.sent = event.sent
    file.meter.update(now, event.sent)
    return [_progress(file, now)]


def _bytes_confirmed(state: ProgressState, event: ev.BytesConfirmed, now: float) -> list[ev.Event]:
    """What the server has beyond what was told as sent, it got in an earlier attempt: `sent` follows."""
    file = state.running.get(event.file)
    if file is None or event.attempt != file.attempt or file.phase is Phase.QUEUED or event.confirmed <= file.confirmed:
        return []
    file.confirmed = event.confirmed
    file.sent = max(file.sent, event.confirmed)
    return [_progress(file, now)]


def _body_sent(state: ProgressState, event: ev.BodySent, now: float) -> list[ev.Event]:
    out: list[ev.Event] = []
    for number in event.files:
        file = state.running.get(number)
        if file is not None and file.phase is Phase.SENDING:
            file.phase = Phase.PROCESSING
            out.append(_progress(file, now))
    return out


def _file_retry(state: ProgressState, event: ev.FileRetry, _now: float) -> list[ev.Event]:
    file = state.running.get(event.file)
    if file is None or event.attempt <= file.attempt or file.phase is Phase.QUEUED:
        return []
    state.retries += 1
    file.phase, file.sent, file.confirmed = Phase.QUEUED, file.offset, file.offset
    file.server_percent, file.server_status = None, ""
    return [event]


def _file_completed(state: ProgressState, event: ev.FileCompleted, now: float) -> list[ev.Event]:
    if _is_over(state, event.file):
        return []
    out: list[ev.Event] = []
    file = state.running.get(event.file)
    if file is not None and (file.confirmed < event.size or file.sent < event.size):
        file.sent = file.confirmed = event.size
        file.phase = Phase.PROCESSING
        out.append(_progress(file, now))
    state.completed += 1
    state.completed_bytes += event.size
    state.measures.file_over(well=True)
    _settle(state, event.file, event.path, Phase.COMPLETED, now, size=event.size)
    return [*out, event]


def _file_failed(state: ProgressState, event: ev.FileFailed, now: float) -> list[ev.Event]:
    if _is_over(state, event.file):
        return []
    state.failed += 1
    state.measures.file_over(well=False)
    state.failed_as[event.code, event.retryable] += 1
    state.last_failures.append(event)
    if len(state.failures) < MOST_KEPT:
        state.failures.append(event)
    _settle(state, event.file, event.path, Phase.FAILED, now, note=event.message)
    return [event]


def _file_skipped(state: ProgressState, event: ev.FileSkipped, now: float) -> list[ev.Event]:
    if _is_over(state, event.file):
        return []
    state.skipped += 1
    state.skips[event.reason] += 1
    _settle(state, event.file, event.path, Phase.SKIPPED, now, note=event.reason)
    return [event]


def _files_cancelled(state: ProgressState, event: ev.FilesCancelled, now: float) -> list[ev.Event]:
    out: list[ev.Event] = []
    local = {file.file: file for file in event.local}
    for number in event.files:
        if _is_over(state, number):
            continue
        file = state.running.get(number)
        if file is not None:
            if file.phase is Phase.QUEUED:
                file.attempt += 1  # the one that was waited for: within an attempt no number falls
            file.phase = Phase.CANCELLED
            out.append(_progress(file, now))
        state.cancelled += 1
        _settle(state, number, file.path if file else "", Phase.CANCELLED, now)
        if number in local:
            out.append(ev.FileCancelled(local[number]))
    return out


def _settle(
    state: ProgressState,
    number: int,
    path: str,
    phase: Phase,
    now: float,
    *,
    size: int | None = None,
    note: str = "",
) -> None:
    """Make a number of a file that is over."""
    file = state.running.pop(number, None)
    waiting = state.sizes.pop(number, None)
    if size is None:
        size = (file.size if file is not None else waiting) or 0
    if number >= len(state.marks):
        state.marks.extend(bytes(number + 1 - len(state.marks)))
    state.marks[number] = 1
    state.settled_bytes += size
    if file is not None or phase is Phase.FAILED:
        seconds = now - file.started if file is not None else 0.0
        state.finished.append(Finished(number, path, phase, size, seconds, note))


def _is_over(state: ProgressState, number: int) -> bool:
    return number < len(state.marks) and state.marks[number] == 1


def _progress(file: FileState, now: float) -> ev.FileProgress:
    return ev.FileProgress(
        file=file.file,
        attempt=file.attempt,
        sent=file.sent,
        confirmed=file.confirmed,
        size=file.size,
        rate=round(file.meter.rate(now), 1),
        phase=file.phase,
        server_percent=file.server_percent,
    )


# --- sessions --------------------------------------------------------------------------------------------------------


def _session_created(state: ProgressState, event: ev.SessionCreated, _now: float) -> list[ev.Event]:
    state.sessions[event.session] = SessionState(event.session, event.category, event.files)
    state.session = event.session
    return [event]


def _session_watched(state: ProgressState, event: ev.SessionWatched, _now: float) -> list[ev.Event]:
    state.sessions[event.session] = SessionState(event.session, watched=True)
    state.session = event.session
    return []


def _session_finished(state: ProgressState, event: ev.SessionFinished, _now: float) -> list[ev.Event]:
    session = state.sessions.get(event.session)
    if session is None or session.over:
        return []
    session.over = True
    if session.watched:
        session.status = event.status
    state.sessions_done += 1
    return [event]


def _session_left(state: ProgressState, event: ev.SessionLeft, _now: float) -> list[ev.Event]:
    """Those that are watched stay: their number is what was asked for, and all that is said of the whole."""
    session = state.sessions.get(event.session)
    if session is not None and not session.watched:
        del state.sessions[event.session]
    return []


def _session_missing(state: ProgressState, event: ev.SessionMissing, _now: float) -> list[ev.Event]:
    state.channel.stale, state.channel.failure = "", None
    session = state.sessions.get(event.session)
    if session is not None:
        session.missing += 1
    return []


def _session_progress(state: ProgressState, event: ev.SessionProgress, now: float) -> list[ev.Event]:
    state.measures.heard(event)
    session = state.sessions.get(event.session)
    if session is None:
        return []
    state.channel.heard, state.channel.stale, state.channel.failure = now, "", None
    session.heard, session.missing = now, 0
    if event.source is Transport.HTTP:
        session.answered = now
    out: list[ev.Event] = []
    stamp = event.timestamp if event.timestamp is not None else session.server_time
    for status in event.files:
        out.extend(_file_status(state, session, status, stamp, now))
    if stamp < session.server_time:
        return out
    session.server_time = stamp
    _session_totals(session, event)
    if event.message and (not state.messages or state.messages[-1] != event.message):
        state.messages.append(event.message)
        out.append(ev.ServerMessage(event.message))
    return out


def _session_totals(session: SessionState, event: ev.SessionProgress) -> None:
    """Totals never fall; the first terminal status stays (the server sends a second, cruder one, wire contract 3.4)."""
    if event.percent is not None:
        session.percent = max(session.percent, _clamped(event.percent))
    total = event.total if event.total is not None else session.total
    session.total = total
    if event.completed is not None:
        cap = total if total is not None else event.completed
        session.completed = max(session.completed, min(event.completed, cap))
    if event.failed is not None:
        session.failed = max(session.failed, event.failed)
    if event.status and session.status not in SERVER_TERMINAL:
        session.status = event.status


def _file_status(
    state: ProgressState, session: SessionState, status: ev.FileStatus, stamp: float, now: float
) -> list[ev.Event]:
    """What the server says of a file is a percentage and a message: never its end (the HTTP answer is)."""
    number = session.by_name.get(status.name)
    out: list[ev.Event] = []
    if number is None:
        if not session.watched:
            return []
        number, started = _discover(state, session, status, now)
        out.append(started)
    file = state.running.get(number)
    if file is None or file.session != session.session or file.phase is Phase.QUEUED or stamp < file.server_time:
        return out
    changed = status.status != file.server_status
    file.server_time, file.server_status = stamp, status.status
    file.server_id = status.server_id or file.server_id
    if status.percent is not None:
        percent = _clamped(status.percent)
        if file.server_percent is None or percent > file.server_percent:
            file.server_percent, changed = percent, True
    if session.watched and status.status in ("completed", "failed"):
        return [*out, *_watched_end(state, file, status, now)]
    return [*out, _progress(file, now)] if changed else out


def _clamped(percent: float) -> float:
    return max(0.0, min(100.0, percent))


def _discover(
    state: ProgressState, session: SessionState, status: ev.FileStatus, now: float
) -> tuple[int, ev.FileStarted]:
    """A watched session's file shows up for the first time; its size is not known."""
    number = state.selected
    state.selected += 1
    session.by_name[status.name] = number
    state.running[number] = FileState(number, status.name, None, session.session, status.name, 1, 0, now)
    return number, ev.FileStarted(number, status.name, 0, session.session, 0, 1)


def _watched_end(state: ProgressState, file: FileState, status: ev.FileStatus, now: float) -> list[ev.Event]:
    """For a watcher the server's messages are all there is."""
    if status.status == "completed":
        done = ev.FileCompleted(
            file.file,
            file.path,
            0,
            file.server_id,
            None,
            verified=False,
            attempts=1,
            seconds=round(now - file.started, 3),
        )
        return _file_completed(state, done, now)
    failed = ev.FileFailed(
        file.file,
        file.path,
        ev.FailureCode.SERVER_FAILED,
        status.error or "the server could not store this file",
        retryable=False,
    )
    return _file_failed(state, failed, now)


# --- the analysis after the upload ----------------------------------------------------------------------------------


def _analysis_started(state: ProgressState, event: ev.AnalysisStarted, now: float) -> list[ev.Event]:
    state.analysis = Analysis(event.kind, event.name, now, event.number, event.of)
    state.advanced = now
    return []


def _analysis_message(state: ProgressState, event: ev.AnalysisMessage, now: float) -> list[ev.Event]:
    analysis = state.analysis
    if analysis is None or analysis.ended is not None:
        return []
    before = analysis.percent
    news = analysis.say(event.message)
    moves = [] if event.percent is None else analysis.advance(now, _clamped(event.percent), guess=event.assumed)
    if news or (analysis.percent > before and not event.assumed):
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
        out += _warning(state, ev.RunWarning(ev.WarningCode.ANALYSIS_FAILED, done.warning), now)
    return out


def _analysis_saved(state: ProgressState, event: ev.AnalysisSaved, _now: float) -> list[ev.Event]:
    state.analysis_file = event.path
    return []


def _stages(moves: list[tuple[str, float]]) -> list[ev.Event]:
    return [ev.Stage(name, percent) for name, percent in moves]


_HANDLERS: dict[type[ev.Event], Callable[[ProgressState, Any, float], list[ev.Event]]] = {
    ev.RunStarted: _run_started,
    ev.FileSelected: _file_selected,
    ev.SelectionEnded: _selection_ended,
    ev.EngineStopped: _engine_stopped,
    ev.RunFinished: _run_finished,
    ev.RunWarning: _warning,
    ev.ContentChecked: _content_checked,
    ev.Paused: _paused,
    ev.ChannelChanged: _channel_changed,
    ev.PollFailed: _poll_failed,
    ev.FileStarted: _file_started,
    ev.BytesSent: _bytes_sent,
    ev.BytesConfirmed: _bytes_confirmed,
    ev.BodySent: _body_sent,
    ev.FileRetry: _file_retry,
    ev.FileCompleted: _file_completed,
    ev.FileFailed: _file_failed,
    ev.FileSkipped: _file_skipped,
    ev.FilesCancelled: _files_cancelled,
    ev.SessionCreated: _session_created,
    ev.SessionWatched: _session_watched,
    ev.SessionFinished: _session_finished,
    ev.SessionLeft: _session_left,
    ev.SessionMissing: _session_missing,
    ev.SessionProgress: _session_progress,
    ev.AnalysisStarted: _analysis_started,
    ev.AnalysisMessage: _analysis_message,
    ev.AnalysisEnded: _analysis_ended,
    ev.AnalysisSaved: _analysis_saved,
    ev.CallMade: _call_made,
    ev.ServerClock: _server_clock,
    ev.Ticked: _ticked,
    ev.AlarmOver: lambda _state, _event, _now: [],
}

_ADVANCES = (
    ev.SessionCreated,
    ev.FileStarted,
    ev.BytesSent,
    ev.BodySent,
    ev.FileCompleted,
    ev.FileFailed,
    ev.SessionProgress,
)
"""What ends a stall when it changes anything."""
