"""The first calls to a server: its limits and offers, an open session, and whether it can do what was asked for."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.capabilities import CREATION_WITH_UPLOAD, Capabilities
from uploader_cli.core.plan import ASSUMED, Limits, LocalFile, endless, plan_sessions, refusal
from uploader_cli.core.protocol import Session
from uploader_cli.transfer.protocols.ietf_client import IetfClient
from uploader_cli.transfer.protocols.tus_client import TusClient
from uploader_cli.transfer.upload_session import new_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from uploader_cli.core.sizes import ChunkSize
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.upload_calls import UploadCalls
    from uploader_cli.transfer.upload_session import RunContext

BEGUN_AFTER = 0.4  # seconds without an answer after which the run begins nevertheless
FIRST_CONTACT_RETRIES = 2  # retries of the first call: a wrong address is reported soon


class Opened(NamedTuple):
    """An open session, for `capacity` more files."""

    session: Session
    capacity: int


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


def first_contact(context: RunContext, files: Sequence[LocalFile], existing: str = "") -> Opened | None:
    """Learn the server's limits, if it tells them, and return a session that is open already, if any.

    `existing` is one of the upload URLs where all uploads exist already: then nothing but the offset is asked.
    Without limits, `expectedFiles` is what fits the assumed ones, then 1 after a 400 (section 3.12).
    """
    api, settings, pacer = context.api, context.settings, context.pacer
    if settings.foreign:
        check_offer(settings, None, lookup=False)
        client = upload_calls(api, context.chunk)
        if existing:
            api.tus = Capabilities(settings.target_url)
            with suppress(errors.AnswerError, errors.ProtocolError):  # an answer; the job reports what it says
                pacer.call(partial(_ask, client, existing), at_most=FIRST_CONTACT_RETRIES)
        else:
            api.tus = Capabilities(settings.target_url, announced=False)
            with suppress(errors.Unauthorized):  # the first creation decides
                api.tus = pacer.call(client.options, at_most=FIRST_CONTACT_RETRIES)
        context.learn(endless(api.tus.max_size))
        return None
    limits = api.health(retries=FIRST_CONTACT_RETRIES)
    check_offer(settings, limits, lookup=api.lookups is not None)
    if limits is not None:
        context.learn(limits)
        return _session_before(context, api)
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
    if session.limits is not None:
        context.learn(session.limits)
    return Opened(session, capacity)


def _ask(client: UploadCalls, url: str) -> None:
    with suppress(errors.NotFound):  # also that of a proxy: the URL may be wrong
        client.head(url)


def reach(api: Api, existing: str = "") -> None:
    """Make a cheap call, about the upload at `existing` if there is one; it raises where the server does not answer."""
    if existing:
        upload_calls(api).head(existing)
    elif api.settings.foreign:
        upload_calls(api).reach()
    else:
        api.health(patient=False)


def upload_calls(api: Api, chunk: ChunkSize | None = None) -> UploadCalls:
    """Return the calls of the protocol that is wanted, or that the server was found to speak.

    `chunk` is adapted to the limits that the server announces.
    """
    endpoint = api.settings.target_url if api.tus is None else api.tus.endpoint
    if api.settings.protocol == "ietf" or (api.tus is not None and api.tus.ietf):
        return IetfClient(api, endpoint, chunk)
    return TusClient(api, endpoint)


def choose(settings: Settings, offered: Capabilities | None) -> Capabilities | None:
    """Return the part of `offered` to use: None in batch mode. Raise `UsageError` for tus without an offer."""
    if offered is None and settings.protocol in ("tus", "ietf"):
        raise errors.UsageError(
            f"--protocol {settings.protocol}: {settings.server} offers no resumable uploads",
            hint="omit the option: files are then sent in batch mode",
        )
    if offered is not None and settings.protocol == "ietf" and not offered.ietf:  # a session has the offer of tus
        return Capabilities.of_ietf(offered.endpoint, offered.max_size)
    if offered is not None and not settings.bytes_at_creation:
        offered = replace(offered, extensions=offered.extensions - {CREATION_WITH_UPLOAD})
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
            f"{settings.source('dest')}: {server} keeps no directories (its /health offers none)",
            hint="omit it: the server stores files by their names",
        )
    if settings.if_exists == "fail" and not lookup:
        option = settings.source("if_exists")
        raise errors.UsageError(
            f"{option}: fail needs a lookup of stored files, which {settings.target_url} does not offer",
            hint="omit it: the server decides what happens to a file whose name is taken",
        )


def _session_before(context: RunContext, api: Api) -> Opened | None:
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
