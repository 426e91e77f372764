"""What a server has stored: found by path, by the location in a receipt, and compared by digest."""

from __future__ import annotations

import hashlib
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.confirmation import Reading
from uploader_cli.core.events import VerifiedBy, WarningCode
from uploader_cli.core.packs import FoundFile, LookedUp
from uploader_cli.core.protocol import location_in, utf8
from uploader_cli.sources.content import sha256_of
from uploader_cli.transfer.journal.reading import is_doubtful, is_recorded, written_identity
from uploader_cli.transfer.refusals import NO_ANSWER
from uploader_cli.transfer.results import FileResult
from uploader_cli.transfer.targets import upload_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.journal import Stored
    from uploader_cli.transfer.pacer import Stop
    from uploader_cli.transfer.upload_session import RunContext

    Sent = tuple[LocalFile, Stored | None]  # a file, and the receipt that is known of it

T = TypeVar("T")

DIGEST_PAUSE = 1.0  # least seconds between two requests for digests that are being computed

_number = re.compile(r" \(\d+\)(?=(\.[^./]*)?$)")  # of a name that was taken: `clip (2).mp4`
NO_OUTCOME = (errors.Interrupted, errors.Unreachable, errors.ProxyUnauthorized, errors.DiskFull)
"""Errors that end the run, whatever was asked."""


