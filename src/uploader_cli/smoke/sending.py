"""Sessions and batches as most checks need them: opened, sent, and noted down for the end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.core.protocol import as_object, parse_batch, parse_session
from uploader_cli.core.tus import Capabilities, parse_capabilities
from uploader_cli.smoke.assertions import said
from uploader_cli.smoke.made import StoredThing
from uploader_cli.smoke.payload import form
from uploader_cli.smoke.verdicts import Prevented
from uploader_cli.transfer.api import stored_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.core.plan import Limits
    from uploader_cli.smoke.site import Site
    from uploader_cli.transfer.http import Answer

SIZE = 4096
"""Bytes of a file that is sent, where the server takes as many."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the first session answer told: an open session, the limits, and tus where it is offered."""

    session: str
    limits: Limits
    tus: Capabilities | None


def first_answer(site: Site) -> Answer:
    """The answer to the first `POST /api/upload/session`, whatever it is. To be asked for with `once`."""
    answer = ask_for_session(site)
    site.speaks |= answer.status == 201
    return answer


def terms(site: Site) -> Terms:
    """What every upload must know before it begins. To be asked for with `once`."""
    try:
        answer = site.once(first_answer)
    except errors.UploaderError as error:
        raise Prevented(f"no session could be opened: {error}", "session") from error
    session = parse_session(answer.body) if answer.ok else None
    if session is None or session.limits is None:
        raise Prevented(f"no session with limits could be opened ({said(answer)})", "session")
    tus = parse_capabilities(as_object(answer.body).get("tus"), site.settings.server)
    return Terms(session.session_id, session.limits, tus)


def open_session(site: Site, files: int = 1) -> str:
    """A new session; its id."""
    try:
        answer = ask_for_session(site, expectedFiles=files)
    except errors.UploaderError as error:
        raise Prevented(f"no session could be opened: {error}", "session") from error
    session = parse_session(answer.body) if answer.ok else None
    if session is None:
        raise Prevented(f"no session could be opened ({said(answer)})", "session")
    return session.session_id


def ask_for_session(site: Site, **asked: object) -> Answer:
    """`POST /api/upload/session`, for one file unless `asked` says otherwise; a session that it opens is noted."""
    body = {"category": site.settings.category, "expectedFiles": 1, **asked}
    answer = site.call("POST", "/api/upload/session", json=body, leaves=1)
    session = parse_session(answer.body) if answer.ok else None
    if session is not None:
        site.made.sessions.add(session.session_id)
    return answer


def file_of(site: Site, label: str, *, kind: str = "") -> tuple[str, bytes]:
    """A name that tells whose file it is, and content that no other file has."""
    limits = site.once(terms).limits
    any_type = limits.allowed_types & {"*", "mp4"}
    ending = kind or ("mp4" if any_type else min(limits.allowed_types, default="mp4"))
    return f"uploader-smoke-{site.run}-{label}.{ending}", os.urandom(max(2, min(SIZE, limits.max_file_size)))


def send(
    site: Site,
    session: str,
    files: Sequence[tuple[str, bytes]],
    *,
    paths: Sequence[str] = (),
    midway: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> Answer:
    """`POST /api/upload/batch`; what was stored of it is noted. `paths`: the `relativePath` of each file."""
    fields = [("sessionId", session), ("category", site.settings.category)]
    fields += [("relativePath", path) for path in paths]
    body = form(fields, files, midway=midway, after=after)
    answer = site.call("POST", "/api/upload/batch", body=body, leaves=len(files) if site.may_delete else 0)
    if answer.ok:
        site.made.sessions.discard(session)
        note_stored(site, answer)
    return answer


def note_stored(site: Site, answer: Answer) -> None:
    """Remember the files of a batch answer for the end."""
    for file in parse_batch(answer.body) or ():
        if file.status == "completed" and file.server_id:
            location = stored_path(site.settings.category, file.location) if file.location else ""
            site.made.files.append(StoredThing(file.server_id, location))
