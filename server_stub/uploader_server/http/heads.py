"""The limits of a request's head. They are checked before anything parses it: no parser sees more than these bytes.

What reads input must be linear in its length all the same: tests/server/http/test_server_patterns.py attacks each
regular expression.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.types import Scope

from uploader_server.http.errors import ApiError

LONGEST = 8 << 10  # maximum bytes of the value of a header
LONGER = {b"upload-concat": 256 << 10, b"upload-metadata": 32 << 10}  # other maxima
MOST = 64 << 10  # maximum bytes of a head besides these
MAX_HEAD = MOST + sum(LONGER.values())
COPIES = 2  # the ASGI server and the application keep one each


def cut_head(scope: Scope) -> tuple[Scope, ApiError | None]:
    """Return the scope and None or, if its head is too long, one with an empty head, and the answer: 431."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    long = next((name for name, value in headers if len(value) > LONGER.get(name, LONGEST)), None)
    if long is None and _size(scope, without=LONGER) <= MOST:
        return scope, None
    what = "The head has" if long is None else f"The header {long[:100].decode('latin-1')} has"
    most = MOST if long is None else LONGER.get(long, LONGEST)
    return {**scope, "headers": []}, ApiError(
        431, "HEAD_TOO_LARGE", f"{what} more than {most} bytes", headers={"connection": "close"}
    )


def kept_of_head(scope: Scope) -> int:
    """Return the bytes of memory that the head of a request counts. Short ones are limited by the connections."""
    size = _size(scope)
    return COPIES * size if size > LONGEST else 0


def _size(scope: Scope, without: Collection[bytes] = ()) -> int:
    fields = sum(len(name) + len(value) for name, value in scope["headers"] if name not in without)
    return len(scope["path"]) + len(scope["query_string"]) + fields
