"""The last status of each file from the server, which decides about a retry (docs/protocol.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from uploader_cli.core.events import FileStatus, SessionProgress

_ENDS = ("completed", "failed")


@dataclass(slots=True)
class _Session:
    """Statuses by wire name: the first final one, and the newest of the others."""

    ends: dict[str, FileStatus] = field(default_factory=dict)
    others: dict[str, FileStatus] = field(default_factory=dict)


class LastHeard:
    """The last status of each file, by session and wire name; callable from any thread.

    It needs no lock: each change is a single operation of a dict, and a final status is never overwritten.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Session] = {}

    def note(self, message: SessionProgress) -> None:
        """Store the statuses in a message. The first final status of a file is kept.

        A session that is completed without a percentage is ignored: so `/progress` of the reference backend describes
        failed files as well (3.4, 3.6).
        """
        if message.status == "completed" and not message.percent:
            return
        session = self._seen.setdefault(message.session, _Session())
        for status in message.files:
            if status.status in _ENDS:
                session.ends.setdefault(status.name, status)
            else:
                session.others[status.name] = status

    def of(self, session: str, name: str) -> FileStatus | None:
        """Return the last status of a file, or None."""
        seen = self._seen.get(session)
        return None if seen is None else seen.ends.get(name) or seen.others.get(name)

    def forget(self, session: str) -> None:
        """Drop the statuses of a finished session."""
        self._seen.pop(session, None)
