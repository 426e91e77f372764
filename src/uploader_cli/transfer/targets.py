"""Where files are sent: a server with sessions, or a tus endpoint. Each is met once, and says what it offers."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.capabilities import CREATION_WITH_UPLOAD, Capabilities, names_files
from uploader_cli.core.plan import ASSUMED, LocalFile, Refusal, endless, plan_sessions, refusal
from uploader_cli.core.protocol import Session
from uploader_cli.core.terms import Offer, Terms
from uploader_cli.sources.checksums import is_fast
from uploader_cli.transfer.destinations import Destinations
from uploader_cli.transfer.upload_calls import upload_calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uploader_cli.core.sizes import ChunkSize
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.journal.upload_journal import UploadJournal
    from uploader_cli.transfer.upload_calls import UploadCalls

BEGUN_AFTER = 0.4  # seconds without an answer after which the run begins nevertheless
FIRST_CONTACT_RETRIES = 2  # retries of the first call: a wrong address is reported soon


class Opened(NamedTuple):
    """An open session, for `capacity` more files."""

    session: Session
    capacity: int


def target_of(settings: Settings) -> Target:
    """Return where the files of a run with these settings go."""
    return Endpoint(settings) if settings.foreign else SessionServer(settings)


class Target(ABC):
    """Where the files of a run go. Each call gets the `Api` of its thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @abstractmethod
    def ask(self, api: Api, chunk: ChunkSize) -> Offer:
        """Ask what the server offers, in one call with few retries; `chunk` is adapted to the limits of requests."""

    @abstractmethod
    def terms(self, offer: Offer) -> Terms:
        """Return the terms of an offer, as far as they need no checksum; without a request.

        Raise `UsageError` where the wanted protocol is not offered.
        """

    @abstractmethod
    def meet(
        self, api: Api, run: UploadJournal, files: Sequence[LocalFile], chunk: ChunkSize
    ) -> tuple[Terms, Opened | None]:
        """Return the terms of the run, and a session that is open already, if any; `files` are the first ones.

        Raise `UsageError` where the server lacks what was asked for.
        """

    @abstractmethod
    def open(self, api: Api, category: str, expected: int, files: Sequence[LocalFile] | None = None) -> Session:
        """Open a session for `expected` files; `files` are these, if they are known."""

    @abstractmethod
    def reach(self, api: Api, terms: Terms) -> None:
        """Make a cheap call; it raises where the server does not answer."""

    def refusal(self, file: LocalFile, checkpoint: Callable[[], None]) -> Refusal | None:
        """Return why a file can't have its place among the files of the run; `checkpoint` raises to stop.

        A server with sessions has rules of its own, and answers by them.
        """
        del file, checkpoint
        return None

    @abstractmethod
    def _keeps_directories(self, offer: Offer) -> bool:
        """Return whether files may be stored below a directory of `--dest`."""

    @property
    def unmet(self) -> Terms:
        """The terms before the server has said anything."""
        return self.terms(Offer())

    def check(self, offer: Offer) -> None:
        """Raise `UsageError` for `--dest` and `--if-exists fail` at a server that lacks directories or a lookup."""
        settings = self._settings
        if settings.dest and not self._keeps_directories(offer):
            raise errors.UsageError(
                f"{settings.source('dest')}: {settings.server} has no directories (its /health offers none)",
                hint="omit it: the server stores files by their names",
            )
        if settings.if_exists == "fail" and offer.lookup is None:
            option = settings.source("if_exists")
            raise errors.UsageError(
                f"{option}: fail needs a lookup of stored files, which {settings.target_url} does not offer",
                hint="omit it: the server decides what happens to a file whose name is taken",
            )

    def agreed(self, offer: Offer, files: Iterable[LocalFile]) -> Terms:
        """Return the terms of a run that begins with `files`. Raise `UsageError` for what the server lacks."""
        terms = self.terms(offer)
        check_lengths(files, terms.tus)
        if terms.tus is None:
            return terms
        try:
            return replace(terms, checksum=terms.tus.checksum(self._settings.checksum, is_fast))
        except ValueError as error:
            raise errors.UsageError(f"--checksum: {error}", hint="--checksum auto takes what is offered") from error

    def _chosen(self, offered: Capabilities) -> Capabilities:
        """Return what is used of the offer of resumable uploads."""
        if self._settings.protocol == "ietf" and not offered.ietf:  # a session has the offer of tus
            return Capabilities.of_ietf(offered.endpoint, offered.max_size)
        if self._settings.bytes_at_creation is False:
            return replace(offered, extensions=offered.extensions - {CREATION_WITH_UPLOAD})
        return offered

    def _may_divide(self, tus: Capabilities) -> bool:
        """Return whether files may be sent in parts; where an endpoint has a URL for each, parts would share it."""
        return self._settings.parts and tus.concatenates and not names_files(tus.endpoint)


