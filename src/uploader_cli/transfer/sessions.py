"""Upload sessions on the server, each shared by the jobs that fill it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import SessionCreated, SessionFinished, WarningCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.plan import Limits, LocalFile
    from uploader_cli.core.protocol import Session
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.job import Context


class UploadSession:
    """An open session, until its last file is over. A tus endpoint has none: its id is empty, and nothing is reported.

    Methods may be called from any thread; each passes its own `Api`. No lock is held during a call.
    """

    def __init__(
        self, context: Context, session: Session, limits: Limits, files: int, register: set[UploadSession]
    ) -> None:
        """`files` is the number of files that will be sent in it; it is in `register` while it is open."""
        self.id, self.category, self.limits = session.session_id, session.category, limits
        self._context, self._left, self._register = context, files, register
        self._failures = self._given_up = 0
        self._lock = threading.Lock()
        self._renewed: threading.Event | None = None
        self._open = False

    def begin(self) -> None:
        """Report the session and follow its progress."""
        self._open = True
        self._register.add(self)
        if self.id:
            context = self._context
            if self.category == context.settings.category:  # a resumed run joins only such a session
                context.run.session_opened(self.id)
            context.emit(SessionCreated(self.id, self.category, self._left))
            context.followers.follow(self.id)

    def over(self, api: Api, files: int, *, failed: int = 0, given_up: int = 0) -> None:
        """Count files that are over; after the last one close the session on a server that wants to know.

        `given_up` are files that the server has no verdict on.
        """
        with self._lock:
            self._left -= files
            self._failures += failed
            self._given_up += given_up
            if self._left > 0 or not self._open:
                return
            self._open = False
        if self.id:
            self._close(api)
        self._register.discard(self)

    def skip(self, api: Api, files: Sequence[LocalFile]) -> None:
        """Leave out files that were not begun (`--fail-fast`)."""
        self._context.skip(files)
        self.over(api, len(files), given_up=len(files))

    def renew(self, api: Api, lost: str) -> bool:
        """Replace the session `lost`, which the server has forgotten (docs/protocol.md, section 3.14).

        One thread creates the new one, others wait for it. False where that was done once and is lost as well.
        """
        with self._lock:
            if self.id != lost:
                return True
            leads = self._renewed is None
            renewed = self._renewed = self._renewed or threading.Event()
        context = self._context
        if not leads:
            while not renewed.wait(0.1):
                context.stop.check()
            return self.id != lost
        try:
            made = context.retry.run(lambda: api.create_session(self.category, max(1, self._left)))
            text = f"session {lost} is gone on the server: continuing in {made.session_id}"
            context.warn(WarningCode.SESSION_LOST, text)
            context.run.session_closed(lost)
            self._leave("lost")
            self.id = made.session_id
            self.begin()
        finally:
            renewed.set()
        return True

    def abandon(self, status: str) -> None:
        """Report the end of a run in the middle of the session: a resumed run may join it again."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open and self.id:
            self._leave(status)

    def cancel(self, api: Api) -> None:
        """Cancel the session on the server (`--cancel-on-interrupt`)."""
        if self._open and self.id:
            try:
                api.cancel(self.id)
                self._context.run.session_closed(self.id)
            except errors.UploaderError as error:
                self._context.warn(WarningCode.CANCEL_FAILED, f"session {self.id} was not cancelled: {error}")

    def _close(self, api: Api) -> None:
        context = self._context
        if self.limits.relative_paths:
            try:
                context.retry.run(lambda: api.finish(self.id, self._given_up))
            except errors.Interrupted:
                self._leave("cancelled")
                raise
            except errors.UploaderError as error:
                context.warn(WarningCode.FINISH_FAILED, f"session {self.id} was not finished: {error}")
        context.run.session_closed(self.id)
        self._leave("partial" if self._failures else "completed")

    def _leave(self, status: str) -> None:
        self._context.emit(SessionFinished(self.id, status))
        self._context.followers.leave(self.id)
