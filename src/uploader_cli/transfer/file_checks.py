"""Checks before and after a file is sent: claims, files on the server, verification."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote

from uploader_cli import errors
from uploader_cli.core.events import FailureCode, SkipReason, VerifiedBy, WarningCode
from uploader_cli.core.packs import Found, LookedUp
from uploader_cli.core.protocol import stored_path, utf8
from uploader_cli.sources.content import Digests, open_unchanged, sha256_of
from uploader_cli.transfer.api import NO_ANSWER, Api
from uploader_cli.transfer.bodies import metadata_of, named
from uploader_cli.transfer.job import Outcome, failed
from uploader_cli.transfer.journal import Claim, ClaimState, Stored
from uploader_cli.transfer.protocols.tus import TusClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.session import Context

    Picked = list[tuple[LocalFile, Claim]]

T = TypeVar("T")

NO_OUTCOME = (errors.Interrupted, errors.Unreachable, errors.ProxyUnauthorized, errors.DiskFull)
"""Errors that end the run, whatever was asked."""
MAY_BE_STORED = "an earlier upload of it ended without an answer: the server may have stored it, or not"
NOT_CONFIRMED = "a gateway failed after its last byte: the server has all bytes, and may have stored the file, or not"


class FileChecks:
    """Check groups of files; each thread that asks the server passes its own `Api`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._warned: set[WarningCode] = set()
        self._one_by_one = False  # whether the lookup has failed

    def claim(self, files: Sequence[LocalFile], *, pack: bool) -> Picked | None:
        """Claim files, with `pack` for one pack; None where the server has to be asked about them before."""
        context, settings, ended = self._context, self._context.settings, list[Outcome]()
        if (context.run.again and context.lookups is not None) or settings.skip_existing:
            return None
        if not pack and not settings.foreign:  # no session waits for a file that can't be read; a pack reads it at once
            files = _readable(files, ended)
            context.ledger.end(ended)
        return list(zip(files, context.run.claim(files, pack=pack), strict=True))

    def asks(self, claimed: Picked) -> bool:
        """Return whether the server has to be asked about some of the claimed files."""
        fails = self._context.settings.if_exists == "fail"
        return fails or any(claim.state in (ClaimState.DONE, ClaimState.UNKNOWN) for _, claim in claimed)

    def pick(self, api: Api, files: Sequence[LocalFile], *, pack: bool = False) -> Picked:
        """Ask the server about files, claim them, and return those to send, with `pack` in one pack. End the others."""
        context, ended = self._context, list[Outcome]()
        if context.run.again and context.lookups is not None:
            files = self._not_stored(api, files)
        if context.settings.skip_existing:
            files = self._missing(api, files)
        if not pack:
            files = _readable(files, ended)
            context.ledger.end(ended)
        return self.settle(api, list(zip(files, context.run.claim(files, pack=pack), strict=True)), pack=pack)

    def settle(self, api: Api, claimed: Picked, *, pack: bool) -> Picked:
        """Return the claimed files that are sent. End the others."""
        context, ended = self._context, list[Outcome]()
        picked: Picked = []
        for file, claim, there in self._found(api, claimed, pack=pack):
            ends = self._settled(api, file, claim)
            if ends is None:
                picked.append((file, claim))
            elif ends.error is not None:
                ended.append(ends)
            else:
                self._skip(file, there, claim.receipt)
        if context.settings.if_exists == "fail":
            picked = self._free(api, picked, ended)
        context.ledger.end(ended)
        return picked

    def _found(self, api: Api, claims: Picked, *, pack: bool) -> Iterator[tuple[LocalFile, Claim, bool | None]]:
        """Yield each file, its claim and, for one with a receipt, whether the server has it (None: unknown)."""
        run = self._context.run
        sent = [(file, claim.receipt) for file, claim in claims if claim.state is ClaimState.DONE]
        there = {file.file: found for (file, _), found in zip(sent, self._on_server(api, sent), strict=True)}
        lost = [file for file, _ in sent if there[file.file] is False]
        if lost:
            text = f"{utf8(lost[0].path)} was uploaded and is not on the server any more: it is resent"
            self._warn_once(WarningCode.FILE_LOST, text)
            run.forget(lost)
        again = iter(run.claim(lost, pack=pack))
        for file, claim in claims:
            known = there.get(file.file, True)
            yield file, next(again) if known is False else claim, known

    def _settled(self, api: Api, file: LocalFile, claim: Claim) -> Outcome | None:
        """Return the outcome of a file that is not sent."""
        match claim.state:
            case ClaimState.DONE:
                done, verify = claim.receipt, self._context.settings.verify
                if done is None or not verify or (done.verified and done.checksum is not None):
                    return Outcome(file)
                outcome = Outcome(file, server_id=done.server_id, location=done.location, verified=done.verified)
                return self._verified(api, outcome)
            case ClaimState.BUSY:
                return failed(file, FailureCode.IN_USE, "another run is uploading this file now", retryable=True)
            case ClaimState.UNKNOWN:
                return self._unknown(api, file)
            case ClaimState.CHANGED if file.upload_url:
                words = f"{utf8(file.path)} has changed since an earlier upload of it to the same URL"
                return failed(file, FailureCode.CHANGED, f"{words}: ask the service for a new upload URL")
            case ClaimState.CHANGED:
                text = f"{utf8(file.path)} has changed since an earlier upload of it: it is sent from the beginning"
                self._context.warn(WarningCode.FILE_CHANGED, text)
        return None

    def _unknown(self, api: Api, file: LocalFile) -> Outcome | None:
        """Ask whether the file is stored before it is resent (docs/protocol.md, section 3.15)."""
        run, settings = self._context.run, self._context.settings
        if not settings.resend_unknown:
            if not self._context.limits.relative_paths:
                return Outcome(file, errors.OutcomeUnknown(MAY_BE_STORED))
            try:
                found = equal_on_server(
                    api, file, settings.category, self._context.stop.check, retries=api.pacer.retries
                )
            except NO_OUTCOME:
                raise
            except errors.UploaderError as error:
                return Outcome(file, errors.OutcomeUnknown(MAY_BE_STORED) if says_nothing(error) else error)
            if found is not None:
                run.completed([_receipt(found)])
                return found
        run.certain([file])
        return None

    def _missing(self, api: Api, files: Sequence[LocalFile]) -> list[LocalFile]:
        """Skip the files that are on the server, or were sent at some time; return the others (`--skip-existing`)."""
        context, trusts = self._context, self._context.settings.trust_receipts
        receipts, missing = list(zip(files, context.run.receipts(files), strict=True)), []
        for (file, receipt), there in zip(receipts, self._on_server(api, receipts), strict=True):
            context.stop.check()
            if there or (there is None and receipt is not None and trusts):
                self._skip(file, there, receipt)
            else:
                missing.append(file)
        if not self._context.limits.relative_paths and not trusts:
            text = "--skip-existing: the server can be asked only for files whose receipts say where they are;"
            text += " others are sent (--trust-receipts skips those with a receipt)"
            self._warn_once(WarningCode.RECEIPTS_ONLY, text)
        return missing

    def _not_stored(self, api: Api, files: Sequence[LocalFile]) -> list[LocalFile]:
        """End the files that an earlier try has stored, as far as the server knows; return the others."""
        left, ended = [], []
        answer = self._look_up(api, [self._looked_up(file) for file in files])
        for file, found in zip(files, answer, strict=True):
            if isinstance(found, Found) and _has_bytes(found, file, self._context.stop.check):
                ended.append(_equal(file, found.location, found.sha256))
            else:
                left.append(file)
        self._context.ledger.end(ended)
        return left

    def _skip(self, file: LocalFile, there: bool | None, receipt: Stored | None) -> None:
        """Leave out a file that is on the server: `there`, or by its receipt alone."""
        context, sha256, where = self._context, None, receipt.location if receipt is not None else None
        if where is None and self._context.limits.relative_paths:
            where = place_of(file, context.settings.category)
        if context.digests is not None:
            sha256 = (receipt.checksum if receipt is not None else None) or _digest(file, context.stop.check)
        context.ledger.skip(file, SkipReason.PRESENT if there else SkipReason.RECEIPT, where, sha256)

    def _free(self, api: Api, files: Picked, ended: list[Outcome]) -> Picked:
        """Return the files whose names are free on the server; add the outcomes of the others to `ended`.

        A file whose upload is resumed was checked before; now its own upload may be there.
        """
        asked, free = [self._looked_up(file) for file, _ in files], []
        for (file, claim), one, item in zip(files, asked, self._look_up(api, asked), strict=True):
            if not isinstance(item, Found) or claim.state is ClaimState.RESUME:
                free.append((file, claim))
            else:
                text = f"{one.category}/{one.path} exists on the server (--if-exists fail)"
                ended.append(failed(file, FailureCode.EXISTS, text))
        return free

    def _looked_up(self, file: LocalFile, receipt: Stored | None = None) -> LookedUp:
        return looked_up(file, self._context.settings.category, receipt)

    def _look_up(self, api: Api, asked: Sequence[LookedUp]) -> list[Found | Literal[False] | None]:
        """Return each stored file, False for one that is not stored, and None without an answer.

        Use one lookup where offered, else one call for each path.
        """
        offer = self._context.lookups
        if offer is not None and not self._one_by_one:
            try:
                return [found or False for found in api.lookup(offer, asked, retries=api.pacer.retries)]
            except NO_OUTCOME:
                raise
            except errors.UploaderError as error:
                self._one_by_one = True
                self._warn_once(WarningCode.LOOKUP, f"the lookup failed: {error}; files are looked up one by one")
        return [self._stored(api, stored_path(one.category, one.path)) for one in asked]

    def _on_server(self, api: Api, files: Sequence[tuple[LocalFile, Stored | None]]) -> Iterator[bool | None]:
        """Yield whether the server has each file with the bytes of its receipt; None for unknown."""
        if not self._context.limits.relative_paths:
            for file, receipt in files:
                yield self._by_receipt(api, file, receipt.location if receipt is not None else None)
            return
        asked = [self._looked_up(*item) for item in files]
        for one, (file, receipt), item in zip(asked, files, self._look_up(api, asked), strict=True):
            unsure = isinstance(item, Found) and item.size == file.size and item.sha256 is None
            if unsure and receipt is None:  # the lookup computes no digest
                item = self._stored(api, stored_path(one.category, one.path))
            yield self._is_equal(file, receipt, item) if isinstance(item, Found) else item

    def _by_receipt(self, api: Api, file: LocalFile, where: str | None) -> bool | None:
        if where is None:
            return None
        settings = self._context.settings
        if settings.foreign and where.startswith("http"):  # else the path of a Content-Location
            # Not retried: many servers answer 404 for a finished upload, and each retry would wait longer.
            client = TusClient(api, settings.target_url)
            position = _asked(lambda: api.pacer.call(lambda: client.head(where), at_most=0))
            return None if position is None else position.offset == file.size
        found = self._stored(api, where)
        return found.size in (None, file.size) if isinstance(found, Found) else found

    def _stored(self, api: Api, where: str) -> Found | Literal[False] | None:
        """Return False for a file that is not stored, None without an answer."""
        return _asked(lambda: api.stored(where, retries=api.pacer.retries) or False)

    def _is_equal(self, file: LocalFile, receipt: Stored | None, found: Found) -> bool:
        """Compare size and digest. A receipt's digest saves reading the file."""
        if found.size != file.size or found.sha256 is None:
            return found.size == file.size
        known = receipt.checksum if receipt is not None else None
        return found.sha256 == (_digest(file, self._context.stop.check) if known is None else known)

    def finish(self, api: Api, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Write the receipts of stored files first, then hash and verify: a kill meanwhile sends no file again."""
        run, digests, verify = self._context.run, self._context.digests, self._context.settings.verify
        if digests is not None:
            outcomes = [outcome._replace(digest=digests.known(outcome.file)) for outcome in outcomes]
        sure = [outcome for outcome in outcomes if outcome.error is None and not outcome.unsure]
        stored = [_receipt(outcome, verify=verify) for outcome in sure]
        if stored:
            run.completed(stored)
        if digests is not None:
            outcomes = [self._hashed(digests, outcome) for outcome in outcomes]
        asked = [outcome.error is None and (verify or outcome.unsure) for outcome in outcomes]
        return [self._verified(api, one) if ask else one for one, ask in zip(outcomes, asked, strict=True)]

    def _hashed(self, digests: Digests, outcome: Outcome) -> Outcome:
        """Return the outcome with the digest of a stored file."""
        try:
            if outcome.error is None and outcome.sha256 is None:
                outcome = outcome._replace(digest=digests.complete(outcome.file))
                if not outcome.unsure:
                    self._context.run.completed([_receipt(outcome, verify=self._context.settings.verify)])
        except errors.FileError as error:
            outcome = outcome._replace(error=error)
        digests.forget(outcome.file)
        return outcome

    def _verified(self, api: Api, outcome: Outcome) -> Outcome:
        """Compare the stored bytes with the file on disk and return the new outcome.

        A file that may be stored is so only if the bytes are equal.
        """
        context, file = self._context, outcome.file
        where = outcome.readable or outcome.location
        if outcome.checksum is not None:
            return outcome
        unknown = outcome._replace(error=errors.OutcomeUnknown(NOT_CONFIRMED))
        if outcome.unsure and file.once and outcome.digest is None:
            return unknown
        try:
            mine = outcome.digest or sha256_of(file, context.stop.check)
            equal = _compare(api, where, mine, file.size) if where else None
        except NO_OUTCOME:
            raise
        except errors.UploaderError as error:
            error.retryable = error.retryable or not isinstance(error, errors.FileError)
            return outcome._replace(error=error)
        if equal is None and outcome.unsure:
            return unknown
        if equal is None:
            text = "--verify: this server gives no way to read a stored file or its digest"
            self._warn_once(WarningCode.UNVERIFIABLE, text)
            return outcome
        if not equal:
            return failed(file, FailureCode.INTEGRITY, "what the server has is not what was read (SHA-256 differs)")
        outcome = outcome._replace(checksum=mine, verified=True, verified_by=equal, unsure=False)
        context.run.completed([_receipt(outcome)])
        return outcome

    def _warn_once(self, code: WarningCode, text: str) -> None:
        if code not in self._warned:
            self._warned.add(code)
            self._context.warn(code, text)


class Places:
    """The places of the files of a run, on a server that stores a file under metadata that the setting `place` names.

    Of each place only a digest is kept: a run may have millions of files.
    """

    def __init__(self, settings: Settings, check: Callable[[], None]) -> None:
        """`check` raises to stop."""
        self._names, self._check = settings.place if settings.foreign else (), check
        self._templates = [item for item in settings.metadata if item.name in self._names]
        self._sends_paths = any("{path}" in (item.template or "") for item in self._templates)
        self._taken: set[bytes] = set()

    def taken(self, file: LocalFile) -> str | None:
        """Return why a file would replace another one of the run, else None: the place is its own now."""
        if not self._names or file.upload_url:
            return None
        try:
            values = named(file) | metadata_of(file, self._templates, self._check)
        except errors.FileError:  # it fails when it is sent
            return None
        place = [values.get(name, "") for name in self._names]
        digest = hashlib.blake2b("\0".join(place).encode(), digest_size=16).digest()
        if digest not in self._taken:
            self._taken.add(digest)
            return None
        name = self._names[-1]
        other = f"a column {name} in a list" if self._sends_paths else f"--metadata '{name}={{path}}'"
        return f"another file of this run has the same {name} on the server, {place[-1]}; {other} tells them apart"


def _asked(call: Callable[[], T]) -> T | None:
    """Return the answer, or None without one. Raise what ends the run."""
    try:
        return call()
    except NO_OUTCOME:
        raise
    except errors.UploaderError:
        return None


def looked_up(file: LocalFile, own: str, receipt: Stored | None = None) -> LookedUp:
    """Return how to look up a file, by default in the category `own`.

    The path of a receipt has precedence: the server may have renamed the file.
    """
    category, location = file.category or own, (receipt.location if receipt is not None else None) or ""
    root = stored_path(category, "")
    path = unquote(location.removeprefix(root)) if location.startswith(root) else utf8(file.relative_path)
    return LookedUp(category, path, file.size)


def _readable(files: Sequence[LocalFile], ended: list[Outcome]) -> list[LocalFile]:
    """Return the files that can be read; add the outcomes of the others to `ended`."""
    readable = []
    for file in files:
        try:
            if not file.once:
                open_unchanged(file).close()
        except errors.FileError as error:
            ended.append(Outcome(file, error))
        else:
            readable.append(file)
    return readable


def says_nothing(error: errors.UploaderError) -> bool:
    """Return whether the server refuses permanently to report what is stored."""
    refused = isinstance(error, errors.AnswerError) and error.status not in NO_ANSWER
    return refused or isinstance(error, errors.ProtocolError)


def place_of(file: LocalFile, own: str) -> str:
    """Return where a server that keeps relative paths has the file, by default in the category `own`."""
    return stored_path(file.category or own, utf8(file.relative_path))


def equal_on_server(
    api: Api, file: LocalFile, own: str, check: Callable[[], None], *, retries: int | None = None
) -> Outcome | None:
    """Return the outcome of a file whose bytes are at `place_of`, else None. Raise as `Api.stored` does."""
    where = place_of(file, own)
    found = api.stored(where, retries=retries)
    if found is None or not _has_bytes(found, file, check):
        return None
    return _equal(file, where, found.sha256)


def _equal(file: LocalFile, where: str | None, sha256: str | None) -> Outcome:
    return Outcome(file, location=where, checksum=sha256, verified=True, verified_by=VerifiedBy.DIGEST)


def _has_bytes(found: Found, file: LocalFile, check: Callable[[], None]) -> bool:
    """Compare size and digest; a digest that the server does not know is not equal."""
    return found.size == file.size and found.sha256 is not None and found.sha256 == _digest(file, check)


def _digest(file: LocalFile, check: Callable[[], None]) -> str | None:
    """Return the hex SHA-256; None for a file that can't be read unchanged."""
    try:
        return sha256_of(file, check)
    except errors.FileError:
        return None


def _receipt(outcome: Outcome, *, verify: bool = False) -> Stored:
    """Return the receipt, with `verify` without a digest that was not compared: a resumed run verifies the file."""
    where, sha256 = outcome.location or outcome.readable, outcome.checksum if verify else outcome.sha256
    return Stored(outcome.file, outcome.server_id, where, sha256, outcome.verified)


def _compare(api: Api, where: str, mine: str, size: int) -> VerifiedBy | Literal[False] | None:
    """Return what was equal to `mine`, the stored digest or bytes, False if it differs; None without either."""
    found = None
    try:
        found = api.stored(where, retries=api.pacer.retries)
    except errors.UploaderError as error:
        if not says_nothing(error):
            raise
    if found is not None and found.sha256 is not None:
        return VerifiedBy.DIGEST if found.size in (None, size) and found.sha256 == mine else False

    def read() -> VerifiedBy | Literal[False] | None:
        theirs = hashlib.sha256()
        if not api.read_back(where, theirs.update):
            return None
        return VerifiedBy.BYTES if theirs.hexdigest() == mine else False

    return api.pacer.call(read)
