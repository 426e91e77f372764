"""Checks of the IETF's resumable uploads, by the MUSTs of the draft (docs/resumable-uploads.md)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from uploader_cli.core.capabilities import encode_metadata, root_of
from uploader_cli.core.origins import resolved
from uploader_cli.core.upload_limits import upload_limits
from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.smoke.expect import answered, header, said, same, succeeded
from uploader_cli.features.smoke.sending import (
    body_of,
    cut,
    cut_off,
    data_of,
    file_of,
    note_stored,
    nothing,
    read_back,
    resumed,
    session_of,
    terms,
)
from uploader_cli.features.smoke.site import Site
from uploader_cli.transfer.answers import Answer

IETF = {"Upload-Draft-Interop-Version": "8"}
"""Headers of each request."""
BODY_TYPE = "application/partial-upload"
REFUSAL = range(400, 500)

after_append = partial(check, rests_on="ietf-append")


def endpoint(site: Site) -> str:
    """Return where uploads are created. Raises `NotOffered` unless OPTIONS has `Upload-Limit`."""
    tus = site.once(terms).tus
    if tus is None:
        raise NotOffered("the session response has no endpoint of resumable uploads")
    if "Upload-Limit" not in site.once(_options, tus.endpoint).headers:
        raise NotOffered("OPTIONS has no Upload-Limit")
    return tus.endpoint


def _options(site: Site, url: str) -> Answer:
    return site.call("OPTIONS", root_of(url), headers=IETF)


def ask(
    site: Site,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    midway: Callable[[], None] = nothing,
) -> Answer:
    """Send a request, and record what it created or completed."""
    kind = {"Content-Type": BODY_TYPE} if method == "PATCH" and not body else {}
    sent = body_of(body, BODY_TYPE, midway) if body else None
    all_headers = {**IETF, **kind, **(headers or {})}
    how: dict[str, Any] = {"may_refuse": True, "leaves": method == "POST", "early": True}
    answer = site.call(method, url, headers=all_headers, body=sent, **how)
    note_stored(site, method, url, answer)
    return answer


def create(site: Site, label: str, length: int | None) -> tuple[str, Answer]:
    """Create an empty upload, which must succeed; return its URL and the response."""
    where, name = endpoint(site), file_of(site, f"ietf-{label}")[0]
    headers = {"Upload-Complete": "?0", "Content-Disposition": f"inline; filename*=UTF-8''{quote(name, safe='')}"}
    headers |= {} if length is None else {"Upload-Length": str(length)}
    session = session_of(site)
    headers["Upload-Metadata"] = encode_metadata({"filename": name, **session})
    what = "an empty creation (Upload-Complete: ?0)"
    answer = succeeded(ask(site, "POST", where, headers), what)
    location = header(answer, "Location", what, "the URL of the upload", bool)
    try:
        url = resolved(answer.url, location)
    except ValueError as error:
        raise Violation(what, expected="a Location on this server", got=location) from error
    site.uploads.add(url)
    site.spoken[url] = IETF
    if session:
        site.slots.pop()
    return url, answer


def begun(site: Site, label: str) -> tuple[str, bytes]:
    """Create an empty upload for a file; return its URL and the content of the file."""
    content = data_of(site)
    return create(site, label, len(content))[0], content


def head(site: Site, url: str, what: str, *, offset: int, complete: bool) -> Answer:
    """Check the state of an upload."""
    answer = answered(ask(site, "HEAD", url), what, 200, 204)
    _flag(answer, what, complete=complete)
    found = header(answer, "Upload-Offset", what, str(offset), str.isdecimal)
    same(int(found), offset, f"Upload-Offset in the answer to {what}")
    header(answer, "Upload-Limit", what, "the limits of the upload", lambda value: upload_limits(value) is not None)
    return answer


def append(
    site: Site, url: str, at: int, body: bytes, what: str, *, complete: bool, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send a `PATCH`, which must succeed."""
    answer = succeeded(patch(site, url, at, body, complete=complete, headers=headers), what)
    _flag(answer, what, complete=complete)
    return answer


