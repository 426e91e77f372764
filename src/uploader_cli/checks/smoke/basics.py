"""Checks of requests without file data: health, sessions, validation, unknown IDs, the rate limit."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from uploader_cli.checks.result import Finding, Verdict, check
from uploader_cli.checks.smoke.expect import NotOffered, Violation, answered, quoted, refused, said, same, shaped
from uploader_cli.checks.smoke.sending import ask_for_session, first_answer, send, terms
from uploader_cli.checks.target import NOBODY
from uploader_cli.core.protocol import whole
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import plural, size
from uploader_cli.transfer.bodies import content_type

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Site

FEW = 3
"""Minimum responses needed to check the rate limit."""


@check("health", "GET /health returns OK", "monitoring and `uploader doctor` report the server as down")
def health(site: Site) -> None:
    """See docs/protocol.md section 1."""
    answer = answered(site.call("GET", "/health"), "GET /health", 200)
    what = "the answer of /health"
    body = shaped(answer.body, what, status="text", timestamp="time", uptime="number", memory="object")
    same(body["status"], "OK", f"status in {what}")


@check("session", "a session is created, with its limits", "no upload is possible")
def session(site: Site) -> str:
    """See docs/protocol.md section 1."""
    body = shaped(
        answered(site.once(first_answer), "opening a session", 201).body,
        "the session answer",
        sessionId="text",
        category="text",
        uploadPath="text",
        maxFiles="some",
        allowedTypes="list",
        maxFileSize="some",
        createdAt="time",
        timestamp="time",
    )
    same(body["category"], site.settings.category, "category in the session answer")
    limits = site.once(terms).limits
    return f"{plural(limits.max_files, 'file')} of {size(limits.max_file_size)} at most"


@check(
    "session-bad-input",
    "invalid values for a session are refused",
    "mistakes are noticed only after files were sent",
)
def session_bad_input(site: Site) -> None:
    """See docs/protocol.md section 1 (`INVALID_CATEGORY`)."""
    bad: dict[str, dict[str, object]] = {
        "a session of an unknown category": {"category": "uploader-smoke"},
        "a session for 0 files": {"expectedFiles": 0},
        "a session for half a file": {"expectedFiles": 0.5},
        "a session without a category": {"category": None},
        "a session with an unknown key": {"uploaderSmoke": True},
    }
    for what, asked in bad.items():
        refused(ask_for_session(site, **asked), what, 400, "INVALID_CATEGORY")


@check(
    "validate",
    "files can be validated before they are sent",
    "`uploader validate` gives wrong results, or none",
    required=False,
)
def validate(site: Site) -> None:
    """See docs/protocol.md section 1: a valid file, and an empty one."""
    limits = site.once(terms).limits
    ending = "mp4" if limits.allowed_types & {"*", "mp4"} else min(limits.allowed_types)
    name = f"a.{ending}"
    good = {"name": name, "size": 1, "type": content_type(name)}
    answer = answered(site.call("POST", "/api/upload/validate", json={"files": [good]}), "validating a good file", 200)
    body = shaped(answer.body, "the validation", valid="true", files="list", timestamp="time")
    listed = body["files"]
    one = listed[0] if isinstance(listed, list) and len(listed) == 1 else None
    file = shaped(one, "the validation of the one file", index="count", valid="true", errors="list")
    same((file["index"], file["errors"]), (0, []), "index and errors in the validation of a good file")
    empty = site.call("POST", "/api/upload/validate", json={"files": [{**good, "size": 0}]})
    details = refused(empty, "validating an empty file", 400, "VALIDATION_ERROR")
    shaped(details, "the refusal of an empty file", details="list")


@check("unknown-session", "unknown sessions are refused", "lost sessions go unnoticed")
def unknown_session(site: Site) -> None:
    """See docs/protocol.md sections 1 and 3.14."""
    for method, call, what in (
        ("GET", "progress", "the progress of an unknown session"),
        ("POST", "cancel", "cancelling an unknown session"),
    ):
        refused(site.call(method, f"/api/upload/{call}/{NOBODY}"), what, 404, "SESSION_NOT_FOUND")
    answer, what = send(site, NOBODY, [("uploader-smoke-nobody.mp4", b"to nobody")]), "a batch for an unknown session"
    if answer.status < 400:
        raise Violation(what, expected="a refusal: 404, or 500 UPLOAD_FAILED", got=said(answer))
    if answer.status == 500:
        refused(answer, what, 500, "UPLOAD_FAILED")


@check("rate-limit", "requests are counted, and responses report it", "clients run into 429 instead of waiting in time")
def rate_limit(site: Site) -> Finding | str:
    """See docs/protocol.md section 3.11: `X-RateLimit-*` on every counted response so far."""
    while sum(seen is not None for seen in site.meter) < FEW:
        site.call("GET", f"/api/upload/progress/{NOBODY}")
    seen = [metered for metered in site.meter if metered is not None]
    if not any(any(metered) for metered in seen):
        raise NotOffered("the server has no rate limit: no response has X-RateLimit headers")
    for metered in seen:
        for name, value in zip(("Limit", "Remaining", "Reset"), metered, strict=True):
            if whole(value) is None:
                got = "no such header" if value is None else quoted(value)
                raise Violation(f"X-RateLimit-{name} on every answer of /api", expected="a whole number", got=got)
    for before, after in pairwise(seen):
        rise = (whole(after.remaining) or 0) - (whole(before.remaining) or 0)
        if rise == 0 or (rise > 0 and after.reset == before.reset):  # another reset: the window restarted
            got = f"{after.remaining} after {before.remaining}"
            raise Violation("X-RateLimit-Remaining after another call", expected="less than before", got=got)
    most, left = seen[-1].limit, seen[-1].remaining
    if (whole(left) or 0) > (whole(most) or 0):
        return Finding(Verdict.WARNING, f"{left} calls remain of {most}", exit=Exit.FAILED_FOR_GOOD)
    return f"{left} of {most} calls left"
