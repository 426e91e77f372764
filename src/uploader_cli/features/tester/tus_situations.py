"""Situations for clients of tus 1.0, with the headings of its text of 25 March 2016 as sections.

Each judge looks at one thing only, and is not offered where the client does not come to it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

from uploader_cli.features.checks.check import Finding, NotOffered, Violation, warning
from uploader_cli.features.tester.evidence import (
    after_query,
    answered,
    appends,
    continues,
    creation,
    lost,
    resumed,
    shown,
)
from uploader_cli.features.tester.http_server import Request
from uploader_cli.features.tester.play import Played, Turn, situation
from uploader_cli.features.tester.tus_server import VERSION_FIELD

APPEND_TYPE = "application/offset+octet-stream"
CUT_APPEND = Turn("append", keep=0.5, cut="midway")
"""The connection is lost in the middle of the content."""
PAST = "Wed, 25 Jun 2014 16:00:00 GMT"
ALGORITHMS = {"sha1": hashlib.sha1, "md5": hashlib.md5, "sha256": hashlib.sha256}


def next_is_query(played: Played, request: Request) -> None:
    """Raise `Violation` if the client appends after a request without asking for the offset."""
    following = next((one for one in played.after(request) if one.upload), None)
    if following is not None and following.method == "PATCH":
        raise Violation(f"after {request}", expected="HEAD, or a failure", got=shown(following))


@situation("tus-plain", "nothing goes wrong: the file is stored, and the client says so", "Core Protocol")
def plain(played: Played) -> None:
    creation(played)
    played.finished()


@situation("tus-version", "all requests have Tus-Resumable", "Tus-Resumable", CUT_APPEND)
def version(played: Played) -> None:
    creation(played)
    for one in (*played.creations, *played.queries, *played.appends, *played.deletions):
        if one.fields.get(VERSION_FIELD.lower()) != "1.0.0":
            got = one.fields.get(VERSION_FIELD.lower(), "none")
            raise Violation(f"the {VERSION_FIELD} of {one.method}", expected="1.0.0", got=got)


@situation("tus-length", "the length is told once, and right", "POST")
def length(played: Played) -> None:
    first = creation(played)
    if "upload-length" not in first.fields and first.fields.get("upload-defer-length") != "1":
        raise Violation("the creation", expected="Upload-Length or Upload-Defer-Length: 1", got="neither")
    told = [one.fields["upload-length"] for one in (first, *played.appends) if "upload-length" in one.fields]
    if wrong := [each for each in told if each != str(len(played.content))]:
        raise Violation("Upload-Length", expected=str(len(played.content)), got=wrong[0])
    if not told and played.stored:
        raise Violation("Upload-Length of a deferred length", expected="in a PATCH", got="none")


@situation("tus-metadata", "metadata has unique keys, and values in Base64", "Upload-Metadata")
def metadata(played: Played) -> None:
    text = creation(played).fields.get("upload-metadata")
    if text is None:
        raise NotOffered("the client sends no Upload-Metadata")
    pairs = [pair.partition(" ") for pair in text.split(",")]
    keys = [key for key, _, _ in pairs]
    if len({*keys}) < len(keys) or not all(keys):
        raise Violation("the keys of Upload-Metadata", expected="each once, and not empty", got=text)
    for _, _, value in pairs:
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            raise Violation("a value of Upload-Metadata", expected="Base64", got=value) from None


@situation("tus-append-type", "an append has its media type", "PATCH")
def append_type(played: Played) -> None:
    for one in appends(played):
        if (kind := one.fields.get("content-type", "none")) != APPEND_TYPE:
            raise Violation("the Content-Type of PATCH", expected=APPEND_TYPE, got=kind)


@situation(
    "tus-relative-location",
    "a relative Location is resolved",
    "POST",
    Turn("creation", fields={"Location": "{relative}"}),
)
def relative_location(played: Played) -> None:
    creation(played)
    played.honest()
    if not any(one.upload for one in played.requests):
        raise Violation("the URL of the upload", expected=played.uploads[0].path, got="no request")


@situation(
    "tus-lost-creation",
    "the answer to the creation is lost: the client fails, or starts anew",
    "POST",
    Turn("creation", cut="end"),
)
def lost_creation(played: Played) -> None:
    creation(played)
    played.honest()


@situation(
    "tus-lost-append",
    "the connection is lost in two appends: the offset is asked for",
    "HEAD",
    CUT_APPEND,
    Turn("append", keep=0.75, cut="midway"),
)
def lost_append(played: Played) -> None:
    for one in appends(played):
        if not one.status:
            next_is_query(played, one)
    played.honest()


@situation(
    "tus-lost-answer",
    "the answer to the last append is lost: HEAD shows the upload complete",
    "HEAD",
    Turn("append", cut="end"),
)
def lost_answer(played: Played) -> Finding | None:
    if again := [one for one in after_query(played) if one.content]:
        raise Violation("after HEAD of a complete upload", expected="no content", got=shown(again[0]))
    played.honest()
    return warning(f"exit code {played.exit} for a complete upload") if played.exit else None


@situation(
    "tus-offset-behind",
    "the server has less than was sent: the client goes back",
    "PATCH",
    Turn("append", keep=0.375, cut="end"),
)
def offset_behind(played: Played) -> None:
    continues(played, int(len(played.content) * 0.375))


@situation(
    "tus-offset-ahead",
    "the server has more than was sent: the client skips it",
    "PATCH",
    Turn("append", keep=0.25, cut="midway"),
    Turn("query", gain=0.875),
)
def offset_ahead(played: Played) -> None:
    continues(played, int(len(played.content) * 0.875))


@situation(
    "tus-offset-beyond",
    "an offset beyond the end of the file is a failure",
    "HEAD",
    CUT_APPEND,
    Turn("query", gain=1.5),
)
def offset_beyond(played: Played) -> None:
    for one in after_query(played):
        if one.upload == 1 and one.method == "PATCH":
            raise Violation("after an offset beyond the file", expected="no further append", got=shown(one))
    played.honest()


@situation(
    "tus-short-append",
    "the server keeps a part of an append: the client sends the rest",
    "PATCH",
    Turn("append", keep=0.5),
)
def short_append(played: Played) -> None:
    first = lost(played)
    following = next((one for one in played.after(first) if one in played.appends), None)
    if following is not None and following.number("upload-offset") != len(played.content) // 2:
        raise Violation(
            "the offset of the next append",
            expected=str(len(played.content) // 2),
            got=str(following.number("upload-offset")),
        )
    played.honest()


def gone(played: Played) -> Finding | None:
    """Judge a client whose upload the server does not know any more."""
    refused = next((one for one in resumed(played) if one.upload and one.status in (404, 410)), None)
    if refused is None:
        raise NotOffered("the client does not ask for the offset")
    left = played.after(refused)
    if any(one.path == refused.path and one.method != "DELETE" for one in left):
        return warning(f"it asks the same URL again after {refused.status}")
    played.honest()
    return None if any(one in left for one in played.creations) else warning("it does not start a new upload")


not_found = situation(
    "tus-404",
    "an upload that is not found is started anew",
    "Upload-Expires",
    CUT_APPEND,
    Turn("query", status=404, always=True),
)(gone)
removed = situation(
    "tus-410",
    "an upload that is gone is started anew",
    "Upload-Expires",
    CUT_APPEND,
    Turn("query", status=410, always=True),
)(gone)


@situation(
    "tus-expired",
    "an upload is not resumed after its Upload-Expires",
    "Upload-Expires",
    Turn("creation", fields={"Upload-Expires": PAST}),
    CUT_APPEND,
)
def expired(played: Played) -> Finding | None:
    left = [one for one in played.after(lost(played)) if one.upload == 1 and one.method != "DELETE"]
    return warning(f"{left[0]} after {PAST}") if left else None


@situation(
    "tus-conflict",
    "an append that is refused for its offset is not repeated",
    "PATCH",
    CUT_APPEND,
    Turn("append", gain=0.625),
)
def conflict(played: Played) -> None:
    refused = answered(played, 409)
    at = refused.number("upload-offset")
    again = [one for one in played.after(refused) if one in played.appends and one.number("upload-offset") == at]
    if again:
        raise Violation(f"after 409 at {at}", expected="another offset, or a failure", got=f"an append at {at}")
    played.honest()


@situation("tus-locked", "a locked upload is kept", "PATCH", CUT_APPEND, Turn("append", status=423), required=False)
def locked(played: Played) -> Finding | None:
    refused = answered(played, 423)
    played.honest()
    anew = any(one in played.creations for one in played.after(refused))
    return warning("it starts a new upload after 423") if anew else None


@situation(
    "tus-unsupported-version",
    "a version that the server does not have ends the upload",
    "Tus-Resumable",
    Turn("creation", status=412, fields={"Tus-Version": "0.2.2"}, always=True),
)
def unsupported_version(played: Played) -> Finding | None:
    creation(played)
    played.failed("the server has no such version")
    return warning("it creates the upload again after 412") if len(played.creations) > 1 else None


@situation(
    "tus-max-size",
    "a file that is too large for the server ends the upload",
    "POST",
    Turn("creation", status=413, always=True),
)
def max_size(played: Played) -> Finding | None:
    creation(played)
    played.failed("the file is too large")
    return warning("it creates the upload again after 413") if len(played.creations) > 1 else None


@situation("tus-checksum", "the checksums that a client sends are right", "Checksum")
def checksum(played: Played) -> None:
    found = 0
    for one in (creation(played), *played.appends):
        name, _, told = one.fields.get("upload-checksum", "").partition(" ")
        if name in ALGORITHMS and one.whole:
            found += 1
            right = base64.b64encode(ALGORITHMS[name](bytes(one.content)).digest()).decode()
            if told != right:
                raise Violation(f"the {name} of {one.method}", expected=right, got=told)
    if not found:
        raise NotOffered("the client sends no checksums")


@situation(
    "tus-checksum-mismatch",
    "content that the server has discarded is sent again",
    "Checksum",
    CUT_APPEND,
    Turn("append", status=460),
)
def checksum_mismatch(played: Played) -> None:
    refused = answered(played, 460)
    if "upload-checksum" not in refused.fields:
        raise NotOffered("the client sends no checksums")
    at = refused.number("upload-offset")
    following = next((one for one in played.after(refused) if one in played.appends), None)
    if following is not None and following.number("upload-offset") != at:
        got = f"an append at {following.number('upload-offset')}"
        raise Violation("after 460", expected=f"an append at {at}, or a failure", got=got)
    played.honest()


@situation("tus-error-creation", "a creation that failed with 503 is no success", "POST", Turn("creation", status=503))
def error_creation(played: Played) -> None:
    creation(played)
    played.honest()


@situation("tus-error-append", "after a 503 of an append the offset is asked for", "HEAD", Turn("append", status=503))
def error_append(played: Played) -> None:
    next_is_query(played, answered(played, 503))
    played.honest()


@situation(
    "tus-error-query",
    "a 503 for the offset does not end the upload on the server",
    "HEAD",
    CUT_APPEND,
    Turn("query", status=503),
    required=False,
)
def error_query(played: Played) -> Finding | None:
    left = after_query(played)
    played.honest()
    return warning("it starts a new upload after 503") if any(one in played.creations for one in left) else None


@situation(
    "tus-redirected-creation",
    "307 for a creation is followed as it is, or ends the upload",
    "POST",
    Turn("creation", status=307, fields={"Location": "{place}/elsewhere"}),
)
def redirected_creation(played: Played) -> None:
    first = creation(played)
    again = next((one for one in played.after(first) if one.path.endswith("/elsewhere")), None)
    if again is not None:
        sent, length = again.method, again.fields.get("upload-length")
        if (sent, length) != ("POST", wanted := first.fields.get("upload-length")):
            expected = f"POST with Upload-Length: {wanted}"
            raise Violation("the redirected creation", expected=expected, got=f"{sent} with {length}")
    played.honest()


@situation(
    "tus-redirected-append",
    "307 for an append is followed with its content, or ends the upload",
    "PATCH",
    CUT_APPEND,
    Turn("append", status=307, fields={"Location": "{moved}"}),
)
def redirected_append(played: Played) -> None:
    refused = answered(played, 307)
    again = next((one for one in played.after(refused) if "/moved/" in one.path and one.method != "HEAD"), refused)
    if (again.method, bytes(again.content)) != (refused.method, bytes(refused.content)):
        raise Violation("the redirected append", expected=shown(refused), got=shown(again), corrupt=True)
    played.honest()


@situation("tus-no-protocol", "a server without the protocol is a failure", "POST", speaks=False)
def no_protocol(played: Played) -> None:
    creation(played)
    played.failed("the server answers 405")


@situation(
    "tus-creation-with-upload",
    "a part of the content of a creation is kept: the client sends the rest",
    "Creation With Upload",
    Turn("creation", keep=0.5),
    with_upload=True,
)
def creation_with_upload(played: Played) -> None:
    first = creation(played)
    if not first.content:
        raise NotOffered("the client sends no content with the creation")
    if (kind := first.fields.get("content-type", "none")) != APPEND_TYPE:
        raise Violation("the Content-Type of POST", expected=APPEND_TYPE, got=kind)
    kept = min(len(first.content), len(played.content) // 2)
    following = next(iter(played.appends), None)
    if following is not None and following.number("upload-offset") != kept:
        got = following.number("upload-offset")
        raise Violation("the offset of the append", expected=str(kept), got=str(got))
    played.honest()
