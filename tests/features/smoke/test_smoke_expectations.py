"""What `smoke` accepts of an answer, and how it names what differs."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from uploader_cli import Settings
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Violation
from uploader_cli.features.smoke import expect, sending
from uploader_cli.transfer.answers import Answer

ACCEPTED: dict[str, tuple[list[object], list[object]]] = {
    "text": (["a"], ["", 1, None]),
    "words": (["a", ""], [1, None]),
    "count": ([0, 7, 7.0], [-1, 0.5, "7", True]),
    "some": ([1, 7], [0, 1.5]),
    "number": ([-0.5, 7], ["7", None]),
    "percent": ([0, 99.5, 100], [-0.5, 100.5]),
    "time": (["2026-01-02T03:04:05.678Z"], ["yesterday", 7]),
    "true": ([True], [False, 1, "true"]),
    "list": ([[]], [{}, ""]),
    "object": ([{}], [[], None]),
    "session status": (["pending", "partial"], ["queued", None]),
    "file status": (["queued", "failed"], ["partial"]),
}


def difference(violation: Violation) -> tuple[str, str, str]:
    return violation.finding.message, violation.finding.expected, violation.finding.got


def answer(status: int, code: str = "", **headers: str) -> Answer:
    body = {"error": code, "message": "no", "timestamp": "2026-01-02T03:04:05Z"} if code else None
    return Answer(status, headers, body, "http://files.invalid/")


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, (good, _) in ACCEPTED.items() for value in good])
def test_field_of_its_kind_is_accepted(kind: str, value: object) -> None:
    assert expect.shaped({"x": value}, "it", f"x: {kind}") == {"x": value}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, (_, bad) in ACCEPTED.items() for value in bad])
def test_field_of_another_kind_is_named(kind: str, value: object) -> None:
    """Also an optional one."""
    with pytest.raises(Violation) as raised:
        expect.shaped({"x": value}, "it", f"x: {kind}?")
    assert difference(raised.value)[:2] == ("x in it", expect.FIELD_KINDS[kind][0])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"y": 1}, ("x in it", "a whole number, 0 or more", "no such field")),
        (None, ("it", "a JSON object", "none")),
        (["a"], ("it", "a JSON object", '["a"]')),
    ],
)
def test_missing_field_and_body_are_named(body: object, expected: tuple[str, str, str]) -> None:
    """Only a required one."""
    with pytest.raises(Violation) as raised:
        expect.shaped(body, "it", "z: count?, y: count, x: count")
    assert difference(raised.value) == expected


@pytest.mark.parametrize(
    ("found", "got"),
    [
        (answer(200), "200"),
        (answer(404, "NOT_FOUND"), "404 NOT_FOUND"),
        (answer(400), "400 without an error code"),
        (answer(399), "399"),
        (answer(302, Location="http://elsewhere.invalid/"), "302, to http://elsewhere.invalid/"),
    ],
)
def test_unexpected_status_is_named_with_its_code(found: Answer, got: str) -> None:
    assert expect.answered(found, "it", 201, found.status) is found
    with pytest.raises(Violation) as raised:
        expect.answered(found, "it", 201, 204)
    assert difference(raised.value) == ("it", "201 or 204", got)
    assert raised.value.finding.exit is Exit.FAILED_FOR_GOOD


@pytest.mark.parametrize(("status", "code"), [(399, "NO"), (500, "NO"), (400, "")])
def test_clean_refusal_needs_a_code_and_a_client_error(status: int, code: str) -> None:
    expect.refused_cleanly(answer(400, "NO"), "it")
    expect.refused_cleanly(answer(499, "NO"), "it")
    with pytest.raises(Violation, match="it"):
        expect.refused_cleanly(answer(status, code), "it")


@pytest.mark.parametrize(("status", "code"), [(404, "OTHER"), (403, "NO")])
def test_refusal_needs_its_status_and_code(status: int, code: str) -> None:
    assert expect.refused(answer(404, "NO"), "it", 404, "NO")["message"] == "no"
    with pytest.raises(Violation) as raised:
        expect.refused(answer(status, code), "it", 404, "NO")
    assert difference(raised.value) == ("it", "404 NO", f"{status} {code}")


@pytest.mark.parametrize(("headers", "got"), [({}, "no such header"), ({"Upload-Offset": "x"}, '"x"')])
def test_header_that_is_missing_or_wrong_is_named(headers: dict[str, str], got: str) -> None:
    assert expect.header(answer(200, **{"Upload-Offset": "7"}), "Upload-Offset", "it", "a number", str.isdigit) == "7"
    with pytest.raises(Violation) as raised:
        expect.header(answer(200, **headers), "Upload-Offset", "it", "a number", str.isdigit)
    assert difference(raised.value) == ("Upload-Offset in the answer to it", "a number", got)


@pytest.mark.parametrize(
    ("found", "got", "code"),
    [
        (None, "nothing to read", Exit.FAILED_FOR_GOOD),
        (b"ab", "2 bytes", Exit.INTEGRITY),
        (b"abd", "as many others", Exit.INTEGRITY),
    ],
)
def test_other_bytes_are_corrupt(found: bytes | None, got: str, code: Exit) -> None:
    expect.same_bytes(b"abc", b"abc", "it")
    with pytest.raises(Violation) as raised:
        expect.same_bytes(found, b"abc", "it")
    assert difference(raised.value) == ("it", "the 3 bytes that were sent", got)
    assert raised.value.finding.exit is code


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({}, []),
        ({"Content-Location": "https://other.invalid/a"}, []),
        ({"Content-Location": "/uploads/a"}, ["/uploads/a"]),
    ],
)
def test_stored_file_is_read_back_where_the_answer_has_its_path(headers: dict[str, str], asked: list[str]) -> None:
    read: list[str] = []
    site: Any = SimpleNamespace(settings=Settings(server="http://h"), read=lambda path: read.append(path) or b"other")
    with pytest.raises(Violation) if asked else nullcontext():
        sending.read_back(site, "http://h/upload", answer(204, **headers), b"sent")
    assert read == asked


def test_long_values_are_cut_in_a_violation() -> None:
    expect.same("a", "a", "it")
    with pytest.raises(Violation) as raised:
        expect.same("x" * 78, "x" * 79, "it", corrupt=True)
    _, expected, got = difference(raised.value)
    assert (got, expected) == ('"' + "x" * 78 + '"', '"' + "x" * 78 + "…")
    assert raised.value.finding.exit is Exit.INTEGRITY
