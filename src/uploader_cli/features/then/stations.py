"""What becomes of local files that are stored: they are moved or deleted, in these steps and no other order:

1. `Proof.admit`: the identity of the file is taken before anything of it is read.
2. The file is sent, or an earlier run has sent it. The journal has its receipt.
3. `Proof`: the SHA-256 of the bytes that were read here in this run is that of the stored file: by a digest of bytes
   that the server reads now, or by the bytes read back. Neither receipts nor the checksums of chunks count, and digests
   that the server has recorded only for a file that it has stored anew for this run.
   Where the server had an equal file before this run, that is another one than the local file, which may be in a
   mounted root: the first file of each directory is set aside, and the server is asked for its own.
4. With `--result-url` the server has processed the file.
5. `Removing`: the file still has its identity, and is moved or deleted. Then its end is reported. If only the ctime
   differs, as after the removal of another hard link, steps 1 and 3 are repeated with what is here now. Its receipt no
   longer counts: a file that appears at its path was never sent, also with the same size and mtime.

A run that is killed before step 5 leaves a file with a receipt; the next one begins at step 3. A file for which a step
fails is kept, and fails with the reason; it is stored.
"""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode, VerifiedBy
from uploader_cli.core.confirmation import Reading
from uploader_cli.core.packs import FoundFile
from uploader_cli.feature import options_of
from uploader_cli.features.then.fields import Removed
from uploader_cli.features.then.options import Removal, Then
from uploader_cli.features.then.removal import KEPT, ROOT_MARK, delete, identified, is_in_root, move, set_aside
from uploader_cli.sources.content import is_local, sha256_of
from uploader_cli.transfer.pacer import holding
from uploader_cli.transfer.projections import COMPARED, receipt_of
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.station import Carrier, Station
from uploader_cli.transfer.stations import compared
from uploader_cli.transfer.stored_files import Absent, Silent, digests_told, heard, of_size
from uploader_cli.transfer.upload_calls import upload_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.upload_session import RunContext

KNOWN_DIRECTORIES = 10_000
UNVERIFIABLE = FailureCode("unverifiable")
UNTOLD = "the server does not say whether it is another file than the stored one"


