"""Each check of a server finds the server with its defect, and no other one does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from features.smoke.broken_servers import failed, smoke

from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.smoke.runner import ON_REQUEST

if TYPE_CHECKING:
    from uploader_cli.features.checks.check import CheckReport

pytestmark = pytest.mark.feature("tester")

SOURCE = (Path(__file__).parent / "ietf_server.py").read_text(encoding="utf-8")
SHORT = 5.0
"""Seconds to wait for an answer that does not come."""

LIMITED = 'return self.problem(413, "", {"Upload-Limit": self.limits})'
UNLIMITED = "return self.problem(413)"
LARGE_FILE = "MAX_SIZE:\n            upload.gone = True\n            "
LARGE_APPEND = "MAX_APPEND:\n            "
HEAD = 'if request.method == "HEAD":\n'
DELETE = 'if request.method == "DELETE":\n            upload.turn += 1\n            upload.gone = True\n'
GONE = "        if upload.gone:\n            return Answer(410)\n"
COMPLETE = "        if upload.complete:\n            return "
STATE_COMPLETE = 'f"?{upload.complete:d}"'
STATE_OFFSET = '"Upload-Offset": str(upload.offset)}\n        return'
MOVED = 'Answer(302, {"Location": f"{upload.path}/"})'
OVERRUN = "upload.offset + len(piece) > length"
INTERIM = '{**self.version, "Location": self.upload.path, "Upload-Limit": self.limits}'
CONTENT_DIGEST = 'bytes(request.content)):\n            return self.problem(400, "digest-mismatching-values")'

DEFECTS = {
    "ietf-options": ('Answer(204, {"Upload-Limit": self.limits})', """Answer(204, {"Upload-Limit": 'max-size="9"'})"""),
    "ietf-creation": ("if upload.length is None else", "if upload.length is None or not upload.data else"),
    "ietf-created": ("Answer(201 if", "Answer(200 if"),
    "ietf-part": ("elif not self.digest:", "elif not self.digest and (boolean(self.request) or not self.created):"),
    "ietf-whole": ('{"Upload-Complete": "?1", "Content', '{"Upload-Complete": f"?{not self.created:d}", "Content'),
    "ietf-104": (INTERIM, INTERIM.replace(', "Upload-Limit": self.limits', "")),
    "ietf-104-version": (INTERIM, INTERIM.replace("**self.version, ", "")),
    "ietf-104-mismatch": ("not None and self.version.get(VERSION) == VERSIONS[-1]", "not None"),
    "ietf-104-same": ('{"Location": upload.path} if', '{"Location": f"{upload.path}/"} if'),
    "ietf-100": (f"return [{INTERIM}", f'self.request.fields.pop("expect", "")\n        return [{INTERIM}'),
    "ietf-cut-creation": (STATE_COMPLETE, 'f"?{upload.complete or boolean(upload.creation) or False:d}"'),
    "ietf-upgrade": (COMPLETE, COMPLETE.replace("complete", "complete or boolean(upload.creation)")),
    "ietf-same-answer": ('Answer(200, {"Upload-Complete"', 'Answer(200 if self.created else 202, {"Upload-Complete"'),
    "ietf-no-store": ('"no-store"', '"max-age=60"'),
    "ietf-get": ('{**self.state, "Cache', '{**(self.state if request.method == "HEAD" else {}), "Cache'),
    "ietf-redirects": (
        GONE,
        f'{GONE}        if (request.method, request.path) == ("HEAD", upload.path):\n            return {MOVED}\n',
    ),
    "ietf-append": ('{**where, "Upload-Complete": "?0"', '{**where, "Upload-Complete": f"?{not self.created:d}"'),
    "ietf-declared-end": ("if not boolean(request):", "if not boolean(request) and upload.offset != upload.length:"),
    "ietf-completed": (f"{COMPLETE}self.problem(400)", f'{COMPLETE}Answer(204, {{"Upload-Complete": "?1"}})'),
    "ietf-offset": ('{"Upload-Offset": str(upload.offset)}, **told', "{}, **told"),
    "ietf-problem-offset": ('"expected-offset"', '"offset"'),
    "ietf-length": ("upload.length not in (None, end):", "(upload.length or end) < end:"),
    "ietf-problem-length": ('"inconsistent-upload-length"', '"inconsistent-length"'),
    "ietf-overrun": (OVERRUN, f"{OVERRUN} and not self.request.length"),
    "ietf-chunked": (OVERRUN, f"{OVERRUN} and self.request.length"),
    "ietf-resume": (STATE_COMPLETE, 'f"?{upload.complete or any(not one.status for one in upload.appends):d}"'),
    "ietf-deferred-length": (
        "if upload.length is None else",
        'if integer(upload.creation, "upload-length") is None else',
    ),
    "ietf-malformed": (
        "= self.request, integer(self.request",
        """= self.request, quoted(self.request""",
    ),
    "ietf-malformed-end": ('get("upload-complete", "")', """get("upload-complete", "").strip('"')"""),
    "ietf-malformed-length": (
        'self.length: int | None = integer(request, "upload-length")',
        'self.length: int | None = quoted(request, "upload-length")',
    ),
    "ietf-media-type": ('!= "application/partial-upload"', '== ""'),
    "ietf-104-append": ("str(self.upload.offset)}]", 'str(self.upload.offset), "Location": self.upload.path}]'),
    "ietf-104-progress": ("str(self.upload.offset)}]", "str(self.upload.offset + 1)}]"),
    "ietf-concurrency": (
        STATE_OFFSET,
        STATE_OFFSET.replace("upload.offset", "upload.offset - any(one.open for one in upload.appends)"),
    ),
    "ietf-newer": (f"{HEAD}            upload.turn += 1", f"{HEAD}            upload.turn += 0"),
    "ietf-cancel": (DELETE, DELETE.replace("gone = True", "gone = False")),
    "ietf-cancel-open": (DELETE, DELETE.replace("+= 1", "+= 0")),
    "ietf-limits-announced": ("return limits\n", 'return limits.replace("max-size=1", "max-size=2")\n'),
    "ietf-limits-kept": ("max-size={MAX_SIZE}", "max-size={MAX_SIZE - len(self.upload.data if self.upload else b'')}"),
    "ietf-max-size": (f"{LARGE_FILE}{LIMITED}", f"{LARGE_FILE}{UNLIMITED}"),
    "ietf-max-append-size": (f"{LARGE_APPEND}{LIMITED}", f"{LARGE_APPEND}{UNLIMITED}"),
    "ietf-min-append-size": ("< MIN_APPEND and not boolean(request)", "< MIN_APPEND and request.length"),
    "ietf-max-age": ("self.upload.ends - time.time()", "self.upload.ends - time.time() - 100 * self.upload.turn"),
    "ietf-expires": ('name = "expires"', 'name = "max-age"'),
    "ietf-digest": ("if self.digest and self.digest != ", "if self.digest and b'' == "),
    "ietf-problem-digest": (CONTENT_DIGEST, CONTENT_DIGEST.replace("mismatching-values", "mismatch")),
    "ietf-repr-digest": ("if upload.digest and upload.digest !=", "if upload.digest and b'' =="),
    "ietf-want-digest": ("sha256(bytes(upload.data))} if", "sha256(b'')} if"),
    "ietf-coding": (STATE_OFFSET, STATE_OFFSET.replace("upload.offset", "upload.offset * (1 + upload.coded)")),
    "ietf-version": ("{VERSION: request.fields[VERSION.lower()]}", "{VERSION: known(request.fields[VERSION.lower()])}"),
}
"""One change of the correct server for each check: what is replaced, and by what."""

WRONG = """
def quoted(request, name):
    return int(request.fields[name].strip('"')) if name in request.fields else None

def known(version):
    return "8" if version == "5" else version
"""
"""Functions that defects use."""


def report_on(source: str, patience: float = 30.0) -> CheckReport:
    """Return the report on a server, after which it has no upload."""
    server: dict[str, Any] = {"__name__": "server"}
    exec(source + WRONG, server)
    with server["Server"]() as running:
        report = smoke("", ["ietf-*", "clean-up"], patience=patience, tus_endpoint=running.url)
        left = [path for path, upload in running.uploads.items() if not upload.gone]
    assert (report.left, left) == ((), []) or "Answer(204)" in source
    return report


def test_correct_server_passes_all_checks() -> None:
    report = report_on(SOURCE)
    assert {found.id: found.verdict for found in report.results} == dict.fromkeys([*DEFECTS, "clean-up"], Verdict.PASS)
    assert set(DEFECTS) == {check.id for check in ON_REQUEST}
    assert report.exit_code == 0
    said = "The server implements interop version 8 (draft -09 and later), and also answers "
    assert report.notes == (f"{said}interop version 6 (draft -04 and -05) and requests without a version",)


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_fails_its_check_and_no_other(name: str) -> None:
    """Checks that depend on it are skipped."""
    before, after = DEFECTS[name]
    assert SOURCE.count(before) == 1
    report = report_on(SOURCE.replace(before, after), SHORT if name == "ietf-100" else 30.0)
    assert failed(report) == {name}, report.results
    required = next(check.required for check in ON_REQUEST if check.id == name)
    assert (report.exit_code != 0) == required
    for found in report.results:
        fine = (Verdict.PASS, Verdict.FAIL, Verdict.NOT_OFFERED)
        assert found.verdict in fine or found.blocked_by == name, found
