"""Checks of resumable uploads: the core of tus 1.0, resuming after a cut, and checksums."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.assertions import answered, header, said, same, same_bytes
from uploader_cli.checks.smoke.made import StoredThing
from uploader_cli.checks.smoke.payload import CutOff, Payload
from uploader_cli.checks.smoke.sending import SIZE, file_of, open_session, terms
from uploader_cli.checks.smoke.site import NOBODY
from uploader_cli.checks.smoke.verdicts import NotOffered, Violation
from uploader_cli.core.tus import VERSION, encode_metadata, parts, place
from uploader_cli.core.tus import checksum_header as checksum_of
from uploader_cli.transfer.bodies import content_type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.core.tus import Capabilities
    from uploader_cli.transfer.http import Answer

GONE = (403, 404, 410)
"""Statuses for an upload that does not exist (tus 1.0, HEAD)."""
MOST_IN_A_SESSION = 20
ARRIVAL = 0.2
"""Seconds for half a body to arrive before it is cut, so that there is something to resume."""


def offered(site: Site, extension: str = "") -> Capabilities:
    """Return the tus capabilities. Raises `NotOffered` without tus, or without the extension."""
    tus = site.once(terms).tus
    if tus is None:
        raise NotOffered("the session response has no tus endpoint")
    if extension and extension not in tus.extensions:
        raise NotOffered(f"{extension} is not among the tus extensions")
    return tus


def data(site: Site) -> bytes:
    """Return random content."""
    return os.urandom(max(2, min(SIZE, site.once(terms).limits.max_file_size)))


class _Sessions:
    """Provides sessions for uploads, each used completely, to create as few as possible."""

    def __init__(self, site: Site) -> None:
        self._site, self._session, self._free = site, "", 0

    def session(self) -> str:
        """Return a session with space for another upload."""
        if not self._free:
            self._free = min(self._site.once(terms).limits.max_files, MOST_IN_A_SESSION)
            self._session = open_session(self._site, self._free)
        return self._session

    def use(self) -> None:
        """Count an upload; refused ones, and parts of a file, don't count."""
        self._free -= 1


def ask(
    site: Site,
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    *,
    midway: Callable[[], None] | None = None,
) -> Answer:
    """Send a tus request, and record what it created or completed."""
    answer = site.call(
        method,
        url,
        headers={"Tus-Resumable": VERSION, **(headers or {})},
        body=None if body is None else Payload(body, midway=midway),
        may_refuse=True,
        leaves=method == "POST",
    )
    stored = answer.headers.get("Upload-File-Id")
    if answer.ok and stored and method in ("POST", "PATCH"):
        site.made.uploads.discard(url)
        where = answer.headers.get("Content-Location", "")
        site.made.files.append(StoredThing(stored, where if where.startswith("/") else ""))
    return answer


