"""Checks of further extensions of tus 1.0, each only if the server offers it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.assertions import answered, header, same
from uploader_cli.checks.smoke.resumable import GONE, append, ask, create, data, halfway, offered, offset, read_back
from uploader_cli.checks.smoke.verdicts import Violation
from uploader_cli.core.protocol import parse_http_date

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Site


def creation_with_upload(site: Site) -> str:
    """Check that the creation may carry the first bytes."""
    offered(site, "creation-with-upload")
    content = data(site)
    half = content[: len(content) // 2]
    what = "a creation with half of the bytes"
    length = {"Upload-Length": str(len(content))}
    url, answer = create(site, "tus-with-upload", length, half)
    offset(answer, len(half), what)
    offset(answered(ask(site, "HEAD", url), f"HEAD after {what}", 200, 204), len(half), what)
    return ""


def defer_length(site: Site) -> str:
    """Check that the length may be sent later."""
    offered(site, "creation-defer-length")
    content = data(site)
    half = len(content) // 2
    deferred = {"Upload-Defer-Length": "1"}
    url, _ = create(site, "tus-deferred", deferred)
    head = answered(ask(site, "HEAD", url), "HEAD of an upload without a length", 200, 204)
    same(head.headers.get("Upload-Defer-Length"), "1", "Upload-Defer-Length of an upload without a length")
    length = {"Upload-Length": str(len(content))}
    append(site, url, 0, content[:half], "PATCH with the length", length)
    head = answered(ask(site, "HEAD", url), "HEAD after the length was sent", 200, 204)
    same(head.headers.get("Upload-Length"), str(len(content)), "Upload-Length after it was sent")
    return ""


def expiration(site: Site) -> str:
    """Check that unfinished uploads report their expiry."""
    offered(site, "expiration")
    answer = site.once(halfway).answer
    what = "a PATCH of an unfinished upload"
    when = header(answer, "Upload-Expires", what, "a date (RFC 9110)", lambda value: parse_http_date(value) is not None)
    left = (parse_http_date(when) or 0.0) - time.time()
    if left <= 0:
        raise Violation(f"Upload-Expires in the answer to {what}", expected="a time in the future", got=when)
    return f"in {left / 3600:,.0f} h"


def termination(site: Site) -> str:
    """Check that an upload can be deleted."""
    offered(site, "termination")
    url = site.once(halfway).url
    answered(ask(site, "DELETE", url), "DELETE of an unfinished upload", 204)
    answered(ask(site, "HEAD", url), "HEAD of a deleted upload", *GONE)
    site.made.uploads.discard(url)
    return ""


def concatenation(site: Site) -> str:
    """Check that two partial uploads are joined."""
    offered(site, "concatenation")
    content = data(site)
    half = len(content) // 2
    urls = []
    for number, piece in enumerate((content[:half], content[half:])):
        partial = {"Upload-Concat": "partial", "Upload-Length": str(len(piece))}
        url, _ = create(site, f"tus-part-{number}", partial)
        append(site, url, 0, piece, "PATCH of a partial upload")
        urls.append(url)
    what = "joining two partial uploads"
    final, answer = create(site, "tus-joined", {"Upload-Concat": "final;" + " ".join(urls)})
    head = answered(ask(site, "HEAD", final), f"HEAD after {what}", 200, 204)
    same(head.headers.get("Upload-Length"), str(len(content)), f"Upload-Length after {what}")
    refusal = ask(site, "PATCH", final, {"Upload-Offset": str(len(content))}, b"more")
    answered(refusal, "PATCH of a joined upload", 403)
    read_back(site, answer, content)
    site.made.uploads.difference_update(urls)
    return ""
