"""Checks before a file is sent: which files are claimed, which the server has, and which names are free there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, SkipReason, WarningCode
from uploader_cli.core.packs import FoundFile
from uploader_cli.core.presence import Answer, Choices, ClaimState, Follows, ReceiptState, follows
from uploader_cli.core.protocol import utf8
from uploader_cli.sources.unchanged import open_unchanged
from uploader_cli.transfer.journal.reading import Claim
from uploader_cli.transfer.journal.receipts import Stored, is_recorded
from uploader_cli.transfer.projections import receipt_of
from uploader_cli.transfer.results import FileResult, failed
from uploader_cli.transfer.stored_files import (
    Silent,
    StoredFiles,
    Want,
    equal_to,
    location_of,
    receipt_state,
    says_nothing,
    shows_place,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.stored_files import Said, Sent
    from uploader_cli.transfer.upload_session import RunContext

    Picked = list[tuple[LocalFile, Claim]]

NOT_ASKED = (Answer.SILENT, Silent())
SPOILED = "what the server has is not what was sent"
MAY_BE_STORED = "an earlier upload of it ended without an answer: the server may have stored it, or not"


class Checked(NamedTuple):
    """What is checked here, and not by another process of the run: `skip_existing`, `skips_sent`, `verify`."""

    skip_existing: bool
    skips_sent: bool
    verify: bool


class FileChecks:
    """Check groups of files; each thread that asks the server passes its own `Api`.

    The results of files that are not sent are added to `ended`: they failed, or the server has them (`_present`).
    """

    def __init__(self, context: RunContext, checked: Checked | None = None) -> None:
        """`checked` is all that the settings ask for, unless it is given."""
        settings = context.settings
        checked = checked or Checked(settings.skip_existing, settings.skips_sent, settings.verify)
        self._context, self._stored = context, StoredFiles(context)
        skips, remembers = checked.skips_sent, settings.unending and not settings.consumes
        self._asks = asks = context.terms.lookup is not None and context.terms.limits.relative_paths
        self._counts_receipts, self._hints = skips and (asks or remembers), skips and not (asks or remembers)
        self._choices, self._verifies = _choices(settings, checked), checked.verify
        self._looks_again = context.run.tried_before and context.terms.lookup is not None

    def claim(self, files: Sequence[LocalFile], ended: list[FileResult], *, pack: bool) -> Picked | None:
        """Claim files, with `pack` for one pack; None where the server has to be asked about them before."""
        looks = self._looks_again or self._choices.skip_existing or self._sent_before(files)
        return None if looks else self._claim(files, ended, pack=pack)

    def asks(self, claimed: Picked) -> bool:
        """Return whether the server has to be asked about some of the claimed files."""
        fails, asked = self._choices.fails_if_exists, (ClaimState.DONE, ClaimState.UNKNOWN)
        return fails or any(claim.state in asked for _, claim in claimed)

    def pick(
        self,
        api: Api,
        files: Sequence[LocalFile],
        claimed: Picked | None,
        ended: list[FileResult],
        *,
        pack: bool,
    ) -> Picked:
        """Return the files to send, with `pack` in one pack.

        Unless they are `claimed`, the server is asked first, and the others are claimed after that.
        """
        if claimed is None:
            claimed = self._claim(self._unsent(api, files, ended), ended, pack=pack)
        picked = self._settled(api, claimed, ended, pack=pack)
        if self._choices.fails_if_exists:
            picked = self._free(api, picked, ended)
        if self._hints:
            self._hint(picked)
        return picked

    def _claim(self, files: Sequence[LocalFile], ended: list[FileResult], *, pack: bool) -> Picked:
        """Claim files; end those that can't be read, for which a session would wait. A pack reads them at once."""
        if not pack and self._context.terms.sessions:
            files = self._readable(files, ended)
        return list(zip(files, self._context.run.claim(files, pack=pack), strict=True))

    def _unsent(self, api: Api, files: Sequence[LocalFile], ended: list[FileResult]) -> list[LocalFile]:
        """Ask the server about files that are not claimed; end those that it has, and return the others.

        With `--skip-existing` these are all, else those that any run has sent (`_sent_before`).
        """
        context, skips = self._context, self._choices.skip_existing
        left = self._not_stored(api, files, ended) if self._looks_again else list(files)
        known = list(zip(left, context.run.receipts(left), strict=True)) if skips else self._sent_before(left)
        over = set[int]()
        for file, receipt, answer, said in self._stored.answers(api, known, by_size=not skips and self._asks):
            what = follows(None, receipt_state(file, receipt), answer, self._choices)
            if (end := self._end(file, None, receipt, what, answer, said)) is not None:
                ended.append(end)
                over.add(file.file)
        if skips and not context.terms.limits.relative_paths and not self._choices.trust_receipts:
            text = "--skip-existing: the server can be asked only for files whose receipts say where they are;"
            text += " others are sent (--trust-receipts skips those with a receipt)"
            context.warn_once(WarningCode.RECEIPTS_ONLY, text)
        return [file for file in left if file.file not in over]

    def _settled(self, api: Api, claimed: Picked, ended: list[FileResult], *, pack: bool) -> Picked:
        """Ask about claimed files that may be stored; return those to send, also those that are LOST, and end others.

        A file of which the server may have stored an earlier upload is asked for before it is sent again
        (docs/protocol.md, section 3.15).
        """
        run, choices = self._context.run, self._choices
        unsure = [] if choices.resend_unknown else [ClaimState.UNKNOWN]
        asked = [(file, claim.receipt) for file, claim in claimed if claim.state in (ClaimState.DONE, *unsure)]
        answers = {file.file: (answer, said) for file, _, answer, said in self._stored.answers(api, asked)}
        settled: list[tuple[LocalFile, Claim, Follows]] = []
        for file, claim in claimed:
            answer, _ = answers.get(file.file, NOT_ASKED)
            settled.append((file, claim, follows(claim.state, receipt_state(file, claim.receipt), answer, choices)))
        lost = [file for file, _, what in settled if what is Follows.LOST]
        if lost:
            text = f"{utf8(lost[0].path)} was uploaded, and the server does not have it as it is now: it is sent again"
            self._context.warn_once(WarningCode.FILE_LOST, text)
            run.forget(lost)
        again = iter(run.claim(lost, pack=pack))
        picked: Picked = []
        for file, claim, what in settled:
            if what is Follows.LOST:
                claim = next(again)
                what = follows(claim.state, ReceiptState.NONE, Answer.SILENT, choices)
            if (end := self._end(file, claim, claim.receipt, what, *answers.get(file.file, NOT_ASKED))) is not None:
                ended.append(end)
                continue
            if claim.state is ClaimState.UNKNOWN:
                run.certain([file])
            picked.append((file, claim))
        return picked

    def _end(
        self, file: LocalFile, claim: Claim | None, receipt: Stored | None, what: Follows, answer: Answer, said: Said
    ) -> FileResult | None:
        """Return the result of a file that is not sent; None for one that is. Warn of one that has changed."""
        match what:
            case Follows.PRESENT if claim and claim.state is ClaimState.UNKNOWN and isinstance(said, FoundFile):
                found = equal_to(file, location_of(file, self._context.settings.category), said.sha256)
                self._context.run.completed([receipt_of(found)])
                return self._present(file, None, SkipReason.PRESENT, before=True)
            case Follows.PRESENT | Follows.RECEIPT:
                reason = SkipReason.PRESENT if what is Follows.PRESENT else SkipReason.RECEIPT
                if claim is None:
                    result = self._present(file, receipt, reason, before=answer is not Answer.ALIKE)
                    return result._replace(unconfirmed=what is Follows.RECEIPT)
                before = receipt is None or (receipt.verified and bool(receipt.checksum) and is_recorded(file, receipt))
                return self._present(file, receipt, reason, before=before)
            case Follows.SPOILED:
                return failed(file, FailureCode.INTEGRITY, SPOILED)
            case Follows.IN_USE:
                return failed(file, FailureCode.IN_USE, "another run is uploading this file now", retryable=True)
            case Follows.UNSURE:
                error = said.error if isinstance(said, Silent) else None
                is_told = error is not None and not says_nothing(error)
                return FileResult(file, error if is_told else errors.OutcomeUnknown(MAY_BE_STORED))
            case Follows.CHANGED if file.upload_url:
                words = f"{utf8(file.path)} has changed since an earlier upload of it to the same URL"
                return failed(file, FailureCode.CHANGED, f"{words}: ask the service for a new upload URL")
            case Follows.CHANGED if (claim and claim.outdated) or not self._context.settings.unending:
                text = f"{utf8(file.path)} has changed since an earlier upload of it: it is sent from the beginning"
                self._context.warn(WarningCode.FILE_CHANGED, text)
        return None

    def _sent_before(self, files: Sequence[LocalFile]) -> list[Sent]:
        """Return files that any run has sent, with their receipts, where the server can be asked about them.

        An unending run asks about each file that may have changed since (`is_doubtful`): it has left out the others.
        """
        if not self._counts_receipts:
            return []
        own, receipts = self._context.settings.category, self._context.run.receipts(files)
        known = zip(files, receipts, strict=True)
        return [(file, row) for file, row in known if row and (not self._asks or shows_place(row, file, own))]

    def _hint(self, picked: Picked) -> None:
        """Say once that the server is not asked about files that were sent, where it can't be about many at once."""
        new = [file for file, claim in picked if claim.state is ClaimState.NEW and not file.upload_url]
        known = zip(new, self._context.run.receipts(new), strict=True)
        again = next((file for file, receipt in known if receipt is not None), None)
        if again is not None:
            self._hints = False
            text = f"an earlier run has sent {utf8(again.path)}, and this one does not ask for it:"
            text += " --skip-existing skips files that the server still has"
            self._context.warn_once(WarningCode.SENT_AGAIN, text)

    def _not_stored(self, api: Api, files: Sequence[LocalFile], ended: list[FileResult]) -> list[LocalFile]:
        """End the files that another process has stored (`UploadJournal.tried_before`); return the others."""
        left = []
        for file, _, answer, said in self._stored.answers(api, [(file, None) for file in files], Want.PRESENCE):
            if answer is Answer.EQUAL and isinstance(said, FoundFile):
                ended.append(equal_to(file, said.location, said.sha256))
            else:
                left.append(file)
        return left

    def _present(self, file: LocalFile, receipt: Stored | None, reason: SkipReason, *, before: bool) -> FileResult:
        """Return the result of a file that is stored.

        `before`: its bytes were compared before, or are unknown here, and `--verify` does not read it.
        """
        context, settings = self._context, self._context.settings
        result = FileResult(file, new=False, skipped=reason)
        if receipt is not None:
            compares = self._verifies and not before
            result = result._replace(server_id=receipt.server_id, location=receipt.location, link=receipt.link)
            result = result._replace(verified=receipt.verified, compares=compares)
            reads = compares or settings.consumes  # this run reads it
            if not reads and is_recorded(file, receipt):
                result = result._replace(digest=receipt.checksum)
        if result.location is None and context.terms.limits.relative_paths:
            result = result._replace(location=location_of(file, settings.category))
        return result

    def _free(self, api: Api, files: Picked, ended: list[FileResult]) -> Picked:
        """Return the files whose names are free on the server; end the others.

        A file whose upload is resumed was checked before; now its own upload may be there.
        """
        free, own = [], self._context.settings.category
        found = self._stored.ask(api, [(file, None) for file, _ in files], Want.PRESENCE)
        for (file, claim), said in zip(files, found, strict=True):
            state = ClaimState.RESUME if claim.state is ClaimState.RESUME else ClaimState.NEW
            answer = Answer.OTHER if isinstance(said, FoundFile) else Answer.SILENT  # its bytes do not count
            if follows(state, ReceiptState.NONE, answer, self._choices) is Follows.EXISTS:
                text = f"{file.category or own}/{utf8(file.relative_path)} exists on the server (--if-exists fail)"
                ended.append(failed(file, FailureCode.EXISTS, text))
            else:
                free.append((file, claim))
        return free

    def _readable(self, files: Sequence[LocalFile], ended: list[FileResult]) -> list[LocalFile]:
        """Return the files that can be read; end the others."""
        readable = []
        for file in files:
            try:
                if not file.once:
                    open_unchanged(file).close()
            except errors.FileError as error:
                ended.append(FileResult(file, error))
            else:
                readable.append(file)
        return readable


def _choices(settings: Settings, checked: Checked) -> Choices:
    return Choices(
        skip_existing=checked.skip_existing,
        trust_receipts=settings.trust_receipts,
        resend_unknown=settings.resend_unknown,
        fails_if_exists=settings.if_exists == "fail",
        compares=checked.verify or settings.consumes,
    )
