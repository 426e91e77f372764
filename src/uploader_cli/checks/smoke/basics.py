"""Checks of requests without file data: health, sessions, validation, unknown IDs, the rate limit."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.assertions import answered, quoted, refused, said, same, shaped
from uploader_cli.checks.smoke.sending import ask_for_session, first_answer, send, terms
from uploader_cli.checks.smoke.site import NOBODY
from uploader_cli.checks.smoke.verdicts import Doubtful, NotOffered, Violation
from uploader_cli.core.protocol import whole
from uploader_cli.render.words import plural, size
from uploader_cli.transfer.bodies import content_type

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Metered, Site

FEW = 3
"""Minimum responses needed to check the rate limit."""


def health(site: Site) -> str:
    """Check `GET /health` (docs/protocol.md section 1)."""
    answer = answered(site.call("GET", "/health"), "GET /health", 200)
    fields = {"status": "text", "timestamp": "time", "uptime": "number", "memory": "object"}
    body = shaped(answer.body, "the answer of /health", fields)
    same(body["status"], "OK", "status in the answer of /health")
    return ""


def session(site: Site) -> str:
    """Check `POST /api/upload/session` (docs/protocol.md section 1)."""
    answer = answered(site.once(first_answer), "opening a session", 201)
    fields = {
        "sessionId": "text",
        "category": "text",
        "uploadPath": "text",
        "maxFiles": "some",
        "allowedTypes": "list",
        "maxFileSize": "some",
        "createdAt": "time",
        "timestamp": "time",
    }
    body = shaped(answer.body, "the session answer", fields)
    same(body["category"], site.settings.category, "category in the session answer")
    limits = site.once(terms).limits
    return f"{plural(limits.max_files, 'file')} of {size(limits.max_file_size)} at most"


def session_bad_input(site: Site) -> str:
    """Check that invalid values for a session are refused with `INVALID_CATEGORY` (docs/protocol.md section 1)."""
    bad: dict[str, dict[str, object]] = {
        "a session of an unknown category": {"category": "uploader-smoke"},
        "a session for 0 files": {"expectedFiles": 0},
        "a session for half a file": {"expectedFiles": 0.5},
        "a session without a category": {"category": None},
        "a session with an unknown key": {"uploaderSmoke": True},
    }
    for what, asked in bad.items():
        refused(ask_for_session(site, **asked), what, (400, "INVALID_CATEGORY"))
    return ""


def validate(site: Site) -> str:
    """Check `POST /api/upload/validate` with a valid and an empty file (docs/protocol.md section 1)."""
    limits = site.once(terms).limits
    ending = "mp4" if limits.allowed_types & {"*", "mp4"} else min(limits.allowed_types)
    name = f"a.{ending}"
    good = {"name": name, "size": 1, "type": content_type(name)}
    answer = answered(site.call("POST", "/api/upload/validate", json={"files": [good]}), "validating a good file", 200)
    body = shaped(answer.body, "the validation", {"valid": "true", "files": "list", "timestamp": "time"})
    listed = body["files"]
    one = listed[0] if isinstance(listed, list) and len(listed) == 1 else None
    file = shaped(one, "the validation of the one file", {"index": "count", "valid": "true", "errors": "list"})
    same((file["index"], file["errors"]), (0, []), "index and errors in the validation of a good file")
    empty = site.call("POST", "/api/upload/validate", json={"files": [{**good, "size": 0}]})
    shaped(
        refused(empty, "validating an empty file", (400, "VALIDATION_ERROR")),
        "the refusal of an empty file",
        {"details": "list"},
    )
    return ""


def unknown_session(site: Site) -> str:
    """Check that unknown IDs are refused (docs/protocol.md sections 1 and 3.14)."""
    wanted = (404, "SESSION_NOT_FOUND")
    refused(site.call("GET", f"/api/upload/progress/{NOBODY}"), "the progress of an unknown session", wanted)
    refused(site.call("POST", f"/api/upload/cancel/{NOBODY}"), "cancelling an unknown session", wanted)
    answer = send(site, NOBODY, [("uploader-smoke-nobody.mp4", b"to nobody")])
    if answer.status < 400:
        raise Violation(
            "a batch for an unknown session", expected="a refusal: 404, or 500 UPLOAD_FAILED", got=said(answer)
        )
    if answer.status == 500:
        refused(answer, "a batch for an unknown session", (500, "UPLOAD_FAILED"))
    return ""


def rate_limit(site: Site) -> str:
    """Check `X-RateLimit-*` on every counted response so far (docs/protocol.md section 3.11)."""
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
    _falls(seen)
    most, left = seen[-1].limit, seen[-1].remaining
    if (whole(left) or 0) > (whole(most) or 0):
        raise Doubtful(f"{left} calls remain of {most}")
    return f"{left} of {most} calls left"


def _falls(seen: list[Metered]) -> None:
    """Check that each request lowers the remaining number, until the window restarts."""
    for before, after in pairwise(seen):
        restarted = after.reset != before.reset and (whole(after.remaining) or 0) > (whole(before.remaining) or 0)
        if not restarted and (whole(after.remaining) or 0) >= (whole(before.remaining) or 0):
            got = f"{after.remaining} after {before.remaining}"
            raise Violation("X-RateLimit-Remaining after another call", expected="less than before", got=got)
