"""Checks of digests (section 10, RFC 9530) and of content codings (section 8)."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from functools import partial

from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.ietf.appending import problem
from uploader_cli.features.ietf.requests import (
    append,
    ask,
    begun,
    check_refused,
    content_of,
    endpoint,
    head,
    patch,
    try_creation,
)
from uploader_cli.features.smoke.expect import said
from uploader_cli.features.smoke.site import Site
from uploader_cli.transfer.answers import Answer

WRONG = "PATCH with the digest of other content"

after_append = partial(check, rests_on="ietf-append", required=False)


def _sha256(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


@after_append("ietf-digest", "ietf: content with another digest is refused", "corrupted bytes are stored")
def content_digest(site: Site) -> None:
    """See section 10.2 (SHOULD)."""
    url, answer = site.once(wrong_digest)
    check_refused(answer, WRONG)
    head(site, url, f"HEAD after {WRONG}", offset=0, complete=False)


def wrong_digest(site: Site) -> tuple[str, Answer]:
    """Append content with another Content-Digest; return the URL of the upload, and the answer. Use with `once`."""
    url, data = begun(site, "digest")
    headers = {"Content-Digest": _sha256(b"other bytes")}
    return url, patch(site, url, 0, data[:-1], complete=False, headers=headers)


@check(
    "ietf-problem-digest", "ietf: another digest is a problem with a type", "clients can't tell what is wrong",
    rests_on="ietf-digest", required=False,
)  # fmt: skip
def problem_of_digest(site: Site) -> None:
    """See draft-ietf-httpapi-digest-fields-problem-types."""
    problem(site.once(wrong_digest)[1], "digest-mismatching-values", WRONG)


@after_append("ietf-repr-digest", "ietf: a file with another digest is refused", "corrupted files are stored")
def repr_digest(site: Site) -> None:
    """See section 10.1 (SHOULD)."""
    url, data = begun(site, "repr-digest", {"Repr-Digest": _sha256(b"another file")})
    what = "the end of a file with another Repr-Digest"
    check_refused(patch(site, url, 0, data, complete=True), what)


@after_append("ietf-want-digest", "ietf: the digest that was asked for is right", "clients take good files for bad")
def want_digest(site: Site) -> str:
    """See section 10.1 (SHOULD): the digest is in the last answer, or in that to HEAD after it."""
    wanted = {"Want-Repr-Digest": "sha-256=10"}
    url, data = begun(site, "want-digest", wanted)
    last = append(site, url, 0, data, "PATCH of all bytes", complete=True, headers=wanted)
    where = "the last answer"
    if "Repr-Digest" not in last.headers:
        last, where = ask(site, "HEAD", url, wanted), "the answer to HEAD"
    found = re.search(r"sha-256=:[^:]*:", last.headers.get("Repr-Digest", ""))
    if found is None:
        raise NotOffered("no Repr-Digest with sha-256 after Want-Repr-Digest")
    if found[0] != _sha256(data):
        raise Violation(f"Repr-Digest in {where}", expected=_sha256(data), got=found[0])
    return f"in {where}"


@after_append("ietf-coding", "ietf: offsets count coded content", "coded files can't be resumed")
def content_coding(site: Site) -> None:
    """See section 8: Upload-Offset and Upload-Length are those of the content as it is sent."""
    endpoint(site)
    data = gzip.compress(content_of(site))
    made = try_creation(site, "coded", len(data), headers={"Content-Encoding": "gzip"})
    if not made.url:
        raise NotOffered(f"Content-Encoding: gzip gets {said(made.answer)}")
    half = len(data) // 2
    append(site, made.url, 0, data[:half], "PATCH of half a coded file", complete=False)
    head(site, made.url, "HEAD after half a coded file", offset=half, complete=False)
    append(site, made.url, half, data[half:], "PATCH of the rest of a coded file", complete=True)
