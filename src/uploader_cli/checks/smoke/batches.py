"""Checks of the batch upload: one file, several, the stored files, and a cut request."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uploader_cli import errors
from uploader_cli.checks.smoke.assertions import answered, header, quoted, said, same, same_bytes, shaped
from uploader_cli.checks.smoke.payload import CutOff, form
from uploader_cli.checks.smoke.sending import file_of, open_session, send, terms
from uploader_cli.checks.smoke.verdicts import NotOffered, Prevented, Violation
from uploader_cli.core.protocol import as_object, parse_batch, text
from uploader_cli.transfer.api import sha256_of, stored_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.core.protocol import JsonObject, StoredFile
    from uploader_cli.transfer.http import Answer

SEVERAL = 3
"""Maximum files in one batch."""
_FILE = {
    "id": "text",
    "originalName": "text",
    "fileSize": "count",
    "fileType": "words",
    "status": "file status",
    "progress": "percent",
    "fileName": "text",
    "filePath": "text",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A sent file and the response."""

    content: bytes
    name: str
    answer: Answer


def one_file(site: Site) -> Sent:
    """Send a batch of one file in the first session. Use with `once`."""
    name, content = file_of(site, "one")
    return Sent(content, name, send(site, site.once(terms).session, [(name, content)]))


def stored_one(site: Site) -> StoredFile:
    """Return the stored file of `one_file` for other checks. Raises `Prevented` if it is not stored."""
    try:
        answer = site.once(one_file).answer
    except errors.UploaderError as error:
        raise Prevented(str(error), "batch-one") from error
    return stored_of(answer)


def stored_of(answer: Answer) -> StoredFile:
    """Return the stored file of a batch for other checks. Raises `Prevented` if it is not stored."""
    files = parse_batch(answer.body) if answer.ok else None
    if not files or files[0].status != "completed" or not files[0].server_id or not files[0].location:
        raise Prevented(f"a batch of one file was not stored ({said(answer)})", "batch-one")
    return files[0]


def batch_one(site: Site) -> str:
    """Check a batch of one file (docs/protocol.md section 1)."""
    sent = site.once(one_file)
    _judge(sent.answer, site.once(terms).session, [(sent.name, sent.content)], "a batch of one file")
    return ""


def batch_several(site: Site) -> str:
    """Check a batch of several files with non-ASCII names (docs/protocol.md sections 1 and 3.13)."""
    count = min(SEVERAL, site.once(terms).limits.max_files)
    if count < 2:
        raise NotOffered("a session has at most one file")
    files = [file_of(site, label) for label in ("first", "naïve second", "第三")[:count]]
    session = open_session(site, count)
    _judge(send(site, session, files), session, files, f"a batch of {count} files")
    return ""


def _judge(answer: Answer, session: str, sent: Sequence[tuple[str, bytes]], what: str) -> None:
    answered(answer, what, 200)
    fields = {"success": "true", "sessionId": "text", "files": "list", "summary": "object", "timestamp": "time"}
    body = shaped(answer.body, f"the answer to {what}", fields)
    same(body["sessionId"], session, f"sessionId in the answer to {what}")
    listed = body["files"] if isinstance(body["files"], list) else []
    same(len(listed), len(sent), f"files in the answer to {what}")
    for item in listed:
        if as_object(item).get("status") != "completed":
            raise _not_stored(as_object(item), what)
        shaped(item, f"a file in the answer to {what}", _FILE)
    files = parse_batch(answer.body) or ()
    same([file.name for file in files], [name for name, _ in sent], f"originalName in the answer to {what}")
    same([file.size for file in files], [len(content) for _, content in sent], f"fileSize in the answer to {what}")
    same(len({file.server_id for file in files}), len(sent), f"different ids in the answer to {what}")
    counts = {"totalFiles": len(sent), "completedFiles": len(sent), "failedFiles": 0}
    counts["totalSize"] = sum(len(content) for _, content in sent)
    summary = shaped(body["summary"], f"the summary of {what}", dict.fromkeys(counts, "count"))
    same({name: summary[name] for name in counts}, counts, f"the summary of {what}")


def _not_stored(file: JsonObject, what: str) -> Violation:
    why = text(file.get("errorMessage")) or text(file.get("errorCode"))
    got = f"{quoted(file.get('status'))}{f': {why}' if why else ''}"
    return Violation(f"{quoted(file.get('originalName'))} of {what}", expected='"completed"', got=got)


def stored_file(site: Site) -> str:
    """Check `HEAD`, `GET` and a range of a stored file (docs/protocol.md section 1)."""
    stored = stored_one(site)
    sent, path = site.once(one_file), stored_path(site.settings.category, stored.location or "")
    head = answered(site.call("HEAD", path), "HEAD of a stored file", 200)
    length = header(head, "Content-Length", "HEAD of a stored file", "its size in bytes", str.isdecimal)
    same(int(length), len(sent.content), "Content-Length of a stored file", corrupt=True)
    digest = sha256_of(head.headers.get("Repr-Digest", ""))
    if digest is not None:
        ours = base64.b64encode(hashlib.sha256(sent.content).digest()).decode()
        same(digest, ours, "Repr-Digest of a stored file", corrupt=True)
    same_bytes(site.read(path), sent.content, "the stored file, read back")
    part = answered(site.call("GET", path, headers={"Range": "bytes=1-1"}), "GET with Range: bytes=1-1", 206)
    same(part.headers.get("Content-Range"), f"bytes 1-1/{len(sent.content)}", "Content-Range of a part")
    return ""


def batch_cut(site: Site) -> str:
    """Check that a batch can be repeated after its request was cut (docs/protocol.md section 3.9)."""
    session, file = open_session(site), file_of(site, "cut")

    def cut() -> None:
        raise CutOff

    fields = [("sessionId", session), ("category", site.settings.category)]
    try:
        site.call("POST", "/api/upload/batch", body=form(fields, [file], midway=cut), leaves=1)
    except CutOff:
        pass
    else:
        raise Violation("half a batch", expected="no response before the end of the body", got="a response")
    _judge(send(site, session, [file]), session, [file], "the same batch after a cut")
    return ""
