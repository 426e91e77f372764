"""Each situation of the IETF's protocol finds the client with its defect, and no other one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from features.tester.judged import failed_by, verdicts

from uploader_cli.features.checks.check import Verdict

CLIENT = Path(__file__).parent / "ietf_client.py"

CREATED = "        if answer and answer.status < 300:\n            return\n"
HEAD = '        answer = ask(self.url, "HEAD", {})\n'
QUERY = f'is complete."""\n{HEAD}'
REDIRECTED = "        if answer.status in (307, 308):\n            self"
BEYOND = "len(self.file):\n            self.give_up()\n        self.limits = answer.limits\n"
REFUSED = "        if answer and answer.status < 500:\n"
NOTED = "        self.limits = answer.limits or self.limits"
COMPLETE = "        if answer.complete:\n            if"
SEVERAL = "        for _ in range(20):"
FIELDS = '{"Upload-Complete": "?1", "Content-Length": len(self.file)'
POST = f"ask(self.target, 'POST', {FIELDS}}}, self.file)"
PATCH = 'ask(self.url, "PATCH", fields, content)'
KNOWN = '{name: found[name] for name in ("max-size", "max-append-size") if name in found}'
INTEGERS = "} if all(map(str.isdecimal, known.values())) else {}"


def first(lines: str, before: str) -> tuple[str, str]:
    """Return the change that puts lines before others."""
    return before, lines + before


SENT = """"Content-Length": len(self.file), "Repr-Digest": digest(self.file)}
        try:
            answer = ask(self.target, "POST", fields, self.file"""
CHUNKED = """"Transfer-Encoding": "chunked", "Repr-Digest": digest(self.file)}
        try:
            chunks = b"%x\\r\\n%b\\r\\n0\\r\\n\\r\\n" % (len(self.file), self.file)
            answer = ask(self.target, "POST", fields, chunks"""

DEFECTS = {
    "ietf-plain": first("        if answer and answer.complete:\n            raise Failed\n", CREATED),
    "ietf-length": (SENT, CHUNKED),
    "ietf-lengths": ('"Content-Digest":', '"Upload-Length": len(content), "Content-Digest":'),
    "ietf-104-early": ("if self.url is None:", "if True:"),
    "ietf-104-late": first(f"            {POST}\n", "            return None\n"),
    "ietf-104-never": ('raise Failed("no URL")', "return"),
    "ietf-old-version": ('if answer.fields.get("upload-draft-interop-version") != VERSION:', "if False:"),
    "ietf-version": (QUERY, QUERY.replace("{}", '{"Upload-Draft-Interop-Version": "7"}')),
    "ietf-append-fields": ('TYPE = "application/partial-upload"', 'TYPE = "application/offset+octet-stream"'),
    "ietf-offset-behind": ("return answer.offset\n", "return max(answer.offset, len(self.file) * 7 // 16)\n"),
    "ietf-offset-ahead": ("self.file[offset:end]", "self.file[min(offset, len(self.file) * 3 // 4) :][: end - offset]"),
    "ietf-offset-beyond": (
        BEYOND,
        BEYOND.replace("self.give_up", "self.append(answer.offset)\n            self.give_up"),
    ),
    "ietf-cancel": (BEYOND, BEYOND.replace("self.give_up()", "raise Failed")),
    "ietf-max-size": first(f"        if answer and answer.status == 413:\n            {POST}\n", REFUSED),
    "ietf-shorter-limit": (KNOWN, "found"),
    "ietf-completeness": ("complete = end == len(self.file)", "complete = True"),
    "ietf-too-large": ("not in (409, 413)", "!= 409"),
    "ietf-404": first(f"        if answer.status == 404:\n    {HEAD}", REDIRECTED),
    "ietf-410": first(f"        if answer.status == 410:\n    {HEAD}", REDIRECTED),
    "ietf-redirected-query": first("        if answer.status == 307:\n            return 0\n", REDIRECTED),
    "ietf-redirected-append": (
        f"                answer = {PATCH}",
        '                answer = ask(self.url, "PATCH", {**fields, "Content-Length": 0})',
    ),
    "ietf-refused-offset": first(f"        if answer.status == 409:\n            {PATCH}\n", COMPLETE),
    "ietf-refused-creation": first(f"        if answer and answer.status == 403:\n            {POST}\n", REFUSED),
    "ietf-processing-error": ('raise Failed("the server could not process it")', "return False"),
    "ietf-server-error": first("        if answer and answer.status == 503:\n            self.append(0)\n", SEVERAL),
    "ietf-lost-append": ("            return False\n        if", f"            answer = {PATCH}\n        if"),
    "ietf-in-progress": first(f"        if 'max-age' in answer.fields.get('upload-limit', ''):\n    {HEAD}", NOTED),
    "ietf-locations": (" or len(self.locations) > 1", ""),
    "ietf-malformed-offset": ('get("upload-offset", "")', """get("upload-offset", "").strip('"')"""),
    "ietf-malformed-limit": (INTEGERS, "if value.isdecimal()}"),
    "ietf-digest": ('"Content-Digest": digest(content)', '"Content-Digest": digest(self.file)'),
    "ietf-no-protocol": (CREATED, CREATED.replace("300", "300 and answer.complete")),
}
"""One change of the correct client for each situation: what is replaced, and by what."""


def test_correct_client_is_right_in_all_situations() -> None:
    found = verdicts("ietf", CLIENT.read_text(encoding="utf-8"))
    assert found == dict.fromkeys(DEFECTS, Verdict.PASS)


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_fails_its_situation_and_no_other(name: str) -> None:
    assert failed_by("ietf", CLIENT, *DEFECTS[name]) == [name]
