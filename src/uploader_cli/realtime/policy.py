"""The connection policy (docs/protocol.md, section 2) as a state machine without clock, thread or socket.

Signals go in with the time at which they happened; actions come out as values. The caller sends a `Tick` no later than
`next_deadline`.

    closed ─▶ connecting ─▶ live ⇄ reconnecting ─▶ polling ─▶ live
                   └──▶ reconnecting, polling            any ─▶ closed

A dial tries the websocket first and Engine.IO polling after it. Each of the two tries has a number of its own, so that
signals of one that was given up can be told from those of the current one.
"""

from __future__ import annotations

from dataclasses import dataclass

from uploader_cli.core.events import ChannelChanged, ChannelReason, ChannelState, Transport
from uploader_cli.realtime.signals import (
    Action,
    Close,
    Dial,
    DialFailed,
    Dialled,
    Drop,
    Emit,
    HangUp,
    JoinAll,
    Lost,
    Reconcile,
    Signal,
    Start,
    StartPolling,
    StopPolling,
    Tick,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and delays in seconds, except `retries` (docs/protocol.md, section 2)."""

    dial: float = 5.0
    """Limit of a dial with both transports."""
    websocket: float = 2.5
    """Part of it for the websocket."""
    retries: int = 3
    """Dials after the first failure or a loss."""
    retry_delay: float = 1.0
    """From a failure to the next dial; first delay of the backoff while polling."""
    fallback: float = 5.0
    """From the start or a loss to HTTP polling."""
    backoff_max: float = 60.0
    poll: float = 1.0
    """Least time between two HTTP polls of a session."""


@dataclass(frozen=True, slots=True)
class _Try:
    """A try under way: when it is given up, and when its dial is."""

    number: int
    transport: Transport
    until: float
    dial_until: float


class Machine:
    """The state of the policy, changed by `handle` alone; not thread-safe."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.state = ChannelState.CLOSED
        self._ended = False
        self._numbers = 0
        self._since = 0.0  # the start, or the last loss
        self._failures = 0  # dials since then that failed, a loss being the first
        self._backoff = self.policy.retry_delay
        self._try: _Try | None = None
        self._redial_at: float | None = None
        self._connected: int | None = None
        self._transport: Transport | None = None
        self._was_live = False

    @property
    def next_deadline(self) -> float | None:
        """When a `Tick` is due at the latest (the clock of `handle`); None while only other signals change anything."""
        times = [self._try.until if self._try else None, self._redial_at]
        if self._waiting:
            times.append(self._since + self.policy.fallback)
        return min((time for time in times if time is not None), default=None)

    def handle(self, now: float, signal: Signal) -> list[Action]:
        """Return the actions for `signal` at `now` (seconds of any clock that never goes back); none for a late one."""
        match signal:
            case Start() if self.state is ChannelState.CLOSED and not self._ended:
                self._since = now
                return [self._move(ChannelState.CONNECTING, ChannelReason.START), *self._dial(now)]
            case Tick():
                return self._tick(now)
            case Dialled(number, latency):
                tried = self._current(number)
                return self._live(tried, latency) if tried else [Drop(number)]
            case DialFailed(number, reason) | Lost(number, reason) if tried := self._current(number):
                return [Drop(number), *self._try_failed(tried, now, reason)]
            case Lost(number, reason) if number == self._connected:
                return self._lost(now, reason)
            case Close() if not self._ended:
                return self._close()
        return []

    @property
    def _waiting(self) -> bool:
        """True while there is neither a socket nor polls."""
        return self.state in (ChannelState.CONNECTING, ChannelState.RECONNECTING)

    def _current(self, number: int) -> _Try | None:
        return self._try if self._try is not None and self._try.number == number else None

    def _move(
        self, to: ChannelState, reason: ChannelReason, attempt: int | None = None, latency: float | None = None
    ) -> Emit:
        transport = {ChannelState.LIVE: self._transport, ChannelState.POLLING: Transport.HTTP}.get(to)
        latency_ms = None if latency is None else round(latency * 1000, 1)
        event = ChannelChanged(self.state, to, transport, reason, attempt, latency_ms)
        self.state = to
        return Emit(event)

    def _tick(self, now: float) -> list[Action]:
        # The fallback comes first: where a dial ends at the same moment, its failure belongs behind the polls.
        actions: list[Action] = []
        if self._waiting and now >= self._since + self.policy.fallback:
            actions += self._fall_back(ChannelReason.DEADLINE)
        if (tried := self._try) is not None and now >= tried.until:
            actions += [Drop(tried.number), *self._try_failed(tried, now, ChannelReason.TIMEOUT)]
        if self._redial_at is not None and now >= self._redial_at:
            actions += self._dial(now)
        return actions

    def _dial(self, now: float) -> list[Action]:
        self._redial_at = None
        return [self._begin(Transport.WEBSOCKET, now, now + self.policy.dial)]

    def _begin(self, transport: Transport, now: float, dial_until: float) -> Dial:
        share = self.policy.websocket if transport is Transport.WEBSOCKET else self.policy.dial
        until = min(now + share, dial_until)
        self._numbers += 1
        self._try = _Try(self._numbers, transport, until, dial_until)
        return Dial(self._numbers, transport, until - now)

    def _try_failed(self, tried: _Try, now: float, reason: ChannelReason) -> list[Action]:
        self._try = None
        if tried.transport is Transport.WEBSOCKET and now < tried.dial_until:
            return [self._begin(Transport.POLLING, now, tried.dial_until)]
        return self._dial_failed(now, reason)

    def _dial_failed(self, now: float, reason: ChannelReason) -> list[Action]:
        if self.state is not ChannelState.POLLING:
            self._failures += 1
            if self._failures <= self.policy.retries:
                self._redial_at = now + self.policy.retry_delay
                return [self._move(ChannelState.RECONNECTING, reason, self._failures)]
        fallen = [] if self.state is ChannelState.POLLING else self._fall_back(ChannelReason.RETRIES_EXHAUSTED)
        self._redial_at = now + self._backoff
        self._backoff = min(self._backoff * 2, self.policy.backoff_max)
        return fallen

    def _fall_back(self, reason: ChannelReason) -> list[Action]:
        return [self._move(ChannelState.POLLING, reason), StartPolling()]

    def _live(self, tried: _Try, latency: float) -> list[Action]:
        """Join all rooms; after a loss, fetch what was said in the meantime: the server restores neither."""
        was, self._try = self.state, None
        self._connected, self._transport = tried.number, tried.transport
        self._failures, self._backoff = 0, self.policy.retry_delay
        reason = ChannelReason.RECOVERED if self._was_live else ChannelReason.CONNECTED
        actions: list[Action] = [self._move(ChannelState.LIVE, reason, latency=latency), JoinAll(tried.number)]
        if self._was_live or was is ChannelState.POLLING:
            actions.append(Reconcile())
        if was is ChannelState.POLLING:
            actions.append(StopPolling())
        self._was_live = True
        return actions

    def _lost(self, now: float, reason: ChannelReason) -> list[Action]:
        number, self._connected = self._connected, None
        self._since = now
        dropped: list[Action] = [] if number is None else [Drop(number)]
        return [*dropped, *self._dial_failed(now, reason)]

    def _close(self) -> list[Action]:
        actions: list[Action] = [StopPolling()]
        if self._connected is not None:
            actions.append(HangUp(self._connected))
        if self._try is not None:
            actions.append(Drop(self._try.number))
        if self.state is not ChannelState.CLOSED:
            actions.append(self._move(ChannelState.CLOSED, ChannelReason.FINISHED))
        self._ended = True
        self._try = self._redial_at = self._connected = None
        return actions
