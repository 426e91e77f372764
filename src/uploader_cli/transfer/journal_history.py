"""What the journal knows of files before a run begins: a dry run asks, and takes nothing down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.transfer.journal_records import path_key
from uploader_cli.transfer.journal_rows import is_of, receipt_row

if TYPE_CHECKING:
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal_store import Store


class History:
    """Receipts of one target; `target` is None where nothing was ever sent there, `since` where no run is gone on with.

    `oldest` is the time (seconds since the epoch) before which a receipt says nothing any more.
    """

    def __init__(self, store: Store, target: int | None, since: int | None, oldest: float) -> None:
        self._store, self._target, self._since, self._oldest = store, target, since, oldest

    def done(self, file: LocalFile) -> bool:
        """Whether the run that would be gone on with has sent this very file."""
        return self._since is not None and self._has(file, self._since)

    def sent_before(self, file: LocalFile) -> bool:
        """Whether any run has sent it, as --skip-existing asks."""
        return self._has(file, 0)

    def _has(self, file: LocalFile, since: int) -> bool:
        if self._target is None:
            return False
        with self._store.read() as db:
            found = receipt_row(db, self._target, path_key(file), since)
        return found is not None and is_of(file, found) and found.completed_at >= self._oldest
