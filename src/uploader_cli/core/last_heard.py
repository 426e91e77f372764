"""The last status of each file from the server, which decides about a retry (docs/protocol.md section 3)."""

from __future__ import annotations

from uploader_cli.core.events import FileStatus, SessionProgress

_ENDS = ("completed", "failed")


class LastHeard:
    """The last status of each file, by session and wire name; callable from any thread.

    It needs no lock: each change is a single operation of a dict, and a final status is never overwritten.
    """

    def __init__(self) -> None:
        self.ends: dict[str, dict[str, FileStatus]] = {}  # the first final ones
        self.others: dict[str, dict[str, FileStatus]] = {}  # the newest of the others

    def note(self, message: SessionProgress) -> None:
        """Store the statuses in a message. The first final status of a file is kept.

        A session that is completed without a percentage is ignored: so `/progress` of the reference backend describes
        failed files as well (3.4, 3.6).
        """
        if message.status == "completed" and not message.percent:
            return
        ends, others = (known.setdefault(message.session, {}) for known in (self.ends, self.others))
        for status in message.files:
            if status.status in _ENDS:
                ends.setdefault(status.name, status)
            else:
                others[status.name] = status

    def of(self, session: str, name: str) -> FileStatus | None:
        return self.ends.get(session, {}).get(name) or self.others.get(session, {}).get(name)

    def forget(self, session: str) -> None:
        for known in (self.ends, self.others):
            known.pop(session, None)
