"""Checks of appends (section 4.4), of lengths (section 4.1.3), and of their problems (section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from uploader_cli.core.protocol import as_object
from uploader_cli.errors import NetworkError
from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.ietf.requests import (
    BYTES,
    PARTIAL,
    append,
    ask,
    begun,
    check_complete,
    check_refused,
    content_of,
    create,
    endpoint,
    head,
    need_interims,
    not_complete,
    patch,
    try_creation,
)
from uploader_cli.features.ietf.wire import Content, Wire
from uploader_cli.features.smoke.expect import answered, header, said, same, succeeded
from uploader_cli.features.smoke.sending import cut, cut_off, read_back, resumed
from uploader_cli.features.smoke.site import Site
from uploader_cli.transfer.answers import Answer

PROBLEM = "https://iana.org/assignments/http-problem-types#"

after_append = partial(check, rests_on="ietf-append")


@check("ietf-append", "ietf: a file is sent in two requests", "files can't be sent in chunks", rests_on="ietf-creation")
def append_twice(site: Site) -> None:
    """See section 4.4.2: `Upload-Complete` of each answer, and the offset after it."""
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
    """See section 4.1.3: the length does not complete an upload; an empty request does."""
    url, content = begun(site, "declared")
    append(site, url, 0, content, "PATCH of all bytes without an end", complete=False)
    head(site, url, "HEAD after all bytes without an end", offset=len(content), complete=False)
    append(site, url, len(content), b"", "an empty PATCH that declares the end", complete=True)


@after_append("ietf-completed", "ietf: nothing is appended to a complete upload", "stored files get other bytes")
def completed(site: Site) -> None:
    """See section 4.1.2."""
    url, content = begun(site, "completed")
    what = "PATCH of a complete upload"
    append(site, url, 0, content, "PATCH of all bytes", complete=True)
    check_refused(patch(site, url, len(content), content, complete=True), what)


@after_append("ietf-offset", "ietf: a wrong offset is refused", "files are corrupted by repeated requests")
def wrong_offset(site: Site) -> None:
    """See section 4.4.2: 409, `Upload-Complete: ?0` and the right offset."""
    url, half, answer = site.once(conflict)
    what = "PATCH at the wrong offset"
    if answer.ok:
        raise Violation(what, expected="409", got=said(answer), corrupt=True)
    answered(answer, what, 409)
    check_complete(answer, what, complete=False)
    same(header(answer, "Upload-Offset", what, str(half), bool), str(half), f"Upload-Offset in the answer to {what}")
    head(site, url, f"HEAD after {what}", offset=half, complete=False)


def conflict(site: Site) -> tuple[str, int, Answer]:
    """Append at the byte before the offset; return the URL, the offset, and the answer. Use with `once`."""
    url, content = begun(site, "offset")
    half = len(content) // 2
    append(site, url, 0, content[:half], "PATCH of the first half", complete=False)
    return url, half, patch(site, url, half - 1, content[half:], complete=True)


@check(
    "ietf-problem-offset", "ietf: the problem of a wrong offset has both offsets", "clients can't tell what is wrong",
    rests_on="ietf-offset", required=False,
)  # fmt: skip
def problem_of_offset(site: Site) -> None:
    """See section 7.1 (SHOULD)."""
    _, half, answer = site.once(conflict)
    found = problem(answer, "mismatching-upload-offset", "PATCH at the wrong offset")
    for name, offset in (("expected-offset", half), ("provided-offset", half - 1)):
        same(found.get(name), offset, f"{name} of the problem")


def problem(answer: Answer, kind: str, what: str) -> Mapping[str, object]:
    """Return the problem (RFC 9457) of a refusal. Raises `NotOffered` if that is none."""
    if answer.headers.get("Content-Type", "").partition(";")[0].strip() != "application/problem+json":
        raise NotOffered(f"the answer to {what} is no application/problem+json")
    found = as_object(answer.body)
    same(found.get("type"), PROBLEM + kind, f"the type of the problem of {what}")
    return found


@after_append("ietf-length", "ietf: inconsistent lengths are refused", "files are stored without their end")
def inconsistent_length(site: Site) -> None:
    """See section 4.1.3: the end of the content, and `Upload-Length`, must match what is known."""
    url, answer = site.once(short_end)
    check_refused(answer, SHORT_END)
    not_complete(site, url, f"HEAD after {SHORT_END}")


SHORT_END = "PATCH that ends before the length of the upload"


def short_end(site: Site) -> tuple[str, Answer]:
    """Declare the end of an upload before its length; return its URL, and the answer. Use with `once`."""
    url, content = begun(site, "length")
    return url, patch(site, url, 0, content[: len(content) // 2], complete=True)


@check(
    "ietf-problem-length", "ietf: inconsistent lengths are a problem with a type", "clients can't tell what is wrong",
    rests_on="ietf-length", required=False,
)  # fmt: skip
def problem_of_length(site: Site) -> None:
    """See section 7.2."""
    problem(site.once(short_end)[1], "inconsistent-upload-length", SHORT_END)


@after_append("ietf-overrun", "ietf: content beyond the length is refused", "files become longer than announced")
def overrun(site: Site) -> None:
    """See section 4.4.2: the request is refused, and the upload can't be used any more."""
    _overrun(site, "overrun", chunked=False)


