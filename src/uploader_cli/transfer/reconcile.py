"""Before a retry: what became of a request whose answer was lost (wire contract 3.15)."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import utf8, wire_name
from uploader_cli.errors import FileError, Interrupted, RateLimited, UploaderError
from uploader_cli.transfer.multipart import open_unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.events import FileStatus
    from uploader_cli.core.last_heard import LastHeard
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.session import Work
    from uploader_cli.transfer.stop import Stop

LOOK_EVERY = 1.0
LOOK_AT_LEAST = 4.0
"""Seconds between two looks where calls are scarce: the reference backend forgets a session 5 s after its end (3.6)."""
PATIENCE = 5
"""Looks that may bring nothing in a row before it counts as unknown."""
LONGEST = 300
"""Looks in all: a server that is still at work after so many seconds is not waited for."""


class Fate(StrEnum):
    """What became of a file."""

    STORED = "stored"
    FAILED = "failed"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The fate, with what the server said of the file; `checksum` (hex SHA-256) where its bytes were compared."""

    fate: Fate
    server_id: str | None = None
    error: str | None = None
    checksum: str | None = None


UNKNOWN = Verdict(Fate.UNKNOWN)


class Reconciler:
    """Asks, in this order: what was heard on the channel, the stored file itself, `/progress`."""

    def __init__(self, api: Api, last_heard: LastHeard, stop: Stop) -> None:
        """Nothing is asked yet."""
        self._api, self._last_heard, self._stop = api, last_heard, stop

    def verdicts(self, work: Work, files: Sequence[LocalFile]) -> dict[int, Verdict]:
        """A verdict for the number of each of `files`, which went into the session of `work`.

        Takes seconds where the server is still at work, or gone.
        """
        session = work.session.session_id
        if work.limits.relative_paths:
            self._stop.sleep(LOOK_EVERY)
            return {file.file: self._stored_bytes(work.session.category, file) for file in files}
        verdicts = {file.file: self._heard(session, file) for file in files}
        misses = 0
        for _ in range(LONGEST):
            if misses >= PATIENCE or not any(verdict.fate is Fate.UNKNOWN for verdict in verdicts.values()):
                break
            self._stop.sleep(min(self._api.budget.poll_interval(), LOOK_AT_LEAST))
            try:
                misses = 0 if self._ask(session) else misses + 1
            except RateLimited:
                break
            verdicts = {file.file: self._heard(session, file) for file in files}
        return verdicts

    def _heard(self, session: str, file: LocalFile) -> Verdict:
        return _verdict(self._last_heard.of(session, wire_name(file.name)))

    def _ask(self, session: str) -> bool:
        """One poll; True where it brought news of the session."""
        try:
            message = self._api.progress(session, patient=True)
        except (Interrupted, RateLimited):
            raise
        except UploaderError:
            return False
        if message is None:
            return False
        self._last_heard.note(message)
        return True

    def _stored_bytes(self, category: str, file: LocalFile) -> Verdict:
        """Such a server stores under the path we gave and never twice the same bytes: equal digests settle it."""
        try:
            found = self._api.stored(category, utf8(file.relative_path))
        except Interrupted:
            raise
        except UploaderError:
            return Verdict(Fate.ABSENT)
        if found is None or found[0] != file.size or found[1] is None:
            return Verdict(Fate.ABSENT)
        digest = sha256(file)
        if digest is None or b64encode(digest).decode() != found[1]:
            return Verdict(Fate.ABSENT)
        return Verdict(Fate.STORED, checksum=digest.hex())


def _verdict(status: FileStatus | None) -> Verdict:
    match status.status if status is not None else "":
        case "completed":
            return Verdict(Fate.STORED, server_id=status.server_id if status else None)
        case "failed":
            return Verdict(Fate.FAILED, error=status.error if status else None)
        case _:
            return UNKNOWN


def sha256(file: LocalFile) -> bytes | None:
    """The file's digest; None where it can't be read any more."""
    try:
        with open_unchanged(file) as source:
            return hashlib.file_digest(source, "sha256").digest()  # type: ignore[arg-type]  # an unbuffered file has readinto
    except FileError:
        return None
