"""Retry delays for tenacity. The caller gives tenacity its own `sleep`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenacity import wait_exponential, wait_random
from tenacity.wait import wait_base

if TYPE_CHECKING:
    from tenacity import RetryCallState

FIRST_DELAY = 0.5
MAX_DELAY = 30.0


class wait_as_told(wait_base):  # noqa: N801 - named like tenacity's own waits
    """Wait for the server's `Retry-After` if there is one, else exponential backoff with jitter (seconds)."""

    def __init__(self) -> None:
        """Back off 0.5, 1, 2, … up to 30 s, with up to 0.5 s of jitter."""
        self._backoff = wait_exponential(multiplier=FIRST_DELAY, max=MAX_DELAY) + wait_random(0, FIRST_DELAY)

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the delay before the next attempt, in seconds."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        requested: float | None = getattr(error, "retry_after", None)
        return requested if requested is not None else self._backoff(retry_state)


def worth_retrying(error: BaseException) -> bool:
    """Return True for errors after which the same request can succeed."""
    return bool(getattr(error, "retryable", False))
