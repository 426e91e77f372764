"""What the server last said of each file, which decides whether a retry is needed (docs/protocol.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploader_cli.core.events import FileStatus, SessionProgress

_ENDS = ("completed", "failed")


@dataclass(slots=True)
class _Session:
    """Statuses by wire name: the first one that is an end, and the newest of the others."""

    ends: dict[str, FileStatus] = field(default_factory=dict)
    others: dict[str, FileStatus] = field(default_factory=dict)


class LastHeard:
    """The last status of each file, by session and wire name; safe to use from any thread.

    Nothing is read to decide what is written: each change is one operation of a dict, and an end that was once said
    can't be overwritten. So no lock is needed.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Session] = {}

    def note(self, message: SessionProgress) -> None:
        """Keep what a message says of files. The first end of a file stays, whatever is said later."""
        session = self._seen.setdefault(message.session, _Session())
        for status in message.files:
            if status.status in _ENDS:
                session.ends.setdefault(status.name, status)
            else:
                session.others[status.name] = status

    def of(self, session: str, name: str) -> FileStatus | None:
        """Return the last status of a file, or None where none was heard."""
        seen = self._seen.get(session)
        return None if seen is None else seen.ends.get(name) or seen.others.get(name)

    def forget(self, session: str) -> None:
        """Drop what was heard of a session that is over."""
        self._seen.pop(session, None)
