"""Check JSON and statuses against docs/protocol.md; raise `Violation` for a difference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.verdicts import Violation
from uploader_cli.core.protocol import JsonObject, error_code, number, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.transfer.http import Answer

SHOWN = 80
"""Maximum characters of a quoted value."""
SESSION_STATUSES = ("pending", "uploading", "completed", "partial", "cancelled")
FILE_STATUSES = ("pending", "queued", "uploading", "completed", "failed", "cancelled")


def _whole(value: object, least: int) -> bool:
    found = number(value)
    return found is not None and found >= least and found == int(found)


def _percent(value: object) -> bool:
    found = number(value)
    return found is not None and 0 <= found <= 100


KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "text": ("a text", lambda value: isinstance(value, str) and bool(value)),
    "words": ("a text, maybe an empty one", lambda value: isinstance(value, str)),
    "count": ("a whole number, 0 or more", lambda value: _whole(value, 0)),
    "some": ("a whole number, 1 or more", lambda value: _whole(value, 1)),
    "number": ("a number", lambda value: number(value) is not None),
    "percent": ("a percentage", _percent),
    "time": ("a time (ISO 8601)", lambda value: parse_time(value) is not None),
    "true": ("true", lambda value: value is True),
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "list": ("a list", lambda value: isinstance(value, list)),
    "object": ("an object", lambda value: isinstance(value, dict)),
    "session status": (f"one of {', '.join(SESSION_STATUSES)}", lambda value: value in SESSION_STATUSES),
    "file status": (f"one of {', '.join(FILE_STATUSES)}", lambda value: value in FILE_STATUSES),
}
"""The kinds of fields, each with a description and a test."""


def shaped(body: object, what: str, fields: Mapping[str, str]) -> JsonObject:
    """Return `body` if it is an object with fields of these kinds; a name that ends with `?` is optional."""
    if not isinstance(body, dict):
        raise Violation(what, expected="a JSON object", got="none" if body is None else quoted(body))
    for name, kind in fields.items():
        key, optional = name.removesuffix("?"), name.endswith("?")
        words, fits = KINDS[kind]
        if optional and key not in body:
            continue
        if key not in body or not fits(body[key]):
            raise Violation(
                f"{key} in {what}", expected=words, got=quoted(body[key]) if key in body else "no such field"
            )
    return body


def answered(answer: Answer, what: str, *statuses: int) -> Answer:
    """Return `answer` if its status is one of `statuses`."""
    if answer.status not in statuses:
        raise Violation(what, expected=" or ".join(map(str, statuses)), got=said(answer))
    return answer


def refused(answer: Answer, what: str, *wanted: tuple[int, str]) -> JsonObject:
    """Return the body of an expected refusal: `(status, error code)`, message and time (docs/protocol.md section 1)."""
    if (answer.status, error_code(answer.body)) not in wanted:
        raise Violation(what, expected=" or ".join(f"{status} {error}" for status, error in wanted), got=said(answer))
    return shaped(answer.body, f"the refusal of {what}", {"message": "text", "timestamp": "time"})


def refused_cleanly(answer: Answer, what: str) -> None:
    """Check for a 4xx with any error code."""
    if not 400 <= answer.status < 500 or not error_code(answer.body):
        raise Violation(what, expected="a refusal (4xx) with an error code", got=said(answer))


def header(answer: Answer, name: str, what: str, expected: str, fits: Callable[[str], bool]) -> str:
    """Return a required header of the response to `what`; `expected` describes what `fits` tests."""
    value = answer.headers.get(name)
    if value is None or not fits(value):
        raise Violation(
            f"{name} in the answer to {what}",
            expected=expected,
            got="no such header" if value is None else quoted(value),
        )
    return value


def same(value: object, expected: object, what: str, *, corrupt: bool = False) -> None:
    """Check for equality."""
    if value != expected:
        raise Violation(what, expected=quoted(expected), got=quoted(value), corrupt=corrupt)


def same_bytes(found: bytes | None, sent: bytes, what: str) -> None:
    """Check that the server returns the bytes that were sent."""
    if found is None:
        raise Violation(what, expected=f"the {len(sent)} bytes that were sent", got="nothing to read")
    if found != sent:
        got = f"{len(found)} bytes" if len(found) != len(sent) else "as many others"
        raise Violation(what, expected=f"the {len(sent)} bytes that were sent", got=got, corrupt=True)


def said(answer: Answer) -> str:
    """Describe a response in one or two words."""
    code = error_code(answer.body)
    if not code and answer.status >= 400:
        return f"{answer.status} without an error code"
    return f"{answer.status} {code}".strip()


def quoted(value: object) -> str:
    """Format a value as JSON, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
