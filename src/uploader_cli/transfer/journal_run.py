"""One run's hold on the journal: claims, what is under way, receipts, sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal_records import Claim, PendingPart, PendingUpload, Receipt


class RunHandle:
    """A run that this process holds; its methods may be called from any thread.

    Each call is on disk when it returns (a process killed after that loses nothing) and raises `UploaderError` when it
    could not be written. `id` is the run's; `resumed_from` is the id under which it was last known, None for a new run.
    """

    id: str
    resumed_from: str | None

    def claim(self, file: LocalFile, session: str | None = None) -> Claim:
        """Take `file` for this run, atomically among all processes; say what is known of it.

        NEW and CHANGED have a fresh random `upload.upload_key`, durable before this returns: POST it. Claiming a file
        again that this run holds gives RESUME (a retry); another LocalFile with the same path gets BUSY. A RESUME
        keeps the session that it was created in; `session` is for a new one.
        """
        raise NotImplementedError

    def receipt(self, file: LocalFile) -> Receipt | None:
        """The newest receipt of any run for this very file (size and mtime too), not older than 90 days."""
        raise NotImplementedError

    def creating(self, file: LocalFile, session: str | None = None) -> PendingUpload:
        """Forget what was created for a claimed file, and give it a new key: call it before a creation afresh.

        For an upload that is gone on the server (404, 410) or whose session had to be made anew.
        """
        raise NotImplementedError

    def created(self, file: LocalFile, url: str, *, part: int | None = None, chunk_size: int | None = None) -> None:
        """The server gave `url` to the upload, or to its part `part`. A file in one request needs no such call."""
        raise NotImplementedError

    def checked(self, file: LocalFile, until: int, *, part: int | None = None) -> None:
        """Bytes up to `until` (of the file, or of its part `part`) lay in chunks whose checksum was accepted."""
        raise NotImplementedError

    def split(self, file: LocalFile, sizes: Sequence[int]) -> tuple[PendingPart, ...]:
        """Cut a claimed file into parts of these sizes (bytes), each with its own key: before they are created."""
        raise NotImplementedError

    def completed(
        self,
        file: LocalFile,
        *,
        server_id: str | None = None,
        location: str | None = None,
        checksum: str | None = None,
        verified: bool = False,
    ) -> None:
        """The server has the file: its receipt takes the place of what was under way, in one transaction."""
        raise NotImplementedError

    def dropped(self, file: LocalFile) -> None:
        """The file will not be gone on with: failed for good, or cancelled."""
        raise NotImplementedError

    def session_opened(self, session: str) -> None:
        """A session of this run is open on the server."""
        raise NotImplementedError

    def session_closed(self, session: str) -> None:
        """The session has ended, or the server does not know it any more."""
        raise NotImplementedError

    def open_sessions(self) -> tuple[str, ...]:
        """Sessions to re-join or to finish, oldest first: this run's, and those of the run it goes on with."""
        raise NotImplementedError

    def finish(self, *, ok: bool) -> None:
        """Let the run go. `ok`: nothing is left to resume (failures for good included): what was under way is pruned.

        Otherwise it is interrupted, and can be gone on with. A second call changes nothing.
        """
        raise NotImplementedError
