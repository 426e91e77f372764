"""The one retry policy: backoff, `Retry-After`, token refresh and outages, for every protocol.

What can be excused costs no retry: a rate limit that the server ends within `--max-wait`, an expired token, a server
that is down for a while. Everything else that is retryable counts against `--retries`, anew after each advance.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from tenacity import Retrying, retry_if_exception

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import PauseReason
from uploader_cli.core.retry import wait_as_told, worth_retrying
from uploader_cli.transfer.pacing import DEFAULT_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenacity import RetryCallState

    from uploader_cli.transfer.pacing import RateBudget, Stop

T = TypeVar("T")

LEAST_WAIT = 1.0
"""Seconds of pause after a 429 that asks for less: a server that repeats it is not called at once."""
FIRST_PROBE = 0.5
LAST_PROBE = 10.0
"""Seconds before the first probe of a server that is down, doubled for each one after it, up to the second number."""
UNAVAILABLE = 503
"""The status by which a server says that it has too much to do."""
NEVER_REPEATED = (errors.SessionLost, errors.RateLimited, errors.Unreachable, errors.DiskFull, errors.DigestPending)
"""Errors after which the same request can't succeed: another session is needed, or patience is used up."""


def ignore(_error: errors.UploaderError, _delay: float) -> None:
    """Report nothing."""


