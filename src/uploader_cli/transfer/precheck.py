"""What need not be sent: files that this run has done already, and, on request, files that the server has."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, SkipReason, WarningCode
from uploader_cli.core.protocol import utf8
from uploader_cli.transfer.chunk import hash_range
from uploader_cli.transfer.journal_records import Claim, ClaimState
from uploader_cli.transfer.multipart import open_unchanged

if TYPE_CHECKING:
    from uploader_cli.core.plan import Limits, LocalFile
    from uploader_cli.transfer.context import Context


class Precheck:
    """Decides for each file before a session is opened for it. `claims` is what the journal had of those to be sent."""

    def __init__(self, context: Context, limits: Limits) -> None:
        """Nothing is asked yet."""
        self._context, self._limits = context, limits
        self.claims: dict[int, Claim] = {}
        self._warned = False

    def is_missing(self, file: LocalFile) -> bool:
        """False for what is there already, by `--skip-existing`: it is told of as skipped."""
        self._context.stop.check()
        if self._context.settings.skip_existing and self._is_there(file):
            self._context.ledger.skip(file, SkipReason.PRESENT)
            return False
        return True

    def claim(self, file: LocalFile) -> bool:
        """Take the file for this run; False where it need not, or can't, be sent now (and is told of)."""
        ledger = self._context.ledger
        try:
            open_unchanged(file).close()
        except errors.FileError as error:
            ledger.fail(file, error)
            return False
        claim = self._context.run.claim(file)
        if claim.state is ClaimState.DONE:
            ledger.skip(file, SkipReason.PRESENT)
            return False
        if claim.state is ClaimState.BUSY:
            words = "another run is uploading this file now"
            ledger.fail_with(file, FailureCode.IN_USE, words, retryable=True)
            return False
        if claim.state is ClaimState.CHANGED:
            text = f"{utf8(file.path)} has changed since an earlier upload of it: it is sent anew"
            self._context.warn(WarningCode.FILE_CHANGED, text)
        self.claims[file.file] = claim
        return True

    def _is_there(self, file: LocalFile) -> bool:
        """By a receipt; else by asking the server, where it gives a way: size, and digest where it tells one."""
        if self._context.run.receipt(file) is not None:
            return True
        if not self._limits.relative_paths:
            self._warn_once()
            return False
        try:
            found = self._context.api.stored(file.category or self._context.settings.category, utf8(file.relative_path))
        except errors.AnswerError:
            return False
        if found is None or found[0] != file.size:
            return False
        if found[1] is None:
            return True
        try:
            mine = hash_range(file, 0, file.size, "sha256", check=self._context.stop.check)
        except errors.FileError:
            return False
        return b64encode(mine).decode() == found[1]

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            text = "--skip-existing: this server gives no way to ask what it has; receipts of earlier uploads decide"
            self._context.warn(WarningCode.RECEIPTS_ONLY, text)
