"""Checks of requests without file data: health, sessions, validation, unknown IDs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_cli.checks.result import check
from uploader_cli.checks.smoke.expect import Violation, answered, refused, said, same, shaped
from uploader_cli.checks.smoke.sending import ask_for_session, first_answer, send, terms
from uploader_cli.checks.target import NOBODY
from uploader_cli.render.words import plural, size
from uploader_cli.transfer.bodies import content_type

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Site


@check("health", "GET /health returns OK", "monitoring and `uploader doctor` report the server as down")
def health(site: Site) -> None:
    """See docs/protocol.md section 1."""
    answer = answered(site.call("GET", "/health"), "GET /health", 200)
    what = "the answer of /health"
    body = shaped(answer.body, what, "status: text, timestamp: time, uptime: number, memory: object")
    same(body["status"], "OK", f"status in {what}")


@check("session", "a session is created, with its limits", "no upload is possible")
def session(site: Site) -> str:
    """See docs/protocol.md section 1."""
    body = shaped(
        answered(site.once(first_answer), "opening a session", 201).body,
        "the session answer",
        "sessionId: text, category: text, uploadPath: text, maxFiles: some, allowedTypes: list, maxFileSize: some, "
        "createdAt: time, timestamp: time",
    )
    same(body["category"], site.settings.category, "category in the session answer")
    limits = site.once(terms).limits
    return f"{plural(limits.max_files, 'file')} of {size(limits.max_file_size)} at most"


@check(
    "session-bad-input", "invalid values for a session are refused", "mistakes are noticed only after files were sent"
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
    body = shaped(answer.body, "the validation", "valid: true, files: list, timestamp: time")
    listed = body["files"]
    one = listed[0] if isinstance(listed, list) and len(listed) == 1 else None
    file = shaped(one, "the validation of the one file", "index: count, valid: true, errors: list")
    same((file["index"], file["errors"]), (0, []), "index and errors in the validation of a good file")
    empty = site.call("POST", "/api/upload/validate", json={"files": [{**good, "size": 0}]})
    details = refused(empty, "validating an empty file", 400, "VALIDATION_ERROR")
    shaped(details, "the refusal of an empty file", "details: list")


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
