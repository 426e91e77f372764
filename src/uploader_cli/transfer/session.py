"""Opening and closing upload sessions, and telling everyone who wants to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import SessionCreated, SessionFinished, WarningCode
from uploader_cli.transfer.retrying import retrying

if TYPE_CHECKING:
    from collections import deque

    from uploader_cli.core.plan import Limits, LocalFile
    from uploader_cli.core.protocol import Session
    from uploader_cli.transfer.context import Context


@dataclass(slots=True)
class Work:
    """A session to be filled: files still to be sent, and how many of them a request may hold at most."""

    session: Session
    limits: Limits
    waiting: deque[LocalFile]
    most: int = 1 << 30
    renewed: bool = False


class SessionDesk:
    """At most one session at a time is open. `current` is its id."""

    def __init__(self, context: Context) -> None:
        """No session is open."""
        self._context = context
        self.current: str | None = None

    def open(self, work: Work) -> None:
        """The session of `work` begins. A tus endpoint has none: then nothing is told."""
        session = work.session
        if not session.session_id:
            return
        self.current = session.session_id
        if session.category == self._context.settings.category:  # only such a one is gone on with
            self._context.run.session_opened(session.session_id)
        self._context.emit(SessionCreated(session.session_id, session.category, len(work.waiting)))
        self._context.followers.follow(session.session_id)

    def close(self, work: Work, *, failures: bool) -> None:
        """All of its files are over: say so to a server that wants to know."""
        session_id, context = work.session.session_id, self._context
        if not session_id:
            return
        if work.limits.relative_paths:
            try:
                retrying(context.settings, context.stop)(context.api.finish, session_id)
            except (errors.AnswerError, errors.NetworkError) as error:
                context.warn(WarningCode.FINISH_FAILED, f"session {session_id} was not finished: {error}")
        context.run.session_closed(session_id)
        self._leave(session_id, "partial" if failures else "completed")

    def renew(self, work: Work, left: int) -> None:
        """The server forgot the session (3.14): a new one for `left` files takes its place, once."""
        context, lost = self._context, work.session.session_id
        work.session = retrying(context.settings, context.stop)(context.api.create_session, work.session.category, left)
        work.renewed = True
        text = f"session {lost} is gone on the server: going on in {work.session.session_id}"
        context.warn(WarningCode.SESSION_LOST, text)
        context.run.session_closed(lost)
        self._leave(lost, "lost")

    def abandon(self, status: str) -> None:
        """The run ends here, the session does not: a resumed run may join it again."""
        if self.current is not None:
            self._leave(self.current, status)

    def _leave(self, session_id: str, status: str) -> None:
        self.current = None
        self._context.emit(SessionFinished(session_id, status))
        self._context.followers.leave(session_id)
