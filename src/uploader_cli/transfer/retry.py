"""What limits the requests of a run: a stop, `--limit-rate`, the server's rate limit, and the retries.

A rate limit within `--max-wait`, an expired token and an outage use no retry; other retryable errors count against
`--retries`, from zero after each advance. Where this client holds its share of the server, only creations pause: what
frees the share continues.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import PauseReason
from uploader_cli.core.protocol import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[errors.UploaderError, float], None]

T = TypeVar("T")

FIRST_DELAY, LAST_DELAY, JITTER = 0.5, 30.0, 0.5  # seconds, see `backoff`
LEAST_WAIT = 1.0  # least seconds of pause after a 429
DEFAULT_WAIT = 60.0  # seconds to wait after a 429 that names no time
CREDIT = 0.2  # seconds of unused time that may be made up for: sleeps overshoot
GRAIN = 0.05  # seconds of the rate per grant: bursts stay short
LEAST_GRANT = 32
MOST_GRANT = 1 << 20
KEPT_BACK = 5  # calls that polls leave, besides two per session to come (docs/protocol.md, section 2)
POLL_INTERVAL = 1.0
PLENTY = 60  # spare calls with which polls come every second; with fewer the interval grows in proportion
FIRST_PROBE = 0.5  # seconds before the second probe of an unreachable server, then doubled
LAST_PROBE = 10.0  # most seconds between two probes
HELD = 0.1  # seconds between two checks for the end of the user's pause
OVERLOADED = (408, 429, 503)  # 408: each connection is too slow for the server
NEVER_REPEATED = (
    errors.SessionLost,
    errors.RateLimited,
    errors.Unreachable,
    errors.ProxyUnauthorized,
    errors.DiskFull,
    errors.DigestPending,
    errors.PackInProgress,
    errors.NotFinished,
)
"""Errors that the same request would meet again."""


class Stop(threading.Event):
    """A flag that is set once, from any thread."""

    late = False  # whether the deadline was the reason

    def set(self, *, late: bool = False) -> None:
        """Stop at the next resumable point; the first call says whether the deadline is the reason."""
        if not self:
            self.late = late
        super().set()

    def __bool__(self) -> bool:
        return self.is_set()

    def check(self) -> None:
        """Raise `Interrupted` once stopped."""
        if self.is_set():
            raise errors.Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, or raise `Interrupted` as soon as stopped."""
        self.wait(min(seconds, threading.TIMEOUT_MAX))  # a server may send any number
        self.check()


