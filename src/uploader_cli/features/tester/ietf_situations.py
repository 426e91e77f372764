"""Situations for clients of the IETF's resumable uploads, with sections of the draft's text of 1 July 2026.

Each judge looks at one thing only, and is not offered where the client does not come to it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import partial

from uploader_cli.features.checks.check import Finding, NotOffered, Violation, warning
from uploader_cli.features.tester.evidence import (
    CUT,
    after_query,
    appends,
    continues,
    creation,
    lost,
    resumed,
    shown,
)
from uploader_cli.features.tester.ietf_server import INTEROP, flag, length_of
from uploader_cli.features.tester.play import Played, Turn, situation

MEDIA_TYPE = "application/partial-upload"
ANNOUNCED: dict[str, str] = {"Location": "{upload}", "Upload-Limit": "min-size=0"}


@situation(
    "ietf-plain",
    "nothing goes wrong: the file is stored, and the client says so",
    "4.2.1",
)
def plain(played: Played) -> None:
    creation(played)
    played.finished()


@situation(
    "ietf-length",
    "the length is told with the creation",
    "4.2.1",
    tests="4.1.3/SHOULD/1, 4.2.1/SHOULD/1, 11.1.1/SHOULD/1",
)
def length(played: Played) -> Finding | None:
    first = creation(played)
    if length_of(first, 0) is None:
        return warning("neither Upload-Length, nor Content-Length with Upload-Complete: ?1")
    return None


@situation("ietf-lengths", "all lengths that are told are the same", "4.1.3", CUT, tests="4.1.3/MUST/3, 4.1.3/MUST/4")
def lengths(played: Played) -> None:
    creation(played)
    for one in (*played.creations, *played.appends):
        summed = (
            (one.number("upload-offset") or 0) + (one.length or 0) if flag(one) and one.length is not None else None
        )
        for told in filter(None, (one.number("upload-length"), summed)):
            if told != len(played.content):
                raise Violation(f"the length that {one.method} tells", expected=str(len(played.content)), got=str(told))


@situation(
    "ietf-104-early",
    "the connection is lost after an early 104: the client resumes",
    "4.2.1",
    CUT,
    tests="4.2.1/MAY/6, 4.4.1/MAY/7, 4.3.1/RECOMMENDED/1",
)
def early_104(played: Played) -> Finding | None:
    lost(played)
    played.honest()
    if any(one.method == "GET" for one in played.queries):
        return warning("it asks for the offset with GET; HEAD is recommended")
    if not played.stored:
        return warning("it gives up, which the draft permits")
    resumed(played)
    return None


@situation(
    "ietf-104-late",
    "the answer is lost after a late 104: the whole content is not sent again",
    "4.1.2",
    Turn("transfer", early=(), late=(ANNOUNCED,), cut="end"),
    tests="4.1.2/SHOULD NOT/2",
)
def late_104(played: Played) -> Finding | None:
    again = [one for one in after_query(played) if one.content]
    return warning(f"{shown(again[0])} after an answer with Upload-Complete: ?1") if again else None


@situation(
    "ietf-104-never",
    "the connection is lost before any 104: the client fails, or starts anew",
    "11.1",
    Turn("transfer", early=(), keep=0.5, cut="midway"),
)
def never_104(played: Played) -> None:
    if lost(played).method == "PATCH":
        raise NotOffered("the client knows the URL from an empty creation")
    if len(played.creations) == 1:
        played.failed("the creation was lost")


@situation(
    "ietf-old-version",
    "a 104 of another interop version is ignored",
    "B",
    Turn("transfer", early=({**ANNOUNCED, INTEROP: "{older}"},), keep=0.5, cut="midway"),
    tests="B/MUST/4",
)
def old_version(played: Played) -> None:
    first = lost(played)
    if first.method == "PATCH":
        raise NotOffered("the client knows the URL from an empty creation")
    if INTEROP.lower() not in first.fields:
        raise NotOffered("the client implements no draft version")
    used = [one for one in played.after(first) if one.upload == 1]
    if used:
        raise Violation("after a 104 of another version", expected="its Location unused", got=shown(used[0]))


@situation("ietf-version", "all requests have the same interop version", "B", CUT, tests="B/MUST/1")
def version(played: Played) -> str | None:
    name = INTEROP.lower()
    sent = creation(played).fields.get(name)
    for one in (*played.creations, *played.queries, *played.appends, *played.deletions):
        if one.fields.get(name) != sent:
            raise Violation(f"the {INTEROP} of {one.method}", expected=str(sent), got=str(one.fields.get(name)))
    return f"interop version {sent}" if sent else "no interop version: the final protocol"


@situation(
    "ietf-append-fields",
    "an append has Upload-Offset, Upload-Complete and its media type",
    "4.4.1",
    CUT,
    tests="4.4.1/MUST/1, 4.4.1/MUST/3",
)
def append_fields(played: Played) -> None:
    for one in appends(played):
        kind = one.fields.get("content-type", "none").partition(";")[0].strip()
        if one.number("upload-offset") is None:
            raise Violation(
                "the Upload-Offset of PATCH", expected="an integer", got=one.fields.get("upload-offset", "none")
            )
        if flag(one) is None:
            raise Violation(
                "the Upload-Complete of PATCH", expected="?0 or ?1", got=one.fields.get("upload-complete", "none")
            )
        if kind != MEDIA_TYPE:
            raise Violation("the Content-Type of PATCH", expected=MEDIA_TYPE, got=kind)


@situation(
    "ietf-offset-behind",
    "the server has less than was sent: the client goes back",
    "4.3.1",
    Turn("transfer", keep=0.375, cut="end"),
    tests="4.4.1/SHOULD/2",
)
def offset_behind(played: Played) -> None:
    continues(played, int(len(played.content) * 0.375))


@situation(
    "ietf-offset-ahead",
    "the server has more than was sent: the client skips it",
    "4.3.1",
    Turn("transfer", keep=0.25, cut="midway"),
    Turn("query", gain=0.875),
)
def offset_ahead(played: Played) -> None:
    continues(played, int(len(played.content) * 0.875))


@situation(
    "ietf-offset-beyond",
    "an offset beyond the end of the file is a failure",
    "4.3.1",
    CUT,
    Turn("query", gain=1.5),
    tests="4.3.1/MUST/2, 4.3.1/MUST NOT/3",
)
def offset_beyond(played: Played) -> None:
    for one in after_query(played):
        if one.upload == 1 and one.method == "PATCH":
            raise Violation("after an offset beyond the file", expected="no further append", got=shown(one))
    played.honest()


@situation(
    "ietf-cancel",
    "an upload that can't go on is cancelled",
    "4.3.1",
    CUT,
    Turn("query", gain=1.5),
    tests="4.3.1/SHOULD/4",
    required=False,
)
def cancel(played: Played) -> Finding | None:
    after_query(played)
    return None if played.deletions else warning("no DELETE")


@situation(
    "ietf-max-size",
    "a file above max-size is not sent to the end",
    "4.2.1",
    Turn("transfer", status=413, fields={"Upload-Limit": "max-size={half}", "Upload-Complete": "?1"}),
    tests="4.2.1/SHOULD/2, 4.2.1/SHOULD/3, 4.1.4/SHOULD/7",
    limits="max-size={half}",
)
def max_size(played: Played) -> Finding | None:
    if any(one.method == "OPTIONS" for one in played.requests) and not played.creations:
        return None
    creation(played)
    played.failed("the file exceeds max-size")
    sent = [one for one in played.requests if one.content]
    return warning(f"{shown(sent[1])} though the file exceeds max-size") if len(sent) > 1 else None


EIGHTH = {"Upload-Limit": "max-append-size={eighth}"}


@situation(
    "ietf-shorter-limit",
    "a smaller max-append-size on resumption is kept",
    "4.1.4",
    CUT,
    Turn("query", fields={"Upload-Limit": "max-append-size={eighth}, later=?1"}, always=True),
    tests="4.1.4/MUST NOT/3, 4.1.4/MUST/11",
)
def shorter_limit(played: Played) -> None:
    most = len(played.content) // 8
    for one in after_query(played):
        if len(one.content) > most or (one.length or 0) > most:
            raise Violation("the content of an append", expected=f"at most {most} bytes", got=shown(one))


@situation(
    "ietf-completeness",
    "only the last of several appends completes the upload",
    "4.4.1",
    CUT,
    Turn("query", fields={"Upload-Limit": "max-append-size={quarter}"}, always=True),
    tests="4.4.1/MUST/3",
)
def completeness(played: Played) -> None:
    sent = [one for one in after_query(played) if one.method == "PATCH"]
    if not sent:
        raise NotOffered("the client does not append")
    for one in sent:
        end = (one.number("upload-offset") or 0) + len(one.content)
        if flag(one) and end < len(played.content):
            raise Violation(f"Upload-Complete of an append that ends at {end}", expected="?0", got="?1", corrupt=True)
    if sent[-1].status and not flag(sent[-1]):
        raise Violation("Upload-Complete of the last append", expected="?1", got="?0")


@situation(
    "ietf-too-large",
    "after 413 an append is repeated with less content",
    "4.1.4",
    CUT,
    Turn("append", status=413, fields=EIGHTH),
    Turn("query", fields=EIGHTH, always=True),
    tests="4.1.4/SHOULD/19",
    required=False,
)
def too_large(played: Played) -> Finding | None:
    refused = next((one for one in appends(played) if one.status == 413), None)
    if refused is None:
        raise NotOffered("the client does not append")
    again = next((one for one in played.after(refused) if one in played.appends), None)
    if again is None:
        return warning("it does not try again with less")
    most = len(played.content) // 8
    return warning(f"{shown(again)} after 413 and max-append-size={most}") if len(again.content) > most else None


def gone(played: Played) -> Finding | None:
    """Judge a client whose upload the server does not know any more."""
    refused = next((one for one in resumed(played) if one.upload and one.status in (404, 410)), None)
    if refused is None:
        raise NotOffered("the client does not ask for the offset")
    if any(one.path == refused.path and one.method != "DELETE" for one in played.after(refused)):
        return warning(f"it asks the same URL again after {refused.status}")
    return None


for_gone = partial(situation, tests="4.3.1/SHOULD NOT/7")
not_found = for_gone(
    "ietf-404",
    "an upload that is not found is not asked for again",
    "4.3.1",
    CUT,
    Turn("query", status=404, always=True),
)(gone)
removed = for_gone(
    "ietf-410", "an upload that is gone is not asked for again", "4.3.1", CUT, Turn("query", status=410, always=True)
)(gone)


@situation(
    "ietf-redirected-query",
    "307 for the offset is followed, or ends the upload",
    "4.3.1",
    CUT,
    Turn("query", status=307, fields={"Location": "{moved}"}),
    tests="4.3.1/MAY/6",
)
def redirected_query(played: Played) -> None:
    left = after_query(played)
    if left and left[0].method == "PATCH":
        raise Violation("after 307 for the offset", expected="a query of the new URL, or a failure", got="an append")
    played.honest()


@situation(
    "ietf-redirected-append",
    "307 for an append is followed with its content, or ends the upload",
    "4.4.1",
    CUT,
    Turn("append", status=307, fields={"Location": "{moved}"}),
    tests="4.4.1/MAY/4",
)
def redirected_append(played: Played) -> None:
    refused = next((one for one in appends(played) if one.status == 307), None)
    if refused is None:
        raise NotOffered("the client does not append")
    again = next((one for one in played.after(refused) if "/moved/" in one.path), None)
    if again is None or again.method in ("HEAD", "GET"):
        again = refused
    if (again.method, bytes(again.content)) != (refused.method, bytes(refused.content)):
        raise Violation("the redirected append", expected=shown(refused), got=shown(again), corrupt=True)
    played.honest()


@situation(
    "ietf-refused-offset",
    "an append that is refused for its offset is not repeated",
    "4.4.1",
    CUT,
    Turn("append", gain=0.625),
    tests="4.4.1/SHOULD NOT/5",
)
def refused_offset(played: Played) -> Finding | None:
    refused = next((one for one in appends(played) if one.status == 409), None)
    if refused is None:
        raise NotOffered("the client does not append")
    played.honest()
    at = refused.number("upload-offset")
    if any(one.method == "PATCH" and one.number("upload-offset") == at for one in played.after(refused)):
        return warning(f"it appends at {at} again")
    return None


@situation(
    "ietf-refused-creation",
    "a creation that is refused is not repeated",
    "4.2.1",
    Turn("creation", status=403, early=(), always=True),
    tests="4.2.1/SHOULD NOT/5",
)
def refused_creation(played: Played) -> Finding | None:
    creation(played)
    played.failed("the creation was refused")
    return warning("it creates the upload again after 403") if len(played.creations) > 1 else None


@situation(
    "ietf-processing-error",
    "an error with Upload-Complete: ?1 ends the upload",
    "4.4.1",
    CUT,
    Turn("append", status=500, fields={"Upload-Complete": "?1"}, always=True),
    tests="4.1.2/SHOULD NOT/2",
)
def processing_error(played: Played) -> Finding | None:
    failed = next((one for one in appends(played) if one.status == 500), None)
    if failed is None:
        raise NotOffered("the client does not append")
    played.failed("the server could not process the file")
    path = failed.path
    if any(one.path == path and one.method != "DELETE" for one in played.after(failed)):
        return warning("it resumes after Upload-Complete: ?1")
    return None


@situation(
    "ietf-server-error",
    "after a 5xx of the creation the offset is asked for",
    "4.2.1",
    Turn("transfer", status=503),
    tests="4.2.1/MAY/6, 4.4.1/MAY/6",
)
def server_error(played: Played) -> None:
    left = resumed(played)
    again = next(one for one in left if one.upload)
    if again.method == "PATCH":
        raise Violation("after 503", expected="a query for the offset", got=shown(again))
    played.honest()


@situation(
    "ietf-lost-append",
    "the answer to an append is lost: the offset is asked for",
    "4.4.1",
    CUT,
    Turn("append", cut="end"),
    tests="4.4.1/MAY/7",
)
def lost_append(played: Played) -> None:
    sent = appends(played)
    first = next((one for one in sent if one.whole and not one.status), None)
    if first is None:
        raise NotOffered("the client does not append")
    left = played.after(first)
    if left and left[0].method == "PATCH":
        raise Violation("after the lost answer", expected="a query for the offset", got=shown(left[0]))
    played.honest()


@situation(
    "ietf-in-progress",
    "no request goes to an upload while content is on its way",
    "4.3.1",
    Turn("transfer", keep=0.5, cut="midway", pause=0.1),
    tests="4.3.1/MUST NOT/5, 4.6/MUST NOT/1",
    limits="max-age=3600",
)
def in_progress(played: Played) -> None:
    creation(played)
    for one in (*played.queries, *played.appends):
        busy = [other for other in one.beside if other in played.requests and other.has_content]
        if busy:
            raise Violation(f"{one.method} to the upload", expected="no transfer in progress", got=shown(busy[0]))


@situation(
    "ietf-locations",
    "two different Locations for one creation end it",
    "4.2.2",
    Turn("transfer", early=(ANNOUNCED, {**ANNOUNCED, "Location": "{moved}"}), keep=0.5, cut="midway"),
    tests="4.2.2/SHOULD/10, 4.2.2/SHOULD/11",
    required=False,
)
def locations(played: Played) -> Finding | None:
    first = lost(played)
    if first.method == "PATCH":
        raise NotOffered("the client knows the URL from an empty creation")
    if any(one.method == "PATCH" for one in played.after(first)):
        return warning("it goes on though the Locations differ")
    return None


@situation(
    "ietf-malformed-offset",
    "an Upload-Offset that is no integer is ignored",
    "4.1.1",
    CUT,
    Turn("query", fields={"Upload-Offset": '"{quarter}"'}, always=True),
    tests="4.1.1/MUST/3",
)
def malformed_offset(played: Played) -> None:
    for one in after_query(played):
        if one.method == "PATCH":
            raise Violation("after an Upload-Offset that is a string", expected="no append", got=shown(one))
    played.honest()


@situation(
    "ietf-malformed-limit",
    "an Upload-Limit whose known member is no integer is ignored",
    "4.1.4",
    CUT,
    Turn("query", fields={"Upload-Limit": 'max-append-size={eighth}, max-size="1"'}, always=True),
    tests="4.1.4/MUST/12, 4.1.4/MUST/2",
)
def malformed_limit(played: Played) -> None:
    eighth = len(played.content) // 8
    sent = [one for one in after_query(played) if one.method == "PATCH"]
    if sent and len(sent[0].content) == eighth:
        raise Violation("the append after a malformed Upload-Limit", expected="no limit", got=shown(sent[0]))


@situation("ietf-digest", "the digests that a client sends are right", "10", CUT)
def digest(played: Played) -> None:
    creation(played)
    found = False
    for one in played.requests:
        for name, data in (("content-digest", bytes(one.content)), ("repr-digest", played.content)):
            told = re.search(r"sha-256=:([A-Za-z0-9+/=]*):", one.fields.get(name, ""))
            if told and (one.whole or name == "repr-digest"):
                found = True
                right = base64.b64encode(hashlib.sha256(data).digest()).decode()
                if told[1] != right:
                    raise Violation(f"the {name} of {one.method}", expected=right, got=told[1])
    if not found:
        raise NotOffered("the client sends no sha-256 digests")


@situation("ietf-no-protocol", "a server without the protocol stores the file with one request", "11.1.1", speaks=False)
def no_protocol(played: Played) -> str | None:
    if not played.requests:
        return None
    if not played.stored and played.exit:
        return "it needs the protocol, and says so"
    played.finished()
    return None
