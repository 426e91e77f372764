"""Follow sessions of other uploaders: by their messages, and by `/progress` where none arrive."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from uploader_cli import exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.state import SERVER_TERMINAL
from uploader_cli.exit_status import Exit
from uploader_cli.run.connections import Connections
from uploader_cli.run.loop import Loop, alarms
from uploader_cli.run.upload import caution
from uploader_cli.run.views import interruptible, observers
from uploader_cli.run.watched_session import WatchedSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.observer import Observer
    from uploader_cli.core.state import SessionState
    from uploader_cli.run.upload import Interrupts
    from uploader_cli.settings import Settings

UNKNOWN = "unknown"
"""Status of a session that the server does not know or no longer knows."""


def watch_command(settings: Settings, sessions: Sequence[str], wait: float) -> int:
    """Follow sessions of other uploaders; each must be known within `wait` seconds."""
    run_id = secrets.token_hex(8)
    with interruptible() as interrupts:
        return watch(settings, sessions, wait, observers(settings, run_id), interrupts, run_id).exit_code


def watch(
    settings: Settings,
    sessions: Sequence[str],
    wait: float,
    observers: Sequence[Observer],
    interrupts: Interrupts,
    run_id: str = "",
) -> ev.RunFinished:
    """Follow each session to its end, all over one connection; the exit code is the worst of theirs.

    Exit 6 if the server does not know one after `wait` seconds, 3 if the server is lost for `--max-wait`.
    """
    loop = Loop(observers, alarms(settings))
    connections = Connections(settings, loop, run_id)
    with interrupts.raising():
        connections.api.authorization()
    with loop.observed():
        loop.apply(ev.RunStarted(settings.server, None, None, 0, "watch"))
        caution(settings, loop.apply)
        loop.apply(ev.SelectionEnded())
        for session in sessions:
            loop.apply(ev.SessionWatched(session))
            connections.follow(session)
            connections.body_sent(session)
        connections.start()
        try:
            code = _follow(loop, connections, wait, settings.max_wait, interrupts)
            loop.drain(connections.drain_seconds() if not interrupts.count else 0.0)
        finally:
            connections.close()
        loop.flush()
        outcome = loop.finish(code, connections.stats())
        interrupts.finished = True
    return outcome


def _follow(loop: Loop, connections: Connections, wait: float, patience: float, interrupts: Interrupts) -> Exit:
    state, began = loop.state, time.monotonic()
    followed = [WatchedSession(session, began, wait, patience) for session in state.sessions.values()]
    codes: list[Exit] = []
    while followed and not interrupts.pending():
        now = time.monotonic()
        for watched in tuple(followed):
            code = watched.verdict(state, now)
            if code is not None:
                _part(loop, connections, watched.session, code)
                codes.append(code)
                followed.remove(watched)
            elif watched.due(now):
                connections.ask(watched.session.session)
        if followed:
            loop.turn()
        connections.tend()
    return interrupts.code if interrupts.count else exit_status.worst(codes)


def _part(loop: Loop, connections: Connections, session: SessionState, code: Exit) -> None:
    """Stop following a session and emit how it ended."""
    state, status, failure = loop.state, session.status, loop.state.channel.failure
    connections.leave(session.session)
    if status not in SERVER_TERMINAL:
        if failure is not None and code is not Exit.FAILED_FOR_GOOD:
            loop.apply(ev.EngineStopped(failure))
            return
        status = UNKNOWN
    if status != "completed":
        running = tuple(file.file for file in state.running.values() if file.session == session.session)
        loop.apply(ev.FilesCancelled(running))
    loop.apply(ev.SessionFinished(session.session, status))