class SessionServer(Target):
    """A server with the API of docs/protocol.md."""

    def ask(self, api: Api, chunk: ChunkSize) -> Offer:
        del chunk
        return api.health(retries=FIRST_CONTACT_RETRIES)

    def terms(self, offer: Offer) -> Terms:
        wanted, limits = self._settings.protocol, offer.limits or ASSUMED
        if offer.tus is None and wanted in ("tus", "ietf"):
            raise errors.UsageError(
                f"--protocol {wanted}: {self._settings.server} offers no resumable uploads",
                hint="omit the option: files are then sent in batch mode",
            )
        if offer.tus is None or wanted == "batch":
            return Terms(offer, limits, lookup=offer.lookup)
        tus = self._chosen(offer.tus)
        packs = offer.packs if self._settings.pack and not tus.ietf else None
        limits = replace(limits, empty_files=self._settings.empty_files)
        return Terms(offer, limits, tus, packs, offer.lookup, parts=self._may_divide(tus), falls_back=wanted == "auto")

    @property
    def unmet(self) -> Terms:
        return Terms()

    def meet(
        self, api: Api, run: UploadJournal, files: Sequence[LocalFile], chunk: ChunkSize
    ) -> tuple[Terms, Opened | None]:
        """Return the terms and a session; see `Target.meet`.

        Without limits in `/health`, `expectedFiles` is what fits the assumed ones, then 1 after a 400 (section 3.12).
        """
        offer = self.ask(api, chunk)
        self.check(offer)
        if offer.limits is not None:
            return self.agreed(offer, files), self._session_before(api, run)
        check_lengths(files, offer.tus)
        assumed = next(plan_sessions((file for file in files if not refusal(file, ASSUMED)), ASSUMED), None)
        category = (assumed.category if assumed is not None else None) or self._settings.category
        capacity = len(assumed.files) if assumed is not None else max(1, min(len(files), ASSUMED.max_files))
        try:
            session = self.open(api, category, capacity)
        except errors.AnswerError as error:
            if error.status != 400 or capacity == 1:
                raise
            capacity = 1
            session = self.open(api, category, capacity)
        return self.agreed(api.offer, files), Opened(session, capacity)

    def open(self, api: Api, category: str, expected: int, files: Sequence[LocalFile] | None = None) -> Session:
        size = None if files is None or any(file.once for file in files) else sum(file.size for file in files)
        return api.create_session(category, expected, size, retries=self._settings.retries)

    def reach(self, api: Api, terms: Terms) -> None:
        del terms
        api.health(patient=False)

    def _keeps_directories(self, offer: Offer) -> bool:
        return offer.limits is not None and offer.limits.relative_paths

    def _session_before(self, api: Api, run: UploadJournal) -> Opened | None:
        """Return a session of the previous run that the server has not ended."""
        before, given, own = run.sessions(), self._settings.given_secret, self._settings.category
        for session, saved in before.items():
            if saved.secret or given:
                api.resume_session(session, saved.secret or given)
        for session, saved in before.items():
            # Only a session of the run's own category is certain to get more files.
            if not saved.open or saved.category not in ("", own):
                continue
            try:
                known = api.progress(session, patient=True, retries=self._settings.retries)
            except errors.AnswerError:
                known = None
            if known is not None and known.status in ("pending", "uploading") and known.total:
                capacity = known.total - (known.completed or 0) - (known.failed or 0)
                if capacity > 0:
                    return Opened(Session(session, own, None, saved.secret or given), capacity)
            run.session_closed(session, failed=True)
        return None


