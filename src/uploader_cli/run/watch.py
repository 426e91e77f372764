"""Follow sessions of other uploaders to their end.

Most updates arrive in the session's Socket.IO room. But joins are not acknowledged, nothing is replayed
(docs/protocol.md section 3.7) and messages are lost while disconnected, so a silent session is polled.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from uploader_cli import errors, exit_status
from uploader_cli.core import events as ev
from uploader_cli.core.state import SERVER_TERMINAL, Observer, ProgressState, SessionState
from uploader_cli.exit_status import Exit
from uploader_cli.run.connections import Connections, caution
from uploader_cli.run.interrupts import Interrupts, interruptible
from uploader_cli.run.loop import Loop, alarms
from uploader_cli.run.views import observers
from uploader_cli.settings import Settings

ASK_FIRST = 2.0
"""Seconds between two polls of a session that the server does not know yet or no longer knows."""
ASK_LATER = 10.0
"""Seconds without a message after which a session is polled."""
FIRST_ANSWER = 5.0
"""Seconds to wait for the first response, however short `--wait` is: `--wait 0` polls once."""
SETTLE = 10.0
"""Seconds to wait after the end for a response with the files whose final events were missed.

Sessions that end together are polled one after the other.
"""
LOST = 2
"""Consecutive 404 responses after which a session is gone: one may have crossed its first message."""


def watch_command(settings: Settings, sessions: Sequence[str], wait: float) -> int:
    """Follow sessions of other uploaders; each must be known within `wait` seconds."""
    run_id = secrets.token_hex(8)
    with interruptible() as interrupts:
        return watch(
            settings, sessions, wait, observers(settings, run_id, interrupts.keys), interrupts, run_id
        ).exit_code


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
    loop = Loop(observers, alarms(settings), began=interrupts.began)
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
        outcome = loop.finish(code, connections.channel.stats())
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
                connections.channel.ask(watched.session.session)
        if followed:
            loop.turn()
        connections.tend(loop.state)
    return interrupts.code if interrupts.count else exit_status.worst(codes)


def _part(loop: Loop, connections: Connections, session: SessionState, code: Exit) -> None:
    """Stop following a session and emit how it ended."""
    state, status, failure = loop.state, session.status, loop.state.channel.failure
    connections.leave(session.session)
    if status not in SERVER_TERMINAL:
        if failure is not None and code is not Exit.FAILED_FOR_GOOD:
            loop.apply(ev.EngineStopped(failure))
            return
        status = "unknown"
    if status != "completed":
        running = tuple(file.file for file in state.running.values() if file.session == session.session)
        loop.apply(ev.FilesCancelled(running))
    loop.apply(ev.SessionFinished(session.session, status))


class WatchedSession:
    """When to poll one session and when it has ended; times are in seconds of the run clock."""

    def __init__(self, session: SessionState, began: float, wait: float, patience: float) -> None:
        """`wait`: seconds until the server must know the session; `patience`: seconds to wait for a lost server."""
        self.session = session
        self._began, self._wait, self._patience = began, wait, patience
        self._asked = float("-inf")
        self._ended: float | None = None

    def due(self, now: float) -> bool:
        """Return whether the session is to be polled now, and record the poll."""
        session = self.session
        if self._ended is not None:
            due = self._asked < self._ended  # one more poll
        elif session.heard is None or session.missing:
            due = now - self._asked >= ASK_FIRST
        else:
            due = now - max(self._asked, session.heard) >= ASK_LATER
        if due:
            self._asked = now
        return due

    def verdict(self, state: ProgressState, now: float) -> Exit | None:
        """Return the exit code of a session that has ended, None while it is to be followed."""
        session, failure = self.session, state.channel.failure
        if session.status in SERVER_TERMINAL:
            return self._end(state, now)
        if isinstance(failure, errors.Unauthorized):
            return Exit.NOT_AUTHORISED
        if session.heard is None and isinstance(failure, errors.NotAnUploadServer):
            return exit_status.of_error(failure)
        if session.heard is None:
            waited, asked = now - self._began, session.missing or failure is not None
            if waited <= self._wait or (not asked and waited <= FIRST_ANSWER):
                return None
            return Exit.NO_SERVER if failure is None else exit_status.of_error(failure)
        if session.missing >= LOST:
            return Exit.FAILED_FOR_GOOD
        if failure is not None and now - session.heard > self._patience:
            return Exit.RETRY_MAY_HELP
        return None

    def _end(self, state: ProgressState, now: float) -> Exit | None:
        """Return the exit code, after one more poll for the files whose final events were missed."""
        session = self.session
        if self._ended is None:
            self._ended = now
        running = any(file.session == session.session for file in state.running.values())
        whole = not running and len(session.by_name) >= (session.total or 0)
        polled = session.missing or (session.answered is not None and session.answered > self._ended)
        if not (whole or polled or now - self._ended > SETTLE):
            return None
        return Exit.OK if session.status == "completed" and not session.failed else Exit.FAILED_FOR_GOOD
