"""What is said of a run as a whole, the same in the live view and in a log: how far, how the channel is, what is wrong.

Nothing is counted here: every number is the state's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uploader_cli.core.events import ChannelState, PauseReason, Phase, Transport
from uploader_cli.render.words import clock, safe

if TYPE_CHECKING:
    from uploader_cli.core.state import Channel, ProgressState, SessionState

RECONNECTS = 3
"""Tries before the channel falls back to polling (wire contract 2)."""

_GLYPHS = {
    ChannelState.CONNECTING: "◌",
    ChannelState.LIVE: "●",
    ChannelState.RECONNECTING: "↻",
    ChannelState.POLLING: "◔",
    ChannelState.CLOSED: "○",
}


def host(server: str) -> str:
    """`host:port` of the server's URL, without any user name or password in it."""
    return safe(urlsplit(server).netloc.rpartition("@")[2] or server)


def percent(fraction: float, *, at_most: bool = False) -> str:
    """` 42 %`, always five cells, rounded down: 100 % is said of a whole only."""
    return f"{'≤' if at_most else ''}{int(fraction * 100 + 1e-9)} %".rjust(5)


def watched(state: ProgressState) -> bool:
    """True while sessions of somebody else are followed: percentages are all that is known of them."""
    return not state.selected_bytes and any(session.watched for session in state.sessions.values())


def fraction(state: ProgressState) -> float:
    """0–1 for the bar of the whole; 1 only when nothing is left to be confirmed."""
    if not watched(state):
        return state.fraction
    known = [_weighed(session) for session in state.sessions.values()]
    total = sum(files for _, files in known)
    return min(0.99, sum(done for done, _ in known) / total) if total else 0.0


def _weighed(session: SessionState) -> tuple[float, int]:
    """Return how many files' worth of a watched session is done, and of how many.

    In a server's percentage each file weighs the same, and a failed one counts as done: here it leaves the total.
    """
    total = session.total or len(session.by_name) or 1
    return max(0.0, session.percent / 100 * total - session.failed), max(0, total - session.failed)


def files(state: ProgressState) -> str:
    """`7 of 20 done`, or `   7 of ≥1,020 done` during the walk; the first number is as wide as the second."""
    done, total = count(state)
    least = state.walking and not watched(state)
    return f"{done:{len(f'{total:,}')},} of {'≥' if least else ''}{total:,} done"


def count(state: ProgressState) -> tuple[int, int]:
    """Files that are completed, and files that are known of."""
    done, total = state.completed, state.selected
    if watched(state):
        done = max(done, sum(session.completed for session in state.sessions.values()))
        total = sum(session.total or len(session.by_name) for session in state.sessions.values())
    return done, max(total, state.completed + state.failed + state.cancelled)


def eta(state: ProgressState, now: float) -> str:
    """`ETA 0:15`, or `ETA –` where nothing moves, or nothing is left to send and the server is still at work."""
    seconds = state.eta(now)
    if not seconds or _pause(state, now) is not None:
        return "ETA –"
    return f"ETA {'≥' if state.walking else ''}{clock(seconds + 0.5)}"


def channel(now: Channel, *, latency: bool = True) -> tuple[str, str]:
    """A glyph and words: `●` and `live websocket 12 ms`. The words alone say everything."""
    match now.state:
        case ChannelState.LIVE:
            words = "live"
            if now.transport is not None:
                words += " long polling" if now.transport is Transport.POLLING else f" {now.transport.value}"
            if latency and now.latency_ms is not None:
                words += f" {now.latency_ms:.0f} ms"
        case ChannelState.RECONNECTING if now.attempt:
            words = f"reconnecting {now.attempt}/{max(RECONNECTS, now.attempt)}"
        case ChannelState.POLLING:
            words = "polling every 1 s"
        case _:
            words = now.state.value
    return _GLYPHS[now.state], words


def alert(state: ProgressState, now: float, stall: float) -> str:
    """The one thing that keeps the run from going on, or makes its numbers old; empty when all is well."""
    pause = _pause(state, now)
    if pause is not None:
        return pause
    parts = []
    silent = now - state.advanced
    if silent >= stall and state.outcome is None and state.server:
        parts.append(f"no progress for {clock(silent)}: {_why(state)}")
    if state.channel.stale:
        heard = state.channel.heard
        news = "no news yet" if heard is None else f"last news {now - heard:.0f} s ago"
        parts.append(f"{news} ({safe(state.channel.stale[:200])})")
    return " · ".join(parts)


def _pause(state: ProgressState, now: float) -> str | None:
    if state.paused_until is None or not state.paused(now):
        return None
    left = state.paused_until - now
    if state.pause_reason is PauseReason.RATE_LIMIT:
        return f"rate limited: waiting {clock(left + 0.5)}"
    why = "server unreachable" if state.pause_reason is PauseReason.UNREACHABLE else "the server's disk is full"
    following = f"next try in {left + 0.5:.0f} s" if left > 0 else "trying now"
    return f"paused, {why} {clock(now - state.paused_since)}, {following}"


def _why(state: ProgressState) -> str:
    phases = {file.phase for file in state.running.values()}
    if Phase.SENDING in phases and not watched(state):
        return "the server takes no more bytes"
    if Phase.PROCESSING in phases:
        why = "the server is still processing"
    elif Phase.QUEUED in phases:
        why = "waiting to try again"
    elif state.checking:
        return f"{safe(state.checking)} is compared with its list first"
    else:
        why = "waiting for the server"
    if state.channel.state is not ChannelState.LIVE:
        why += f", the channel is {channel(state.channel)[1]}"
    return why
