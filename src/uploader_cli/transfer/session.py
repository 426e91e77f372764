"""First contact with a server, and what the jobs of a run share: its context and its upload sessions."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from uploader_cli import errors
from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.events import RunWarning, SessionCreated, SessionFinished, SkipReason, WarningCode
from uploader_cli.core.plan import ASSUMED, Limits, LocalFile, endless, plan_sessions, refusal
from uploader_cli.core.protocol import Session
from uploader_cli.sources.content import Digests, ignore_read
from uploader_cli.transfer.budget import Limiter
from uploader_cli.transfer.job import Followers, Ledger
from uploader_cli.transfer.protocols.tus import TusClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from uploader_cli.core.packs import LookupOffer
    from uploader_cli.settings import Settings
    from uploader_cli.sources.content import OnRead
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.journal import RunHandle


FIRST_CONTACT_RETRIES = 2  # retries of the first call: a wrong address is reported soon


class Context:
    """What every job of a run uses."""

    def __init__(self, api: Api, followers: Followers, run: RunHandle) -> None:
        self.api, self.settings, self.followers, self.run = api, api.settings, followers, run
        self.emit, self.pacer, self.stop = api.emit, api.pacer, api.pacer.stop
        self.ledger = Ledger(api.emit, run, api.url_of)
        self.throttle = Limiter(api.settings.limit_rate, self.stop.sleep)
        self.digests = Digests(self.stop.check) if api.settings.hashes else None
        self.sessions: set[UploadSession] = set()  # open sessions
        self.limits = ASSUMED
        self.lookups: LookupOffer | None = None

    @property
    def on_read(self) -> OnRead:
        """What gets the bytes of files as they are read to send them."""
        return self.digests.read if self.digests is not None else ignore_read

    @property
    def fails_fast(self) -> bool:
        """True once no other file is begun (`--fail-fast`)."""
        return self.settings.fail_fast and self.ledger.failures > 0

    def skip(self, files: Iterable[LocalFile]) -> None:
        """Leave out files that were not begun (`--fail-fast`)."""
        for file in files:
            self.ledger.skip(file, SkipReason.FAIL_FAST)

    def warn(self, code: WarningCode, text: str) -> None:
        """Report something that failed no file."""
        self.emit(RunWarning(code, text))


class Opened(NamedTuple):
    """An open session, for `capacity` more files."""

    session: Session
    capacity: int


def first_contact(
    context: Context, api: Api, files: Sequence[LocalFile], existing: str = ""
) -> tuple[Limits | None, Opened | None]:
    """Ask for the server's limits (None: unknown) and return a session that is open already, if any.

    `existing` is one of the upload URLs where all uploads exist already: then nothing but the offset is asked.
    Without limits, `expectedFiles` is what fits the assumed ones, then 1 after a 400 (section 3.12).
    """
    settings, pacer = context.settings, context.pacer
    if settings.foreign:
        check_offer(settings, None, lookup=False)
        client = TusClient(api, settings.target_url)
        if existing:
            api.tus = Capabilities(settings.target_url)
            with suppress(errors.AnswerError, errors.ProtocolError):  # an answer; the job reports what it says
                pacer.call(lambda: client.head(existing), at_most=FIRST_CONTACT_RETRIES)
        else:
            api.tus = pacer.call(client.options, at_most=FIRST_CONTACT_RETRIES)
        return endless(api.tus.max_size), None
    limits = api.health(retries=FIRST_CONTACT_RETRIES)
    check_offer(settings, limits, lookup=api.lookups is not None)
    if limits is not None:
        return limits, _session_before(context, api)
    check_lengths(files, api.tus)
    assumed = next(plan_sessions((file for file in files if not refusal(file, ASSUMED)), ASSUMED), None)
    category = (assumed.category if assumed is not None else None) or settings.category
    capacity = len(assumed.files) if assumed is not None else max(1, min(len(files), ASSUMED.max_files))
    try:
        session = new_session(context, api, category, capacity)
    except errors.AnswerError as error:
        if error.status != 400 or capacity == 1:
            raise
        capacity = 1
        session = new_session(context, api, category, capacity)
    return session.limits, Opened(session, capacity)


def choose(settings: Settings, offered: Capabilities | None) -> Capabilities | None:
    """Return the part of `offered` to use: None in batch mode. Raise `UsageError` for tus without an offer."""
    if offered is None and settings.protocol == "tus":
        raise errors.UsageError(
            f"--protocol tus: {settings.server} offers no resumable uploads",
            hint="omit the option: files are then sent in batch mode",
        )
    return None if settings.protocol == "batch" else offered


def check_lengths(files: Iterable[LocalFile], tus: Capabilities | None) -> None:
    """Raise `UsageError` for a file of unknown length where the server needs the length at first."""
    if any(file.once for file in files) and not (tus is not None and tus.defers_length):
        raise errors.UsageError(
            "the server takes no file of unknown length (tus extension creation-defer-length)",
            hint="save the data to a file first, and upload that",
        )


def check_offer(settings: Settings, limits: Limits | None, *, lookup: bool) -> None:
    """Raise `UsageError` for `--dest` and `--if-exists fail` at a server that lacks directories or the `lookup`."""
    directories, server = settings.foreign or (limits is not None and limits.relative_paths), settings.server
    if settings.dest and not directories:
        raise errors.UsageError(
            f"{settings.sources.get('dest', '--dest')}: {server} keeps no directories (its /health offers none)",
            hint="omit it: the server stores files by their names",
        )
    if settings.if_exists == "fail" and not lookup:
        option = settings.sources.get("if_exists", "--if-exists")
        raise errors.UsageError(
            f"{option}: fail needs a lookup of stored files, which {settings.target_url} does not offer",
            hint="omit it: the server decides what happens to a file whose name is taken",
        )


def _session_before(context: Context, api: Api) -> Opened | None:
    """Return a session of the previous run that the server has not ended."""
    before, given = context.run.sessions(), context.settings.given_secret
    for session, saved in before.items():
        if saved.secret or given:
            api.resume_session(session, saved.secret or given)
    for session, saved in before.items():
        # Only a session of the run's own category is certain to get more files.
        if not saved.open or saved.category not in ("", context.settings.category):
            continue
        try:
            known = api.progress(session, patient=True, retries=context.settings.retries)
        except errors.AnswerError:
            known = None
        if known is not None and known.status in ("pending", "uploading") and known.total:
            capacity = known.total - (known.completed or 0) - (known.failed or 0)
            if capacity > 0:
                return Opened(Session(session, context.settings.category, None, saved.secret or given), capacity)
        context.run.session_closed(session, failed=True)
    return None


def new_session(context: Context, api: Api, category: str, files: int) -> Session:
    """Open a session for `files` files."""
    return api.create_session(category, files, retries=context.settings.retries)


class UploadSession:
    """An open session, until its last file ends. A tus endpoint has none: its id is empty.

    Thread-safe; each call passes its own `Api`. No lock is taken during a call.
    """

    def __init__(self, context: Context, session: Session, files: int) -> None:
        """`files` is the number of its files."""
        self.id, self.category, self._secret = session.session_id, session.category, session.secret
        self._context, self._left = context, files
        self._failures = self._given_up = 0
        self._lock = threading.Lock()
        self._renewed: threading.Event | None = None
        self._open = False

    def begin(self) -> None:
        """Report the session and follow its progress."""
        self._open, context = True, self._context
        context.sessions.add(self)
        if self.id:
            context.run.session_opened(self.id, self.category, self._secret)
            context.emit(SessionCreated(self.id, self.category, self._left))
            context.followers.follow(self.id)

    def over(self, api: Api, files: int, *, failed: int = 0, given_up: int = 0) -> None:
        """Count ended files; close the session after the last one. The server has no result of `given_up` files."""
        with self._lock:
            self._left -= files
            self._failures += failed
            self._given_up += given_up
            if self._left > 0 or not self._open:
                return
            self._open = False
        if self.id:
            self._close(api)
        self._context.sessions.discard(self)

    def skip(self, api: Api, files: Sequence[LocalFile]) -> None:
        """Leave out files that were not begun (`--fail-fast`)."""
        self._context.skip(files)
        self.over(api, len(files), given_up=len(files))

    def renew(self, api: Api, lost: str) -> bool:
        """Replace the session `lost` once (docs/protocol.md, section 3.14). Return False the second time.

        One thread creates the new one, others wait for it.
        """
        with self._lock:
            if self.id != lost:
                return True
            leads = self._renewed is None
            renewed = self._renewed = self._renewed or threading.Event()
        context = self._context
        if leads:
            try:
                made = new_session(context, api, self.category, max(1, self._left))
                why = "is gone on the server, or belongs to another client"
                context.warn(WarningCode.SESSION_LOST, f"session {lost} {why}: continuing in {made.session_id}")
                context.run.session_closed(lost, failed=True)
                self._leave("lost")
                self.id, self._secret = made.session_id, made.secret
                self.begin()
            finally:
                renewed.set()
        while not renewed.wait(0.1):
            context.stop.check()
        return self.id != lost

    def abandon(self, status: str) -> None:
        """Report the end of a run in the middle of the session; a resumed run may join it."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open and self.id:
            self._leave(status)

    def cancel(self, api: Api) -> None:
        """Cancel the session on the server (`--cancel-on-interrupt`)."""
        if self._open and self.id:
            try:
                api.cancel(self.id)
                self._context.run.session_closed(self.id)
            except errors.UploaderError as error:
                self._context.warn(WarningCode.CANCEL_FAILED, f"session {self.id} was not cancelled: {error}")

    def _close(self, api: Api) -> None:
        context = self._context
        if context.limits.relative_paths:
            try:
                api.finish(self.id, self._given_up, retries=context.settings.retries)
            except errors.Interrupted:
                self._leave("cancelled")
                raise
            except errors.UploaderError as error:
                context.warn(WarningCode.FINISH_FAILED, f"session {self.id} was not finished: {error}")
        context.run.session_closed(self.id, failed=self._failures > 0)
        self._leave("partial" if self._failures else "completed")

    def _leave(self, status: str) -> None:
        self._context.emit(SessionFinished(self.id, status))
        self._context.followers.leave(self.id)