class Endpoint(Target):
    """A server with resumable uploads and nothing else. Uploads may exist before they are sent (`--upload-url`)."""

    _existing = ""  # the URL of one of the uploads, where all of them exist

    @cached_property
    def _places(self) -> Destinations:
        return Destinations(self._settings)

    def refusal(self, file: LocalFile, checkpoint: Callable[[], None]) -> Refusal | None:
        return self._places.refusal(file, checkpoint)

    def ask(self, api: Api, chunk: ChunkSize) -> Offer:
        """Ask with OPTIONS, which is a hint: after a 401 the first creation decides. Existing uploads need no hint."""
        calls, pacer = upload_calls(api, self.unmet, chunk), api.pacer
        if self._existing:
            tus = Capabilities(self._settings.target_url)
            with suppress(errors.AnswerError, errors.ProtocolError):  # an answer; the job reports what it says
                pacer.call(lambda: self._look(calls), at_most=FIRST_CONTACT_RETRIES)
        else:
            tus = Capabilities(self._settings.target_url, announced=False)
            with suppress(errors.Unauthorized):
                tus = pacer.call(calls.options, at_most=FIRST_CONTACT_RETRIES)
        return Offer(endless(tus.max_size), tus)

    def terms(self, offer: Offer) -> Terms:
        settings, offered = self._settings, offer.tus or Capabilities(self._settings.target_url)
        tus = self._chosen(offered)
        known = Terms(
            offer,
            replace(offer.limits or endless(tus.max_size), empty_files=settings.empty_files),
            tus,
            sessions=False,
            keys=False,
            tells_stored=False,
            strict=False,
            may_forget=tus.ietf,
            trusts_checksums=settings.checksum_compared or tus.compares_checksums,
            parts=self._may_divide(tus),
            describes_parts=settings.part_metadata,
            empty_at_creation=settings.empty_at_creation and not tus.ietf,
        )
        return replace(known, **settings.terms)

    def meet(
        self, api: Api, run: UploadJournal, files: Sequence[LocalFile], chunk: ChunkSize
    ) -> tuple[Terms, Opened | None]:
        del run
        if files and all(file.upload_url for file in files):
            self._existing = files[0].upload_url
        self.check(Offer())
        return self.agreed(self.ask(api, chunk), files), None

    def open(self, api: Api, category: str, expected: int, files: Sequence[LocalFile] | None = None) -> Session:
        """Return what stands for a session, without a request: it has no id."""
        del api, category, expected, files
        return Session("", "", None)

    def reach(self, api: Api, terms: Terms) -> None:
        calls = upload_calls(api, terms)
        if self._existing:
            calls.head(self._existing)
        else:
            calls.reach()

    def _look(self, calls: UploadCalls) -> None:
        with suppress(errors.NotFound):  # also that of a proxy: the URL may be wrong
            calls.head(self._existing)

    def _keeps_directories(self, offer: Offer) -> bool:
        del offer
        return True


@contextmanager
def meeting(begin: Callable[[], None], *, after: float | None = None) -> Iterator[None]:
    """Call `begin` without an answer in `after` seconds (`BEGUN_AFTER`): then a view shows what the run waits for.

    A server that is silent within raises `TimedOut` with what `doctor` says about it. Nothing follows before a call of
    `begin` has returned.
    """
    soon = threading.Timer(BEGUN_AFTER if after is None else after, begin)
    soon.daemon = True
    soon.start()
    try:
        yield
    except errors.TimedOut as error:
        words = f"{error}: the server accepts connections, but it is overloaded or hangs"
        raise errors.TimedOut(words, hint="ask its operator to check or to restart it") from error
    finally:
        soon.cancel()
        soon.join()


def check_lengths(files: Iterable[LocalFile], tus: Capabilities | None) -> None:
    """Raise `UsageError` for a file of unknown length where the server needs the length at first."""
    if any(file.once for file in files) and not (tus is not None and tus.defers_length):
        raise errors.UsageError(
            "the server takes no file of unknown length (tus extension creation-defer-length)",
            hint="save the data to a file first, and upload that",
        )
