"""What became of sessions that somebody else uploads: the last words of `watch`. Plain text, one line a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.render import overview
from uploader_cli.render.words import plural, safe, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_cli.core.events import RunFinished
    from uploader_cli.core.state import ProgressState, SessionState

MOST = 20
"""Sessions that are named; the rest is a number."""

EXITS = {
    3: "the server went away; watching again can help",
    4: "a session did not complete",
    6: "the server does not know a session, never answered, or is no upload server",
}


def verdict(state: ProgressState, outcome: RunFinished) -> tuple[str, str]:
    """A glyph and a sentence: how many sessions completed, with how many files."""
    sessions = len(state.sessions)
    good = sum(_completed(session) for session in state.sessions.values())
    done, files = overview.count(state)
    numbers = (f"{done:,} of {plural(files, 'file')} " if files else "") + f"in {span(outcome.seconds)}"
    if outcome.exit_code in (130, 143):
        return "■", f"not watched to the end, {numbers} so far; the upload goes on"
    if outcome.ok:
        return "✓", f"{plural(sessions, 'session')} completed, {numbers}"
    return "✗", f"{good:,} of {plural(sessions, 'session')} completed, {numbers}"


def not_completed(state: ProgressState) -> Iterator[str]:
    """A line for each session that ended in another way; why the server was lost, where it was."""
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
        return "the server does not know it" + ("" if session.heard is None else " any more")
    failed = f", {plural(session.failed, 'file')} failed" if session.failed else ""
    return f"{safe(session.status)}{failed}"
