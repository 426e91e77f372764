"""The requests of the protocol that checks send, what each must be answered, and what is recorded for the clean-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from uploader_cli.core.capabilities import encode_metadata, root_of
from uploader_cli.core.origins import resolved
from uploader_cli.core.upload_limits import UploadLimits, upload_limits
from uploader_cli.errors import NetworkError
from uploader_cli.features.checks.check import NotOffered, Violation
from uploader_cli.features.ietf.wire import Content, Wire, WireClient
from uploader_cli.features.smoke.expect import answered, header, said, same, succeeded
from uploader_cli.features.smoke.sending import ARRIVAL, data_of, file_of, note_stored, session_of, terms
from uploader_cli.features.smoke.site import CALL_LIMIT, Site
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.http_client import REDIRECTS

T = TypeVar("T")

INTEROP = "Upload-Draft-Interop-Version"
IETF = {INTEROP: "8"}
"""Headers of each request."""
PARTIAL, BYTES = "application/partial-upload", "application/octet-stream"
MOST = 8 << 20
"""Maximum bytes of a file, where `min-append-size` needs more than a small one."""
REFUSAL = range(400, 500)
WRONG_REDIRECTS = (301, 302)
FOLLOWED = (*WRONG_REDIRECTS, 307, 308)
UPLOAD_LIMITS = "the limits of the upload"


def endpoint(site: Site) -> str:
    """Return where uploads are created. Raises `NotOffered` unless OPTIONS has `Upload-Limit`."""
    where = place(site)
    if "Upload-Limit" not in site.once(options_of, where).headers:
        raise NotOffered("OPTIONS has no Upload-Limit")
    return where


def place(site: Site) -> str:
    """Return the endpoint of resumable uploads. Raises `NotOffered` without one."""
    tus = site.once(terms).tus
    if tus is None:
        raise NotOffered("the session response has no endpoint of resumable uploads")
    return tus.endpoint


def options_of(site: Site, url: str) -> Answer:
    """Ask for the limits. Use with `once`."""
    return site.call("OPTIONS", root_of(url), headers=IETF)


def announced_limits(site: Site) -> UploadLimits:
    """Return the limits that OPTIONS has; without one if they are malformed."""
    return upload_limits(site.once(options_of, endpoint(site)).headers.get("Upload-Limit")) or UploadLimits()


def content_of(site: Site) -> bytes:
    """Return the random content of a file, of which half is enough for an append."""
    least, content = announced_limits(site).least or 0, data_of(site)
    if 3 * least <= len(content):
        return content
    if 3 * least > MOST:
        raise NotOffered(f"min-append-size={least} is too much for a check")
    return content * (3 * least // len(content) + 1)


def _client(site: Site) -> WireClient:
    """Make the client of all checks. Use with `once`."""
    client = WireClient(site.settings, site.http.request_ids)
    site.clients.append(client)
    return client


def ask(
    site: Site,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    content: Content | None = None,
    *,
    limit: float = CALL_LIMIT,
    version: Mapping[str, str] = IETF,
    follows: bool = True,
) -> Answer:
    """Send a request, follow redirects except for a creation, and record what the request created or completed."""
    how: dict[str, Any] = {"may_refuse": True, "leaves": method == "POST", "by": site.once(_client), "limit": limit}
    for _ in range(REDIRECTS + 1):
        answer = site.call(method, url, headers={**version, **(headers or {})}, body=content, **how)
        if not follows or method == "POST" or answer.status not in FOLLOWED or "Location" not in answer.headers:
            break
        with suppress(ValueError):
            url = resolved(answer.url, answer.headers["Location"])
    note_stored(site, method, url, answer)
    return answer


class Creation(NamedTuple):
    """A creation: the URL of the upload, empty without one, the answer, and the headers of the answers with 104."""

    url: str
    answer: Answer
    interims: list[Mapping[str, str]]
    data: bytes = b""


def try_creation(
    site: Site,
    label: str,
    length: int | None,
    content: Content | None = None,
    *,
    complete: bool = False,
    headers: Mapping[str, str] | None = None,
    version: Mapping[str, str] = IETF,
) -> Creation:
    """Send a creation, which may be refused. Raises `NetworkError`; an upload whose URL is known is recorded."""
    name, content = file_of(site, f"ietf-{label}")[0], content or Content(b"", BYTES)
    session = session_of(site)
    own = {
        "Upload-Complete": f"?{complete:d}",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}",
        "Upload-Metadata": encode_metadata({"filename": name, **session}),
        **({} if length is None else {"Upload-Length": str(length)}),
        **(headers or {}),
    }
    answer, where = None, place(site)
    try:
        answer = ask(site, "POST", where, own, content, version=version)
    finally:
        interims = content.with_status(104)
        known = [fields["Location"] for fields in interims if "Location" in fields]
        if answer is not None and answer.ok and "Location" in answer.headers:
            known.append(answer.headers["Location"])
        urls = []
        for location in known:
            with suppress(ValueError):
                urls.append(resolved(where, location))
        stored = answer is not None and answer.headers.get("Upload-File-Id", "") in site.files
        for url in () if stored else urls:
            site.uploads.add(url)
            site.spoken[url] = version
        if complete and not (urls or stored) and answer is not None and answer.ok:
            site.unowned.append(f"{name}: the server gives no URL of it")
        if session and (urls or (answer is not None and answer.ok)):
            site.slots.pop()
    return Creation(urls[0] if urls else "", answer, interims)


def create(
    site: Site,
    label: str,
    length: int | None,
    content: Content | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Creation:
    """Create an upload that is not complete, which must succeed."""
    what = "a creation (Upload-Complete: ?0)"
    made = try_creation(site, label, length, content, headers=headers)
    location = header(succeeded(made.answer, what), "Location", what, "the URL of the upload", bool)
    if not made.url:
        raise Violation(what, expected="a Location on this server", got=location)
    return made


def begun(site: Site, label: str, headers: Mapping[str, str] | None = None) -> tuple[str, bytes]:
    """Create an empty upload for a file; return its URL and the content of the file."""
    data = content_of(site)
    return create(site, label, len(data), headers=headers).url, data


def fresh(site: Site) -> Creation:
    """Create an empty upload that several checks look at, to save requests. Use with `once`."""
    endpoint(site)
    data = content_of(site)
    return create(site, "created", len(data))._replace(data=data)


def whole(site: Site) -> Creation:
    """Send a whole file in one request, of which several checks see the answers. Use with `once`."""
    endpoint(site)
    data = content_of(site)
    return try_creation(site, "whole", len(data), Content(data, BYTES), complete=True)._replace(data=data)


def part(site: Site) -> Creation:
    """Create an upload with the first half of a file. Use with `once`."""
    endpoint(site)
    data = content_of(site)
    return create(site, "part", len(data), Content(data[: len(data) // 2], BYTES))._replace(data=data)


def need_interims(site: Site) -> Creation:
    """Return `whole`. Raises `NotOffered` without an answer 104 to it, which not every server can send."""
    made = site.once(whole)
    if not made.interims:
        raise NotOffered("the server sends no 104")
    return made


def patch(
    site: Site,
    url: str,
    at: int,
    data: bytes,
    *,
    complete: bool,
    headers: Mapping[str, str] | None = None,
    content: Content | None = None,
) -> Answer:
    """Send an append; `content` is in place of that of `data`."""
    own = {"Upload-Offset": str(at), "Upload-Complete": f"?{complete:d}", **(headers or {})}
    return ask(site, "PATCH", url, own, content or Content(data, PARTIAL))


def append(
    site: Site, url: str, at: int, data: bytes, what: str, *, complete: bool, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send an append, which must succeed."""
    answer = succeeded(patch(site, url, at, data, complete=complete, headers=headers), what)
    check_complete(answer, what, complete=complete)
    return answer