class Limiter:
    """Grant bytes at `rate` bytes/s in order (`--limit-rate`; None: at once), and count them."""

    def __init__(
        self, rate: float | None, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`sleep` is `Stop.sleep`: an interrupt ends the wait. No thread waits under the lock."""
        self._rate, self._sleep, self._clock = rate, sleep, clock
        self._most = int(min(MOST_GRANT, max(LEAST_GRANT, rate * GRAIN))) if rate else None
        self._lock = threading.Lock()
        self._free_at = self._since = clock()
        self.granted = self._measured = 0

    def __call__(self, wanted: int) -> int:
        """Wait, and return how many of `wanted` bytes may be sent (0 only for 0)."""
        granted = wanted if self._most is None else min(wanted, self._most)
        wait = 0.0
        with self._lock:
            self.granted += granted
            if self._rate and granted:
                now = self._clock()
                self._free_at = max(self._free_at, now - CREDIT)
                wait = self._free_at - now
                self._free_at += granted / self._rate
        if wait > 0:
            self._sleep(wait)
        return granted

    def measure(self, period: float) -> float | None:
        """Return the bytes/s since the last measurement; None before `period` seconds have passed."""
        now, granted = self._clock(), self.granted
        seconds = now - self._since
        if seconds < period:
            return None
        rate = (granted - self._measured) / seconds
        self._since, self._measured = now, granted
        return rate


class RateBudget:
    """Calls left by `X-RateLimit-*` headers, and pauses after a 429, for uploads and polls of a run."""

    sessions_to_come = 0  # planned batch sessions that are not open yet
    answered = False  # true after the first answer

    def __init__(self, clock: Callable[[], float] = time.monotonic, epoch: Callable[[], float] = time.time) -> None:
        """`clock` measures waits; `epoch` is for the reset time, which is in unix seconds."""
        self._clock, self._epoch = clock, epoch
        self._lock = threading.Lock()
        self._remaining: int | None = None
        self._reset: float | None = None
        self._paused_until = self._polls_paused_until = 0.0

    @property
    def metered(self) -> bool:
        """True where the server counts calls."""
        return self._remaining is not None

    def note(self, headers: Mapping[str, str]) -> None:
        """Read the headers of an answer."""
        self.answered = True
        remaining, left = whole(headers.get("X-RateLimit-Remaining")), whole(headers.get("X-RateLimit-Reset"))
        if remaining is None:
            return
        with self._lock:
            self._remaining = remaining
            if left is not None:
                self._reset = self._clock() + max(0.0, left - self._epoch() if left > 1e9 else left)

    def pause(self, seconds: float) -> None:
        """Pause all calls for `seconds`."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def pause_polls(self, seconds: float) -> None:
        """Pause polls for `seconds`."""
        with self._lock:
            self._polls_paused_until = max(self._polls_paused_until, self._clock() + seconds)

    def pause_left(self) -> float:
        """Return the seconds until uploads may call again."""
        return max(0.0, self._paused_until - self._clock())

    def poll_interval(self) -> float:
        """Return the seconds between two polls: more as calls run out, then until the reset."""
        interval, until_reset = POLL_INTERVAL, DEFAULT_WAIT
        if self._remaining is not None:
            if self._reset is not None:
                until_reset = max(POLL_INTERVAL, self._reset - self._clock())
            spare = self._remaining - (2 * self.sessions_to_come + KEPT_BACK)
            interval = until_reset if spare <= 0 else max(POLL_INTERVAL, min(PLENTY / spare, until_reset))
        return max(interval, max(self._paused_until, self._polls_paused_until) - self._clock())


def _ignore(_error: errors.UploaderError, _delay: float) -> None:
    pass


def _can_help(error: BaseException) -> bool:
    """Return whether the same request can succeed later."""
    return isinstance(error, errors.UploaderError) and error.retryable and not isinstance(error, NEVER_REPEATED)


def _error(state: RetryCallState) -> Any:
    """Return the error of the last attempt."""
    return state.outcome.exception() if state.outcome is not None else None


def backoff(state: RetryCallState) -> float:
    """Return the seconds before another attempt: 0.5, 1, 2, … up to 30, and up to 0.5 s of jitter."""
    return wait_exponential(FIRST_DELAY, LAST_DELAY)(state) + wait_random(0, JITTER)(state)


def _delay(state: RetryCallState) -> float:
    asked = getattr(_error(state), "retry_after", None)
    return backoff(state) if asked is None else float(asked)


def pause_after(error: errors.AnswerError) -> float:
    """Return the seconds of pause after a 429."""
    return DEFAULT_WAIT if error.retry_after is None else max(LEAST_WAIT, error.retry_after)


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
        # a cheap call that succeeds when the server answers; None before its first answer
        self.probe: Callable[[], object] | None = None
        self.overloaded: Callable[[], None] = lambda: None  # called after OVERLOADED or a timeout
        self.held = False  # True while the user pauses the run: no request with content begins
        self._emit, self._clock = emit, clock
        self._lock = threading.Lock()
        self._outage: Future[bool] | None = None
        self._lost: errors.Unreachable | errors.DiskFull | None = None
        self._announced = 0.0
        self._pause = (PauseReason.RATE_LIMIT, 0.0)  # its reason, and seconds paused before
        self._warned_of_full = self._warned_of_share = False
        self._creations_paused_until = 0.0
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
            return state.attempt_number > retries or (getattr(_error(state), "retry_after", None) or 0) > self.max_wait

        return self._policy.copy(
            stop=is_enough,
            before_sleep=lambda state: on_retry(_error(state), state.upcoming_sleep),
            sleep=sleep or self.stop.sleep,
        )(attempt)

    def wait_out_pause(self, sleep: Callable[[float], None] | None = None, *, creates: bool = False) -> None:
        """Wait until the user and the rate limit allow calls (`creates`: also creations). Raise what `sleep` raises."""
        sleep = sleep or self.stop.sleep
        while True:
            if self.held:  # another thread changes it
                sleep(HELD)
            elif (left := self.budget.pause_left()) > 0:
                self._announce(left)
                sleep(left)
            elif creates and (left := self._creations_paused_until - self._clock()) > 0:
                sleep(left)
            else:
                return

    def pause(self, seconds: float, reason: PauseReason, waited: float) -> None:
        """Pause all calls; `waited` seconds were paused before."""
        self._pause = (reason, waited)
        self.budget.pause(seconds)

    def pause_creations(self, seconds: float) -> None:
        """Pause the creation of sessions and uploads: this client holds its share of the server."""
        with self._lock:
            self._creations_paused_until = max(self._creations_paused_until, self._clock() + seconds)
            first, self._warned_of_share = not self._warned_of_share, True
        if first:
            text = "this client holds its share of the server: new uploads wait until others have ended"
            self._emit(ev.RunWarning(ev.WarningCode.RATE_LIMITED, text))

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
            except (errors.RateLimited, errors.ServerFault, errors.TimedOut, errors.TooSlow) as error:
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
    """The retries of one upload. 413, 429, 507, pending digests or packs, and one token refresh use none."""

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
                if isinstance(error, errors.ShareUsed):
                    self._sleep(delay)

    def _excuse(self, error: errors.AnswerError) -> float | None:
        """Return the seconds until the repetition, or None for an error that counts."""
        match error:
            case errors.RateLimited() | errors.DigestPending() | errors.PackInProgress():
                delay = pause_after(error)
                waited, self._waited = self._waited, self._waited + delay
                if self._waited > self._retry.max_wait:
                    return None  # before any thread sleeps
                if not isinstance(error, errors.RateLimited):
                    self._sleep(delay)
                    return 0.0
                if isinstance(error, errors.ShareUsed):
                    self._retry.pause_creations(delay)
                    return delay
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
