"""Whether JSON and statuses are as the wire contract has them; raises `Violation` for what is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from uploader_cli.core.protocol import JsonObject, error_code, number, parse_time
from uploader_cli.smoke.verdicts import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.transfer.http import Answer

SHOWN = 80
"""Characters of a value that is quoted."""
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
"""What a field may be asked to be, in words and as a test."""


def shaped(body: object, what: str, fields: Mapping[str, str]) -> JsonObject:
    """`body` where it is an object whose fields are of these kinds; one whose name ends in `?` may be missing."""
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
    """`answer` where its status is one of these."""
    if answer.status not in statuses:
        raise Violation(what, expected=" or ".join(map(str, statuses)), got=said(answer))
    return answer


def refused(answer: Answer, what: str, *wanted: tuple[int, str]) -> JsonObject:
    """The body of a refusal as it should be: `(status, error code)`, a message, and a time (wire contract 1)."""
    if (answer.status, error_code(answer.body)) not in wanted:
        raise Violation(what, expected=" or ".join(f"{status} {error}" for status, error in wanted), got=said(answer))
    return shaped(answer.body, f"the refusal of {what}", {"message": "text", "timestamp": "time"})


def refused_cleanly(answer: Answer, what: str) -> None:
    """Nothing where it is a 4xx with an error code: which one is up to the server."""
    if not 400 <= answer.status < 500 or not error_code(answer.body):
        raise Violation(what, expected="a refusal (4xx) with an error code", got=said(answer))


def header(answer: Answer, name: str, what: str, expected: str, fits: Callable[[str], bool]) -> str:
    """A header that the answer to `what` must have; `expected` says in words what `fits` tests."""
    value = answer.headers.get(name)
    if value is None or not fits(value):
        raise Violation(
            f"{name} in the answer to {what}",
            expected=expected,
            got="no such header" if value is None else quoted(value),
        )
    return value


def same(value: object, expected: object, what: str, *, corrupt: bool = False) -> None:
    """Nothing where they are equal."""
    if value != expected:
        raise Violation(what, expected=quoted(expected), got=quoted(value), corrupt=corrupt)


def same_bytes(found: bytes | None, sent: bytes, what: str) -> None:
    """Nothing where the server gives out what was sent to it."""
    if found is None:
        raise Violation(what, expected=f"the {len(sent)} bytes that were sent", got="nothing to read")
    if found != sent:
        got = f"{len(found)} bytes" if len(found) != len(sent) else "as many others"
        raise Violation(what, expected=f"the {len(sent)} bytes that were sent", got=got, corrupt=True)


def said(answer: Answer) -> str:
    """An answer in a word or two."""
    code = error_code(answer.body)
    if not code and answer.status >= 400:
        return f"{answer.status} without an error code"
    return f"{answer.status} {code}".strip()


def quoted(value: object) -> str:
    """A value in a sentence: as JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
