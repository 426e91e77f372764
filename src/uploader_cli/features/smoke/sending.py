"""Create sessions and send batches, and record them for the clean-up; what checks of resumable uploads share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from uploader_cli.core.capabilities import TUS_VERSION, Capabilities, capabilities_of, parse_capabilities, root_of
from uploader_cli.core.plan import Limits, endless
from uploader_cli.core.protocol import Session, as_object, location_in, parse_batch, parse_session, wire_name
from uploader_cli.features.checks.check import Prevented, Violation, precondition
from uploader_cli.features.smoke.expect import header, said, same_bytes
from uploader_cli.features.smoke.site import Site
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.bodies import Body, Piece, content_type, multipart

Midway = Callable[[], None]

SIZE = 4096  # maximum bytes of a file
CUT_WAITS = (0.2, 0.5, 1.0)  # seconds to wait for the end of a cut request
MOST_IN_A_SESSION = 20
ARRIVAL = 0.2  # seconds for half a body to arrive before it is cut, so that there is something to resume


class _CutOff(Exception):
    pass


def cut() -> None:
    """Break the connection; for the `midway` of a body."""
    time.sleep(ARRIVAL)
    raise _CutOff


@contextmanager
def cut_off(what: str) -> Iterator[None]:
    """Expect that `cut` ends the request in the block."""
    try:
        yield
    except _CutOff:
        return
    raise Violation(what, expected="no response before the end of the body", got="a response")


class Terms(NamedTuple):
    """The first session response: an open session, the limits, and tus if offered. A tus endpoint has no session."""

    session: str
    limits: Limits
    tus: Capabilities | None


def nothing() -> None:
    pass


def body_of(data: bytes, kind: str, midway: Midway = nothing, after: Midway = nothing) -> Body:
    """Return a body of at least two bytes.

    `midway` is called when the kernel has the first half, and nothing more is sent until it returns; `after` when the
    kernel has everything, before the response is read.
    """
    half = (len(data) + 1) // 2
    parts = [Piece(len(data), memoryview(data))]
    return Body(
        kind, parts, checkpoint=nothing, throttle=lambda most: min(most, half), on_last=midway, on_through=after
    )


def terms(site: Site) -> Terms:
    """Return the terms of uploads. Use with `once`."""
    if site.settings.tus_endpoint:
        return _terms_of(site, site.settings.tus_endpoint)
    with precondition("session", "no session could be created: "):
        answer = site.once(ask_for_session)
    session = _parsed(answer)
    if session is None or session.limits is None:
        raise Prevented(f"no session with limits could be created ({said(answer)})", "session")
    tus = parse_capabilities(as_object(answer.body).get("tus"), site.settings.server)
    site.terminates = tus is None or tus.terminates
    return Terms(session.session_id, session.limits, tus)


def _terms_of(site: Site, endpoint: str) -> Terms:
    what = "OPTIONS of the tus endpoint"
    with precondition("tus-core"):
        answer = site.call("OPTIONS", root_of(endpoint))
        if "Tus-Version" in answer.headers:
            header(answer, "Tus-Version", what, f"{TUS_VERSION} among others", lambda value: TUS_VERSION in value)
            header(answer, "Tus-Extension", what, "creation among others", lambda value: "creation" in value.lower())
    tus = capabilities_of(answer.headers, endpoint)
    if "Tus-Version" not in answer.headers:  # the first creation shows whether it is a tus server
        tus = replace(tus, extensions=tus.extensions | {"creation"}, announced=False)
    site.terminates = tus.terminates
    return Terms("", endless(tus.max_size), tus)


def open_session(site: Site, files: int = 1) -> str:
    with precondition("session", "no session could be created: "):
        answer = ask_for_session(site, expectedFiles=files)
    session = _parsed(answer)
    if session is None:
        raise Prevented(f"no session could be created ({said(answer)})", "session")
    return session.session_id


def session_of(site: Site) -> dict[str, str]:
    """Return the metadata with a session that has space for a file, the last of `slots`; empty for an endpoint."""
    if site.settings.tus_endpoint:
        return {}
    if not site.slots:  # fill each session, to create as few as possible
        count = min(site.once(terms).limits.max_files, MOST_IN_A_SESSION)
        site.slots += [open_session(site, count)] * count
    return {"sessionId": site.slots[-1]}


def ask_for_session(site: Site, **asked: object) -> Answer:
    """Send `POST /api/upload/session`, by default for one file, and record a created session."""
    body = {"category": site.settings.category, "expectedFiles": 1, **asked}
    answer = site.call("POST", "/api/upload/session", json=body, leaves=1)
    site.speaks |= answer.status == 201
    session = _parsed(answer)
    if session is not None:
        site.sessions.add(session.session_id)
    return answer


def _parsed(answer: Answer) -> Session | None:
    return parse_session(answer.body) if answer.ok else None


def file_of(site: Site, label: str, *, kind: str = "") -> tuple[str, bytes]:
    """Return a unique name and random content."""
    limits = site.once(terms).limits
    any_type = limits.allowed_types & {"*", "mp4"}
    ending = kind or ("mp4" if any_type else min(limits.allowed_types, default="mp4"))
    return f"{site.names}{label}.{ending}", os.urandom(max(2, min(SIZE, limits.max_file_size)))


def data_of(site: Site) -> bytes:
    return file_of(site, "")[1]


def send(
    site: Site,
    session: str,
    files: Sequence[tuple[str, bytes]],
    *,
    paths: Sequence[str] = (),
    midway: Midway = nothing,
    after: Midway = nothing,
) -> Answer:
    """Send `POST /api/upload/batch` (docs/protocol.md section 3.13) and record the stored files.

    `files` are names and contents, `paths` the `relativePath` of each file.
    """
    fields = [("sessionId", session), ("category", site.settings.category), *(("relativePath", path) for path in paths)]
    items = [(f'"{name}"', [value.encode()]) for name, value in fields]
    for name, content in files:
        items.append((f'"files"; filename="{wire_name(name)}"\r\nContent-Type: {content_type(name)}', [content]))
    kind, parts = multipart(items)
    body = body_of(b"".join(part.data or b"" for part in parts), kind, midway, after)
    answer = site.call("POST", "/api/upload/batch", body=body, leaves=len(files) if site.may_delete else 0)
    if answer.ok:
        site.sessions.discard(session)
        for file in parse_batch(answer.body) or ():
            if file.status == "completed" and file.server_id:
                path = location_in(site.settings.category, file.location) if file.location else ""
                site.files[file.server_id] = path
    return answer


def stored_id(site: Site, answer: Answer) -> str:
    """Return the ID of the file that a request has stored by resumable uploads; empty if it stored none."""
    return "" if site.settings.tus_endpoint else answer.headers.get("Upload-File-Id", "")


def note_stored(site: Site, method: str, url: str, answer: Answer) -> None:
    """Record the file that a request has stored, if it has."""
    stored = stored_id(site, answer)
    if not (answer.ok and stored and method in ("POST", "PATCH")):
        return
    site.uploads.discard(url)
    if method == "PATCH":
        site.tus_files[stored] = url
    where = answer.headers.get("Content-Location", "")
    site.files[stored] = where if where.startswith("/") else ""


def resumed(size: int, look: Callable[[str], Answer], send_from: Callable[[int], Answer]) -> tuple[int, Answer]:
    """Send the rest of an upload of `size` bytes after a cut; return the offset it had, and the answer.

    `look` asks for the offset; it gets what a failure is about.
    """
    what, most = "HEAD after a PATCH that was cut", (size + 1) // 2
    for pause in CUT_WAITS:
        at = int(header(look(what), "Upload-Offset", what, "what has arrived", str.isdecimal))
        if at > most:
            raise Violation(what, expected=f"an offset of {most} at most", got=str(at))
        last = send_from(at)
        if last.status not in (409, 423):
            break
        time.sleep(pause)  # the server has not ended the cut request yet
    return at, last


def read_back(site: Site, url: str, answer: Answer, sent: bytes) -> None:
    """Check the stored bytes, if the response to the last `PATCH` has their path, or an endpoint returns uploads."""
    path, what = answer.headers.get("Content-Location", ""), "the file uploaded by tus, read back"
    if site.settings.tus_endpoint:
        found = site.read(url)
        if found is not None:
            same_bytes(found, sent, what)
    elif path.startswith("/"):
        same_bytes(site.read(path), sent, what)
