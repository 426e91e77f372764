"""Checks that no file name escapes its directory, and that nobody without permission deletes a file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.assertions import answered, quoted, refused, refused_cleanly
from uploader_cli.checks.smoke.batches import stored_one
from uploader_cli.checks.smoke.resumable import ask, created
from uploader_cli.checks.smoke.sending import file_of, open_session, send, terms
from uploader_cli.checks.smoke.site import NOBODY
from uploader_cli.checks.smoke.verdicts import Needless, NotOffered, Prevented, Violation
from uploader_cli.core.protocol import parse_batch
from uploader_cli.transfer.api import stored_path

if TYPE_CHECKING:
    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.transfer.http import Answer

UP = "../../../"
ELSEWHERE = "..%2f" * 8 + "etc%2fpasswd"
"""A file on every Unix, relative to `/uploads/{category}/`; clients don't normalize escaped slashes."""
_ESCAPES = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:[/\\]")


def path_traversal(site: Site) -> str:
    """Check names with `../` in uploads and in paths under `/uploads/`."""
    found = site.read(f"/uploads/{site.settings.category}/{ELSEWHERE}")
    if found is not None and b"root:" in found:
        raise Violation(f"GET /uploads/…/{ELSEWHERE}", expected="404", got="a file of the system")
    stored_one(site)
    name, content = file_of(site, "up")
    session = open_session(site)
    _judge(site, send(site, session, [(UP + name, content)]), f"a file named {UP}…")
    if site.once(terms).limits.relative_paths:
        session = open_session(site)
        path = f"{UP}{name}"
        _judge(site, send(site, session, [(name, content)], paths=[path]), f"a file with the relativePath {UP}…")
    if site.once(terms).tus is not None:
        _judge_tus(site, name, content)
    return ""


def _judge_tus(site: Site, name: str, content: bytes) -> None:
    """Check a name with `../` by tus: refused at the creation, or stored safely."""
    what = f"a tus upload named {UP}…"
    extra = {"relativePath": UP + name}
    url, answer = created(site, UP + name, {"Upload-Length": str(len(content))}, extra)
    if not url:
        try:
            refused_cleanly(answer, what)
        except Violation as violation:
            raise Prevented(str(violation), "tus-core") from violation
        return
    last = ask(site, "PATCH", url, {"Upload-Offset": "0"}, content)
    where = last.headers.get("Content-Location", "")
    if last.ok and _ESCAPES.search(where.removeprefix("/uploads/")):
        raise Violation(what, expected="a refusal, or a harmless name", got=f"stored as {quoted(where)}")


def _judge(site: Site, answer: Answer, what: str) -> None:
    """Check that the file is refused, fails, or is stored under a safe name."""
    if not answer.ok:
        refused_cleanly(answer, what)
        return
    for file in parse_batch(answer.body) or ():
        if file.status != "completed":
            continue
        for reported in (file.location or "", file.relative_path or ""):
            if _ESCAPES.search(reported):
                raise Violation(what, expected="a refusal, or a harmless name", got=f"stored as {quoted(reported)}")
        path = stored_path(site.settings.category, file.location or "")
        answered(site.call("HEAD", path), f"HEAD of the stored path of {what}", 200)


def auth(site: Site) -> str:
    """Check `DELETE` without a token, with an invalid one, and with ours (docs/protocol.md section 1)."""
    if site.own_authorization:
        raise Needless("--header sets Authorization for all requests: use a token instead")
    try:
        stored = stored_one(site)
    except Prevented:
        stored = None
    target = f"/api/upload/file/{stored.server_id if stored is not None else NOBODY}"
    without = site.call("DELETE", target, token=None)
    if without.status in (405, 501) or (without.status, stored) == (404, None):
        raise NotOffered(f"there is no DELETE of files ({without.status})")
    refused(without, "DELETE of a file without a token", (401, "UNAUTHORIZED"))
    bad = site.call("DELETE", target, token="uploader-smoke.is-no.token")  # noqa: S106 - invalid on purpose
    refused(bad, "DELETE of a file with a bad token", (401, "INVALID_TOKEN"))
    if stored is not None:
        path = stored_path(site.settings.category, stored.location or "")
        answered(site.call("HEAD", path), "HEAD of a file after DELETE was refused", 200)
    if not site.token:
        return "no token was given: a valid one was not tested"
    wanted = (404, "FILE_NOT_FOUND")
    refused(site.call("DELETE", f"/api/upload/file/{NOBODY}"), "DELETE of an unknown file, with the token", wanted)
    return ""