@check(
    "ietf-chunked", "ietf: content beyond the length is refused without Content-Length",
    "files become longer than announced", rests_on="ietf-overrun",
)  # fmt: skip
def chunked_overrun(site: Site) -> None:
    """See section 4.4.2: it is not sufficient to rely on Content-Length."""
    _overrun(site, "chunked", chunked=True)


def _overrun(site: Site, label: str, *, chunked: bool) -> None:
    data = content_of(site)
    url, content = create(site, label, len(data) - 1).url, Content(data, PARTIAL, chunked=chunked)
    what = "PATCH of more bytes than the upload has"
    try:
        answer = patch(site, url, 0, data, complete=False, content=content)
    except NetworkError:  # the server ends the connection
        pass
    else:
        if chunked and answer.status == 411:
            raise NotOffered("the server requires Content-Length")
        check_refused(answer, what)
    check_refused(ask(site, "HEAD", url), f"HEAD after {what}")
    site.uploads.discard(url)


@after_append("ietf-resume", "ietf: a cut upload resumes at its offset", "after a lost connection files are corrupted")
def resume(site: Site) -> str:
    """See sections 4.4.2 and 4.6: a cut request completes nothing, and its offset is accepted."""
    url, data = begun(site, "resumed")
    with cut_off("half a PATCH"):
        content = Content(data, PARTIAL, midway=lambda _wire: cut())
        patch(site, url, 0, data, complete=True, content=content)

    def look(what: str) -> Answer:
        found = answered(ask(site, "HEAD", url), what, 200, 204)
        check_complete(found, what, complete=False)
        return found

    at, last = resumed(len(data), look, lambda at: patch(site, url, at, data[at:], complete=True))
    what = "PATCH of the rest after a cut"
    check_complete(succeeded(last, what), what, complete=True)
    read_back(site, url, last, data)
    return f"resumed at byte {at} of {len(data)}"


@after_append("ietf-deferred-length", "ietf: the length may be sent later", "streams can't be uploaded")
def deferred_length(site: Site) -> None:
    """See section 4.1.3: an upload without one gets it from `Upload-Length`."""
    data = content_of(site)
    half = len(data) // 2
    url = create(site, "deferred", None).url
    append(site, url, 0, data[:half], "PATCH of an upload without a length", complete=False)
    what, length = "PATCH with the length", {"Upload-Length": str(len(data))}
    append(site, url, half, data[half:-1] or data[half:], what, complete=False, headers=length)
    found = answered(ask(site, "HEAD", url), f"HEAD after {what}", 200, 204)
    same(found.headers.get("Upload-Length"), str(len(data)), "Upload-Length after it was sent")


