"""What failures lead to (wire contract 5): a retry, a pause of all workers, a new token, or the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenacity import Retrying, retry_if_exception

from uploader_cli import errors
from uploader_cli.core.retry import wait_as_told, worth_retrying
from uploader_cli.transfer.api import LEAST_WAIT
from uploader_cli.transfer.budget import DEFAULT_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from uploader_cli.transfer.tus import TusClient
    from uploader_cli.transfer.tus_types import Terms


class TusRetry:
    """How long one upload goes on trying. `advanced` renews all of it."""

    def __init__(
        self,
        client: TusClient,
        terms: Terms,
        *,
        failed: Callable[[errors.UploaderError, float], None],
        pause: Callable[[float], None],
        shrink: Callable[[], bool] = lambda: False,
    ) -> None:
        """`failed(error, delay)` is called before each new try, `pause(seconds)` before a wait that all workers share.

        `shrink()` makes the chunks smaller after a 413, where that is possible.
        """
        self._client, self._terms = client, terms
        self._failed, self._pause, self._shrink = failed, pause, shrink
        self._waited, self._refreshed = 0.0, False

    def advanced(self) -> None:
        """The server has more than ever before."""
        self._waited, self._refreshed = 0.0, False

    def ready(self) -> None:
        """Before each request: the pause that any worker's 429 has set is everybody's. Raises `Interrupted`."""
        self._terms.stop.check()
        while (left := self._terms.budget.pause_left()) > 0:
            self._pause(left)
            self._terms.stop.sleep(left)

    def run(self, step: Callable[[], None]) -> None:
        """Do `step`, again and again as long as that may help. Raises the last error."""
        terms = self._terms

        def enough(call: RetryCallState) -> bool:
            told = getattr(call.outcome.exception(), "retry_after", None) if call.outcome is not None else None
            return call.attempt_number > terms.retries or (told is not None and told > terms.max_wait)

        def before_sleep(call: RetryCallState) -> None:
            error = call.outcome.exception() if call.outcome is not None else None
            if isinstance(error, errors.UploaderError) and call.next_action is not None:
                self._failed(error, call.next_action.sleep)

        Retrying(
            stop=enough,
            wait=wait_as_told(),
            retry=retry_if_exception(lambda error: worth_retrying(error) and not isinstance(error, errors.RateLimited)),
            sleep=terms.stop.sleep,
            before_sleep=before_sleep,
            reraise=True,
        )(self._excusing, step)

    def _excusing(self, step: Callable[[], None]) -> None:
        """What is excused uses up no retry."""
        while True:
            try:
                return step()
            except errors.AnswerError as error:
                delay = self._excuse(error)
                if delay is None:
                    raise
                self._failed(error, delay)

    def _excuse(self, error: errors.AnswerError) -> float | None:
        """Seconds until it goes on as if nothing had been, or None: then it is a failure."""
        match error:
            case errors.RateLimited():
                delay = DEFAULT_WAIT if error.retry_after is None else max(LEAST_WAIT, error.retry_after)
                self._terms.budget.pause(delay)
                self._waited += delay
                return delay if self._waited <= self._terms.max_wait else None
            case errors.Unauthorized(status=401) if not self._refreshed:
                self._refreshed = True
                # Another worker may have asked already, before us or at the same time.
                renewed = self._client.stale or self._terms.refresh() or self._client.stale
                return 0.0 if renewed else None
            case errors.TooLarge() if self._shrink():
                return 0.0
        return None