class Retry:
    """The policy of one run. All threads share it: a pause or an outage that one of them meets holds up all."""

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
        """`refresh()` asks for a new token and says whether it got one; waits are in seconds."""
        self.stop, self.budget, self.retries, self.max_wait = stop, budget, retries, max_wait
        self.wait_for_server = wait_for_server
        self.probe: Callable[[], object] | None = None
        """One cheap call that succeeds when the server answers at all; None until it has answered in this run."""
        self.overloaded: Callable[[], None] = lambda: None
        """Called when the server answers 429 or 503, or does not answer in time."""
        self._refresh, self._emit, self._clock = refresh, emit, clock
        self._lock = threading.Lock()
        self._outage: _Outage | None = None
        self._lost: errors.Unreachable | errors.DiskFull | None = None
        self._announced = 0.0
        self._pause: tuple[PauseReason, float] = (PauseReason.RATE_LIMIT, 0.0)
        """Why calls are paused, and for how long they were already."""
        self._warned_of_full = False
        self._retrying = Retrying(  # built once: its state is in the call and in thread-local variables
            stop=self._is_enough,
            wait=wait_as_told(),
            retry=retry_if_exception(lambda error: worth_retrying(error) and not isinstance(error, NEVER_REPEATED)),
            sleep=lambda _seconds: None,  # each call sleeps in its own way, in `_before_sleep`
            before_sleep=_before_sleep,
            reraise=True,
        )

    def run(
        self,
        step: Callable[[], T],
        *,
        on_retry: Callable[[errors.UploaderError, float], None] = ignore,
        at_most: int | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> T:
        """Return what `step` returns, repeating it while that can help. Raise its last error.

        `on_retry(error, delay)` is called before each wait of `delay` seconds, `sleep(delay)` waits (by default until
        the run is stopped). `at_most` lowers the number of retries.
        """
        retries = self.retries if at_most is None else min(at_most, self.retries)
        call = _Call(step, on_retry, retries, sleep or self.stop.sleep)
        try:
            return self._once(call)  # most calls need no retry, and no objects for it
        except errors.UploaderError as error:
            if not worth_retrying(error):
                raise
            call.failed = error
        result: T = self._retrying(self._once, call)
        return result

    def wait_out_pause(self, sleep: Callable[[float], None] | None = None) -> None:
        """Return once the server's rate limit allows calls. Raise what `sleep` raises, by default `Interrupted`."""
        while (left := self.budget.pause_left()) > 0:
            self._announce(left)
            (sleep or self.stop.sleep)(left)

    def patience(self, error: errors.AnswerError, waited: float) -> float:
        """Return the seconds to wait as the server asks. Raise `error` where `--max-wait` is exceeded with `waited`."""
        delay = DEFAULT_WAIT if error.retry_after is None else max(LEAST_WAIT, error.retry_after)
        if waited + delay > self.max_wait:
            raise error
        return delay

    def pause(self, error: errors.RateLimited, waited: float) -> float:
        """Pause all calls as the server asks and return the seconds; `waited` is what this call has spent on pauses.

        Raise `error`, before any thread sleeps, where the sum exceeds `--max-wait`.
        """
        delay = self.patience(error, waited)
        self._pause = (PauseReason.RATE_LIMIT, waited)
        self.budget.pause(delay)
        self.overloaded()
        return delay

    def pause_for_space(self, error: errors.AnswerError, waited: float) -> float:
        """Pause all calls because the server's disk is full (507) and return the seconds.

        Raise `DiskFull`, which ends the run, after `--wait-for-server`.
        """
        left = self.wait_for_server - waited
        if left <= 0 and self._lost is None:
            after = f"; waited {waited:.0f} s for it (--wait-for-server)" if waited >= 1 else ""
            self._lost = errors.DiskFull(f"{error}{after}", status=507, error=error.error)
        if self._lost is not None:
            raise self._lost
        delay = min(left, error.retry_after or max(LEAST_WAIT, min(waited, LAST_PROBE)))
        self._pause = (PauseReason.DISK_FULL, waited)
        self.budget.pause(delay)
        return delay

    def refresh_token(self) -> bool:
        """Ask for another token; False where there is none."""
        return self._refresh()

    # --- one call -----------------------------------------------------------------------------------------------------

    def _once(self, call: _Call[T]) -> T:
        failed, call.failed = call.failed, None
        if failed is not None:
            raise failed
        while True:
            try:
                return call.step()
            except (errors.RateLimited, errors.ServerFault, errors.TimedOut) as error:
                if getattr(error, "status", UNAVAILABLE) in (429, UNAVAILABLE):
                    self.overloaded()
                raise
            except (errors.ConnectFailed, errors.ConnectionLost) as error:
                if not self._outlast(error, call.on_retry):
                    raise

    def _is_enough(self, state: RetryCallState) -> bool:
        call: _Call[object] = state.args[0]
        error = state.outcome.exception() if state.outcome is not None else None
        asked: float | None = getattr(error, "retry_after", None)
        return state.attempt_number > call.retries or (asked is not None and asked > self.max_wait)

    def _announce(self, seconds: float) -> None:
        """Report a pause of all calls, once for all threads."""
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

    # --- outages ------------------------------------------------------------------------------------------------------

    def _outlast(self, error: errors.NetworkError, on_retry: Callable[[errors.UploaderError, float], None]) -> bool:
        """Wait until a server that is down answers again. False: it answers, so the failure concerns this call alone.

        One thread probes, the others wait for it. Raise `Unreachable` after `--wait-for-server`, for all threads.
        """
        if self.probe is None or not error.retryable or isinstance(error, errors.Unreachable):
            return False
        with self._lock:
            if self._lost is not None:
                raise self._lost
            outage, leads = self._outage, self._outage is None
            if outage is None:
                outage = self._outage = _Outage()
        if not leads:
            return self._follow(outage, error, on_retry)
        try:
            outage.real = self._lead(error, on_retry)
        except errors.Unreachable as lost:
            self._lost = lost
            raise
        finally:
            with self._lock:
                self._outage = None
            outage.over.set()
        return outage.real

    def _lead(self, error: errors.NetworkError, on_retry: Callable[[errors.UploaderError, float], None]) -> bool:
        began, delay = self._clock(), 0.0
        while not self._answers():
            waited = self._clock() - began
            if waited >= self.wait_for_server:
                after = f"; waited {waited:.0f} s for it (--wait-for-server)" if waited >= 1 else ""
                raise errors.Unreachable(f"{error}{after}", hint=error.hint)
            if not delay:
                on_retry(error, FIRST_PROBE)
                text = f"server unreachable: waiting up to {self.wait_for_server:.0f} s for it (--wait-for-server)"
                self._emit(ev.RunWarning(ev.WarningCode.UNREACHABLE, text))
            delay = min(max(FIRST_PROBE, 2 * delay), LAST_PROBE, self.wait_for_server - waited)
            self._emit(ev.Paused(delay, PauseReason.UNREACHABLE, waited))
            self.stop.sleep(delay)
        if delay:
            self._emit(ev.Paused(0.0, PauseReason.UNREACHABLE))
        return delay > 0

    def _answers(self) -> bool:
        """Probe the server; True where it answers, with a refusal too."""
        try:
            if self.probe is not None:
                self.probe()
        except errors.Interrupted:
            raise
        except errors.NetworkError:
            return False
        except errors.UploaderError:
            pass
        return True

    def _follow(
        self, outage: _Outage, error: errors.NetworkError, on_retry: Callable[[errors.UploaderError, float], None]
    ) -> bool:
        while not outage.over.wait(0.1):
            self.stop.check()
        self.stop.check()
        if self._lost is not None:
            raise self._lost
        if outage.real:
            on_retry(error, 0.0)
        return outage.real


class Tries:
    """The retries of one upload: 413, 429, 507 and one token refresh are excused until it advances again, and so is
    a digest that is being computed.
    """

    def __init__(
        self,
        retry: Retry,
        *,
        on_retry: Callable[[errors.UploaderError, float], None] = ignore,
        shrink: Callable[[errors.TooLarge], bool] = lambda _error: False,
        stale: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """`shrink(error)` makes the requests smaller after a 413, where that is possible.

        `stale()` is True where another thread has refreshed the token since the last request. `sleep` is as in
        `Retry.run`.
        """
        self._retry, self._on_retry, self._shrink, self._stale = retry, on_retry, shrink, stale
        self._sleep = sleep
        self._waited = self._full = 0.0
        self._refreshed = False

    def advanced(self) -> None:
        """Reset the counts: the server has more than it ever had."""
        self._waited = self._full = 0.0
        self._refreshed = False

    def run(self, step: Callable[[], T]) -> T:
        """Repeat `step` while that can help. Raise its last error."""
        return self._retry.run(lambda: self.excusing(step), on_retry=self._on_retry, sleep=self._sleep)

    def excusing(self, step: Callable[[], T]) -> T:
        """Return what `step` returns; only what is excused is repeated."""
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
        """Return the seconds until the call is repeated, or None where the error counts."""
        match error:
            case errors.RateLimited():
                delay = self._retry.pause(error, self._waited)
                self._waited += delay
                return delay
            case errors.Unauthorized(status=401) if not self._refreshed:
                self._refreshed = True
                # Another worker may have refreshed it already, before this call or at the same time.
                return 0.0 if self._stale() or self._retry.refresh_token() or self._stale() else None
            case errors.TooLarge() if self._shrink(error):
                return 0.0
            case errors.ServerFault(status=507):
                pause = self._retry.pause_for_space(error, self._full)
                self._full += pause
                return pause
            case errors.DigestPending():
                delay = self._retry.patience(error, self._waited)
                self._waited += delay
                (self._sleep or self._retry.stop.sleep)(delay)
                return 0.0
        return None


class _Call(Generic[T]):
    """A step with what its retries need."""

    __slots__ = ("failed", "on_retry", "retries", "sleep", "step")

    def __init__(
        self,
        step: Callable[[], T],
        on_retry: Callable[[errors.UploaderError, float], None],
        retries: int,
        sleep: Callable[[float], None],
    ) -> None:
        self.step, self.on_retry, self.retries, self.sleep = step, on_retry, retries, sleep
        self.failed: errors.UploaderError | None = None
        """The error of the first try, which counts as one."""


def _before_sleep(state: RetryCallState) -> None:
    """Report the retry of a call, and wait in its way."""
    call: _Call[object] = state.args[0]
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, errors.UploaderError) and state.next_action is not None:
        call.on_retry(error, state.next_action.sleep)
        call.sleep(state.next_action.sleep)


class _Outage:
    """A time in which the server can't be reached; `real` is False where the first probe succeeds."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.real = True
