"""The policy of a run: retries, rate limits, pauses, outages and the refresh of its token, for all threads.

A rate limit within `--max-wait`, an expired token and an outage use no retry; other retryable errors count against
`--retries`. Where one of several servers is down, the probe reaches another one: a failure counts unless another call
has succeeded on repetition meanwhile. A request during which the server dies repeatedly is sent alone, and given up at
the third time: the content may be the cause. A client with its share of the server pauses only creations. The return of
the realtime channel ends waits after errors of the network, once within the time of a wait (`Delays`).
"""

from __future__ import annotations

import math
import random
import threading
import time
from concurrent.futures import Future, wait
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from typing import TYPE_CHECKING, TypeVar

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.core.events import PauseReason
from uploader_cli.settings import patience
from uploader_cli.transfer.budget import LEAST_WAIT, pause_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.budget import RateBudget

    Report = Callable[[errors.UploaderError, float], None]
    Sleep = Callable[[float], None]

T = TypeVar("T")

FIRST_DELAY, LAST_DELAY, JITTER = 0.5, 30.0, 0.5  # seconds: 0.5, 1, 2, … up to 30, and up to 0.5 more
DELAYS = 10  # different delays, at most
DEATHS = 3  # outages of one call after which it is given up; from the last but one on it is sent alone
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
FIRST_PROBE = 0.5  # seconds before the second probe of an unreachable server, then doubled
LAST_PROBE = 10.0  # most seconds between two probes
RETURN_JITTER = 1.0  # most seconds from the channel's return to the next try: not all clients at the same moment
HELD = 0.1  # seconds between two checks for the end of a pause, or of a wait for a lock or for the channel


class Stop(threading.Event):
    """A flag that is set once, from any thread."""

    late = False  # whether the deadline was the reason

    def __init__(self, on_step: Callable[[], None] = lambda: None) -> None:
        """`on_step` is called after each step of the work, from any thread."""
        super().__init__()
        self._on_step = on_step

    def set(self, *, late: bool = False) -> None:
        """Stop at the next resumable point; the first call says whether the deadline is the reason."""
        if not self.is_set():
            self.late = late
        super().set()

    def checkpoint(self) -> None:
        """Raise `Interrupted` once stopped: work calls this between two steps, such as two reads."""
        self._on_step()
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` once stopped, in a loop that waits for others without a limit, which is no progress."""
        if self.is_set():
            raise errors.Interrupted("interrupted")

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`, or raise `Interrupted` as soon as stopped."""
        self.wait(min(seconds, threading.TIMEOUT_MAX))  # a server may send any number
        self.checkpoint()


def is_outage(error: errors.UploaderError) -> bool:
    """Return whether the server may be down, which a probe decides."""
    if isinstance(error, errors.AnswerError):
        return error.outage
    return isinstance(error, errors.ConnectFailed | errors.ConnectionLost) and not isinstance(error, errors.TimedOut)


class Delays:
    """The waits of a run after errors of the network, which the return of the realtime channel ends.

    A channel that connects again, or a poll that is answered again, shows that the server is back. It ends the waits of
    all threads, and the next return ends none before these would have ended by themselves: a channel that flaps would
    use up all retries in seconds. What a server asks for by `Retry-After` is no such wait: it is waited out.
    """

    def __init__(self, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._sleep, self._clock = sleep, clock
        self._returns: int | None = None  # how often the channel's return has ended waits; None before it has begun
        self._spent_until = 0.0  # until then no return counts

    def follow_channel(self) -> None:
        """Let the channel end waits from now on."""
        self._returns = 0

    def channel_returned(self) -> None:
        """End the waits within `RETURN_JITTER`. Called from any thread."""
        if self._returns is not None and self._clock() >= self._spent_until:
            self._returns += 1

    def wait(self, seconds: float, sleep: Callable[[float], None] | None = None) -> None:
        """Wait `seconds`, or until shortly after the channel's return. Raise what `sleep` raises."""
        sleep, seen, until = sleep or self._sleep, self._returns, self._clock() + seconds
        if seen is None:
            sleep(seconds)
            return
        while (left := until - self._clock()) > 0:
            sleep(min(left, HELD))
            if self._returns != seen:
                seen, self._spent_until = self._returns, max(self._spent_until, until)
                until = min(until, self._clock() + random.uniform(0.0, RETURN_JITTER))


