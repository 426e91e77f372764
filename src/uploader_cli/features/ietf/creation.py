"""Checks of upload creation (section 4.2), with the interim answers (section 5)."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

from uploader_cli.core.upload_limits import upload_limits
from uploader_cli.errors import NetworkError
from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.ietf.requests import (
    BYTES,
    INTEROP,
    UPLOAD_LIMITS,
    Creation,
    append,
    ask,
    check_complete,
    check_limits,
    content_of,
    endpoint,
    fresh,
    head,
    need_interims,
    options_of,
    part,
    try_creation,
    whole,
)
from uploader_cli.features.ietf.wire import Content, Wire
from uploader_cli.features.smoke.expect import answered, header, said, same, succeeded
from uploader_cli.features.smoke.sending import ARRIVAL, read_back
from uploader_cli.features.smoke.site import Site

after_creation = partial(check, rests_on="ietf-creation")
after_interim = partial(check, rests_on="ietf-104")


@check("ietf-options", "ietf: OPTIONS announces the limits", "clients can't find out that the server is able to resume")
def options(site: Site) -> str:
    """See section 4.1.4: a dictionary of integers, `min-size=0` where there is no limit."""
    answer, what = site.once(options_of, endpoint(site)), "OPTIONS of the endpoint"
    limits = "a dictionary of limits (RFC 9651)"
    value = header(answer, "Upload-Limit", what, limits, lambda found: upload_limits(found) is not None)
    return str(value)


@check("ietf-creation", "ietf: an empty upload can be created", "uploads can't be resumed from their beginning")
def creation(site: Site) -> None:
    """See sections 4.2.2 and 4.3.2: its URL and limits, and its state."""
    made = site.once(fresh)
    check_limits(made.answer, "an empty creation")
    what = "HEAD of a new upload"
    found = head(site, made.url, what, offset=0, complete=False)
    same(found.headers.get("Upload-Length"), str(len(made.data)), f"Upload-Length in the answer to {what}")


@after_creation("ietf-created", "ietf: a creation is answered with 201", "clients that expect 201 fail", required=False)
def created(site: Site) -> None:
    """See section 4.2.2 (RECOMMENDED)."""
    answered(site.once(fresh).answer, "an empty creation", 201)


@after_creation("ietf-part", "ietf: a creation takes the first part of a file", "the first part is lost")
def first_part(site: Site) -> None:
    """See section 4.2.2: the content of a creation that is not complete."""
    made = site.once(part)
    check_limits(made.answer, "a creation with half of a file")
    head(site, made.url, "HEAD after that", offset=len(made.data) // 2, complete=False)


@after_creation(
    "ietf-whole", "ietf: a creation takes a whole file", "clients that don't know the server can't upload to it"
)
def whole_file(site: Site) -> None:
    """See sections 4.2.2 and 11.1.1: the answer is that of the resource, and says that the upload is complete."""
    made, what = site.once(whole), "a creation with a whole file"
    succeeded(made.answer, what)
    check_complete(made.answer, what, complete=True)
    if made.url:
        read_back(site, made.url, made.answer, made.data)


@check(
    "ietf-104", "ietf: an interim answer (104) has the URL and the limits", "clients can't resume what they lose",
    rests_on="ietf-whole",
)  # fmt: skip
def interim(site: Site) -> None:
    """See section 4.2.2: the server announces an upload before it has the content."""
    first, what = need_interims(site).interims[0], "a creation (104)"
    if not first.get("Location"):
        raise Violation(what, expected="the URL of the upload in Location", got="no such header")
    if upload_limits(first.get("Upload-Limit")) is None:
        raise Violation(what, expected=f"{UPLOAD_LIMITS} in Upload-Limit", got=str(first.get("Upload-Limit")))


@after_interim("ietf-104-version", "ietf: an interim answer has the interop version", "clients ignore it")
def interim_version(site: Site) -> None:
    """See the appendix on draft versions."""
    for fields in need_interims(site).interims:
        same(fields.get(INTEROP), "8", f"{INTEROP} of 104")


@after_interim(
    "ietf-104-mismatch", "ietf: no interim answer to other interop versions", "clients misunderstand the server"
)
def interim_mismatch(site: Site) -> None:
    """See the appendix on draft versions: neither without a version, nor for one that no draft has had."""
    need_interims(site)
    for version in ({}, {INTEROP: "1"}):
        data = content_of(site)
        made = try_creation(site, "mismatch", len(data), Content(data, BYTES), version=version)
        what = f"a creation with {INTEROP}: {version.get(INTEROP, 'none')}"
        same(len(made.interims), 0, f"the number of 104 to {what}")


@after_interim("ietf-104-same", "ietf: all answers to a creation have one URL", "clients cancel the upload")
def interim_same(site: Site) -> None:
    """See section 4.2.2."""
    need_interims(site)
    made = site.once(part)
    known = [fields["Location"] for fields in made.interims if "Location" in fields]
    for location in known:
        same(location, made.answer.headers.get("Location"), "Location of 104, and of the final answer")


@after_interim("ietf-100", "ietf: an interim answer does not replace 100 (Continue)", "clients wait for it")
def expectation(site: Site) -> None:
    """See section 5."""
    need_interims(site)
    data = content_of(site)

    def before(wire: Wire) -> None:
        if not wire.wait(100, site.patience):
            raise Violation("a creation with Expect: 100-continue", expected="100 (Continue)", got="none")

    content = Content(data, BYTES, before=before)
    try_creation(site, "expects", len(data), content, complete=True, headers={"Expect": "100-continue"})


class _Cut(Exception):
    pass


def cut_creation(site: Site) -> Creation:
    """Break off the creation of a whole file after its first half; the URL comes from 104. Use with `once`."""
    need_interims(site)
    data = content_of(site)

    def midway(wire: Wire) -> None:
        wire.wait(104, site.patience)
        time.sleep(ARRIVAL)
        raise _Cut

    content, before = Content(data, BYTES, midway=midway), set(site.uploads)
    with suppress(_Cut, NetworkError):
        try_creation(site, "cut", len(data), content, complete=True)
    urls = site.uploads - before
    if not urls:
        raise Violation("a creation whose connection is lost midway", expected="104 before that", got="none")
    return Creation(urls.pop(), site.once(fresh).answer, content.with_status(104), data)


def state_of_cut(site: Site) -> int:
    """Return the offset of the upload of `cut_creation`, which must not be complete."""
    made, what = site.once(cut_creation), "HEAD after a creation that was cut"
    found = answered(ask(site, "HEAD", made.url), what, 200, 204)
    check_complete(found, what, complete=False)
    return int(header(found, "Upload-Offset", what, "what has arrived", str.isdecimal))


@after_interim("ietf-cut-creation", "ietf: a cut creation completes nothing", "files count as stored before their end")
def cut_is_incomplete(site: Site) -> str:
    """See section 4.2.2: content that has arrived is kept, and the upload is not complete."""
    at, length = state_of_cut(site), len(site.once(cut_creation).data)
    if at > (length + 1) // 2:
        raise Violation("Upload-Offset after a cut", expected=f"{(length + 1) // 2} at most", got=str(at))
    return f"{at} of {length} bytes are kept"


@check(
    "ietf-upgrade", "ietf: a cut request is continued at the URL of 104", "clients start again after a lost connection",
    rests_on="ietf-cut-creation",
)  # fmt: skip
def upgrade(site: Site) -> None:
    """See section 11.1.1: the transparent upgrade, by a client that knew nothing of the server."""
    made, at = site.once(cut_creation), state_of_cut(site)
    last = append(site, made.url, at, made.data[at:], "PATCH of the rest after a cut creation", complete=True)
    read_back(site, made.url, last, made.data)


@check(
    "ietf-same-answer", "ietf: the last append is answered as one request", "clients misunderstand the last answer",
    rests_on="ietf-part", required=False,
)  # fmt: skip
def same_answer(site: Site) -> None:
    """See section 4.4.2 (SHOULD): the answer is that of the resource which the creation was for."""
    made, once = site.once(part), site.once(whole).answer
    if not once.ok:
        raise NotOffered(f"one request with a whole file gets {said(once)}")
    half = len(made.data) // 2
    last = append(site, made.url, half, made.data[half:], "PATCH of the second half", complete=True)
    same(last.status, once.status, "the status of the last append, and of one request")
