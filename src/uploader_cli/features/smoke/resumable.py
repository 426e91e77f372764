"""Checks of resumable uploads: tus 1.0, resuming after a cut, and each extension that the server offers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection
from functools import partial

from uploader_cli.core.capabilities import (
    TUS_VERSION,
    checksum_header,
    parts,
    root_of,
    unknown_upload,
)
from uploader_cli.core.protocol import parse_http_date
from uploader_cli.features.checks.check import NotOffered, Violation, check
from uploader_cli.features.smoke.expect import answered, header, said, same
from uploader_cli.features.smoke.sending import cut, cut_off, data_of, read_back, resumed
from uploader_cli.features.smoke.site import Site
from uploader_cli.features.smoke.tus_requests import (
    append,
    ask,
    begun,
    check_offset,
    check_version,
    create,
    halfway,
    head_of,
    offered,
)
from uploader_cli.sources import checksums

MISSING = (403, 404, 410)  # statuses for an upload that does not exist (tus 1.0, HEAD)
OF_UPLOADS = ("sha256", "sha1")  # the checksums that `auto` sends to a server without CRC-32C
OTHER_REFUSALS = (400, 404, 405, 409, 410)  # of a PATCH to a joined upload

after_core = partial(check, rests_on="tus-core")


@check("tus-core", "tus: uploads can be created, sent and queried", "resumable uploads don't work")
def core(site: Site) -> str:
    """See tus 1.0, core and creation: OPTIONS, POST, HEAD and PATCH."""
    tus, content = offered(site, "creation"), data_of(site)
    what, notes = "OPTIONS of the tus endpoint", []
    answer = site.call("OPTIONS", root_of(tus.endpoint))
    if tus.announced:
        answered(answer, what, 200, 204)
        header(answer, "Tus-Version", what, f"{TUS_VERSION} among others", lambda value: TUS_VERSION in value)
        listed = header(answer, "Tus-Extension", what, "the extensions", bool)
        found = sorted(item.strip().lower() for item in listed.split(","))
        same(found, sorted(tus.extensions), "Tus-Extension, and the extensions of the session answer")
    else:
        notes.append(f"OPTIONS is answered with {answer.status} and without Tus-Version: its extensions are unknown")
    url, creation = create(site, "tus", {"Upload-Length": str(len(content))})
    check_version(site, creation, "creating an upload")
    half = len(content) // 2
    head = head_of(site, url, "HEAD of a new upload")
    check_offset(head, 0, "HEAD of a new upload")
    same(head.headers.get("Upload-Length"), str(len(content)), "Upload-Length of a new upload")
    check_version(site, head, "HEAD of a new upload")
    header(head, "Cache-Control", "HEAD of an upload", "no-store", lambda value: "no-store" in value)
    what = "PATCH of the first half"
    check_version(site, append(site, url, 0, content[:half], what), what)
    answered(ask(site, "PATCH", url, {"Upload-Offset": "0"}, content[:half]), "PATCH at the wrong offset", 409)
    last = append(site, url, half, content[half:], "PATCH of the second half")
    finished = ask(site, "HEAD", url)
    if site.settings.tus_endpoint and finished.status in MISSING:
        notes.append(f"a finished upload is answered with {finished.status}")
    else:
        answered(finished, "HEAD of a finished upload", 200, 204)
        check_offset(finished, len(content), "the last PATCH")
    read_back(site, url, last, content)
    if not tus.terminates:  # else `tus-termination` asks for a deleted one
        answered(ask(site, "HEAD", unknown_upload(tus.endpoint)), "HEAD of an unknown upload", *MISSING)
    if "Tus-Resumable" not in creation.headers:
        notes.append("answers have no Tus-Resumable")
    return "; ".join(notes)


@after_core("tus-version", "tus: other versions are refused", "later clients get wrong answers", required=False)
def version(site: Site) -> None:
    """See tus 1.0, core: status 412."""
    answer = site.call("HEAD", site.once(halfway).url, headers={"Tus-Resumable": "0.0.1"})
    answered(answer, "a request of another version of tus", 412)


@after_core(
    "tus-resume", "tus: a cut upload resumes at its offset", "after a lost connection files restart, or are corrupted"
)
def resume(site: Site) -> str:
    """See tus 1.0, core: HEAD returns the offset after a cut PATCH, and the upload resumes there."""
    url, content = begun(site, "tus-resumed", removable=True)
    with cut_off("half a PATCH"):
        ask(site, "PATCH", url, {"Upload-Offset": "0"}, content, midway=cut)
    at, last = resumed(
        len(content),
        partial(head_of, site, url),
        lambda at: ask(site, "PATCH", url, {"Upload-Offset": str(at)}, content[at:]),
    )
    check_offset(answered(last, "PATCH of the rest after a cut", 204), len(content), "PATCH of the rest after a cut")
    read_back(site, url, last, content)
    return f"resumed at byte {at} of {len(content)}"


@after_core("tus-checksum", "tus: correct checksums are accepted", "clients with checksums can't upload")
def checksum(site: Site) -> str:
    """See tus 1.0, checksum: each offered algorithm."""
    algorithms = offered(site, "checksum").checksum_algorithms
    known = _known(algorithms)
    if "sha1" not in algorithms:
        got = ", ".join(sorted(algorithms)) or "none"
        raise Violation("the checksum algorithms that are offered", expected="sha1 among them", got=got)
    url, content = begun(site, "tus-checksum", removable=True)
    for name, (start, length) in zip(known, parts(len(content), len(known)), strict=False):
        piece = content[start : start + length]
        what = f"PATCH with a correct checksum ({name})"
        append(site, url, start, piece, what, {"Upload-Checksum": _checksum(name, piece)})
    return ", ".join(known)


@after_core(
    "tus-checksum-mismatch",
    "tus: a chunk with a wrong checksum is discarded",
    "checksums verify nothing: bytes that were corrupted on their way may be stored",
)
def checksum_mismatch(site: Site) -> str:
    """See tus 1.0, checksum: status 460, for the algorithm that uploads to tus endpoints use, if it is offered."""
    known = _known(offered(site, "checksum").checksum_algorithms)
    if not known:
        raise NotOffered("no checksum algorithm that is offered is known")
    name = next((one for one in OF_UPLOADS if one in known), known[0])
    upload = site.once(halfway)
    what = f"PATCH with a wrong checksum ({name})"
    headers = {"Upload-Offset": str(upload.at), "Upload-Checksum": _checksum(name, b"other bytes")}
    answer = ask(site, "PATCH", upload.url, headers, upload.rest[:-1] or upload.rest)  # others need it unfinished
    if answer.ok:
        raise Violation(what, expected="460", got=said(answer), corrupt=True)
    answered(answer, what, 460)
    check_offset(head_of(site, upload.url, f"HEAD after {what}"), upload.at, what)
    return name


def _known(algorithms: Collection[str]) -> list[str]:
    """Return the checksum algorithms that can be computed."""
    return [name for name in sorted(algorithms) if name == "crc32c" or name in hashlib.algorithms_available]


def _checksum(name: str, data: bytes) -> str:
    """Return the header with the checksum of `data`."""
    if name == "crc32c":
        return checksum_header(name, checksums.of(name, memoryview(data)))
    return checksum_header(name, hashlib.new(name, data, usedforsecurity=False).digest())


@after_core(
    "tus-creation-with-upload",
    "tus: a creation may carry the first bytes",
    "clients that rely on it lose the first bytes",
)
def creation_with_upload(site: Site) -> None:
    """See tus 1.0, creation-with-upload."""
    offered(site, "creation-with-upload")
    content = data_of(site)
    half = content[: len(content) // 2]
    what = "a creation with half of the bytes"
    url, answer = create(site, "tus-with-upload", {"Upload-Length": str(len(content))}, half)
    check_offset(answer, len(half), what)
    check_offset(head_of(site, url, f"HEAD after {what}"), len(half), what)


@after_core(
    "tus-creation-defer-length", "tus: the length may be sent later", "streams of unknown length can't be uploaded"
)
def defer_length(site: Site) -> None:
    """See tus 1.0, creation-defer-length."""
    offered(site, "creation-defer-length")
    content = data_of(site)
    length = {"Upload-Length": str(len(content))}
    url, _ = create(site, "tus-deferred", {"Upload-Defer-Length": "1"})
    head = head_of(site, url, "HEAD of an upload without a length")
    same(head.headers.get("Upload-Defer-Length"), "1", "Upload-Defer-Length of an upload without a length")
    append(site, url, 0, content[: len(content) // 2], "PATCH with the length", length)
    head = head_of(site, url, "HEAD after the length was sent")
    same(head.headers.get("Upload-Length"), str(len(content)), "Upload-Length after it was sent")


@after_core(
    "tus-expiration",
    "tus: unfinished uploads report their expiry",
    "clients resume uploads that have expired",
    required=False,
)
def expiration(site: Site) -> str:
    """See tus 1.0, expiration."""
    offered(site, "expiration")
    answer = site.once(halfway).answer
    what = "a PATCH of an unfinished upload"
    when = header(answer, "Upload-Expires", what, "a date (RFC 9110)", lambda value: parse_http_date(value) is not None)
    left = (parse_http_date(when) or 0.0) - time.time()
    if left <= 0:
        raise Violation(f"Upload-Expires in the answer to {what}", expected="a time in the future", got=when)
    return f"in {left / 3600:,.0f} h"


@after_core("tus-termination", "tus: an upload can be deleted", "abandoned uploads stay until they expire")
def termination(site: Site) -> None:
    """See tus 1.0, termination."""
    offered(site, "termination")
    url = site.once(halfway).url
    answered(ask(site, "DELETE", url), "DELETE of an unfinished upload", 204)
    answered(ask(site, "HEAD", url), "HEAD of a deleted upload", *MISSING)
    site.uploads.discard(url)


@after_core("tus-concatenation", "tus: partial uploads are joined", "large files sent in parts don't arrive")
def concatenation(site: Site) -> str:
    """See tus 1.0, concatenation: two partial uploads."""
    offered(site, "concatenation")
    content = data_of(site)
    half = len(content) // 2
    urls = []
    for number, piece in enumerate((content[:half], content[half:])):
        partial = {"Upload-Concat": "partial", "Upload-Length": str(len(piece))}
        url, _ = create(site, f"tus-part-{number}", partial, removable=True)
        append(site, url, 0, piece, "PATCH of a partial upload")
        urls.append(url)
    what = "joining two partial uploads"
    final, answer = create(site, "tus-joined", {"Upload-Concat": "final;" + " ".join(urls)}, removable=True)
    head = head_of(site, final, f"HEAD after {what}")
    same(head.headers.get("Upload-Length"), str(len(content)), f"Upload-Length after {what}")
    refusal = ask(site, "PATCH", final, {"Upload-Offset": str(len(content))}, b"more")
    answered(refusal, "PATCH of a joined upload", 403, *OTHER_REFUSALS)
    read_back(site, final, answer, content)
    site.uploads.difference_update(urls)
    return "" if refusal.status == 403 else f"PATCH of a joined upload is refused with {refusal.status}, not 403"
