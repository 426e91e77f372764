"""What a server has stored: found by path, by the location in a receipt, and compared by digest."""

from __future__ import annotations

import hashlib
import re
import time
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar
from urllib.parse import unquote

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.events import VerifiedBy, WarningCode
from uploader_cli.core.packs import FoundFile, LookedUp
from uploader_cli.core.presence import Answer, ReceiptState
from uploader_cli.core.protocol import location_in, utf8
from uploader_cli.sources.content import sha256_of
from uploader_cli.transfer.answers import NO_ANSWER
from uploader_cli.transfer.journal.file_keys import written_identity
from uploader_cli.transfer.journal.receipts import is_doubtful, is_recorded
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.upload_calls import upload_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.journal.receipts import Stored
    from uploader_cli.transfer.pacer import Stop
    from uploader_cli.transfer.upload_session import RunContext

    Sent = tuple[LocalFile, Stored | None]  # a file, and the receipt that is known of it
    Said: TypeAlias = "FoundFile | Absent | Silent"

T = TypeVar("T")

DIGEST_PAUSE = 1.0  # least seconds between two requests for digests that are being computed

_number = re.compile(r" \(\d+\)(?=(\.[^./]*)?$)")  # of a name that was taken: `clip (2).mp4`
NO_OUTCOME = (errors.Interrupted, errors.Unreachable, errors.ProxyUnauthorized, errors.DiskFull)
"""Errors that end the run, whatever was asked."""


class Absent(NamedTuple):
    """The server does not have the file."""


class Silent(NamedTuple):
    """The server does not say whether it has the file; `error` is why, if it was asked."""

    error: errors.UploaderError | None = None


class StoredDigest(NamedTuple):
    """The SHA-256 of a stored file, and how it is known."""

    by: VerifiedBy
    sha256: str


class Want(Enum):
    """What is asked about files."""

    PRESENCE = auto()  # what has their names
    DIGEST = auto()  # also its digest, where the bytes have to be compared