def create(
    site: Site,
    label: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> tuple[str, Answer]:
    """Create an upload, which must succeed; return its URL and the response."""
    url, answer = created(site, file_of(site, label)[0], headers, body=body)
    if not url:
        raise Violation("creating an upload", expected="201 with a Location on this server", got=said(answer))
    return url, answer


def created(
    site: Site,
    name: str,
    headers: Mapping[str, str],
    extra: Mapping[str, str] | None = None,
    *,
    body: bytes | None = None,
) -> tuple[str, Answer]:
    """Try to create an upload, with `extra` metadata; return its URL, empty on failure, and the response."""
    sessions = site.once(_Sessions)
    metadata = {
        "filename": name,
        "filetype": content_type(name),
        "sessionId": sessions.session(),
        **(extra or {}),
    }
    endpoint = offered(site).endpoint
    answer = ask(site, "POST", endpoint, {"Upload-Metadata": encode_metadata(metadata), **headers}, body)
    location = answer.headers.get("Location")
    if answer.status != 201 or not location:
        return "", answer
    try:
        url = place(answer.url, location)
    except ValueError:
        return "", answer
    if headers.get("Upload-Concat") != "partial":
        sessions.use()
    if not answer.headers.get("Upload-File-Id"):
        site.made.uploads.add(url)
    return url, answer


def offset(answer: Answer, expected: int, what: str) -> None:
    """Check `Upload-Offset`."""
    value = header(answer, "Upload-Offset", what, str(expected), str.isdecimal)
    same(int(value), expected, f"Upload-Offset after {what}")


def append(site: Site, url: str, at: int, body: bytes, what: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a `PATCH`, which must succeed."""
    answer = answered(ask(site, "PATCH", url, {"Upload-Offset": str(at), **(headers or {})}, body), what, 204)
    offset(answer, at + len(body), what)
    return answer


@dataclass(frozen=True, slots=True)
class Halfway:
    """A half-finished upload: `answer` is the response to its `PATCH`, `rest` the remaining bytes."""

    url: str
    answer: Answer
    at: int
    rest: bytes


def halfway(site: Site) -> Halfway:
    """Create an upload that several checks share, to save requests. Use with `once`."""
    content = data(site)
    half = len(content) // 2
    url, _ = create(site, "tus-halfway", {"Upload-Length": str(len(content))})
    return Halfway(url, append(site, url, 0, content[:half], "PATCH of the first half"), half, content[half:])


def read_back(site: Site, answer: Answer, sent: bytes) -> None:
    """Check the stored bytes, if the response to the last `PATCH` has their path."""
    path = answer.headers.get("Content-Location", "")
    if path.startswith("/"):
        same_bytes(site.read(path), sent, "the file uploaded by tus, read back")


def core(site: Site) -> str:
    """Check OPTIONS, POST, HEAD and PATCH (tus 1.0, core and creation)."""
    endpoint, content = offered(site, "creation").endpoint, data(site)
    _options(site, endpoint)
    url, creation = create(site, "tus", {"Upload-Length": str(len(content))})
    _speaks_tus(creation, "creating an upload")
    half = len(content) // 2
    head = answered(ask(site, "HEAD", url), "HEAD of a new upload", 200, 204)
    offset(head, 0, "HEAD of a new upload")
    same(head.headers.get("Upload-Length"), str(len(content)), "Upload-Length of a new upload")
    _speaks_tus(head, "HEAD of a new upload")
    header(head, "Cache-Control", "HEAD of an upload", "no-store", lambda value: "no-store" in value)
    _speaks_tus(append(site, url, 0, content[:half], "PATCH of the first half"), "PATCH of the first half")
    answered(ask(site, "PATCH", url, {"Upload-Offset": "0"}, content[:half]), "PATCH at the wrong offset", 409)
    wrong = site.call("HEAD", url, headers={"Tus-Resumable": "0.0.1"})
    answered(wrong, "a request of another version of tus", 412)
    last = append(site, url, half, content[half:], "PATCH of the second half")
    offset(answered(ask(site, "HEAD", url), "HEAD of a finished upload", 200, 204), len(content), "the last PATCH")
    read_back(site, last, content)
    answered(ask(site, "HEAD", f"{endpoint.rstrip('/')}/{NOBODY}"), "HEAD of an unknown upload", *GONE)
    return ""


def _speaks_tus(answer: Answer, what: str) -> None:
    """Check the version, which every response except that to OPTIONS must have."""
    header(answer, "Tus-Resumable", what, VERSION, lambda value: value == VERSION)


def _options(site: Site, endpoint: str) -> None:
    answer = answered(site.call("OPTIONS", endpoint), "OPTIONS of the tus endpoint", 200, 204)
    what = "OPTIONS of the tus endpoint"
    header(answer, "Tus-Version", what, f"{VERSION} among others", lambda value: VERSION in value)
    listed = header(answer, "Tus-Extension", what, "the extensions", bool)
    same(
        sorted(item.strip().lower() for item in listed.split(",")),
        sorted(offered(site).extensions),
        "Tus-Extension, and the extensions of the session answer",
    )


def resume(site: Site) -> str:
    """Check that HEAD returns the offset after a cut PATCH and that the upload resumes there (tus 1.0, core)."""
    offered(site)
    content = data(site)
    url, _ = create(site, "tus-resumed", {"Upload-Length": str(len(content))})

    def cut() -> None:
        time.sleep(ARRIVAL)
        raise CutOff

    try:
        ask(site, "PATCH", url, {"Upload-Offset": "0"}, content, midway=cut)
    except CutOff:
        pass
    else:
        raise Violation("half a PATCH", expected="no response before the end of the body", got="a response")
    what = "HEAD after a PATCH that was cut"
    head = answered(ask(site, "HEAD", url), what, 200, 204)
    at = int(header(head, "Upload-Offset", what, "what has arrived", str.isdecimal))
    if at > len(content) // 2:
        raise Violation(what, expected=f"an offset of {len(content) // 2} at most", got=str(at))
    last = append(site, url, at, content[at:], "PATCH of the rest after a cut")
    read_back(site, last, content)
    return f"resumed at byte {at} of {len(content)}"


def checksum(site: Site) -> str:
    """Check a correct `Upload-Checksum` of each offered algorithm (tus 1.0, checksum)."""
    tus = offered(site, "checksum")
    known = [name for name in sorted(tus.checksum_algorithms) if name in hashlib.algorithms_available]
    if "sha1" not in tus.checksum_algorithms:
        got = ", ".join(sorted(tus.checksum_algorithms)) or "none"
        raise Violation("the checksum algorithms that are offered", expected="sha1 among them", got=got)
    content = data(site)
    url, _ = create(site, "tus-checksum", {"Upload-Length": str(len(content))})
    for name, (start, length) in zip(known, parts(len(content), len(known)), strict=False):
        piece = content[start : start + length]
        digest = hashlib.new(name, piece, usedforsecurity=False).digest()
        what = f"PATCH with a correct checksum ({name})"
        append(site, url, start, piece, what, {"Upload-Checksum": checksum_of(name, digest)})
    return ", ".join(known)


def checksum_mismatch(site: Site) -> str:
    """Check that a wrong `Upload-Checksum` gives 460 and the chunk is discarded (tus 1.0, checksum)."""
    offered(site, "checksum")
    upload = site.once(halfway)
    wrong = checksum_of("sha1", hashlib.sha1(b"other bytes", usedforsecurity=False).digest())
    what = "PATCH with a wrong checksum"
    headers = {"Upload-Offset": str(upload.at), "Upload-Checksum": wrong}
    answer = ask(site, "PATCH", upload.url, headers, upload.rest[:-1] or upload.rest)  # others need it unfinished
    if answer.ok:
        raise Violation(what, expected="460", got=said(answer), corrupt=True)
    answered(answer, what, 460)
    offset(answered(ask(site, "HEAD", upload.url), f"HEAD after {what}", 200, 204), upload.at, what)
    return ""