class Proof(Station):
    """Compare stored files with what was read; those that differ, or can't be compared, fail."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._reads = True  # whether the server's lookup reads files anew; early versions refuse that
        self._is_in_root = lru_cache(KNOWN_DIRECTORIES)(is_in_root)
        self._asking, self._other = threading.Lock(), set[str]()  # directories whose files are not the server's own

    def admit(self, file: LocalFile) -> LocalFile:
        """Return the file with its identity. The short wait for it is not interrupted: the ledger has no entry yet."""
        return identified(file) if is_local(file) else file

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        """Return the results, with errors for files that are not proven to be stored."""
        api = carrier.api
        anew = not self._context.terms.sessions  # a tus endpoint stores each upload anew
        results = [one if one.new is not None else one._replace(new=anew) for one in results]
        found = self._looked_up(api, [one for one in results if one.error is None])
        proven = [one if one.error is not None else self._proven(api, one, found.get(one.file.file)) for one in results]
        return [one if one.error is not None else self._apart(api, one) for one in proven]

    def _looked_up(self, api: Api, outcomes: Sequence[FileResult]) -> dict[int, FoundFile]:
        """Return what the server's lookup says of files, by their numbers; nothing without one."""
        known = [outcome for outcome in outcomes if outcome.new and outcome.verified_by not in COMPARED]
        found = self._ask(api, known, "compute") if len(known) > 1 else {}
        return found | self._ask(api, [outcome for outcome in outcomes if not outcome.new], "read")

    def _ask(self, api: Api, outcomes: Sequence[FileResult], digests: str) -> dict[int, FoundFile]:
        """Look stored files up with their digests; return nothing where they have to be asked for one by one."""
        if not outcomes or (digests == "read" and not self._reads):
            return {}
        answer = digests_told(self._context, api, [(one.file, receipt_of(one)) for one in outcomes], digests)
        if isinstance(answer, Silent):
            if isinstance(answer.error, errors.AnswerError) and answer.error.status == 400:
                self._reads = False
            return {}
        return {one.file.file: found for one, found in zip(outcomes, answer, strict=True) if found is not None}

    def _proven(self, api: Api, outcome: FileResult, found: FoundFile | None) -> FileResult:
        file, known = outcome.file, outcome.checksum if outcome.verified_by in COMPARED else None
        if outcome.new and known is not None and known == outcome.digest:
            return outcome
        try:
            mine = outcome.digest or sha256_of(file, self._context.stop.checkpoint)
        except errors.FileError as error:
            return outcome._replace(error=error)
        if known is not None and known != mine:
            return _kept(outcome, "it has changed since it was sent", FailureCode.CHANGED)
        outcome = outcome._replace(digest=mine, checksum=known if outcome.new else None)
        if outcome.checksum is not None:
            return outcome
        if found is not None and found.sha256 == mine and found.size == file.size:
            outcome = outcome._replace(checksum=mine, verified=True, verified_by=VerifiedBy.DIGEST)
            self._context.ledger.record([outcome])
            return outcome
        outcome = compared(self._context, api, outcome, anew=not outcome.new)
        if outcome.error is not None:
            outcome.error.stored = outcome.error.code is not FailureCode.INTEGRITY
        trusts = options_of(self._context.settings, Then).then_unverified and not outcome.unconfirmed
        if outcome.error is None and outcome.checksum is None and not trusts:
            why = "the server gives neither its digest nor its bytes (--then-unverified relies on the upload alone)"
            return _kept(outcome, why, UNVERIFIABLE)
        return outcome

    def _apart(self, api: Api, outcome: FileResult) -> FileResult:
        """Return the outcome; keep a file that is what the server has stored, because its root is mounted here.

        Where the server had an equal file already, the first one of each directory is set aside, and the server is
        asked whether it still has its own. It is put back at once where the server does not answer.
        """
        file, directory = outcome.file, os.path.dirname(outcome.file.path)
        if file.identity is None:  # `Removing` keeps it
            return outcome
        if self._is_in_root(directory):
            return _kept(outcome, f"it is below the root of a server (a directory above it has {ROOT_MARK})")
        if outcome.new:
            return outcome
        api.pacer.wait_out_pause()  # not while the file is aside
        with holding(self._asking, self._context.stop.checkpoint):
            if directory in self._other:
                return outcome
            try:
                file = self._told_apart(api, outcome)
            except errors.FileFailure as error:
                return _kept(outcome, str(error), error.code, retryable=error.retryable)
            except OSError as error:
                if not os.path.lexists(file.path):  # `Removing` says so
                    return outcome
                return _kept(outcome, f"it can't be set aside: {error.strerror or error}")
            if len(self._other) == KNOWN_DIRECTORIES:
                self._other.clear()
            self._other.add(directory)
            return outcome._replace(file=file)

    def _told_apart(self, api: Api, outcome: FileResult) -> LocalFile:
        """Return the file, put back, if the server has its own. Raise `OSError` and `FileFailure`."""
        file, location = outcome.file, outcome.content_location or outcome.location
        with set_aside(file):
            there = Silent() if location is None else heard(lambda: self._asked_now(api, file, location))
        if isinstance(there, Silent):
            why, again = (f": {there.error}", there.error.retryable) if there.error is not None else ("", False)
            raise errors.FileFailure(f"{UNTOLD}{why}", code=KEPT, retryable=again)
        if isinstance(there, Absent):
            words = "it is the stored file itself: the server does not have it without this one"
            raise errors.FileFailure(words, code=KEPT)
        return _read_again(file, outcome.sha256 or "", self._context.stop.checkpoint)

    def _asked_now(self, api: Api, file: LocalFile, location: str) -> FoundFile | Absent | Silent:
        """Return whether the server has a file of this size at `location`.

        It is asked at once and not again, and no outage is waited for.
        """
        terms = self._context.terms
        client = upload_calls(api, terms)
        try:
            if not terms.sessions and location.startswith("http"):
                return of_size(file, client.head(location).offset)
            found = api.stored(location, digest=False, patient=False)
            return Absent() if found is None or found.size not in (None, file.size) else found
        except (errors.AnswerError, errors.ProtocolError):  # many servers answer 404 for a finished upload
            there = client.read_last(api.url_of(location), file.size) is Reading.STORED
            return FoundFile(file.size, None, location) if there else Silent()


