"""Checks of the batch upload: one file, several, the stored files, and a cut request."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from uploader_cli.checks.result import check
from uploader_cli.checks.smoke.expect import (
    NotOffered,
    Prevented,
    Violation,
    answered,
    header,
    needed,
    quoted,
    said,
    same,
    same_bytes,
    shaped,
)
from uploader_cli.checks.smoke.sending import CutOff, file_of, open_session, send, terms
from uploader_cli.core.protocol import as_object, parse_batch, text
from uploader_cli.transfer.api import sha256_of, stored_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.checks.smoke.site import Site
    from uploader_cli.core.protocol import StoredFile
    from uploader_cli.transfer.http import Answer

SEVERAL = 3
"""Maximum files in one batch."""
_ANSWER = "success: true, sessionId: text, files: list, summary: object, timestamp: time"
_FILE = (
    "id: text, originalName: text, fileSize: count, fileType: words, status: file status, progress: percent, "
    "fileName: text, filePath: text"
)


class Sent(NamedTuple):
    """A sent file and the response."""

    name: str
    content: bytes
    answer: Answer


def one_file(site: Site) -> Sent:
    """Send a batch of one file in the first session. Use with `once`."""
    file = file_of(site, "one")
    return Sent(*file, send(site, site.once(terms).session, [file]))


def stored_one(site: Site) -> StoredFile:
    """Return the stored file of `one_file` for other checks. Raises `Prevented` if it is not stored."""
    with needed("batch-one"):
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
    content, path = site.once(one_file).content, stored_path(site.settings.category, stored.location or "")
    head = answered(site.call("HEAD", path), "HEAD of a stored file", 200)
    length = header(head, "Content-Length", "HEAD of a stored file", "its size in bytes", str.isdecimal)
    same(int(length), len(content), "Content-Length of a stored file", corrupt=True)
    digest = sha256_of(head.headers.get("Repr-Digest", ""))
    if digest is not None:
        ours = base64.b64encode(hashlib.sha256(content).digest()).decode()
        same(digest, ours, "Repr-Digest of a stored file", corrupt=True)
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
    "a batch can be sent again after a cut",
    "after a lost connection an upload can't continue",
    rests_on="batch-one",
)
def batch_cut(site: Site) -> None:
    """See docs/protocol.md section 3.9."""
    session, file = open_session(site), file_of(site, "cut")

    def cut() -> None:
        raise CutOff

    try:
        send(site, session, [file], midway=cut)
    except CutOff:
        pass
    else:
        raise Violation("half a batch", expected="no response before the end of the body", got="a response")
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
