"""Each situation of tus finds the client with its defect, and no other one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from features.tester.judged import failed_by, verdicts

from uploader_cli.features.checks.check import Verdict

CLIENT = Path(__file__).parent / "tus_client.py"

POST = 'ask(self.target, "POST", fields, content)'
PATCH = 'ask(url, "PATCH", fields, content)'
TWICE = 'answer["location"]), "PATCH", fields'
REFUSED = "        if status != 201:\n"
CREATED = '        return urljoin(self.target, answer["location"])\n'
LOST = "            except Lost:\n                status = 0\n"
LOST_CREATION = "        except Lost:\n            return None\n"
UNAVAILABLE = "        if status == 503:\n            return None\n"
SENT = "            if status == 204:\n"
STORED = '                offset = int(answer["upload-offset"])\n'
OTHERWISE = "            elif status != 460:\n"
NO_OFFSET = "            if offset is None:\n"
OFFSET = 'int(answer["upload-offset"])\n        if'
BEYOND = '            raise Failed("an offset beyond the file")'
GONE = "            if status in (404, 410):\n"


def first(lines: str, before: str) -> tuple[str, str]:
    """Return the change that puts lines before others."""
    return before, lines + before


DEFECTS = {
    "tus-plain": first(
        "            if status == 204 and len(content) == len(self.file):\n                raise Failed\n", SENT
    ),
    "tus-version": ('ask(url, "HEAD", {})', 'ask(url, "HEAD", {"Tus-Resumable": "0.2.2"})'),
    "tus-length": ('"Content-Type": TYPE,', '"Content-Type": TYPE, "Upload-Length": str(len(content) + 1),'),
    "tus-metadata": ('f"filename {name}"', '"filename a-file"'),
    "tus-append-type": ('"Content-Type": TYPE, "Upload-Ch', '"Content-Type": "text/plain", "Upload-Ch'),
    "tus-relative-location": (CREATED, CREATED.replace("answer", '"/" + answer').replace('"]', '"].lstrip("/")')),
    "tus-lost-creation": (LOST_CREATION, LOST_CREATION.replace("return None", "raise Done")),
    "tus-lost-append": (LOST, f"{LOST}                if offset:\n                    {PATCH}\n"),
    "tus-lost-answer": first(
        "            if status == 0 and offset == len(self.file):\n                raise Failed\n", NO_OFFSET
    ),
    "tus-offset-behind": (OFFSET, OFFSET.replace("int(", "max(len(self.file) * 7 // 16, int(").replace("\n", ")\n")),
    "tus-offset-ahead": ("self.file[offset:]\n", "self.file[min(offset, len(self.file) * 3 // 4) :]\n"),
    "tus-offset-beyond": (BEYOND, f"            ask(url, 'PATCH', {{'Upload-Offset': str(offset)}})\n{BEYOND}"),
    "tus-short-append": (STORED, "                offset = len(self.file)\n"),
    "tus-404": first("            if status == 404:\n                raise Failed\n", GONE),
    "tus-410": first("            if status == 410:\n                raise Failed\n", GONE),
    "tus-expired": ("                if self.expired:", "                if False:"),
    "tus-conflict": first(f"            if status == 409:\n                {PATCH}\n", SENT),
    "tus-locked": first("            elif status == 423:\n                return\n", OTHERWISE),
    "tus-unsupported-version": first(f"        if status == 412:\n            {POST}\n", REFUSED),
    "tus-max-size": first(f"        if status == 413:\n            {POST}\n", REFUSED),
    "tus-checksum": ("hashlib.sha1(content)", "hashlib.sha1(self.file + b'.')"),
    "tus-checksum-mismatch": first("            elif status == 460:\n                offset += 1\n", OTHERWISE),
    "tus-error-creation": (UNAVAILABLE, UNAVAILABLE.replace("return None", "raise Done")),
    "tus-error-append": first(f"            if status == 503:\n                {PATCH}\n", SENT),
    "tus-error-query": ("            if status in (404, 410):", "            if status in (404, 410, 503):"),
    "tus-redirected-creation": ('answer["location"]), "POST", fields, content)', 'answer["location"]), "GET", {})'),
    "tus-redirected-append": (f"{TWICE}, content)", f"{TWICE})"),
    "tus-no-protocol": first("        if status == 405:\n            raise Done\n", REFUSED),
    "tus-creation-with-upload": ("        offset = self.begun\n", "        offset = 0\n"),
}
"""One change of the correct client for each situation: what is replaced, and by what."""


def test_correct_client_is_right_in_all_situations() -> None:
    found = verdicts("tus", CLIENT.read_text(encoding="utf-8"))
    assert found == dict.fromkeys(DEFECTS, Verdict.PASS)


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_fails_its_situation_and_no_other(name: str) -> None:
    assert failed_by("tus", CLIENT, *DEFECTS[name]) == [name]
