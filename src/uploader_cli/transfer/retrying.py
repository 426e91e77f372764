"""Tenacity as this room uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception

from uploader_cli import errors
from uploader_cli.core.retry import wait_as_told, worth_retrying

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.stop import Stop

NEVER_AS_IT_WAS = (errors.TooSlow, errors.SessionLost, errors.RateLimited)
"""Not sent again unchanged: fewer files, another session, or the end of the patience that `--max-wait` sets."""


def retrying(
    settings: Settings,
    stop: Stop,
    announce: Callable[[BaseException | None, float], None] = lambda _error, _delay: None,
    *,
    at_most: int | None = None,
) -> Retrying:
    """Retries by error class, with the server's `Retry-After` or backoff, and a sleep that an interrupt ends.

    `--retries` of them, `at_most` as many; none where the server asks for a longer wait than `--max-wait`.
    `announce(error, seconds)` is called before each wait. The last error is raised as it is.
    """

    def before_sleep(call: RetryCallState) -> None:
        error = call.outcome.exception() if call.outcome is not None else None
        announce(error, call.next_action.sleep if call.next_action is not None else 0.0)

    retries = settings.retries if at_most is None else min(at_most, settings.retries)

    def enough(call: RetryCallState) -> bool:
        told = getattr(call.outcome.exception(), "retry_after", None) if call.outcome is not None else None
        return call.attempt_number > retries or (told is not None and told > settings.max_wait)

    return Retrying(
        stop=enough,
        wait=wait_as_told(),
        retry=retry_if_exception(lambda error: worth_retrying(error) and not isinstance(error, NEVER_AS_IT_WAS)),
        sleep=stop.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
