"""The limits of a request's head. They are checked before anything parses it: no parser sees more than these bytes.

What reads input must be linear in its length all the same: tests/server/http/test_server_patterns.py attacks each
regular expression.
"""

from __future__ import annotations

from starlette.types import Scope

from uploader_server.http.errors import ApiError

LONGEST = 8 << 10  # maximum bytes of the value of a header
LONGER = {b"upload-concat": 256 << 10, b"upload-metadata": 32 << 10}  # other maxima
MOST = 64 << 10  # maximum bytes of a head besides these
MAX_HEAD = MOST + sum(LONGER.values())
COPIES = 2  # the ASGI server and the application keep one each


def cut_head(scope: Scope) -> tuple[Scope, ApiError | None]:
    """Return the scope, with the bytes of its head as `head`, and None.

    If the head is too long, return a scope with an empty one, and the answer: 431.
    """
    size, longer = len(scope["path"]) + len(scope["query_string"]), 0
    for name, value in scope["headers"]:
        length = len(value)
        if length > LONGEST:
            most = LONGER.get(name, LONGEST)
            if length > most:
                return _refused(scope, f"The header {name[:100].decode('latin-1')} has", most)
            longer += length
        size += len(name) + length
    if size - longer > MOST:
        return _refused(scope, "The head has", MOST)
    scope["head"] = size
    return scope, None


def kept_of_head(scope: Scope) -> int:
    """Return the bytes of memory that the head of a request counts. Short ones are limited by the connections."""
    size: int = scope.get("head", 0)
    return COPIES * size if size > LONGEST else 0


def _refused(scope: Scope, what: str, most: int) -> tuple[Scope, ApiError]:
    error = ApiError(431, "HEAD_TOO_LARGE", f"{what} more than {most} bytes", headers={"connection": "close"})
    return {**scope, "headers": [], "head": 0}, error
