"""The retry policy of all protocols: backoff, `Retry-After`, token refresh and outages.

A rate limit within `--max-wait`, an expired token and an outage use no retry; other retryable errors count against
`--retries`, from zero after each advance.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

from tenacity import Retrying, retry_if_exception, wait_exponential, wait_random

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import PauseReason
from uploader_cli.transfer.pacing import DEFAULT_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from uploader_cli.transfer.pacing import RateBudget, Stop

    Report = Callable[[errors.UploaderError, float], None]

T = TypeVar("T")

BACKOFF = wait_exponential(multiplier=0.5, max=30.0) + wait_random(0, 0.5)
"""Seconds before another attempt: 0.5, 1, 2, … up to 30, and up to 0.5 s of jitter."""
LEAST_WAIT = 1.0  # least seconds of pause after a 429
FIRST_PROBE = 0.5  # seconds before the second probe of an unreachable server, then doubled
LAST_PROBE = 10.0  # most seconds between two probes
HELD = 0.1  # seconds between two checks for the end of the user's pause
OVERLOADED = (429, 503)
NEVER_REPEATED = (
    errors.SessionLost,
    errors.RateLimited,
    errors.Unreachable,
    errors.ProxyUnauthorized,
    errors.DiskFull,
    errors.DigestPending,
)
"""Errors that the same request would meet again."""


def _ignore(_error: errors.UploaderError, _delay: float) -> None:
    pass


def _can_help(error: BaseException) -> bool:
    """Return whether the same request can succeed later."""
    return isinstance(error, errors.UploaderError) and error.retryable and not isinstance(error, NEVER_REPEATED)


def _asked(state: RetryCallState) -> float | None:
    """Return the `Retry-After` of the last error, in seconds."""
    error = state.outcome.exception() if state.outcome is not None else None
    return getattr(error, "retry_after", None)


def _delay(state: RetryCallState) -> float:
    asked = _asked(state)
    return BACKOFF(state) if asked is None else float(asked)


class Retry:
    """The policy of one run. All threads share pauses and outages."""

    def __init__(
        self,
        stop: Stop,
        budget: RateBudget,
        *,
        retries: int = 5,
        max_wait: float = 1200.0,
        wait_for_server: float = 600.0,
        refresh: Callable[[], bool] = lambda: False,
        emit: Callable[[ev.Event], None] = lambda _event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`refresh()` requests a new token, returns whether there is one; waits are in seconds."""
        self.stop, self.budget, self.retries, self.max_wait = stop, budget, retries, max_wait
        self.wait_for_server, self.refresh_token = wait_for_server, refresh
        self.probe: Callable[[], object] | None = None
        """A cheap call that succeeds when the server answers; None before its first answer."""
        self.overloaded: Callable[[], None] = lambda: None  # called after a 429, a 503 or a timeout
        self.held = False  # True while the user pauses the run: no request with content begins
        self._emit, self._clock = emit, clock
        self._lock = threading.Lock()
        self._outage: Future[bool] | None = None
        self._lost: errors.Unreachable | errors.DiskFull | None = None
        self._announced = 0.0
        self._pause: tuple[PauseReason, float] = (PauseReason.RATE_LIMIT, 0.0)
        """Reason of the pause, and seconds paused before."""
        self._warned_of_full = False
        self._policy = Retrying(retry=retry_if_exception(_can_help), wait=_delay, sleep=stop.sleep, reraise=True)

    def run(
        self,
        step: Callable[[], T],
        *,
        on_retry: Report = _ignore,
        at_most: int | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> T:
        """Return what `step` returns, repeating it at most `at_most` times. Raise its last error.

        `on_retry(error, delay)` is called before `sleep(delay)`.
        """
        try:
            return self._once(step, on_retry)  # `Retrying` costs 50 µs: only calls that failed pay for it
        except errors.UploaderError as error:
            if not _can_help(error):
                raise
            first = [error]
        retries = self.retries if at_most is None else min(at_most, self.retries)

        def attempt() -> T:
            if first:
                raise first.pop()  # the call above was the first attempt
            return self._once(step, on_retry)

        def is_enough(state: RetryCallState) -> bool:
            return state.attempt_number > retries or (_asked(state) or 0.0) > self.max_wait

        def report(state: RetryCallState) -> None:
            if state.outcome is not None and isinstance(error := state.outcome.exception(), errors.UploaderError):
                on_retry(error, state.upcoming_sleep)

        policy = self._policy.copy(stop=is_enough, before_sleep=report, sleep=sleep or self.stop.sleep)
        return policy(attempt)

    def wait_out_pause(self, sleep: Callable[[float], None] | None = None) -> None:
        """Wait until the user and the rate limit allow calls. Raise what `sleep` raises."""
        sleep = sleep or self.stop.sleep
        while True:
            if self.held:  # another thread changes it
                sleep(HELD)
            elif (left := self.budget.pause_left()) > 0:
                self._announce(left)
                sleep(left)
            else:
                return

    def pause(self, seconds: float, reason: PauseReason, waited: float) -> None:
        """Pause all calls; `waited` seconds were paused before."""
        self._pause = (reason, waited)
        self.budget.pause(seconds)

    def wait_for_space(self, error: errors.AnswerError, waited: float) -> float:
        """Pause all calls after a 507 and return the seconds. Raise `DiskFull` after `--wait-for-server`."""
        left = self.wait_for_server - waited
        if left <= 0 and self._lost is None:
            self._lost = errors.DiskFull(f"{error}{_after(waited)}", status=507, error=error.error)
        if self._lost is not None:
            raise self._lost
        delay = min(left, error.retry_after or max(LEAST_WAIT, min(waited, LAST_PROBE)))
        self.pause(delay, PauseReason.DISK_FULL, waited)
        return delay

    def _once(self, step: Callable[[], T], on_retry: Report) -> T:
        while True:
            try:
                return step()
            except (errors.RateLimited, errors.ServerFault, errors.TimedOut) as error:
                if isinstance(error, errors.TimedOut) or error.status in OVERLOADED:
                    self.overloaded()
                raise
            except (errors.ConnectFailed, errors.ConnectionLost) as error:
                if not self._outlast(error, on_retry):
                    raise

    def _announce(self, seconds: float) -> None:
        until = self._clock() + seconds
        with self._lock:
            if until <= self._announced + 1.0:
                return
            self._announced, (reason, waited) = until, self._pause
        self._emit(ev.Paused(seconds, reason, waited))
        if reason is PauseReason.RATE_LIMIT:
            text = f"rate limited: waiting {seconds:.0f} s as the server asked"
            self._emit(ev.RunWarning(ev.WarningCode.RATE_LIMITED, text))
        elif not self._warned_of_full:
            self._warned_of_full = True
            text = f"the server's disk is full: waiting up to {self.wait_for_server:.0f} s (--wait-for-server)"
            self._emit(ev.RunWarning(ev.WarningCode.DISK_FULL, text))

    def _outlast(self, error: errors.NetworkError, on_retry: Report) -> bool:
        """Wait for the end of an outage; one thread probes. Return False where the server answers at once.

        Raise `Unreachable` after `--wait-for-server`, in all threads.
        """
        if self.probe is None or not _can_help(error):
            return False
        with self._lock:
            if self._lost is not None:
                raise self._lost
            leads = self._outage is None
            outage = self._outage = self._outage or Future()
        if leads:
            try:
                outage.set_result(self._lead(error, on_retry))
            except BaseException as failure:  # noqa: BLE001 - raised below, in all threads
                outage.set_exception(failure)
            with self._lock:
                self._outage = None
        while not wait([outage], 0.1).done:
            self.stop.check()
        self.stop.check()
        real = outage.result()
        if real and not leads:
            on_retry(error, 0.0)
        return real

    def _lead(self, error: errors.NetworkError, on_retry: Report) -> bool:
        """Probe until the server answers; return True where the first probe failed."""
        began, delay = self._clock(), 0.0
        while not self._answers():
            waited = self._clock() - began
            if waited >= self.wait_for_server:
                self._lost = errors.Unreachable(f"{error}{_after(waited)}", hint=error.hint)
                raise self._lost
            if not delay:
                on_retry(error, FIRST_PROBE)
                text = f"server unreachable: waiting up to {self.wait_for_server:.0f} s for it (--wait-for-server)"
                self._emit(ev.RunWarning(ev.WarningCode.UNREACHABLE, text))
            delay = min(max(FIRST_PROBE, 2 * delay), LAST_PROBE, self.wait_for_server - waited)
            self._emit(ev.Paused(delay, PauseReason.UNREACHABLE, waited))
            self.stop.sleep(delay)
            before = self._clock()
            while self.held:
                self.stop.sleep(HELD)
            began += self._clock() - before  # a pause of the user is no part of the wait
        if delay:
            self._emit(ev.Paused(0.0, PauseReason.UNREACHABLE))
        return delay > 0

    def _answers(self) -> bool:
        try:
            if self.probe is not None:
                self.probe()
        except (errors.Interrupted, errors.ProxyUnauthorized):
            raise
        except errors.UploaderError as error:
            return not isinstance(error, errors.NetworkError)  # a refusal is an answer
        return True


class Tries:
    """The retries of one upload. 413, 429, 507, pending digests and one token refresh use none."""

    def __init__(
        self,
        retry: Retry,
        *,
        on_retry: Report = _ignore,
        shrink: Callable[[errors.TooLarge], bool] = lambda _error: False,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """`shrink(error)` reduces requests after a 413."""
        self._retry, self._on_retry, self._shrink = retry, on_retry, shrink
        self._sleep = sleep or retry.stop.sleep
        self.advanced()

    def advanced(self) -> None:
        """Start from zero: the server has more than ever before."""
        self._waited = self._full = 0.0
        self._refreshed = False

    def run(self, step: Callable[[], T]) -> T:
        """Call `step`, with retries. Raise its last error."""
        return self._retry.run(lambda: self.excusing(step), on_retry=self._on_retry, sleep=self._sleep)

    def excusing(self, step: Callable[[], T]) -> T:
        """Call `step`; repeat it only after excused errors."""
        while True:
            self._retry.wait_out_pause(self._sleep)
            try:
                return step()
            except errors.AnswerError as error:
                delay = self._excuse(error)
                if delay is None:
                    raise
                self._on_retry(error, delay)

    def _excuse(self, error: errors.AnswerError) -> float | None:
        """Return the seconds until the repetition, or None for an error that counts."""
        match error:
            case errors.RateLimited() | errors.DigestPending():
                delay = DEFAULT_WAIT if error.retry_after is None else max(LEAST_WAIT, error.retry_after)
                waited, self._waited = self._waited, self._waited + delay
                if self._waited > self._retry.max_wait:
                    return None  # before any thread sleeps
                if isinstance(error, errors.DigestPending):
                    self._sleep(delay)
                    return 0.0
                self._retry.pause(delay, PauseReason.RATE_LIMIT, waited)
                self._retry.overloaded()
                return delay
            case errors.ServerFault(status=507):
                delay = self._retry.wait_for_space(error, self._full)
                self._full += delay
                return delay
            case errors.Unauthorized(status=401) if not self._refreshed:
                self._refreshed = True
                return 0.0 if self._retry.refresh_token() else None
            case errors.TooLarge() if self._shrink(error):
                return 0.0
        return None


def _after(waited: float) -> str:
    return f"; waited {waited:.0f} s for it (--wait-for-server)" if waited >= 1 else ""