def patch(
    site: Site,
    url: str,
    at: int,
    body: bytes,
    *,
    complete: bool,
    headers: Mapping[str, str] | None = None,
    midway: Callable[[], None] = nothing,
) -> Answer:
    """Send a `PATCH`."""
    own = {"Upload-Offset": str(at), "Upload-Complete": f"?{complete:d}", **(headers or {})}
    return ask(site, "PATCH", url, own, body, midway=midway)


def _flag(answer: Answer, what: str, *, complete: bool) -> None:
    wanted = f"?{complete:d}"
    header(answer, "Upload-Complete", what, wanted, lambda value: value.partition(";")[0].strip() == wanted)


def _refused(answer: Answer, what: str) -> None:
    if answer.status not in REFUSAL:
        raise Violation(what, expected="a refusal (4xx)", got=said(answer), corrupt=answer.ok)


def _data(site: Site) -> bytes:
    return file_of(site, "")[1]


@check("ietf-options", "ietf: OPTIONS announces the limits", "clients can't find out that the server is able to resume")
def options(site: Site) -> str:
    """See the draft, Upload-Limit: a dictionary of integers, `min-size=0` where there is no limit."""
    answer, what = site.once(_options, endpoint(site)), "OPTIONS of the endpoint"
    limits = "a dictionary of limits (RFC 9651)"
    value = header(answer, "Upload-Limit", what, limits, lambda found: upload_limits(found) is not None)
    return str(value)


@check("ietf-creation", "ietf: an empty upload can be created", "uploads can't be resumed from their beginning")
def creation(site: Site) -> None:
    """See the draft, upload creation and offset retrieval."""
    content = data_of(site)
    url, answer = create(site, "created", len(content))
    what = "HEAD of a new upload"
    limits = "the limits of the upload"
    header(answer, "Upload-Limit", "an empty creation", limits, lambda found: upload_limits(found) is not None)
    found = head(site, url, what, offset=0, complete=False)
    same(found.headers.get("Upload-Length"), str(len(content)), f"Upload-Length in the answer to {what}")


@check("ietf-append", "ietf: a file is sent in two requests", "files can't be sent in chunks", rests_on="ietf-creation")
def append_twice(site: Site) -> None:
    """See the draft, upload append: `Upload-Complete` of each answer, and the offset after it."""
    url, content = begun(site, "appended")
    half = len(content) // 2
    append(site, url, 0, content[:half], "PATCH of the first half", complete=False)
    head(site, url, "HEAD after the first half", offset=half, complete=False)
    last = append(site, url, half, content[half:], "PATCH of the second half", complete=True)
    read_back(site, url, last, content)


@after_append(
    "ietf-declared-end", "ietf: only a declared end completes an upload", "files count as stored before their end"
)
def declared_end(site: Site) -> None:
    """See the draft, completeness: the length does not complete an upload; an empty request does."""
    url, content = begun(site, "declared")
    append(site, url, 0, content, "PATCH of all bytes without an end", complete=False)
    head(site, url, "HEAD after all bytes without an end", offset=len(content), complete=False)
    append(site, url, len(content), b"", "an empty PATCH that declares the end", complete=True)


@after_append("ietf-offset", "ietf: a wrong offset is refused", "files are corrupted by repeated requests")
def wrong_offset(site: Site) -> None:
    """See the draft, upload append: 409, `Upload-Complete: ?0` and the right offset."""
    url, content = begun(site, "offset")
    half = len(content) // 2
    append(site, url, 0, content[:half], "PATCH of the first half", complete=False)
    what = "PATCH at the wrong offset"
    answer = patch(site, url, half - 1, content[half:], complete=True)
    if answer.ok:
        raise Violation(what, expected="409", got=said(answer), corrupt=True)
    answered(answer, what, 409)
    _flag(answer, what, complete=False)
    same(header(answer, "Upload-Offset", what, str(half), bool), str(half), f"Upload-Offset in the answer to {what}")
    head(site, url, f"HEAD after {what}", offset=half, complete=False)


