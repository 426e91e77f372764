"""The summary of `watch` in plain text: one line per session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.render import overview
from uploader_cli.render.words import plural, safe, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.core.events import RunFinished
    from uploader_cli.core.state import ProgressState, SessionState

MOST = 20
"""Maximum sessions listed."""

EXITS = {
    3: "the connection to the server was lost; retryable",
    4: "a session did not complete",
    6: "a session is unknown, or the server never answered or is not an upload server",
}


def verdict(state: ProgressState, outcome: RunFinished) -> tuple[str, str]:
    """Return a glyph and a sentence with the numbers of completed sessions and files."""
    sessions = len(state.sessions)
    good = sum(_completed(session) for session in state.sessions.values())
    done, files = overview.count(state)
    numbers = (f"{done:,} of {plural(files, 'file')} " if files else "") + f"in {span(outcome.seconds)}"
    if outcome.exit_code in (130, 143):
        return "■", f"stopped watching, {numbers} so far; the upload continues"
    if outcome.ok:
        return "✓", f"{plural(sessions, 'session')} completed, {numbers}"
    return "✗", f"{good:,} of {plural(sessions, 'session')} completed, {numbers}"


def not_completed(state: ProgressState) -> Iterator[str]:
    """Yield a line for each session that did not complete, and the error that lost the server."""
    if state.trouble:
        yield safe(state.trouble)
    ended = [session for session in state.sessions.values() if session.over and not _completed(session)]
    for session in ended[:MOST]:
        yield f"session {safe(session.session)}: {_end(session)}"
    if len(ended) > MOST:
        yield f"and {plural(len(ended) - MOST, 'more session')}"


def _completed(session: SessionState) -> bool:
    return session.over and session.status == "completed" and not session.failed


def _end(session: SessionState) -> str:
    if session.status == "unknown":
        return "unknown to the server" if session.heard is None else "no longer known to the server"
    failed = f", {plural(session.failed, 'file')} failed" if session.failed else ""
    return f"{safe(session.status)}{failed}"
