"""What the domain refuses; `http.errors` makes answers of it."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that can't be done: why, as a code and a message.

    `number` is for `Words.errors`, `retry_after` has the seconds after which it may be done, and `extra` are further
    fields of the answer.
    """

    def __init__(
        self, code: str, message: str, *, number: int = 0, retry_after: int | None = None, **extra: Any
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.number = number
        self.retry_after = retry_after
        self.extra = extra
