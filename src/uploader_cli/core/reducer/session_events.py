"""Apply events of own and watched sessions, and the server's messages about them."""

from __future__ import annotations

from uploader_cli.core import events as ev
from uploader_cli.core.events import Phase, Transport
from uploader_cli.core.incidents import IncidentKind
from uploader_cli.core.reducer.file_events import completed, failed, progress_of
from uploader_cli.core.reducer.run_events import Handlers, recovered
from uploader_cli.core.state import SERVER_TERMINAL, FileState, ProgressState, SessionState


def _clamped(percent: float) -> float:
    """Return a server's percentage, limited to 0–100."""
    return max(0.0, min(100.0, percent))


def _session_created(state: ProgressState, event: ev.SessionCreated, now: float) -> list[ev.Event]:
    state.sessions[event.session] = SessionState(event.session)
    state.session = event.session
    state.sessions_in[event.category] += 1
    state.advanced = now
    return [event, *recovered(state, state.incidents.end(IncidentKind.SESSION, now))]


def _session_watched(state: ProgressState, event: ev.SessionWatched, _now: float) -> None:
    state.sessions[event.session] = SessionState(event.session, watched=True)
    state.session = event.session


def _session_finished(state: ProgressState, event: ev.SessionFinished, _now: float) -> list[ev.Event]:
    session = state.sessions.get(event.session)
    if session is None or session.over:
        return []
    session.over = True
    if session.watched:
        session.status = event.status
    state.sessions_done += 1
    return [event]


def _session_left(state: ProgressState, event: ev.SessionLeft, _now: float) -> None:
    """Drop a finished session of ours; watched ones stay, because the totals are computed from them."""
    session = state.sessions.get(event.session)
    if session is not None and not session.watched:
        del state.sessions[event.session]


def _session_missing(state: ProgressState, event: ev.SessionMissing, now: float) -> list[ev.Event]:
    session = state.sessions.get(event.session)
    if session is not None:
        session.missing += 1
    return _updated(state, now)


def _updated(state: ProgressState, now: float) -> list[ev.Event]:
    state.channel.stale, state.channel.failure = "", None
    return recovered(state, state.incidents.end(IncidentKind.UPDATES, now))


def _session_progress(state: ProgressState, event: ev.SessionProgress, now: float) -> list[ev.Event]:
    state.measures.heard(event)
    session = state.sessions.get(event.session)
    if session is None:
        return []
    state.channel.heard = session.heard = now
    session.missing = 0
    if event.source is Transport.HTTP:
        session.answered = now
        if (lost := state.incidents.active.get(IncidentKind.CHANNEL)) is not None:
            lost.degraded = True
    out = _apply(state, session, event, now)
    if out:
        state.advanced = now
    return [*out, *_updated(state, now)]


def _apply(state: ProgressState, session: SessionState, event: ev.SessionProgress, now: float) -> list[ev.Event]:
    out: list[ev.Event] = []
    stamp = event.timestamp if event.timestamp is not None else session.server_time
    for status in event.files:
        if session.watched and event.source is not Transport.HTTP:
            _forget_attempt(state, session, status)
        out.extend(_file_status(state, session, status, stamp, now))
    if stamp < session.server_time:
        return out
    session.server_time = stamp
    _session_totals(session, event)
    if session.watched and event.bytes is not None:
        _watched_bytes(state, session, event.bytes, now)
    if event.message and (not state.messages or state.messages[-1] != event.message):
        state.messages.append(event.message)
        out.append(ev.ServerMessage(event.message))
    return out


def _session_totals(session: SessionState, event: ev.SessionProgress) -> None:
    """Raise the totals; keep the first terminal status: a less exact one follows (docs/protocol.md section 3.4).

    The percentage falls only by a message that has the total as well: the bundled server sends one after a broken
    request; the reference backend, whose percentages jump, sends both only at the end.
    """
    if event.percent is not None:
        exact = event.total is not None and event.source is not Transport.HTTP
        session.percent = max(0.0 if exact else session.percent, _clamped(event.percent))
    total = event.total if event.total is not None else session.total
    session.total = total
    session.size = event.size if event.size is not None else session.size
    if event.completed is not None:
        cap = total if total is not None else event.completed
        session.completed = max(session.completed, min(event.completed, cap))
    if event.failed is not None:
        session.failed = max(session.failed, event.failed)
    if event.status and session.status not in SERVER_TERMINAL:
        session.status = event.status


def _watched_bytes(state: ProgressState, session: SessionState, total: int, now: float) -> None:
    """Measure what arrives in watched sessions; what arrived before is no speed."""
    if session.bytes is None:
        state.meter.restart(now)
    elif total > session.bytes:
        state.sent_total += total - session.bytes
        state.meter.update(now, state.sent_total)
    session.bytes = total


def _file_status(
    state: ProgressState, session: SessionState, status: ev.FileStatus, stamp: float, now: float
) -> list[ev.Event]:
    """Apply the percentage and status of a file; its end is decided by the HTTP response, unless it is watched."""
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
    file.counts_bytes |= status.bytes is not None
    if status.percent is not None:
        percent = _clamped(status.percent)
        if file.server_percent is None or percent > file.server_percent:
            file.server_percent, changed = percent, True
    if session.watched and (status.bytes or 0) > file.sent:
        file.sent = file.confirmed = status.bytes or 0
        file.meter.update(now, file.sent)
    if session.watched and status.status in ("completed", "failed"):
        return [*out, *_watched_end(state, file, status, now)]
    return [*out, progress_of(file, now)] if changed and not file.packed else out


def _forget_attempt(state: ProgressState, session: SessionState, status: ev.FileStatus) -> None:
    """Begin a watched file again at 0 % where it has another id now: its first request broke off."""
    file = state.running.get(session.by_name.get(status.name, -1))
    if file is not None and file.server_id and status.server_id and file.server_id != status.server_id:
        file.server_percent, file.attempt = None, file.attempt + 1
        file.sent = file.confirmed = 0


def _discover(
    state: ProgressState, session: SessionState, status: ev.FileStatus, now: float
) -> tuple[int, ev.FileStarted]:
    """Start a file that is new in a watched session."""
    number = state.selected
    state.selected += 1
    session.by_name[status.name] = number
    state.running[number] = FileState(number, status.name, status.size, session.session, status.name, 1, 0, now)
    return number, ev.FileStarted(number, status.name, status.size, session.session, 0, 1)


def _watched_end(state: ProgressState, file: FileState, status: ev.FileStatus, now: float) -> list[ev.Event]:
    """End a watched file by the server's message, its only source."""
    number, path, took = file.file, file.path, round(now - file.started, 3)
    if status.status == "failed":
        why = status.error or "the server could not store this file"
        return failed(state, ev.FileFailed(number, path, ev.FailureCode.SERVER_FAILED, why, retryable=False), now)
    stored = ev.FileCompleted(
        number, path, status.size, file.server_id, None, verified=False, attempts=file.attempt, seconds=took
    )
    return completed(state, stored, now)


SESSION_HANDLERS: Handlers = {
    ev.SessionCreated: _session_created,
    ev.SessionWatched: _session_watched,
    ev.SessionFinished: _session_finished,
    ev.SessionLeft: _session_left,
    ev.SessionMissing: _session_missing,
    ev.SessionProgress: _session_progress,
}
