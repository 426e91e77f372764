"""Tenacity as this room uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception, stop_after_attempt

from uploader_cli import errors
from uploader_cli.core.retry import wait_as_told, worth_retrying

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from uploader_cli.transfer.stop import Stop

NEVER_AS_IT_WAS = (errors.TooSlow, errors.SessionLost, errors.RateLimited)
"""Not sent again unchanged: fewer files, another session, or the end of the patience that `--max-wait` sets."""


def retrying(
    retries: int, stop: Stop, announce: Callable[[BaseException | None, float], None] = lambda _error, _delay: None
) -> Retrying:
    """Retries by error class, with the server's `Retry-After` or backoff, and a sleep that an interrupt ends.

    `announce(error, seconds)` is called before each wait. The last error is raised as it is.
    """

    def before_sleep(call: RetryCallState) -> None:
        error = call.outcome.exception() if call.outcome is not None else None
        announce(error, call.next_action.sleep if call.next_action is not None else 0.0)

    return Retrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_as_told(),
        retry=retry_if_exception(lambda error: worth_retrying(error) and not isinstance(error, NEVER_AS_IT_WAS)),
        sleep=stop.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
