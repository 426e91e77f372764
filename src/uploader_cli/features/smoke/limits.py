"""Checks of limits, file names and permissions, and of the clean-up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from uploader_cli.core.protocol import NOBODY, location_in, parse_batch, whole
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks import body_limit as limit
from uploader_cli.features.checks.check import (
    Finding,
    NotOffered,
    Prevented,
    Verdict,
    Violation,
    check,
    precondition,
    skipped,
    warning,
)
from uploader_cli.features.smoke.basics import stored_one
from uploader_cli.features.smoke.expect import answered, quoted, refused, refused_cleanly
from uploader_cli.features.smoke.sending import ask_for_session, file_of, open_session, send, terms
from uploader_cli.features.smoke.site import Site
from uploader_cli.features.smoke.tus_requests import ask, created
from uploader_cli.render.words import plural, size
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.bodies import content_type

FEW_FILES = 20  # maximum files sent to exceed the limit of files
SMALL_LIMIT = 1 << 20  # maximum bytes sent to exceed the limit of bytes
LEAST_ANSWERS = 3  # minimum responses needed to check the rate limit
UP = "../../../"
ELSEWHERE = "..%2f" * 8 + "etc%2fpasswd"
"""A file on every Unix, relative to `/uploads/{category}/`; clients don't normalize escaped slashes."""
NO_TOKEN = "files can't be deleted without a token: set one with --token-file"  # noqa: S105 - a sentence
_ESCAPES = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:[/\\]")


@check("body-limit", "requests as large as a chunk reach the server", "large files need many requests, or fail")
def body_limit(site: Site) -> Finding | str:
    """Announce a chunk for an unknown upload, or without tus a batch: a proxy may refuse it by its head."""
    _, limits, tus = site.once(terms)
    ask = partial(site.call, may_refuse=True)
    found = limit.find(ask, tus, most=tus.max_size if tus is not None else limits.max_file_size)
    if not found.refused:
        return f"{size(found.passes)} pass"
    got = "413 of a proxy, by the head" + (f"; {size(found.passes)} pass" if found.passes else "")
    what, expected = f"a request of {size(found.refused)}", "its body is read"
    return Finding(Verdict.FAIL, what, f"{limit.FIX}.", Exit.FAILED_FOR_GOOD, expected, got)


@check("limit-type", "a type that is not allowed is refused", "unusable files are stored")
def limit_type(site: Site) -> None:
    """See docs/protocol.md section 1."""
    allowed = site.once(terms).limits.allowed_types
    if "*" in allowed:
        raise NotOffered("every type is allowed")
    wrong = next((ending for ending in ("exe", "txt", "iso") if ending not in allowed), "smoke")
    _refused(site, [file_of(site, "wrong-type", kind=wrong)], f"a .{wrong} file")


@check("limit-size", "a file that is too large is refused", "one file can fill the disk")
def limit_size(site: Site) -> None:
    """See docs/protocol.md section 1: by `validate`, by tus, and if the limit is small, by a batch."""
    most, tus = site.once(terms).limits.max_file_size, site.once(terms).tus
    name, _ = file_of(site, "too-large")
    file = {"name": name, "size": most + 1, "type": content_type(name)}
    answer = site.call("POST", "/api/upload/validate", json={"files": [file]})
    if answer.status not in (404, 405):
        refused(answer, "validating a file of one byte too many", 400, "VALIDATION_ERROR")
    elif most >= SMALL_LIMIT and (tus is None or tus.max_size is None):
        raise NotOffered("files can't be validated, and the limit is too large to be tested by an upload")
    if tus is not None and tus.max_size is not None:
        _, answer = created(site, name, {"Upload-Length": str(tus.max_size + 1)})
        with precondition("tus-core"):
            answered(answer, "a tus upload of one byte more than maxSize", 413)
    if most < SMALL_LIMIT:
        _refused(site, [(name, bytes(most + 1))], "a file of one byte too many")


@check("limit-count", "too many files are refused", "sessions exceed the server's capacity")
def limit_count(site: Site) -> None:
    """See docs/protocol.md section 1: `maxFiles` + 1 when announced, and if they are few, when sent."""
    count = site.once(terms).limits.max_files + 1
    refused(ask_for_session(site, expectedFiles=count), f"a session for {count} files", 400, "INVALID_CATEGORY")
    if count <= FEW_FILES:
        _refused(site, [file_of(site, f"too-many-{number}") for number in range(count)], f"a batch of {count} files")


def _refused(site: Site, files: Sequence[tuple[str, bytes]], what: str) -> None:
    refused_cleanly(send(site, site.once(open_session), files), what)
    answered(site.call("GET", "/health"), f"GET /health after {what}", 200)


