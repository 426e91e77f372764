"""Checks of health, sessions, validation and batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from uploader_cli.core.protocol import NOBODY, StoredFile, as_object, location_in, parse_batch, sha256_in, text
from uploader_cli.features.checks.check import NotOffered, Prevented, Violation, check, precondition
from uploader_cli.features.smoke.expect import answered, header, quoted, refused, said, same, same_bytes, shaped
from uploader_cli.features.smoke.sending import ask_for_session, cut, cut_off, file_of, open_session, send, terms
from uploader_cli.features.smoke.site import Site
from uploader_cli.render.words import plural, size
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.bodies import content_type

SEVERAL = 3  # maximum files in one batch
_ANSWER = "success: true, sessionId: text, files: list, summary: object, timestamp: time"
_FILE = (
    "id: text, originalName: text, fileSize: count, fileType: words, status: file status, progress: percent, "
    "fileName: text, filePath: text"
)


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
        answered(site.once(ask_for_session), "opening a session", 201).body,
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
    name, _ = file_of(site, "validated")
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


class SentFile(NamedTuple):
    name: str
    content: bytes
    answer: Answer


def one_file(site: Site) -> SentFile:
    """Send a batch of one file in the first session. Use with `once`."""
    file = file_of(site, "one")
    return SentFile(*file, send(site, site.once(terms).session, [file]))


def stored_one(site: Site) -> StoredFile:
    """Return the stored file of `one_file` for other checks. Raises `Prevented` if it is not stored."""
    with precondition("batch-one"):
        return stored_of(site.once(one_file).answer)


def stored_of(answer: Answer) -> StoredFile:
    """Return the stored file of a batch for other checks. Raises `Prevented` if it is not stored."""
    files = parse_batch(answer.body) if answer.ok else None
    if not files or files[0].status != "completed" or not files[0].server_id or not files[0].location:
        raise Prevented(f"a batch of one file was not stored ({said(answer)})", "batch-one")
    return files[0]


@check("batch-one", "a batch of one file is stored", "files don't arrive")
def batch_one(site: Site) -> None:
    """See docs/protocol.md section 1."""
    name, content, answer = site.once(one_file)
    _judge(answer, site.once(terms).session, [(name, content)], "a batch of one file")


@check("stored-file", "stored files can be read and are what was sent", "uploads can't be verified, or are corrupted")
def stored_file(site: Site) -> None:
    """See docs/protocol.md section 1: `HEAD`, `GET` and a range."""
    stored = stored_one(site)
    content, path = site.once(one_file).content, location_in(site.settings.category, stored.location or "")
    head = answered(site.call("HEAD", path), "HEAD of a stored file", 200)
    length = header(head, "Content-Length", "HEAD of a stored file", "its size in bytes", str.isdecimal)
    same(int(length), len(content), "Content-Length of a stored file", corrupt=True)
    digest = sha256_in(head.headers.get("Repr-Digest", ""))
    if digest is not None:
        same(digest, hashlib.sha256(content).hexdigest(), "Repr-Digest of a stored file", corrupt=True)
    same_bytes(site.read(path), content, "the stored file, read back")
    part = answered(site.call("GET", path, headers={"Range": "bytes=1-1"}), "GET with Range: bytes=1-1", 206)
    same(part.headers.get("Content-Range"), f"bytes 1-1/{len(content)}", "Content-Range of a part")


@check(
    "batch-several",
    "a batch of several files is stored, whatever their names",
    "some files don't arrive, or are mixed up",
    rests_on="batch-one",
)
def batch_several(site: Site) -> None:
    """See docs/protocol.md sections 1 and 3.13 (non-ASCII names)."""
    count = min(SEVERAL, site.once(terms).limits.max_files)
    if count < 2:
        raise NotOffered("a session has at most one file")
    files = [file_of(site, label) for label in ("first", "naïve second", "第三")[:count]]
    session = open_session(site, count)
    _judge(send(site, session, files), session, files, f"a batch of {count} files")


@check(
    "batch-cut",
    "a batch can be resent after a cut",
    "after a lost connection an upload can't continue",
    rests_on="batch-one",
)
def batch_cut(site: Site) -> None:
    """See docs/protocol.md section 3.9."""
    session, file = open_session(site), file_of(site, "cut")
    with cut_off("half a batch"):
        send(site, session, [file], midway=cut)
    _judge(send(site, session, [file]), session, [file], "the same batch after a cut")


def _judge(answer: Answer, session: str, sent: Sequence[tuple[str, bytes]], what: str) -> None:
    where = f"the answer to {what}"
    body = shaped(answered(answer, what, 200).body, where, _ANSWER)
    same(body["sessionId"], session, f"sessionId in {where}")
    listed = body["files"] if isinstance(body["files"], list) else []
    same(len(listed), len(sent), f"files in {where}")
    for file in map(as_object, listed):
        if file.get("status") != "completed":
            why = text(file.get("errorMessage")) or text(file.get("errorCode"))
            got = f"{quoted(file.get('status'))}{f': {why}' if why else ''}"
            raise Violation(f"{quoted(file.get('originalName'))} of {what}", expected='"completed"', got=got)
        shaped(file, f"a file in {where}", _FILE)
    files = parse_batch(answer.body) or ()
    same([file.name for file in files], [name for name, _ in sent], f"originalName in {where}")
    same([file.size for file in files], [len(content) for _, content in sent], f"fileSize in {where}")
    same(len({file.server_id for file in files}), len(sent), f"different ids in {where}")
    counts = {"totalFiles": len(sent), "completedFiles": len(sent), "failedFiles": 0}
    counts["totalSize"] = sum(len(content) for _, content in sent)
    summary = shaped(body["summary"], f"the summary of {what}", ", ".join(f"{name}: count" for name in counts))
    same({name: summary[name] for name in counts}, counts, f"the summary of {what}")