def head(site: Site, url: str, what: str, *, offset: int, complete: bool) -> Answer:
    """Check the state of an upload."""
    answer = answered(ask(site, "HEAD", url), what, 200, 204)
    check_state(answer, what, offset=offset, complete=complete)
    return answer


def check_state(answer: Answer, what: str, *, offset: int, complete: bool) -> None:
    check_complete(answer, what, complete=complete)
    found = header(answer, "Upload-Offset", what, str(offset), str.isdecimal)
    same(int(found), offset, f"Upload-Offset in the answer to {what}")
    check_limits(answer, what)


def check_limits(answer: Answer, what: str) -> UploadLimits:
    value = header(answer, "Upload-Limit", what, UPLOAD_LIMITS, lambda value: upload_limits(value) is not None)
    return upload_limits(value) or UploadLimits()


def check_complete(answer: Answer, what: str, *, complete: bool) -> None:
    wanted = f"?{complete:d}"
    header(answer, "Upload-Complete", what, wanted, lambda value: value.partition(";")[0].strip() == wanted)


def check_refused(answer: Answer, what: str) -> Answer:
    if answer.status not in REFUSAL:
        raise Violation(what, expected="a refusal (4xx)", got=said(answer), corrupt=answer.ok)
    return answer


def not_complete(site: Site, url: str, what: str) -> None:
    """Check that HEAD, if the upload is still there, does not call it complete."""
    answer = ask(site, "HEAD", url)
    if answer.ok:
        check_complete(answer, what, complete=False)


class Overlap(NamedTuple):
    """What a `newer` request returned, and the answer to the older one; None if its connection was ended."""

    newer: Any
    older: Answer | None


def overlapped(site: Site, url: str, data: bytes, newer: Callable[[], T]) -> Overlap:
    """Call `newer` while an append of all `data` is open, of which the server has half; send the rest after that."""
    found: list[T] = []

    def midway(_wire: Wire) -> None:
        time.sleep(ARRIVAL)
        found.append(newer())

    older = None
    try:
        older = patch(site, url, 0, data, complete=True, content=Content(data, PARTIAL, midway=midway))
    except NetworkError:
        if not found:
            raise
    return Overlap(found[0], older)