@contextmanager
def holding(lock: threading.Lock, check: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, for which this thread waits; `check` raises to stop."""
    while not lock.acquire(timeout=HELD):
        check()
    try:
        yield
    finally:
        lock.release()


class Pacer:
    """The policy of one run. All threads share pauses and outages."""

    def __init__(
        self,
        stop: Stop,
        budget: RateBudget,
        settings: Settings,
        emit: Callable[[ev.Event], None],
        *,
        refresh: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`refresh()` requests a new token, returns whether there is one."""
        self.stop, self.budget, self.retries, self.refresh_token = stop, budget, settings.retries, refresh
        self.max_wait, self.wait_for_server = patience(settings, "max_wait"), patience(settings, "wait_for_server")
        # a cheap call that succeeds when the server answers, without retries; None before its first answer
        self.probe: Callable[[], object] | None = None
        self.overloaded: Callable[[], None] = lambda: None  # called after OVERLOADED or a timeout
        self.held = False  # True while the user pauses the run: no request with content begins
        self.delays = Delays(stop.sleep, clock)
        self._emit, self.clock = emit, clock
        self._lock = threading.Lock()
        self._outage: Future[bool] | None = None
        self._down = False  # whether its first probe has failed: what is sent is lost, in all threads
        self._lost: errors.Unreachable | errors.DiskFull | None = None
        self.recoveries = 0  # calls that succeeded on repetition, although the probe had met no outage
        self._announced = 0.0
        self._pause = (PauseReason.RATE_LIMIT, 0.0)  # its reason, and seconds paused before
        self._warned_of_full = self._warned_of_share = False
        self.alone = threading.Lock()  # held by a request that is suspected to end the server
        self._creations_paused_until = 0.0

    def call(self, step: Callable[[], T], *, at_most: int | None = None, only_excused: bool = False) -> T:
        """Return what `step` returns, a call that belongs to no file. Raise its last error.

        It is repeated after errors that use no retry, and at most `at_most` times after others; with `only_excused`
        neither these nor an outage are waited for.
        """
        retries = None if only_excused else self.retries if at_most is None else min(at_most, self.retries)
        return Tries(self, retries, self._tell).call(step)

    def _tell(self, error: errors.UploaderError, delay: float) -> None:
        """Tell of the repetition of a call that belongs to no file."""
        if delay:
            self._emit(ev.CallRepeats(delay, error.reason))

    def wait_out_pause(self, sleep: Sleep | None = None, *, creates: bool = False) -> None:
        """Wait until the user and the rate limit allow calls (`creates`: also creations). Raise what `sleep` raises."""
        sleep = sleep or self.stop.sleep
        while True:
            if self.held:  # another thread changes it
                sleep(HELD)
            elif (left := self.budget.pause_left()) > 0:
                self._announce(left)
                sleep(left)
            elif creates and (left := self._creations_paused_until - self.clock()) > 0:
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
            self._creations_paused_until = max(self._creations_paused_until, self.clock() + seconds)
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

    def _announce(self, seconds: float) -> None:
        until = self.clock() + seconds
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
            text = f"the server's disk is full: {self._waiting('')}"
            self._emit(ev.RunWarning(ev.WarningCode.DISK_FULL, text))

    def _waiting(self, what: str) -> str:
        limit = self.wait_for_server
        return f"waiting{what}" if limit == math.inf else f"waiting up to {limit:.0f} s{what} (--wait-for-server)"

    def outlast(self, error: errors.UploaderError, on_retry: Report, *, silent: bool = False) -> bool:
        """Wait for the end of an outage; one thread probes. Return False where the server answers at once.

        All threads report their retries as soon as it is known. `silent`: it has never answered. Raise `Unreachable`
        after `--wait-for-server`, in all threads.
        """
        if self.probe is None or not (silent or is_outage(error)):
            return False
        with self._lock:
            if self._lost is not None:
                raise self._lost
            self.stop.check()  # a probe would have to be ended like the request that has failed
            leads = self._outage is None
            outage = self._outage = self._outage or Future()
        if leads:
            try:
                outage.set_result(self._lead(error, on_retry))
            except BaseException as failure:  # noqa: BLE001 - raised below, in all threads
                outage.set_exception(failure)
            with self._lock:
                self._outage, self._down = None, False
        told = leads
        while not wait([outage], 0.1).done:
            if self._down and not told:
                told = True
                on_retry(error, 0.0)
            self.stop.checkpoint()
        self.stop.checkpoint()
        real = outage.result()
        if real and not told:
            on_retry(error, 0.0)
        return real

    def _lead(self, error: errors.UploaderError, on_retry: Report) -> bool:
        """Probe until the server answers; return True where the first probe failed."""
        began, delay = self.clock(), 0.0
        while not self._answers():
            waited = self.clock() - began
            if waited >= self.wait_for_server:
                self._lost = errors.Unreachable(f"{error}{_after(waited)}", hint=error.hint)
                raise self._lost
            if not delay:
                self._down = True
                on_retry(error, FIRST_PROBE)
                text = f"server unreachable: {self._waiting(' for it')}"
                self._emit(ev.RunWarning(ev.WarningCode.UNREACHABLE, text))
            delay = min(max(FIRST_PROBE, 2 * delay), LAST_PROBE, self.wait_for_server - waited)
            self._emit(ev.Paused(delay, PauseReason.UNREACHABLE, waited))
            self.delays.wait(delay)
            before = self.clock()
            while self.held:
                self.stop.sleep(HELD)
            began += self.clock() - before  # a pause of the user is no part of the wait
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
            return not (isinstance(error, errors.NetworkError) or is_outage(error))  # a refusal is an answer
        return True


class Tries:
    """The tries of one request: what their failures have used up of waits, the refresh of its token, and retries."""

    def __init__(
        self,
        pacer: Pacer,
        retries: int | None,
        on_retry: Report = lambda _error, _delay: None,
        shrink: Callable[[], bool] = lambda: False,
        sleep: Sleep | None = None,
    ) -> None:
        """`retries` is None where only excused errors are repeated.

        `on_retry(error, delay)` is called before `sleep(delay)`; `shrink()` reduces the request after a 413 and returns
        whether it could.
        """
        self._pacer, self._retries, self._on_retry, self._shrink = pacer, retries, on_retry, shrink
        self._sleep = sleep or pacer.stop.sleep
        self._waited = self._full = 0.0
        self._refreshed, self._outages = False, 0
        self._of_one_server = False  # whether a server was down, and not the one that the probe reached
        self._recoveries = 0
        self._began: float | None = None  # the time of the first failure
        self._counted = 0  # failures that count against the retries

    def call(self, step: Callable[[], T]) -> T:
        """Return what `step` returns, again as often as that is allowed. Raise its last error."""
        while True:
            with self.leave():
                try:
                    result = step()
                except errors.UploaderError as error:
                    if not self.waited_out(error):
                        raise
                else:
                    self.succeeded()
                    return result

    @contextmanager
    def leave(self) -> Iterator[None]:
        """Wait until a request may be sent, and hold the leave until what came is dealt with.

        A suspect is sent alone, until the server is back, so that it alone is blamed.
        """
        is_suspect = self._outages == DEATHS - 1
        with holding(self._pacer.alone, partial(self._sleep, 0.0)) if is_suspect else nullcontext():
            self._pacer.wait_out_pause(self._sleep)
            yield

    def succeeded(self) -> None:
        """Count the end of a failure of one server."""
        self._pacer.recoveries += self._of_one_server

    def waited_out(self, error: errors.UploaderError) -> bool:
        """Wait until the request may be repeated; return False where that can't help."""
        if self._began is None:
            self._began, self._recoveries = self._pacer.clock(), self._pacer.recoveries
        delay = self._excuse(error)
        if delay is not None:
            self._on_retry(error, delay)
            if isinstance(error, errors.ShareUsed):
                self._sleep(delay)
            return True
        if self._retries is None:
            return False
        if isinstance(error, errors.TimedOut) or (
            isinstance(error, errors.RateLimited | errors.ServerFault | errors.TooSlow) and error.status in OVERLOADED
        ):
            self._pacer.overloaded()
        silent = isinstance(error, errors.TimedOut) and not self._pacer.budget.answered
        if (silent and self._pacer.probe is None) or not error.retryable or isinstance(error, NEVER_REPEATED):
            return False  # a wrong address is told soon, unless the run outlasts its start
        if self._pacer.outlast(error, self._on_retry, silent=silent):
            self._outages += not isinstance(error, errors.ConnectFailed)  # that request was never sent
            if self._outages == DEATHS:
                words = f"{error}; the server went down each of {DEATHS} times that this was sent"
                raise errors.ServerDied(words, body_sent=getattr(error, "body_sent", True)) from error
            return True
        asked: float | None = getattr(error, "retry_after", None)
        delay = self._next_delay(self._retries, asked, counts=not self._is_excused(error))
        if delay is None:
            return False
        self._on_retry(error, delay)
        if asked is None and (isinstance(error, errors.NetworkError) or is_outage(error)):
            self._pacer.delays.wait(delay, self._sleep)
        else:
            self._sleep(delay)
        return True

    def _excuse(self, error: errors.UploaderError) -> float | None:
        """Return the seconds until the repetition, or None for an error that counts."""
        pacer = self._pacer
        match error:
            case errors.RateLimited() | errors.DigestPending() | errors.PackInProgress():
                delay = pause_after(error)
                waited, self._waited = self._waited, self._waited + delay
                if self._waited > pacer.max_wait:
                    return None  # before any thread sleeps
                if not isinstance(error, errors.RateLimited):
                    self._sleep(delay)
                    return 0.0
                if isinstance(error, errors.ShareUsed):
                    pacer.pause_creations(delay)
                    return delay
                pacer.pause(delay, PauseReason.RATE_LIMIT, waited)
                pacer.overloaded()
                return delay
            case errors.ServerFault(status=507):
                delay = pacer.wait_for_space(error, self._full)
                self._full += delay
                return delay
            case errors.Unauthorized() if (error.status == 401 or error.renews) and not self._refreshed:
                self._refreshed = True
                return 0.0 if pacer.refresh_token() else None
            case errors.TooLarge() if self._shrink():
                return 0.0
        return None

    def _is_excused(self, error: errors.UploaderError) -> bool:
        """Return whether one of several servers is down, other calls recover from that, and it has not lasted long."""
        pacer, before = self._pacer, self._recoveries
        self._of_one_server, self._recoveries = is_outage(error), pacer.recoveries
        helps = self._of_one_server and self._recoveries > before
        return helps and self._began is not None and pacer.clock() - self._began < pacer.wait_for_server

    def _next_delay(self, retries: int, asked: float | None, *, counts: bool) -> float | None:
        """Return the seconds before another attempt: those that the server `asked` for; None after the last one."""
        if (counts and self._counted >= retries) or (asked or 0) > self._pacer.max_wait:
            return None
        delay = backoff(self._counted + 1) + random.uniform(0.0, JITTER)
        self._counted += counts
        return delay if asked is None else float(asked)


def backoff(attempt: int) -> float:
    """Return the seconds between this attempt (1, 2, …) and the next one, without jitter."""
    delays = _delays(FIRST_DELAY, LAST_DELAY)
    return delays[min(attempt, len(delays)) - 1]


@cache
def _delays(first: float, last: float) -> tuple[float, ...]:
    """Return the delays between attempts; all that follow are as long as the last one."""
    from tenacity import Retrying, retry_always, stop_after_attempt, wait_exponential

    delays: list[float] = []
    Retrying(
        stop=stop_after_attempt(DELAYS + 1),
        wait=wait_exponential(first, last),
        retry=retry_always,
        sleep=delays.append,
        retry_error_callback=lambda _state: None,
    )(lambda: None)
    return tuple(delays)


def _after(waited: float) -> str:
    return f"; waited {waited:.0f} s for it (--wait-for-server)" if waited >= 1 else ""
