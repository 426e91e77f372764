"""What the domain refuses; `http.errors` makes answers of it."""

from __future__ import annotations

from typing import Any, Literal

Code = Literal[
    "CANCELLED",
    "INVALID_FILE_FORMAT",
    "INVALID_HEADER",
    "INVALID_TOKEN",
    "NOT_YOURS",
    "SERVER_BUSY",
    "SESSION_BUSY",
    "SESSION_ENDED",
    "SESSION_NOT_FOUND",
    "SHARE_USED",
    "TOO_MANY_FILES",
    "TOO_MANY_JOINS",
    "TOO_MANY_SESSIONS",
    "TOO_MANY_UPLOADS",
    "UNAUTHORIZED",
]
"""The codes of refusals of the domain."""


class Refusal(Exception):
    """A request that can't be done: why, as a code and a message.

    `number` is for `Words.errors`, `retry_after` has the seconds after which it may be done, and `extra` are further
    fields of the answer.
    """

    def __init__(
        self, code: Code, message: str, *, number: int = 0, retry_after: int | None = None, **extra: Any
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code: str = code
        self.message = message
        self.number = number
        self.retry_after = retry_after
        self.extra = extra
