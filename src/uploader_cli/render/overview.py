"""The texts about a run as a whole, shared by the live view and plain lines: progress, channel and alerts."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urlsplit

from uploader_cli.core.alarms import why_nothing_moves
from uploader_cli.core.events import ChannelState, PauseReason, Phase, Transport
from uploader_cli.core.incidents import IncidentKind
from uploader_cli.core.rate import SILENCE
from uploader_cli.core.state import BRIEF, PACED, ProgressState
from uploader_cli.core.tree import parent_of
from uploader_cli.render.feature_views import views
from uploader_cli.render.words import clock, plural, rate, safe, size, size_of

CAUSES = 3  # maximum causes of failures in a line
PACED_FILES = 5  # completed files below which there is no number of files per second
CONNECTING_SHOWN = 0.8  # seconds without any answer of the server after which the view says so
RECONNECTS = 3  # attempts before the channel falls back to polling (docs/protocol.md section 2)

_REQUEST = re.compile(r", request [\w-]{1,64}(?= \(|$)")  # as in `transfer/refusals`
_CHANNELS = {
    ChannelState.CONNECTING: ("◌", "yellow"),
    ChannelState.LIVE: ("●", "green"),
    ChannelState.RECONNECTING: ("↻", "bold yellow"),
    ChannelState.POLLING: ("◔", "yellow"),
}


def host(server: str) -> str:
    """Return `host:port` of the server's URL, without credentials."""
    return safe(urlsplit(server).netloc.rpartition("@")[2] or server)


def destination(state: ProgressState) -> str:
    """Return `host:port/category/dest`: where the files go."""
    place, dest = host(state.server), [safe(state.dest)] if state.dest else []
    if len(state.sessions_in) == 1:
        return "/".join([place, *map(safe, state.sessions_in), *dest])
    categories = [f"{len(state.sessions_in):,} categories"] if state.sessions_in else []
    return ", ".join([place, *categories, *dest])


def what(state: ProgressState) -> str:
    """Return the name of the directory or file that is uploaded, or the number of files without a common directory."""
    common = state.tree.common
    if name := common[len(parent_of(common[:-1])) :].rstrip("/"):
        return safe(name) + ("" if common.endswith(name) else "/")
    files = state.files_done[1]
    return plural(files, "file") if files else ""


def short(path: str, state: ProgressState) -> str:
    """Return the path for display, without the directory that all files share."""
    return safe(path.removeprefix(state.tree.common) or path[len(parent_of(path)) :])


def percent(fraction: float) -> str:
    """Format ` 42 %` in five cells, rounded down: only a complete whole is 100 %."""
    return f"{int(fraction * 100 + 1e-9)} %".rjust(5)


def share(state: ProgressState) -> str:
    """Format the percentage of the run in five cells; empty while its size is unknown."""
    return percent(state.fraction) if state.measurable else ""


def counts(state: ProgressState) -> str:
    """Format `2 of 6 done (2 before)`; while files are searched `2 done`, before any was begun `6 files found`."""
    done, total = state.files_done
    before = f" ({state.there:,} before)" if state.there else ""
    if not state.growing:
        return f"{done:,} of {total:,} done{before}" if total else ""
    return f"{done:,} done{before}" if state.begun else f"{plural(total, 'file')} found"


def amount(state: ProgressState) -> str:
    """Format `12.0 of 310.0 MiB`; without the total where that is unknown."""
    if state.watched and not state.total_bytes:
        return size(state.bytes_through) if state.bytes_through else ""
    if state.measurable:
        return size_of(state.bytes_through, state.total_bytes)
    return size(state.bytes_through if state.begun else state.selected_bytes)


def speed(state: ProgressState, now: float) -> str:
    """Format `4.0 MiB/s`; empty before it can be measured, and while nothing moves."""
    current = state.rate(now)
    return rate(current) if current else ""


