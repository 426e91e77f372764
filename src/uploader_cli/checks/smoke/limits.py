"""Checks that files over a limit or of a wrong type are refused with a 4xx and an error code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.assertions import answered, refused, refused_cleanly, said
from uploader_cli.checks.smoke.resumable import created
from uploader_cli.checks.smoke.sending import ask_for_session, file_of, open_session, send, terms
from uploader_cli.checks.smoke.verdicts import NotOffered, Prevented, Violation
from uploader_cli.transfer.bodies import content_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.checks.smoke.site import Site

FEW_FILES = 20
"""Maximum files sent to exceed the limit of files."""
SMALL = 1 << 20
"""Maximum bytes sent to exceed the limit of bytes."""


def limit_type(site: Site) -> str:
    """Check that a file of a type that is not allowed is refused."""
    allowed = site.once(terms).limits.allowed_types
    if "*" in allowed:
        raise NotOffered("every type is allowed")
    wrong = next((ending for ending in ("exe", "txt", "iso") if ending not in allowed), "smoke")
    _refused(site, [file_of(site, "wrong-type", kind=wrong)], f"a .{wrong} file")
    return ""


def limit_size(site: Site) -> str:
    """Check that a file of `maxFileSize` + 1 is refused by `validate`, and if the limit is small, by an upload."""
    limits = site.once(terms).limits
    name, _ = file_of(site, "too-large")
    file = {"name": name, "size": limits.max_file_size + 1, "type": content_type(name)}
    answer = site.call("POST", "/api/upload/validate", json={"files": [file]})
    tus = site.once(terms).tus
    small = limits.max_file_size < SMALL
    if answer.status in (404, 405) and not small and (tus is None or tus.max_size is None):
        raise NotOffered("files can't be validated, and the limit is too large to be tested by an upload")
    if answer.status not in (404, 405):
        refused(answer, "validating a file of one byte too many", (400, "VALIDATION_ERROR"))
    if tus is not None and tus.max_size is not None:
        _tus_refused(site, name, tus.max_size + 1)
    if small:
        _refused(site, [(name, bytes(limits.max_file_size + 1))], "a file of one byte too many")
    return ""


def _tus_refused(site: Site, name: str, size: int) -> None:
    _, answer = created(site, name, {"Upload-Length": str(size)})
    try:
        answered(answer, "a tus upload of one byte more than maxSize", 413)
    except Violation as violation:
        raise Prevented(str(violation), "tus-core") from violation


def limit_count(site: Site) -> str:
    """Check that `maxFiles` + 1 files are refused: when announced, and if they are few, when sent."""
    limits = site.once(terms).limits
    count = limits.max_files + 1
    refused(ask_for_session(site, expectedFiles=count), f"a session for {count} files", (400, "INVALID_CATEGORY"))
    if count <= FEW_FILES:
        _refused(site, [file_of(site, f"too-many-{number}") for number in range(count)], f"a batch of {count} files")
    return ""


def spare_session(site: Site) -> str:
    """Create a session for uploads that will be refused. Use with `once`."""
    return open_session(site)


def _refused(site: Site, files: Sequence[tuple[str, bytes]], what: str) -> None:
    answer = send(site, site.once(spare_session), files)
    if answer.ok:
        raise Violation(what, expected="a refusal (4xx) with an error code", got=said(answer))
    refused_cleanly(answer, what)
    answered(site.call("GET", "/health"), f"GET /health after {what}", 200)