@check(
    "path-traversal",
    "no file name escapes the upload directory",
    "anybody who uploads may read or overwrite other files",
)
def path_traversal(site: Site) -> None:
    """Send names with `../` in batches, by tus and in paths under `/uploads/`."""
    found = site.read(f"/uploads/{site.settings.category}/{ELSEWHERE}")
    if found is not None and b"root:" in found:
        raise Violation(f"GET /uploads/…/{ELSEWHERE}", expected="404", got="a file of the system")
    stored_one(site)
    name, content = file_of(site, "up")
    _judge(site, send(site, open_session(site), [(UP + name, content)]), f"a file named {UP}…")
    if site.once(terms).limits.relative_paths:
        answer = send(site, open_session(site), [(name, content)], paths=[UP + name])
        _judge(site, answer, f"a file with the relativePath {UP}…")
    if site.once(terms).tus is None:
        return
    what = f"a tus upload named {UP}…"
    url, answer = created(site, UP + name, {"Upload-Length": str(len(content))}, relativePath=UP + name)
    if not url:
        with precondition("tus-core"):
            refused_cleanly(answer, what)
        return
    last = ask(site, "PATCH", url, {"Upload-Offset": "0"}, content)
    if last.ok:
        _is_harmless(last.headers.get("Content-Location", ""), what, "/uploads/")


def _judge(site: Site, answer: Answer, what: str) -> None:
    """Check that the file is refused, fails, or is stored under a safe name."""
    if not answer.ok:
        refused_cleanly(answer, what)
        return
    for file in parse_batch(answer.body) or ():
        if file.status == "completed":
            _is_harmless(file.location or "", what)
            _is_harmless(file.relative_path or "", what)
            path = location_in(site.settings.category, file.location or "")
            answered(site.call("HEAD", path), f"HEAD of the stored path of {what}", 200)


def _is_harmless(name: str, what: str, prefix: str = "") -> None:
    if _ESCAPES.search(name.removeprefix(prefix)):
        raise Violation(what, expected="a refusal, or a harmless name", got=f"stored as {quoted(name)}")


@check("auth", "files are deleted only with a valid token", "files can be deleted without a token, or not at all")
def auth(site: Site) -> Finding | str:
    """See docs/protocol.md section 1: `DELETE` without a token, with an invalid one, and with ours."""
    if site.own_authorization:
        return skipped("--header sets Authorization for all requests: use a token instead")
    try:
        stored = stored_one(site)
    except Prevented:
        stored = None
    target = f"/api/upload/file/{stored.server_id if stored is not None else NOBODY}"
    without = site.call("DELETE", target, token=None)
    if without.status in (405, 501) or (without.status, stored) == (404, None):
        raise NotOffered(f"there is no DELETE of files ({without.status})")
    refused(without, "DELETE of a file without a token", 401, "UNAUTHORIZED")
    bad = site.call("DELETE", target, token="uploader-smoke.is-no.token")  # noqa: S106 - invalid on purpose
    refused(bad, "DELETE of a file with a bad token", 401, "INVALID_TOKEN")
    if stored is not None:
        path = location_in(site.settings.category, stored.location or "")
        answered(site.call("HEAD", path), "HEAD of a file after DELETE was refused", 200)
    if not site.token:
        return "no token was given: a valid one was not tested"
    unknown = site.call("DELETE", f"/api/upload/file/{NOBODY}")
    refused(unknown, "DELETE of an unknown file, with the token", 404, "FILE_NOT_FOUND")
    return ""


@check("rate-limit", "requests are counted, and responses report it", "clients run into 429 instead of waiting in time")
def rate_limit(site: Site) -> Finding | str:
    """See docs/protocol.md section 3.11: `X-RateLimit-*` on every counted response so far."""
    while sum(headers is not None for headers in site.meter) < LEAST_ANSWERS:
        site.call("GET", f"/api/upload/progress/{NOBODY}")
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    seen = [[headers.get(name) for name in names] for headers in site.meter if headers is not None]
    if not any(map(any, seen)):
        raise NotOffered("the server has no rate limit: no response has X-RateLimit headers")
    for name, value in (pair for values in seen for pair in zip(names, values, strict=True)):
        if whole(value) is None:
            got = "no such header" if value is None else quoted(value)
            raise Violation(f"{name} on every answer of /api", expected="a whole number", got=got)
    for (_, before, old_reset), (_, after, reset) in pairwise(seen):
        rise = (whole(after) or 0) - (whole(before) or 0)
        if rise == 0 or (rise > 0 and reset == old_reset):  # another reset: the window restarted
            got = f"{after} after {before}"
            raise Violation("X-RateLimit-Remaining after another call", expected="less than before", got=got)
    most, left, _ = seen[-1]
    if (whole(left) or 0) > (whole(most) or 0):
        return warning(f"{left} calls remain of {most}")
    return f"{left} of {most} calls left"


@check("clean-up", "what the checks created can be deleted", "files uploaded by mistake stay")
def clean_up(site: Site) -> Finding | str:
    """See docs/protocol.md section 1 (cancel, `DELETE`) and tus 1.0 (termination)."""
    paths, uploads = list(site.files.values()), len(site.uploads)
    site.sweep()
    if site.undeleted:
        got = "; ".join(site.undeleted[:3])
        raise Violation("deleting what the checks created", expected="everything deleted", got=got)
    if site.unowned:
        return skipped("the server can't delete uploads" if site.settings.tus_endpoint else NO_TOKEN)
    for path in filter(None, paths):
        answered(site.call("HEAD", path), "HEAD of a file that was deleted", 404, 410)
    if site.settings.tus_endpoint:
        return f"{plural(uploads, 'upload')} removed"
    return f"{plural(len(paths), 'file')} removed"