class StoredFiles:
    """Ask which files the server has; each thread passes its own `Api`."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._one_by_one = False  # whether the lookup has failed

    def ask(self, api: Api, files: Sequence[Sent], want: Want) -> list[Said]:
        """Return what the server has of each file, with its receipt if there is one.

        A server that does not keep relative paths is asked at the place in the receipt, others by one lookup for all,
        or else at each path. Digests are those that the server knows; it computes one that has to be known, because the
        receipt has one, or because the file may have changed since.
        """
        if want is Want.DIGEST and not self._context.terms.limits.relative_paths:
            return [self._at_receipt(api, file, receipt) for file, receipt in files]
        found = self._look_up(api, files)
        return found if want is Want.PRESENCE else self._with_digests(api, files, found)

    def answers(
        self, api: Api, files: Sequence[Sent], want: Want = Want.DIGEST, *, by_size: bool = False
    ) -> Iterator[tuple[LocalFile, Stored | None, Answer, Said]]:
        """Ask about files, and yield each with what the answer says of its bytes; for `by_size` see `_answer`."""
        for (file, receipt), said in zip(files, self.ask(api, files, want), strict=True):
            self._context.stop.checkpoint()
            yield file, receipt, self._answer(api, file, receipt, said, by_size=by_size), said

    def _answer(self, api: Api, file: LocalFile, receipt: Stored | None, said: Said, *, by_size: bool) -> Answer:
        """Compare size and digest with what the server has said.

        A receipt's digest saves reading the file if it counts (`is_recorded`); otherwise it does from now on. One
        without a digest, as of a large file, is enough `by_size`. A file whose ctime or inode is not that of its
        receipt is read (`_as_sent`), and compared with the receipt's digest also where the server says nothing.
        """
        if isinstance(said, Absent):
            return Answer.ABSENT
        if isinstance(said, Silent):
            return Answer.OTHER if receipt is not None and self._differs(file, receipt) else Answer.SILENT
        if said.size not in (None, file.size):
            return Answer.OTHER
        if said.sha256 is None:
            if said.size is None or (same := receipt is None or self._as_sent(api, file, receipt)) is None:
                return Answer.SILENT
            return Answer.ALIKE if same else Answer.OTHER
        if receipt is None:
            equal = said.sha256 == digest_of(file, self._context.stop.checkpoint)
        elif receipt.checksum is not None and is_recorded(file, receipt):
            equal = said.sha256 == receipt.checksum
        elif by_size and said.size is not None and is_recorded(file, receipt):
            return Answer.ALIKE
        else:
            equal = self._has_digest(file, replace(receipt, checksum=said.sha256, verified=True))
        return Answer.EQUAL if equal else Answer.OTHER

    def _look_up(self, api: Api, files: Sequence[Sent]) -> list[Said]:
        """Use one lookup where offered, else one call for each path."""
        offer, own = self._context.terms.lookup, self._context.settings.category
        asked = [looked_up(file, own, receipt) for file, receipt in files]
        if offer is not None and not self._one_by_one:
            found = heard(lambda: api.lookup(offer, asked, retries=api.pacer.retries))
            if not isinstance(found, Silent):
                return [one or Absent() for one in found]
            self._one_by_one = True
            text = f"the lookup failed: {found.error}; files are looked up one by one"
            self._context.warn_once(WarningCode.LOOKUP, text)
        return [_at(api, location_in(one.category, one.path)) for one in asked]

    def _with_digests(self, api: Api, files: Sequence[Sent], found: list[Said]) -> list[Said]:
        """Return what was `found`, with the digests that have to be known and that the lookup did not tell."""
        offer, own = self._context.terms.lookup, self._context.settings.category
        if offer is None or self._one_by_one:
            return found
        computed: list[int] = []
        for number, ((file, receipt), one) in enumerate(zip(files, found, strict=True)):
            if not isinstance(one, FoundFile) or (one.size, one.sha256) != (file.size, None):
                continue
            if receipt is None:
                found[number] = _at(api, location_of(file, own))
            elif receipt.checksum is not None or is_doubtful(file, receipt):
                computed.append(number)
        answer = digests_told(self._context, api, [files[number] for number in computed], "compute")
        if not isinstance(answer, Silent):
            for number, known in zip(computed, answer, strict=True):
                found[number] = known or Absent()
        return found

    def _at_receipt(self, api: Api, file: LocalFile, receipt: Stored | None) -> Said:
        """Return whether a file of its size is at the place in its receipt; nothing tells another digest."""
        location, terms = receipt.location if receipt is not None else None, self._context.terms
        if location is None:
            return Silent()
        if not terms.sessions and location.startswith("http"):  # else the path of a Content-Location
            # Not retried: many servers answer 404 for a finished upload, and each retry would wait longer.
            client = upload_calls(api, terms)
            return heard(lambda: of_size(file, api.pacer.call(lambda: client.head(location), at_most=0).offset))
        found = _at(api, location)
        return of_size(file, found.size or file.size) if isinstance(found, FoundFile) else found

    def _as_sent(self, api: Api, file: LocalFile, receipt: Stored) -> bool | None:
        """Return whether a file is still the one that was sent; None where no digest tells that.

        With the ctime and inode of its receipt it is. Otherwise its bytes are compared with the digest of the receipt,
        or else with the stored bytes.
        """
        if not is_doubtful(file, receipt):
            return True
        if receipt.checksum is not None:
            return self._has_digest(file, receipt)
        if (location := receipt.location) is None:
            return None
        theirs = heard(lambda: api.pacer.call(lambda: digest_read_back(api, location), at_most=0))
        if not isinstance(theirs, str):
            return None
        return self._has_digest(file, replace(receipt, checksum=theirs, verified=True))

    def _differs(self, file: LocalFile, receipt: Stored) -> bool:
        """Return whether the digest of a receipt tells that a file is another one by now."""
        return receipt.checksum is not None and is_doubtful(file, receipt) and not self._has_digest(file, receipt)

    def _has_digest(self, file: LocalFile, receipt: Stored) -> bool:
        """Read a file; return whether it has the digest of a receipt, which counts for it from then on."""
        if receipt.checksum != digest_of(file, self._context.stop.checkpoint):
            return False
        self._context.run.completed([replace(receipt, file=file, identity=written_identity(file))])
        return True


def heard(ask: Callable[[], T]) -> T | Silent:
    """Return what `ask` returns; its error says nothing of the file. Raise what ends the run."""
    try:
        return ask()
    except NO_OUTCOME:
        raise
    except errors.UploaderError as error:
        return Silent(error)


def _at(api: Api, location: str) -> Said:
    return heard(lambda: api.stored(location, retries=api.pacer.retries) or Absent())


def of_size(file: LocalFile, size: int | None) -> Said:
    return FoundFile(size, None, None) if size == file.size else Absent()


def receipt_state(file: LocalFile, receipt: Stored | None) -> ReceiptState:
    if receipt is None:
        return ReceiptState.NONE
    if is_recorded(file, receipt):
        return ReceiptState.CURRENT
    return ReceiptState.BLIND if receipt.checksum is None and is_doubtful(file, receipt) else ReceiptState.DOUBTFUL


def digests_told(context: RunContext, api: Api, files: Sequence[Sent], digests: str) -> list[FoundFile | None] | Silent:
    """Look files up with the `digests` that `Api.lookup` describes, and wait for those that the server computes."""
    if (offer := context.terms.lookup) is None:
        return Silent()
    asked = [looked_up(file, context.settings.category, receipt) for file, receipt in files]
    ask = partial(api.lookup, offer, digests=digests, retries=api.pacer.retries)
    return heard(lambda: with_digests(ask, asked, context.stop, context.settings.max_wait))


def with_digests(
    ask: Callable[[Sequence[LookedUp]], list[FoundFile | None]], files: Sequence[LookedUp], stop: Stop, max_wait: float
) -> list[FoundFile | None]:
    """Look files up by `ask`; ask again for those whose digests the server is computing, while it makes progress.

    Raise `DigestPending` after `max_wait` seconds without any.
    """
    found, since = ask(files), time.monotonic()
    while pending := [number for number, one in enumerate(found) if one is not None and one.pending]:
        asked = time.monotonic()
        for number, one in zip(pending, ask([files[number] for number in pending]), strict=True):
            found[number] = one
            since = since if one is not None and one.pending else time.monotonic()
        if asked - since > max_wait:
            raise errors.DigestPending(f"the server computed no digest for {max_wait:.0f} s", status=503)
        if time.monotonic() - asked < DIGEST_PAUSE:  # the bundled server answers after 10 seconds
            stop.sleep(DIGEST_PAUSE)
    return found


def stored_digest(api: Api, location: str, *, anew: bool = False) -> StoredDigest | Silent:
    """Return the SHA-256 that the server tells, or else that of the bytes that it gives out.

    With `anew` it is that of the bytes. An answer that `gives_nothing` is not asked for again.
    """

    def told() -> str | None:
        found = api.stored(location, patient=False)
        return None if found is None else found.sha256

    def ask() -> StoredDigest | Silent:
        try:
            sha256 = None if anew else api.pacer.call(lambda: _asked_once(told))
        except errors.UploaderError as error:
            if not (gives_nothing(error) or isinstance(error, errors.ProtocolError)):
                raise
            sha256 = None
        if sha256 is not None:
            return StoredDigest(VerifiedBy.DIGEST, sha256)
        sha256 = api.pacer.call(lambda: _asked_once(lambda: digest_read_back(api, location)))
        return Silent() if sha256 is None else StoredDigest(VerifiedBy.BYTES, sha256)

    return heard(ask)


def gives_nothing(error: errors.UploaderError, *, strict: bool = True) -> bool:
    """Return whether a server that has stored a file refuses to give it out, which no repetition changes.

    So do 500 and all 4xx but those that ask for patience. After a 401 a new token may help; one that is not
    `strict` has refused that, too, when its error gets here.
    """
    if not isinstance(error, errors.AnswerError) or error.status in (408, 425, 429):
        return False
    return error.status == 500 or (400 <= error.status < 500 and (error.status != 401 or not strict))


def _asked_once(call: Callable[[], T]) -> T:
    """Return what `call` returns. Raise its error, which is not retryable where it `gives_nothing`."""
    try:
        return call()
    except errors.UploaderError as error:
        if gives_nothing(error):
            error.retryable = False
        raise


def digest_read_back(api: Api, location: str) -> str | None:
    """Return the SHA-256 of the bytes that the server gives out; None where it gives out none. Send one request."""
    theirs = hashlib.sha256(usedforsecurity=False)
    return theirs.hexdigest() if api.read_back(location, theirs.update) else None


def looked_up(file: LocalFile, own: str, receipt: Stored | None = None) -> LookedUp:
    """Return how to look up a file, by default in the category `own`.

    The path of a receipt has precedence: the server may have renamed the file.
    """
    category, location = file.category or own, (receipt.location if receipt is not None else None) or ""
    root = location_in(category, "")
    path = unquote(location.removeprefix(root)) if location.startswith(root) else utf8(file.relative_path)
    return LookedUp(category, path, file.size)


def shows_place(receipt: Stored, file: LocalFile, own: str) -> bool:
    """Return whether the receipt is of this content in its present place, also if the server has numbered the name.

    The time of a file at a URL may be unknown: then it says nothing about the content.
    """
    root, location = location_in(file.category or own, ""), receipt.location or ""
    if not file.mtime_ns or not location.startswith(root):
        return False
    path, name = unquote(location.removeprefix(root)), utf8(file.relative_path)
    return path == name or _number.sub("", path) == name


def says_nothing(error: errors.UploaderError) -> bool:
    """Return whether the server refuses permanently to report what is stored."""
    refused = isinstance(error, errors.AnswerError) and error.status not in NO_ANSWER
    return refused or isinstance(error, errors.ProtocolError)


def location_of(file: LocalFile, own: str) -> str:
    """Return where a server that keeps relative paths has the file, by default in the category `own`."""
    return location_in(file.category or own, utf8(file.relative_path))


def equal_on_server(api: Api, file: LocalFile) -> FileResult | Literal[False] | None:
    """Return the result of a file whose bytes are at `location_of`, False without them; None for no answer."""
    location = location_of(file, api.settings.category)
    match _at(api, location):
        case Silent():
            return None
        case FoundFile(size, str(sha256)) if size in (None, file.size):
            return sha256 == digest_of(file, api.pacer.stop.checkpoint) and equal_to(file, location, sha256)
    return False


def equal_to(file: LocalFile, location: str | None, sha256: str | None) -> FileResult:
    return FileResult(file, location=location, checksum=sha256, verified=True, verified_by=VerifiedBy.DIGEST)


def digest_of(file: LocalFile, checkpoint: Callable[[], None]) -> str | None:
    """Return the hex SHA-256; None for a file that can't be read unchanged."""
    try:
        return sha256_of(file, checkpoint)
    except errors.FileError:
        return None
