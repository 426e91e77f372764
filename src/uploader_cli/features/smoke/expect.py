"""Compare responses with docs/protocol.md; a difference is a `Violation`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from uploader_cli.core.protocol import JsonObject, error_code, number, parse_time
from uploader_cli.features.checks.check import Violation
from uploader_cli.transfer.answers import Answer, redirect_target

QUOTED_LENGTH = 80  # maximum characters of a quoted value
SESSION_STATUSES = ("pending", "uploading", "completed", "partial", "cancelled")
FILE_STATUSES = ("pending", "queued", "uploading", "completed", "failed", "cancelled")


def _between(value: object, least: float, most: float = math.inf, *, whole: bool = True) -> bool:
    found = number(value)
    return found is not None and least <= found <= most and not (whole and found % 1)


FIELD_KINDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "text": ("a text", lambda value: isinstance(value, str) and bool(value)),
    "words": ("a text, maybe an empty one", lambda value: isinstance(value, str)),
    "count": ("a whole number, 0 or more", lambda value: _between(value, 0)),
    "some": ("a whole number, 1 or more", lambda value: _between(value, 1)),
    "number": ("a number", lambda value: number(value) is not None),
    "percent": ("a percentage", lambda value: _between(value, 0, 100, whole=False)),
    "time": ("a time (ISO 8601)", lambda value: parse_time(value) is not None),
    "true": ("true", lambda value: value is True),
    "list": ("a list", lambda value: isinstance(value, list)),
    "object": ("an object", lambda value: isinstance(value, dict)),
    "session status": (f"one of {', '.join(SESSION_STATUSES)}", lambda value: value in SESSION_STATUSES),
    "file status": (f"one of {', '.join(FILE_STATUSES)}", lambda value: value in FILE_STATUSES),
}
"""The kinds of fields, each with a description and a test."""


def shaped(body: object, what: str, fields: str = "") -> JsonObject:
    """Return `body` if it is an object with `fields`, as in `name: text, size: count?`; `?` marks an optional one."""
    if not isinstance(body, dict):
        raise Violation(what, expected="a JSON object", got="none" if body is None else quoted(body))
    for key, kind in (field.split(": ") for field in fields.split(", ") if field):
        words, fits = FIELD_KINDS[kind.removesuffix("?")]
        if key not in body and kind.endswith("?"):
            continue
        if key not in body or not fits(body[key]):
            got = quoted(body[key]) if key in body else "no such field"
            raise Violation(f"{key} in {what}", expected=words, got=got)
    return body


def answered(answer: Answer, what: str, *statuses: int) -> Answer:
    """Return `answer` if its status is one of `statuses`."""
    if answer.status not in statuses:
        raise Violation(what, expected=" or ".join(map(str, statuses)), got=said(answer))
    return answer


def succeeded(answer: Answer, what: str) -> Answer:
    """Return `answer` if it is a success."""
    if not answer.ok:
        raise Violation(what, expected="a success (2xx)", got=said(answer))
    return answer


def refused(answer: Answer, what: str, status: int, code: str) -> JsonObject:
    """Return the body of an expected refusal: status, error code, message and time (docs/protocol.md section 1)."""
    if (answer.status, error_code(answer.body)) != (status, code):
        raise Violation(what, expected=f"{status} {code}", got=said(answer))
    return shaped(answer.body, f"the refusal of {what}", "message: text, timestamp: time")


def refused_cleanly(answer: Answer, what: str) -> None:
    """Check for a 4xx with any error code."""
    if not 400 <= answer.status < 500 or not error_code(answer.body):
        raise Violation(what, expected="a refusal (4xx) with an error code", got=said(answer))


def header(answer: Answer, name: str, what: str, expected: str, fits: Callable[[str], bool]) -> str:
    """Return a required header of the response to `what`; `expected` describes what `fits` tests."""
    value = answer.headers.get(name)
    if value is None or not fits(value):
        got = "no such header" if value is None else quoted(value)
        raise Violation(f"{name} in the answer to {what}", expected=expected, got=got)
    return value


def same(value: object, expected: object, what: str, *, corrupt: bool = False) -> None:
    if value != expected:
        raise Violation(what, expected=quoted(expected), got=quoted(value), corrupt=corrupt)


def same_bytes(found: bytes | None, sent: bytes, what: str) -> None:
    if found != sent:
        got = "nothing to read" if found is None else "as many others"
        got = f"{len(found)} bytes" if found is not None and len(found) != len(sent) else got
        expected = f"the {len(sent)} bytes that were sent"
        raise Violation(what, expected=expected, got=got, corrupt=found is not None)


def said(answer: Answer) -> str:
    code = error_code(answer.body)
    if not code and answer.status >= 400:
        return f"{answer.status} without an error code"
    if (target := redirect_target(answer)) is not None:
        return f"{answer.status}, to {target}"
    return f"{answer.status} {code}".strip()


def quoted(value: object) -> str:
    """Format a value as JSON, cut if it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= QUOTED_LENGTH else text[: QUOTED_LENGTH - 1] + "…"
