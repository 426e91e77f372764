"""Create sessions and send batches for the checks, and record them for the clean-up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.smoke.assertions import said
from uploader_cli.checks.smoke.made import StoredThing
from uploader_cli.checks.smoke.payload import form
from uploader_cli.checks.smoke.verdicts import Prevented
from uploader_cli.core.protocol import as_object, parse_batch, parse_session
from uploader_cli.core.tus import Capabilities, parse_capabilities
from uploader_cli.transfer.api import stored_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.core.plan import Limits
    from uploader_cli.transfer.http import Answer

SIZE = 4096
"""Maximum bytes of a file."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The first session response: an open session, the limits, and tus if offered."""

    session: str
    limits: Limits
    tus: Capabilities | None


def first_answer(site: Site) -> Answer:
    """Return the response to the first `POST /api/upload/session`. Use with `once`."""
    answer = ask_for_session(site)
    site.speaks |= answer.status == 201
    return answer


def terms(site: Site) -> Terms:
    """Return the terms of uploads. Use with `once`."""
    try:
        answer = site.once(first_answer)
    except errors.UploaderError as error:
        raise Prevented(f"no session could be created: {error}", "session") from error
    session = parse_session(answer.body) if answer.ok else None
    if session is None or session.limits is None:
        raise Prevented(f"no session with limits could be created ({said(answer)})", "session")
    tus = parse_capabilities(as_object(answer.body).get("tus"), site.settings.server)
    return Terms(session.session_id, session.limits, tus)


def open_session(site: Site, files: int = 1) -> str:
    """Create a session and return its ID."""
    try:
        answer = ask_for_session(site, expectedFiles=files)
    except errors.UploaderError as error:
        raise Prevented(f"no session could be created: {error}", "session") from error
    session = parse_session(answer.body) if answer.ok else None
    if session is None:
        raise Prevented(f"no session could be created ({said(answer)})", "session")
    return session.session_id


def ask_for_session(site: Site, **asked: object) -> Answer:
    """Send `POST /api/upload/session`, by default for one file, and record a created session."""
    body = {"category": site.settings.category, "expectedFiles": 1, **asked}
    answer = site.call("POST", "/api/upload/session", json=body, leaves=1)
    session = parse_session(answer.body) if answer.ok else None
    if session is not None:
        site.made.sessions.add(session.session_id)
    return answer


def file_of(site: Site, label: str, *, kind: str = "") -> tuple[str, bytes]:
    """Return a unique name and random content."""
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
    """Send `POST /api/upload/batch` and record the stored files. `paths`: the `relativePath` of each file."""
    fields = [("sessionId", session), ("category", site.settings.category)]
    fields += [("relativePath", path) for path in paths]
    body = form(fields, files, midway=midway, after=after)
    answer = site.call("POST", "/api/upload/batch", body=body, leaves=len(files) if site.may_delete else 0)
    if answer.ok:
        site.made.sessions.discard(session)
        note_stored(site, answer)
    return answer


def note_stored(site: Site, answer: Answer) -> None:
    """Record the files of a batch response."""
    for file in parse_batch(answer.body) or ():
        if file.status == "completed" and file.server_id:
            location = stored_path(site.settings.category, file.location) if file.location else ""
            site.made.files.append(StoredThing(file.server_id, location))
