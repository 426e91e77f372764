"""What is known of files before and after they are sent: claims, what the server has already, verification."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, SkipReason, WarningCode
from uploader_cli.core.protocol import utf8
from uploader_cli.transfer.bodies import hash_range, open_unchanged
from uploader_cli.transfer.job import Outcome, failed
from uploader_cli.transfer.journal import ClaimState, Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.core.plan import Limits, LocalFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.job import Context
    from uploader_cli.transfer.journal import Claim

MAY_BE_STORED = "an earlier upload of it ended without an answer: the server may have stored it, or not"


class Checks:
    """Check files in groups, in the workers. Each call passes the worker's own `Api`."""

    def __init__(self, context: Context, limits: Limits) -> None:
        self._context, self._limits = context, limits
        self._warned: set[WarningCode] = set()

    # --- before -------------------------------------------------------------------------------------------------------

    def pick(self, api: Api, files: Sequence[LocalFile]) -> list[tuple[LocalFile, Claim]]:
        """Return the files that are to be sent, claimed for this run. The others end here."""
        context = self._context
        missing = self._missing(api, files) if context.settings.skip_existing else list(files)
        readable: list[LocalFile] = []
        ended: list[Outcome] = []
        for file in missing:
            try:
                open_unchanged(file).close()
            except errors.FileError as error:
                ended.append(Outcome(file, error))
            else:
                readable.append(file)
        picked = []
        for file, claim in zip(readable, context.run.claim(readable), strict=True):
            ends = self._settled(api, file, claim)
            if ends is None:
                picked.append((file, claim))
            elif ends.error is not None:
                ended.append(ends)
            else:
                context.ledger.skip(file, SkipReason.PRESENT)
        context.ledger.end(ended)
        return picked

    def _settled(self, api: Api, file: LocalFile, claim: Claim) -> Outcome | None:
        """Return the outcome of a file that need not or can't be sent; None for one that is sent."""
        context = self._context
        match claim.state:
            case ClaimState.DONE:
                return self._done_before(api, file, claim)
            case ClaimState.BUSY:
                return failed(file, FailureCode.IN_USE, "another run is uploading this file now", retryable=True)
            case ClaimState.UNKNOWN:
                return self._unknown(api, file)
            case ClaimState.CHANGED:
                text = f"{utf8(file.path)} has changed since an earlier upload of it: it is sent from the beginning"
                context.warn(WarningCode.FILE_CHANGED, text)
        return None

    def _done_before(self, api: Api, file: LocalFile, claim: Claim) -> Outcome:
        receipt = claim.receipt
        if receipt is None or receipt.checksum is not None or not self._context.settings.verify:
            return Outcome(file)
        return self.verified(
            api, Outcome(file, server_id=receipt.server_id, location=receipt.location, verified=receipt.verified)
        )

    def _unknown(self, api: Api, file: LocalFile) -> Outcome | None:
        """Look before anything is sent twice (docs/protocol.md, section 3.15)."""
        run, settings = self._context.run, self._context.settings
        if not settings.resend_unknown:
            if not self._limits.relative_paths:
                return Outcome(file, errors.OutcomeUnknown(MAY_BE_STORED))
            category = file.category or settings.category
            check = self._context.stop.check
            try:
                checksum = self._context.retry.run(lambda: equal_on_server(api, category, file, check))
            except (errors.Interrupted, errors.Unreachable):
                raise
            except errors.UploaderError as error:
                return Outcome(file, error)
            if checksum is not None:
                location = f"/uploads/{category}/{utf8(file.relative_path)}"
                run.completed([Stored(file, location=location, checksum=checksum, verified=True)])
                return Outcome(file, location=location, checksum=checksum)
        run.certain([file])
        return None

    def _missing(self, api: Api, files: Sequence[LocalFile]) -> list[LocalFile]:
        """Return those that are not on the server yet (`--skip-existing`)."""
        missing = []
        for file, receipt in zip(files, self._context.run.receipts(files), strict=True):
            self._context.stop.check()
            if receipt is not None or self._is_there(api, file):
                self._context.ledger.skip(file, SkipReason.PRESENT)
            else:
                missing.append(file)
        return missing

    def _is_there(self, api: Api, file: LocalFile) -> bool:
        """Ask the server, where it can be asked: by size, and by digest where it has one."""
        context = self._context
        if not self._limits.relative_paths:
            text = "--skip-existing: this server can't be asked what it has; receipts of earlier uploads decide"
            self._warn_once(WarningCode.RECEIPTS_ONLY, text)
            return False
        category, path = file.category or context.settings.category, utf8(file.relative_path)
        try:
            found = context.retry.run(lambda: api.stored(category, path))
        except errors.Unreachable:
            raise
        except (errors.AnswerError, errors.NetworkError):
            return False  # sent, at worst: such a server does not store equal bytes twice
        if found is None or found[0] != file.size:
            return False
        if found[1] is None:
            return True
        try:
            mine = hash_range(file, 0, file.size, "sha256", check=context.stop.check)
        except errors.FileError:
            return False
        return found[1] == b64encode(mine).decode()

    # --- after --------------------------------------------------------------------------------------------------------

    def finish(self, api: Api, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write the receipts of files that the server has, then verify them where that was asked for.

        The receipt comes first: a run that is killed while it verifies must not send the file again.
        """
        run, verify = self._context.run, self._context.settings.verify
        stored = [outcome for outcome in outcomes if outcome.error is None]
        if stored:
            run.completed([_receipt(outcome) for outcome in stored])
        return [self.verified(api, outcome) if verify and outcome.error is None else outcome for outcome in outcomes]

    def verified(self, api: Api, outcome: Outcome) -> Outcome:
        """Compare what the server has with the file on disk and return the outcome of that."""
        context, file = self._context, outcome.file
        where = outcome.readable or outcome.location
        if outcome.checksum is not None:
            return outcome
        try:
            mine = hash_range(file, 0, file.size, "sha256", check=context.stop.check)
            equal = context.retry.run(lambda: _compare(api, where, mine, file.size)) if where else None
        except (errors.Interrupted, errors.Unreachable):
            raise
        except errors.FileError as error:
            return replace(outcome, error=error)
        except errors.UploaderError as error:
            error.retryable = True
            return replace(outcome, error=error)
        if equal is None:
            text = "--verify: this server gives no way to read a stored file or its digest"
            self._warn_once(WarningCode.UNVERIFIABLE, text)
            return outcome
        if not equal:
            words = "what the server has is not what was read (SHA-256 differs)"
            return failed(file, FailureCode.INTEGRITY, words)
        outcome = replace(outcome, checksum=mine.hex(), verified=True)
        context.run.completed([_receipt(outcome)])
        return outcome

    def _warn_once(self, code: WarningCode, text: str) -> None:
        if code not in self._warned:
            self._warned.add(code)
            self._context.warn(code, text)


def equal_on_server(api: Api, category: str, file: LocalFile, check: Callable[[], None]) -> str | None:
    """Return the hex SHA-256 of `file` where the server has equal bytes under its path; None where it has not.

    For servers that store under the path that they were given. Raise what the call raises.
    """
    found = api.stored(category, utf8(file.relative_path))
    if found is None or found[0] != file.size or found[1] is None:
        return None
    try:
        mine = hash_range(file, 0, file.size, "sha256", check=check)
    except errors.FileError:
        return None
    return mine.hex() if b64encode(mine).decode() == found[1] else None


def _receipt(outcome: Outcome) -> Stored:
    return Stored(
        outcome.file,
        server_id=outcome.server_id,
        location=outcome.location,
        checksum=outcome.checksum,
        verified=outcome.verified,
    )


def _compare(api: Api, where: str, mine: bytes, size: int) -> bool | None:
    """Compare the digest or the bytes of the stored file with `mine`; None where the server offers neither."""
    found = api.stored_at(where)
    if found is not None and found[1] is not None:
        return found[0] in (None, size) and found[1] == b64encode(mine).decode()
    theirs = hashlib.sha256()
    if not api.read_back(where, theirs.update):
        return None
    return theirs.digest() == mine