@after_append("ietf-malformed", "ietf: malformed offsets are ignored", "bytes are stored at a wrong place")
def malformed(site: Site) -> None:
    """See section 4.1.1: another value than an integer counts as none, and an append needs one."""
    url, content = begun(site, "malformed")
    what = "PATCH whose Upload-Offset is no integer"
    headers = {"Upload-Offset": '"0"'}
    check_refused(patch(site, url, 0, content, complete=True, headers=headers), what)
    head(site, url, f"HEAD after {what}", offset=0, complete=False)


@after_append("ietf-malformed-end", "ietf: a malformed end is ignored", "files count as stored before their end")
def malformed_end(site: Site) -> None:
    """See section 4.1.2: another value than a boolean counts as none, and completes nothing."""
    url, content = begun(site, "malformed-end")
    patch(site, url, 0, content, complete=True, headers={"Upload-Complete": '"?1"'})
    not_complete(site, url, "HEAD after PATCH whose Upload-Complete is no boolean")


@after_append("ietf-malformed-length", "ietf: a malformed length is ignored", "uploads get a wrong length")
def malformed_length(site: Site) -> None:
    """See section 4.1.3: another value than an integer counts as none."""
    endpoint(site)
    what = "a creation whose Upload-Length is no integer"
    made = try_creation(site, "malformed-length", None, headers={"Upload-Length": '"2"'})
    if not made.answer.ok:  # as without a length
        check_refused(made.answer, what)
        return
    found = answered(ask(site, "HEAD", made.url), f"HEAD after {what}", 200, 204)
    same(found.headers.get("Upload-Length"), None, f"Upload-Length after {what}")


@after_append(
    "ietf-media-type", "ietf: an append of another media type is refused", "other patches are taken for content",
    required=False,
)  # fmt: skip
def media_type(site: Site) -> None:
    """See section 6."""
    url, data = begun(site, "media-type")
    what = f"PATCH with Content-Type: {BYTES}"
    check_refused(patch(site, url, 0, data, complete=False, content=Content(data, BYTES)), what)
    head(site, url, f"HEAD after {what}", offset=0, complete=False)


@after_append("ietf-104-append", "ietf: 104 of an append have no URL", "clients take it for another upload")
def interim_of_append(site: Site) -> None:
    """See section 4.4.2."""
    for fields in site.once(progress)[1].with_status(104):
        same(fields.get("Location"), None, "Location in 104 of an append")


def progress(site: Site) -> tuple[int, Content]:
    """Append a file in two parts, with a pause between them; return its length, and the content. Use with `once`."""
    need_interims(site)
    url, data = begun(site, "progress")

    def midway(wire: Wire) -> None:
        wire.wait(104, 0.2)

    content = Content(data, PARTIAL, midway=midway)
    succeeded(patch(site, url, 0, data, complete=False, content=content), "PATCH of all bytes")
    return len(data), content


@after_append(
    "ietf-104-progress", "ietf: 104 of an append tell the offset", "clients can't show what has arrived", required=False
)
def interim_progress(site: Site) -> str:
    """See section 4.4.2 (SHOULD): offsets that do not get smaller."""
    length, content = site.once(progress)
    found = [fields.get("Upload-Offset", "") for fields in content.with_status(104)]
    if not found:
        raise Violation("PATCH of all bytes", expected="104 with Upload-Offset", got="no 104")
    told = [int(text) if text.isdecimal() else -1 for text in found]
    if min(told) < 0 or max(told) > length or told != sorted(told):
        raise Violation("Upload-Offset in 104", expected=f"growing numbers up to {length}", got=", ".join(found))
    return f"104 at {', '.join(found)} of {length} bytes"
