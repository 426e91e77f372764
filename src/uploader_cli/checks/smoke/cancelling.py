"""The check of cancelling: during the body, or right after it where the server does not know the session before
(docs/protocol.md section 3.1).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.smoke.assertions import answered, refused, same, shaped
from uploader_cli.checks.smoke.batches import stored_one
from uploader_cli.checks.smoke.sending import file_of, open_session, send
from uploader_cli.checks.smoke.verdicts import Violation
from uploader_cli.core.protocol import parse_batch

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.transfer.http import Answer

WAITS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each attempt after the body: the server may take a moment to receive it."""


class _Cancelling:
    """Tries to cancel a session and then gets its status."""

    def __init__(self, site: Site, session: str) -> None:
        self._site, self._session = site, session
        self.answers: list[Answer] = []
        self.state: Answer | None = None

    def midway(self) -> None:
        """Try once when half of the body is sent."""
        answer = self._site.call("POST", f"/api/upload/cancel/{self._session}", beside=True)
        self.answers.append(answer)
        if answer.ok:
            self.state = self._site.call("GET", f"/api/upload/progress/{self._session}", beside=True)

    def after(self) -> None:
        """Try again after the body, if that was too early."""
        for wait in WAITS:
            if self.answers and self.answers[-1].status != 404:
                return
            time.sleep(wait)
            self.midway()


def cancel(site: Site) -> str:
    """Check `POST /api/upload/cancel/{id}` (docs/protocol.md sections 1 and 3.9)."""
    stored_one(site)
    session = open_session(site)
    asked = _Cancelling(site, session)
    stored = False
    try:
        answer = send(site, session, [file_of(site, "cancelled")], midway=asked.midway, after=asked.after)
        stored = answer.ok and any(file.status == "completed" for file in parse_batch(answer.body) or ())
    except errors.ConnectionLost:  # the server may close the connection
        if not asked.answers:
            raise
    what = "cancelling a running upload"
    if not asked.answers:
        raise Violation(what, expected="no response before the end of the body", got="a response")
    body = answered(asked.answers[-1], what, 200).body
    shaped(body, "the answer to cancelling", {"success": "true", "message": "text", "timestamp": "time"})
    site.made.sessions.discard(session)
    state = asked.state
    if state is not None and state.status == 404:
        refused(state, "the progress of a cancelled session", (404, "SESSION_NOT_FOUND"))
    elif state is not None:
        progress = shaped(answered(state, "the progress of a cancelled session", 200).body, "it", {})
        same(progress.get("overallStatus"), "cancelled", "overallStatus after cancelling")
    return "the cancelled file was stored" if stored else ""