class StoredFiles:
    """Ask which files the server has; each thread passes its own `Api`."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._one_by_one = False  # whether the lookup has failed

    def look_up(self, api: Api, files: Sequence[Sent]) -> list[FoundFile | Literal[False] | None]:
        """Return each stored file, False for one that is not stored, and None without an answer.

        Use one lookup where offered, else one call for each path.
        """
        offer, own = self._context.terms.lookup, self._context.settings.category
        asked = [looked_up(file, own, receipt) for file, receipt in files]
        if offer is not None and not self._one_by_one:
            try:
                return [found or False for found in api.lookup(offer, asked, retries=api.pacer.retries)]
            except NO_OUTCOME:
                raise
            except errors.UploaderError as error:
                self._one_by_one = True
                self._context.warn_once(
                    WarningCode.LOOKUP, f"the lookup failed: {error}; files are looked up one by one"
                )
        return [self._stored(api, location_in(one.category, one.path)) for one in asked]

    def present(self, api: Api, files: Sequence[Sent]) -> Iterator[tuple[bool | None, FoundFile | None]]:
        """Yield whether the server has each file with the bytes of its receipt; None for unknown.

        With it goes what the server has in its place, where it says so. A file whose ctime or inode is not that of its
        receipt is read (`_as_sent`), and compared with the receipt's digest also where the server says nothing.
        """
        if not self._context.terms.limits.relative_paths:
            for file, receipt in files:
                there = self._by_receipt(api, file, receipt.location if receipt is not None else None)
                if receipt is not None and there:
                    there = self._as_sent(api, file, receipt)
                elif receipt is not None and there is None and self._differs(file, receipt):
                    there = False
                yield there, None
            return
        for (file, receipt), item in zip(files, self.confirmed(api, files), strict=True):
            unsure = isinstance(item, FoundFile) and item.size in (None, file.size) and item.sha256 is None
            if unsure and receipt is None:  # the lookup computes no digest
                item = self._stored(api, location_of(file, self._context.settings.category))
            yield (self.is_equal(api, file, receipt, item), item) if isinstance(item, FoundFile) else (item, None)

    def has_now(self, api: Api, file: LocalFile, location: str) -> bool | None:
        """Return whether the server has a file of this size at `location`; None where it does not say.

        It is asked at once and not again, and no outage is waited for. Raise the error of a request that had no answer.
        """
        terms = self._context.terms
        client = upload_calls(api, terms)
        try:
            if not terms.sessions and location.startswith("http"):
                return client.head(location).offset == file.size
            found = api.stored(location, digest=False, patient=False)
            return found is not None and found.size in (None, file.size)
        except (errors.AnswerError, errors.ProtocolError):  # many servers answer 404 for a finished upload
            return client.read_last(api.url_of(location), file.size) is Reading.STORED or None

    def _by_receipt(self, api: Api, file: LocalFile, location: str | None) -> bool | None:
        if location is None:
            return None
        terms = self._context.terms
        if not terms.sessions and location.startswith("http"):  # else the path of a Content-Location
            # Not retried: many servers answer 404 for a finished upload, and each retry would wait longer.
            client = upload_calls(api, terms)
            position = _asked(lambda: api.pacer.call(lambda: client.head(location), at_most=0))
            return None if position is None else position.offset == file.size
        found = self._stored(api, location)
        return found.size in (None, file.size) if isinstance(found, FoundFile) else found

    def _stored(self, api: Api, location: str) -> FoundFile | Literal[False] | None:
        return _asked(lambda: api.stored(location, retries=api.pacer.retries) or False)

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
        theirs = _asked(lambda: api.pacer.call(lambda: digest_read_back(api, location), at_most=0))
        return None if theirs is None else self._has_digest(file, replace(receipt, checksum=theirs, verified=True))

    def _differs(self, file: LocalFile, receipt: Stored) -> bool:
        """Return whether the digest of a receipt tells that a file is another one by now."""
        return receipt.checksum is not None and is_doubtful(file, receipt) and not self._has_digest(file, receipt)

    def _has_digest(self, file: LocalFile, receipt: Stored) -> bool:
        """Read a file; return whether it has the digest of a receipt, which counts for it from then on."""
        if receipt.checksum != digest_of(file, self._context.stop.checkpoint):
            return False
        self._context.run.completed([replace(receipt, file=file, identity=written_identity(file))])
        return True

    def is_equal(self, api: Api, file: LocalFile, receipt: Stored | None, found: FoundFile) -> bool | None:
        """Compare size and digest; None if the server tells neither.

        A receipt's digest saves reading the file if it counts (`is_recorded`); otherwise it does from now on. Without a
        digest of the server an equal size is enough, unless the file may have changed since it was sent.
        """
        if found.size not in (None, file.size):
            return False
        if found.sha256 is None:
            there = None if found.size is None else True
            return self._as_sent(api, file, receipt) if there and receipt is not None else there
        if receipt is not None and receipt.checksum is not None and is_recorded(file, receipt):
            return found.sha256 == receipt.checksum
        if receipt is None:
            return found.sha256 == digest_of(file, self._context.stop.checkpoint)
        return self._has_digest(file, replace(receipt, checksum=found.sha256, verified=True))

    def confirmed(self, api: Api, files: Sequence[Sent]) -> list[FoundFile | Literal[False] | None]:
        """Return what `look_up` does; the server reads files whose digests it does not know, and that have to be known.

        These are files whose receipts have one, and those that may have changed here since they were sent.
        """
        found, offer = self.look_up(api, files), self._context.terms.lookup
        unknown = [
            number
            for number, ((file, receipt), one) in enumerate(zip(files, found, strict=True))
            if isinstance(one, FoundFile) and (one.size, one.sha256) == (file.size, None)
            if receipt is not None and (receipt.checksum is not None or is_doubtful(file, receipt))
        ]
        if offer is None or self._one_by_one or not unknown:
            return found
        asked = [looked_up(files[number][0], self._context.settings.category, files[number][1]) for number in unknown]
        ask = partial(api.lookup, offer, digests="compute", retries=api.pacer.retries)
        try:
            answer = with_digests(ask, asked, self._context.stop, self._context.settings.max_wait)
        except NO_OUTCOME:
            raise
        except errors.UploaderError:
            return found
        for number, one in zip(unknown, answer, strict=True):
            found[number] = one or False
        return found


def _asked(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except NO_OUTCOME:
        raise
    except errors.UploaderError:
        return None


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


def equal_on_server(api: Api, file: LocalFile, *, retries: int | None = None) -> FileResult | None:
    """Return the outcome of a file whose bytes are at `location_of`, else None. Raise as `Api.stored` does."""
    location = location_of(file, api.settings.category)
    found = api.stored(location, retries=retries)
    if found is None or not has_bytes(found, file, api.pacer.stop.checkpoint):
        return None
    return equal_to(file, location, found.sha256)


def equal_to(file: LocalFile, location: str | None, sha256: str | None) -> FileResult:
    return FileResult(file, location=location, checksum=sha256, verified=True, verified_by=VerifiedBy.DIGEST)


def has_bytes(found: FoundFile, file: LocalFile, checkpoint: Callable[[], None]) -> bool:
    """Compare size and digest; a digest that the server does not know is not equal."""
    is_alike = found.size in (None, file.size) and found.sha256 is not None
    return is_alike and found.sha256 == digest_of(file, checkpoint)


def digest_of(file: LocalFile, checkpoint: Callable[[], None]) -> str | None:
    """Return the hex SHA-256; None for a file that can't be read unchanged."""
    try:
        return sha256_of(file, checkpoint)
    except errors.FileError:
        return None