def pace(state: ProgressState, now: float) -> str:
    """Format `210 files/s`; empty for a few files, below two a second, in a pause, and soon after the last of them."""
    if state.halted(now) or state.pace.idle(now) >= PACED or state.pace.measured < PACED_FILES:
        return ""
    files = state.pace.rate(now)
    return f"{files:,.0f} files/s" if files >= 1.5 else ""


def resuming(state: ProgressState) -> str:
    """Format `resuming: 5 of 12 files done`, until a resumed run has completed a file itself."""
    if not (state.resumed and state.there) or state.completed or state.growing:
        return ""
    return f"resuming: {state.there:,} of {plural(state.files_done[1], 'file')} done"


def waiting(state: ProgressState) -> str:
    """Format `waiting for 2 files to be complete`, or `waiting for new files`."""
    if not state.incomplete:
        return "waiting for new files"
    return f"waiting for {plural(state.incomplete, 'file')} to be complete"


def failed(state: ProgressState) -> str:
    """Format `3 failed, 1 kept here`, with the causes where other processes send: `3 failed (2 network, 1 changed)`.

    It is empty if none has failed.
    """
    kept = f"{state.kept_here:,} kept here" if state.kept_here else ""
    if state.failed == state.kept_here:
        return kept
    causes = Counter[str]()
    for (code, _), count in state.failed_as.items():
        causes[code.replace("_", " ")] += count
    by_cause = f" ({', '.join(f'{count:,} {code}' for code, count in causes.most_common(CAUSES))})"
    bad = f"{state.failed - state.kept_here:,} failed{by_cause if state.elsewhere else ''}"
    return f"{bad}, {kept}" if kept else bad


def left(state: ProgressState, now: float) -> str:
    """Format `0:15 left`; empty where nothing moves or everything is sent, `searching …` while files are searched."""
    if state.growing:
        return "searching …"
    seconds = state.eta(now) if state.measurable and not state.paused(now) else None
    return f"{clock(seconds + 0.5)} left" if seconds else ""


def reason(message: str, state: ProgressState) -> str:
    """Return an error message for display, without the server's URL, which the view has in its header.

    The summary has the number of the request, which the server's log has as well.
    """
    url = rf"{re.escape(state.server.rstrip('/'))}(?:/[^\s:,]*)?"
    words = _REQUEST.sub("", safe(message[:500]))
    return re.sub(url, "the server", re.sub(rf"^{url}: ", "", words)) if state.server else words


def channel(state: ProgressState, now: float, *, latency: bool = True) -> tuple[str, str, str]:
    """Return glyph, text and style, as `●`, `live websocket 12 ms` and `green`; the text is complete in itself.

    It is empty where there is no channel, as at a tus endpoint. Nothing is polled before there is a session; polls come
    every second, but not at a server that is silent or has a rate limit. A connection is not live beside an outage, or
    where nothing moves and nothing is heard: it has only not noticed yet.
    """
    known = state.channel
    if instead := next(filter(None, (view.channel(own) for view, own in views(state))), None):
        return instead
    words = known.state.value
    match known.state:
        case ChannelState.LIVE if not state.hears(now):
            return "◌", "no answer", "yellow"
        case ChannelState.LIVE:
            if known.transport is not None:
                words += " long polling" if known.transport is Transport.POLLING else f" {known.transport.value}"
            if latency and known.latency_ms is not None:
                words += f" {known.latency_ms:.0f} ms"
        case ChannelState.RECONNECTING if known.attempt:
            words += f" {known.attempt}/{max(RECONNECTS, known.attempt)}"
        case ChannelState.POLLING if not state.sessions:
            words = "not connected"
        case ChannelState.CLOSED:
            return "", "", "dim"
    glyph, style = _CHANNELS[known.state]
    return glyph, words, style


