"""The last thing the server said of each file, which decides whether a retry is needed (wire contract 3.15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploader_cli.core.events import FileStatus, SessionProgress


class LastHeard:
    """The last status by session and wire name. Written by the channel's threads, read by the transfer's: whole values
    in a dict, so no lock is needed.
    """

    def __init__(self) -> None:
        """Empty."""
        self._seen: dict[str, dict[str, FileStatus]] = {}

    def note(self, message: SessionProgress) -> None:
        """Keep what a message says of files; an end that was heard stays."""
        known = self._seen.setdefault(message.session, {})
        for status in message.files:
            before = known.get(status.name)
            if before is None or before.status not in ("completed", "failed"):
                known[status.name] = status

    def of(self, session: str, name: str) -> FileStatus | None:
        """The last word on a file, or None."""
        return self._seen.get(session, {}).get(name)

    def forget(self, session: str) -> None:
        """The session is over."""
        self._seen.pop(session, None)