@after_append("ietf-length", "ietf: inconsistent lengths are refused", "files are stored without their end")
def inconsistent_length(site: Site) -> None:
    """See the draft, length: the end of the content, and `Upload-Length`, must match what is known."""
    url, content = begun(site, "length")
    what = "PATCH that ends before the length of the upload"
    _refused(patch(site, url, 0, content[: len(content) // 2], complete=True), what)
    answer = ask(site, "HEAD", url)
    if answer.ok:
        _flag(answer, f"HEAD after {what}", complete=False)


@after_append("ietf-overrun", "ietf: content beyond the length is refused", "files become longer than announced")
def overrun(site: Site) -> None:
    """See the draft, upload append: the request is refused, and the upload can't be used any more."""
    content = data_of(site)
    url, _ = create(site, "overrun", len(content) - 1)
    what = "PATCH of more bytes than the upload has"
    _refused(patch(site, url, 0, content, complete=False), what)
    _refused(ask(site, "HEAD", url), f"HEAD after {what}")
    site.uploads.discard(url)


@after_append("ietf-resume", "ietf: a cut upload resumes at its offset", "after a lost connection files are corrupted")
def resume(site: Site) -> str:
    """See the draft, upload append and concurrency: a cut request completes nothing, and its offset is accepted."""
    url, content = begun(site, "resumed")
    with cut_off("half a PATCH"):
        patch(site, url, 0, content, complete=True, midway=cut)

    def look(what: str) -> Answer:
        found = answered(ask(site, "HEAD", url), what, 200, 204)
        _flag(found, what, complete=False)
        return found

    at, last = resumed(len(content), look, lambda at: patch(site, url, at, content[at:], complete=True))
    what = "PATCH of the rest after a cut"
    _flag(succeeded(last, what), what, complete=True)
    read_back(site, url, last, content)
    return f"resumed at byte {at} of {len(content)}"


@after_append("ietf-deferred-length", "ietf: the length may be sent later", "streams can't be uploaded")
def deferred_length(site: Site) -> None:
    """See the draft, length: an upload without one gets it from `Upload-Length`."""
    content = data_of(site)
    half = len(content) // 2
    url, _ = create(site, "deferred", None)
    append(site, url, 0, content[:half], "PATCH of an upload without a length", complete=False)
    what, length = "PATCH with the length", {"Upload-Length": str(len(content))}
    append(site, url, half, content[half:-1] or content[half:], what, complete=False, headers=length)
    found = answered(ask(site, "HEAD", url), f"HEAD after {what}", 200, 204)
    same(found.headers.get("Upload-Length"), str(len(content)), "Upload-Length after it was sent")


@after_append("ietf-malformed", "ietf: malformed fields are ignored", "bytes are stored at a wrong place")
def malformed(site: Site) -> None:
    """See the draft, offset: another value than an integer counts as none, and an append needs one."""
    url, content = begun(site, "malformed")
    what = "PATCH whose Upload-Offset is no integer"
    headers = {"Upload-Offset": '"0"'}
    _refused(patch(site, url, 0, content, complete=True, headers=headers), what)
    head(site, url, f"HEAD after {what}", offset=0, complete=False)


@after_append(
    "ietf-cancel", "ietf: an upload can be deleted", "abandoned uploads stay until they expire", required=False
)
def cancel(site: Site) -> None:
    """See the draft, upload cancellation (a SHOULD)."""
    url, _ = begun(site, "cancelled")
    succeeded(ask(site, "DELETE", url), "DELETE of an upload")
    _refused(ask(site, "HEAD", url), "HEAD of a deleted upload")
    site.uploads.discard(url)


@after_append(
    "ietf-digest", "ietf: content with another digest is refused", "corrupted bytes are stored", required=False
)
def digest(site: Site) -> None:
    """See the draft, content digests (a SHOULD), and RFC 9530."""
    url, content = begun(site, "digest")
    value = base64.b64encode(hashlib.sha256(b"other bytes").digest()).decode()
    headers, what = {"Content-Digest": f"sha-256=:{value}:"}, "PATCH with the digest of other content"
    _refused(patch(site, url, 0, content[:-1], complete=False, headers=headers), what)
    head(site, url, f"HEAD after {what}", offset=0, complete=False)