def finishing(state: ProgressState, now: float) -> str:
    """Return what a run waits for once all is sent and the server finishes late; an alert replaces it."""
    files = state.running.values()
    waits = state.finishes_late and now - state.advanced >= SILENCE and IncidentKind.STALL not in state.incidents.active
    is_sent = any(file.phase is Phase.PROCESSING for file in files) and not any(file.unsent for file in files)
    return "the server is finishing" if waits and is_sent else ""


def processing(state: ProgressState, now: float) -> str:
    """Return `processing` where the server has all bytes of the run, and works on the last files; else nothing."""
    files = state.running.values()
    is_last = not state.growing and state.over + len(files) >= state.selected
    are_there = all(file.processing is not None and now - file.processing >= BRIEF for file in files)
    return "processing" if files and is_last and are_there else ""


def alert(state: ProgressState, now: float, *, brief: bool = False) -> str:
    """Return what stops the run or makes its numbers outdated; empty if nothing does.

    A `brief` one keeps the numbers and drops words, for a narrow terminal.
    """
    if state.held is not None:
        ends = now - state.advanced < BRIEF and state.running
        return "pausing: requests being sent are completed" if ends else f"paused {clock(now - state.held)}, p resumes"
    if pause := _pause(state, now, brief=brief) or _silence(state, now, brief=brief):
        return pause
    if repeat := _repetition(state, now, brief=brief):
        return repeat
    parts = []
    if IncidentKind.STALL in state.incidents.active:
        parts.append(_no_progress(state, now - state.advanced, brief=brief))
    elif state.silent(now) and (not state.elsewhere or now - state.advanced >= SILENCE):  # a pack has no bytes there
        parts.append(_no_progress(state, state.meter.idle(now), brief=brief))
    if state.channel.stale:
        heard = state.channel.heard
        update = "no update yet" if heard is None else f"no update for {now - heard:.0f} s"
        parts.append(f"{update} ({safe(state.channel.stale[:200])})")
    return " · ".join(parts)


def _silence(state: ProgressState, now: float, *, brief: bool) -> str:
    """Return what a run waits for whose server has not answered yet; empty in the first second."""
    waited = now - state.started
    if state.answered or not state.selected or state.watched or state.sending is not None or waited < CONNECTING_SHOWN:
        return ""
    name = "the server" if brief else host(state.server)
    if waited < SILENCE:
        return f"connecting to {name}"
    return f"no answer for {waited:.0f} s" if brief else f"no answer from {name} for {waited:.0f} s"


def _repetition(state: ProgressState, now: float, *, brief: bool) -> str:
    """Return when a call that belongs to no file is tried again, and why, where no file is sent meanwhile."""
    left = state.repeat_at - now
    if state.running or left <= -BRIEF or state.stopped is not None:
        return ""
    following = f"next try {'' if brief else 'in '}{left + 0.5:.0f} s" if left > 0 else "trying now"
    return f"{following}: {reason(state.repeat_reason, state)}"


def _no_progress(state: ProgressState, seconds: float, *, brief: bool) -> str:
    words = f"no progress for {clock(seconds)}"
    return words if brief else f"{words}: {safe(why_nothing_moves(state))}"


def _pause(state: ProgressState, now: float, *, brief: bool) -> str:
    if state.paused_until is None or not state.paused(now):
        return ""
    left = state.paused_until - now
    if state.pause_reason is PauseReason.RATE_LIMIT:
        return f"rate limited: waiting {clock(left + 0.5)}"
    if brief:
        why = "no server" if state.pause_reason is PauseReason.UNREACHABLE else "disk full"
        return f"{why} {clock(now - state.paused_since)}, " + (f"next try {left + 0.5:.0f} s" if left > 0 else "trying")
    why = "server unreachable" if state.pause_reason is PauseReason.UNREACHABLE else "the server's disk is full"
    tries = left <= 0 or state.hears(now)  # its return ends the wait
    following = "trying now" if tries else f"next try in {left + 0.5:.0f} s"
    return f"paused, {why} {clock(now - state.paused_since)}, {following}"
