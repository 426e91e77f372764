"""Over a session that somebody else uploads: when to ask for it, and when it is over. It knows no clock and no network.

Most is heard from the room. But a join is not always acknowledged, nothing is replayed (wire contract 3.7), and what is
said while no connection is there is lost: so a silent session is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors, exit_status
from uploader_cli.core.state import SERVER_TERMINAL
from uploader_cli.exit_status import Exit

if TYPE_CHECKING:
    from uploader_cli.core.state import ProgressState, SessionState

ASK_FIRST = 2.0
"""Seconds between two questions for a session that the server does not know, not yet or not any more."""
ASK_LATER = 10.0
"""Seconds without a message after which a session is asked for."""
FIRST = 5.0
"""Seconds in which the first answer may come, however short the wait is: `--wait 0` asks once."""
SETTLE = 3.0
"""Seconds after the end for an answer that names the files whose ends were not heard."""
LOST = 2
"""Answers in a row that do not know a session after which it is gone: one may have crossed its first message."""


class WatchedSession:
    """One session. `session` is its place in the state; times are seconds of the run clock."""

    def __init__(self, session: SessionState, began: float, wait: float, patience: float) -> None:
        """`wait`: seconds for the server to get to know the session; `patience`: for a lost server to return."""
        self.session = session
        self._began, self._wait, self._patience = began, wait, patience
        self._asked = float("-inf")
        self._ended: float | None = None

    def due(self, now: float) -> bool:
        """True where the session is to be asked for; it counts as asked then."""
        session = self.session
        if self._ended is not None:
            due = self._asked < self._ended  # once more
        elif session.heard is None or session.missing:
            due = now - self._asked >= ASK_FIRST
        else:
            due = now - max(self._asked, session.heard) >= ASK_LATER
        if due:
            self._asked = now
        return due

    def verdict(self, state: ProgressState, now: float) -> Exit | None:
        """The exit code for this session once it is over for us, None as long as it is to be followed."""
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
        """It ended. The files' own ends may have been missed: the answer to one more question has them all."""
        session = self.session
        if self._ended is None:
            self._ended = now
        running = any(file.session == session.session for file in state.running.values())
        whole = not running and len(session.by_name) >= (session.total or 0)
        told = session.missing or (session.answered is not None and session.answered > self._ended)
        if not (whole or told or now - self._ended > SETTLE):
            return None
        return Exit.OK if session.status == "completed" and not session.failed else Exit.FAILED_FOR_GOOD