class Removing(Station):
    """Move or delete the local files of stored ones: each is reported before the next one."""

    one_by_one = True

    def __init__(self, context: RunContext) -> None:
        self._context, self._removal = context, options_of(context.settings, Then).then or Removal()
        self._linked = threading.Lock()  # held by the removal of a hard link, which changes the ctime of the others

    def take(self, carrier: Carrier, results: Sequence[FileResult]) -> Sequence[FileResult]:
        """Return the results, with what became of the local files."""
        del carrier
        return [self._removed(one) if one.error is None else one for one in results]

    def _removed(self, outcome: FileResult) -> FileResult:
        file, removal = outcome.file, self._removal
        if file.identity is None:
            return _kept(outcome, _why_kept(file))
        try:
            checkpoint, sha256 = self._context.stop.checkpoint, outcome.sha256 or ""
            with self._linked if os.lstat(file.path).st_nlink > 1 else nullcontext():
                file = _read_again(file, sha256, checkpoint)
                if removal.path is None:
                    delete(file)
                    return _gone(outcome, Removed.DELETED)
                new = move(file, _place(file, removal.path, self._context.settings.dest), sha256, checkpoint)
                return _gone(outcome, Removed.MOVED, new)
        except errors.FileFailure as error:
            return _kept(outcome, str(error), error.code, retryable=error.retryable)
        except OSError as error:
            if not os.path.lexists(file.path):  # another program has taken it away
                return _gone(outcome, Removed.GONE)
            return _kept(outcome, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def planned(settings: Settings, file: LocalFile) -> dict[str, Any]:
    """Return the fields of an event that say what will become of a file, if the server has the same bytes then."""
    then = options_of(settings, Then).then
    if then is None or not is_local(file) or os.path.islink(file.path) or is_in_root(os.path.dirname(file.path)):
        return {}
    if then.path is None:
        return {"removed": Removed.DELETED}
    return {"removed": Removed.MOVED, "moved_to": _place(file, then.path, settings.dest)}


def _read_again(file: LocalFile, sha256: str, checkpoint: Callable[[], None]) -> LocalFile:
    """Return a file of which only the ctime has changed with its present identity, if it has the same bytes."""
    now, before = identified(file), file.identity
    if before is None or now.identity is None or now.identity == before:
        return file
    if replace(now.identity, ctime_ns=before.ctime_ns) != before:
        return file
    with suppress(errors.FileError):
        return now if sha256_of(now, checkpoint) == sha256 else file
    return file


def _why_kept(file: LocalFile) -> str:
    if not is_local(file):
        return "it is no file of this machine"
    return "it is a symbolic link" if os.path.islink(file.path) else "it has changed since it was read"


def _place(file: LocalFile, directory: Path, dest: str | None) -> str:
    """Return where a file is moved below a directory: to its path on the server, without the `dest` there."""
    name = file.relative_path.removeprefix(f"{dest}/") if dest else file.relative_path
    return os.path.join(directory, *(part for part in name.split("/") if part not in ("", ".", "..")))


def _gone(outcome: FileResult, removed: Removed, moved_to: str | None = None) -> FileResult:
    return outcome._replace(gone=True, added={"removed": removed, "moved_to": moved_to})


def _kept(outcome: FileResult, why: str, code: FailureCode = KEPT, *, retryable: bool = False) -> FileResult:
    error = errors.FileFailure(f"it is stored, and kept here: {why}", code=code, retryable=retryable)
    error.stored = True
    return FileResult(outcome.file, error)
