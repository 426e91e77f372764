"""Decide when to poll a watched session and when it has ended, without a clock or network of its own.

Most updates arrive in the session's Socket.IO room. But joins are not acknowledged, nothing is replayed
(docs/protocol.md section 3.7) and messages are lost while disconnected, so a silent session is polled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors, exit_status
from uploader_cli.core.state import SERVER_TERMINAL
from uploader_cli.exit_status import Exit

if TYPE_CHECKING:
    from uploader_cli.core.state import ProgressState, SessionState

ASK_FIRST = 2.0
"""Seconds between two polls of a session that the server does not know yet or no longer knows."""
ASK_LATER = 10.0
"""Seconds without a message after which a session is polled."""
FIRST = 5.0
"""Seconds to wait for the first response, however short `--wait` is: `--wait 0` polls once."""
SETTLE = 3.0
"""Seconds to wait after the end for a response with the files whose final events were missed."""
LOST = 2
"""Consecutive 404 responses after which a session is gone: one may have crossed its first message."""


class WatchedSession:
    """One watched session; times are in seconds of the run clock."""

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
        if session.heard is None:
            waited, asked = now - self._began, session.missing or failure is not None
            if waited <= self._wait or (not asked and waited <= FIRST):
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
