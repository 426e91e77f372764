"""Checks before a file is sent: which files are claimed, which the server has, and which names are free there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, SkipReason, WarningCode
from uploader_cli.core.packs import FoundFile
from uploader_cli.core.protocol import utf8
from uploader_cli.sources.unchanged import open_unchanged
from uploader_cli.transfer.journal import Claim, ClaimState, Stored
from uploader_cli.transfer.journal.reading import is_doubtful, is_recorded
from uploader_cli.transfer.projections import receipt_of
from uploader_cli.transfer.results import FileResult, failed
from uploader_cli.transfer.stored_files import (
    NO_OUTCOME,
    StoredFiles,
    equal_on_server,
    equal_to,
    has_bytes,
    location_of,
    says_nothing,
    shows_place,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.upload_session import RunContext

    Picked = list[tuple[LocalFile, Claim]]

SPOILED = "what the server has is not what was sent"
MAY_BE_STORED = "an earlier upload of it ended without an answer: the server may have stored it, or not"


class FileChecks:
    """Check groups of files; each thread that asks the server passes its own `Api`.

    The results of files that are not sent are added to `ended`: they failed, or the server has them (`_present`).
    """

    def __init__(self, context: RunContext) -> None:
        self._context, self._stored = context, StoredFiles(context)
        skips, watches = context.settings.skips_sent, context.settings.watch and context.settings.then is None
        self._asks = asks = context.terms.lookup is not None and context.terms.limits.relative_paths
        self._counts_receipts, self._hints = skips and (asks or watches), skips and not (asks or watches)
        # whether an earlier try may have stored files
        self._looks_again = context.run.again and context.terms.lookup is not None

    def claim(self, files: Sequence[LocalFile], ended: list[FileResult], *, pack: bool) -> Picked | None:
        """Claim files, with `pack` for one pack; None where the server has to be asked about them before."""
        looks = self._looks_again or self._context.settings.skip_existing or self._sent_before(files)
        return None if looks else self._claim(files, ended, pack=pack)

    def asks(self, claimed: Picked) -> bool:
        """Return whether the server has to be asked about some of the claimed files."""
        fails = self._context.settings.if_exists == "fail"
        return fails or any(claim.state in (ClaimState.DONE, ClaimState.UNKNOWN) for _, claim in claimed)

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
        picked: Picked = []
        if claimed is None:
            claimed = self._claim(self._asked(api, files, ended), ended, pack=pack)
        for file, claim, found in self._found(api, claimed, ended, pack=pack):
            ends = self._settled(api, file, claim)
            if ends is None:
                picked.append((file, claim))
            elif ends.error is not None:
                ended.append(ends)
            else:
                done = claim.receipt
                before = done is None or (done.verified and done.checksum is not None and is_recorded(file, done))
                ended.append(self._present(file, done, found, before=before))
        if self._context.settings.if_exists == "fail":
            picked = self._free(api, picked, ended)
        if self._hints:
            self._hint(picked)
        return picked

    def _claim(self, files: Sequence[LocalFile], ended: list[FileResult], *, pack: bool) -> Picked:
        """Claim files; end those that can't be read, for which a session would wait. A pack reads them at once."""
        if not pack and self._context.terms.sessions:
            files = self._readable(files, ended)
        return list(zip(files, self._context.run.claim(files, pack=pack), strict=True))

    def _asked(self, api: Api, files: Sequence[LocalFile], ended: list[FileResult]) -> Sequence[LocalFile]:
        """Ask the server about files; end those that it has, and return the others."""
        if self._looks_again:
            files = self._not_stored(api, files, ended)
        if self._context.settings.skip_existing:
            return self._missing(api, files, ended)
        return self._unconfirmed(api, files, sent, ended) if (sent := self._sent_before(files)) else files

    def _found(
        self, api: Api, claims: Picked, ended: list[FileResult], *, pack: bool
    ) -> Iterator[tuple[LocalFile, Claim, bool | None]]:
        """Yield each file, its claim and, for one with a receipt, whether the server has it (None: unknown).

        End those that are `_is_spoiled`. One that may have changed since then, and that nothing can be compared with,
        is sent once more.
        """
        run, there, lost, spoiled = self._context.run, dict[int, bool | None](), [], set[int]()
        sent = [(file, claim.receipt) for file, claim in claims if claim.state is ClaimState.DONE]
        for (file, receipt), (found, other) in zip(sent, self._stored.present(api, sent), strict=True):
            untold = found is None and receipt is not None and receipt.checksum is None and is_doubtful(file, receipt)
            there[file.file] = False if untold else found
            if found is False and self._is_spoiled(file, receipt, other):
                spoiled.add(file.file)
                ended.append(failed(file, FailureCode.INTEGRITY, SPOILED))
            elif there[file.file] is False:
                lost.append(file)
        if lost:
            text = f"{utf8(lost[0].path)} was uploaded, and the server does not have it as it is now: it is sent again"
            self._context.warn_once(WarningCode.FILE_LOST, text)
            run.forget(lost)
        again = iter(run.claim(lost, pack=pack))
        for file, claim in claims:
            known = there.get(file.file, True)
            if file.file not in spoiled:
                yield file, next(again) if known is False else claim, known

    def _is_spoiled(self, file: LocalFile, receipt: Stored | None, other: FoundFile | None) -> bool:
        """Return whether a file fails in whose place the server has another one; else it is sent again.

        It fails where stored files are compared (`--verify`, `--then`), and where the local one is as it was sent.
        Otherwise it is a new one, as any that has changed since. The next run sends it in both cases.
        """
        compares = self._context.settings.verify or self._context.settings.then is not None
        return compares and other is not None and receipt is not None and is_recorded(file, receipt)

    def _settled(self, api: Api, file: LocalFile, claim: Claim) -> FileResult | None:
        match claim.state:
            case ClaimState.DONE:
                return FileResult(file)
            case ClaimState.BUSY:
                return failed(file, FailureCode.IN_USE, "another run is uploading this file now", retryable=True)
            case ClaimState.UNKNOWN:
                return self._unknown(api, file)
            case ClaimState.CHANGED if file.upload_url:
                words = f"{utf8(file.path)} has changed since an earlier upload of it to the same URL"
                return failed(file, FailureCode.CHANGED, f"{words}: ask the service for a new upload URL")
            case ClaimState.CHANGED if claim.outdated is not None or not self._context.settings.watch:
                text = f"{utf8(file.path)} has changed since an earlier upload of it: it is sent from the beginning"
                self._context.warn(WarningCode.FILE_CHANGED, text)
        return None

    def _unknown(self, api: Api, file: LocalFile) -> FileResult | None:
        """Ask whether the file is stored before it is resent (docs/protocol.md, section 3.15)."""
        run, settings = self._context.run, self._context.settings
        if not settings.resend_unknown:
            if not self._context.terms.limits.relative_paths:
                return FileResult(file, errors.OutcomeUnknown(MAY_BE_STORED))
            try:
                found = equal_on_server(api, file, retries=api.pacer.retries)
            except NO_OUTCOME:
                raise
            except errors.UploaderError as error:
                return FileResult(file, errors.OutcomeUnknown(MAY_BE_STORED) if says_nothing(error) else error)
            if found is not None:
                run.completed([receipt_of(found)])
                return found
        run.certain([file])
        return None

    def _missing(self, api: Api, files: Sequence[LocalFile], ended: list[FileResult]) -> list[LocalFile]:
        """Skip the files that are on the server, or were sent at some time; return the others (`--skip-existing`)."""
        context, trusts = self._context, self._context.settings.trust_receipts
        receipts, missing = list(zip(files, context.run.receipts(files), strict=True)), []
        for (file, receipt), (there, other) in zip(receipts, self._stored.present(api, receipts), strict=True):
            context.stop.checkpoint()
            if there or (there is None and receipt is not None and trusts):
                before = not there or (other is not None and other.sha256 is not None)
                ended.append(self._present(file, receipt, there, before=before)._replace(unconfirmed=not there))
            elif self._is_spoiled(file, receipt, other):
                ended.append(failed(file, FailureCode.INTEGRITY, SPOILED))
            else:
                missing.append(file)
        if not self._context.terms.limits.relative_paths and not trusts:
            text = "--skip-existing: the server can be asked only for files whose receipts say where they are;"
            text += " others are sent (--trust-receipts skips those with a receipt)"
            context.warn_once(WarningCode.RECEIPTS_ONLY, text)
        return missing

    def _sent_before(self, files: Sequence[LocalFile]) -> dict[int, Stored]:
        """Return the receipts of files that any run has sent, by number, where the server can be asked about them.

        `--watch` asks about each file that may have changed since (`is_doubtful`), and leaves out the others before.
        """
        if not self._counts_receipts:
            return {}
        own, receipts = self._context.settings.category, self._context.run.receipts(files)
        known = zip(files, receipts, strict=True)
        return {file.file: row for file, row in known if row and (not self._asks or shows_place(row, file, own))}

    def _unconfirmed(
        self, api: Api, files: Sequence[LocalFile], sent: Mapping[int, Stored], ended: list[FileResult]
    ) -> list[LocalFile]:
        """Skip the files of receipts that the server confirms, without reading them; return the others."""
        known = [(file, sent[file.file]) for file in files if file.file in sent]
        if not self._asks:
            stored = [one for one, (there, _) in zip(known, self._stored.present(api, known), strict=True) if there]
            ended += [self._present(file, receipt, there=True, before=False) for file, receipt in stored]
            there = {file.file for file, _ in stored}
            return [file for file in files if file.file not in there]
        answers, left = iter(self._stored.confirmed(api, known)), []
        for file in files:
            receipt, found = sent.get(file.file), next(answers) if file.file in sent else None
            if receipt is None or not isinstance(found, FoundFile):
                left.append(file)
                continue
            # Of a large file the receipt has no digest, and its size is enough.
            alone = receipt.checksum is None and found.size is not None and is_recorded(file, receipt)
            if not (found.size == file.size if alone else self._stored.is_equal(api, file, receipt, found)):
                if self._is_spoiled(file, receipt, found):
                    ended.append(failed(file, FailureCode.INTEGRITY, SPOILED))
                else:
                    left.append(file)
                continue
            before = found.sha256 is not None and not alone
            ended.append(self._present(file, receipt, there=True, before=before))
        return left

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
        """End the files that an earlier try of an import's task has stored; return the others."""
        left = []
        answer = self._stored.look_up(api, [(file, None) for file in files])
        for file, found in zip(files, answer, strict=True):
            if isinstance(found, FoundFile) and has_bytes(found, file, self._context.stop.checkpoint):
                ended.append(equal_to(file, found.location, found.sha256))
            else:
                left.append(file)
        return left

    def _present(self, file: LocalFile, receipt: Stored | None, there: bool | None, *, before: bool) -> FileResult:
        """Return the result of a file that is stored: as the server says (`there`), or as only a receipt does.

        `before`: its bytes were compared before, or are unknown here, and `--verify` does not read it.
        """
        context, settings = self._context, self._context.settings
        result = FileResult(file, new=False, skipped=SkipReason.PRESENT if there else SkipReason.RECEIPT)
        if receipt is not None:
            compares = settings.verify and not before
            result = result._replace(server_id=receipt.server_id, location=receipt.location, result_url=receipt.link)
            result = result._replace(verified=receipt.verified, compares=compares)
            reads = compares or settings.then is not None  # this run reads it
            if context.digests is not None and not reads and is_recorded(file, receipt):
                result = result._replace(digest=receipt.checksum)
        if result.location is None and context.terms.limits.relative_paths:
            result = result._replace(location=location_of(file, settings.category))
        return result

    def _free(self, api: Api, files: Picked, ended: list[FileResult]) -> Picked:
        """Return the files whose names are free on the server; end the others.

        A file whose upload is resumed was checked before; now its own upload may be there.
        """
        free, own = [], self._context.settings.category
        found = self._stored.look_up(api, [(file, None) for file, _ in files])
        for (file, claim), item in zip(files, found, strict=True):
            if not isinstance(item, FoundFile) or claim.state is ClaimState.RESUME:
                free.append((file, claim))
            else:
                text = f"{file.category or own}/{utf8(file.relative_path)} exists on the server (--if-exists fail)"
                ended.append(failed(file, FailureCode.EXISTS, text))
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
