"""The connection policy (docs/protocol.md, section 2) as a state machine without clock, thread or socket.

Its methods get the time at which something happened (seconds of any clock that never goes back) and return actions.
The caller calls `tick` no later than `next_deadline`.

    closed ─▶ connecting ─▶ live ⇄ reconnecting ─▶ polling ─▶ live
                   └──▶ reconnecting, polling            any ─▶ closed

A dial tries the websocket first and Engine.IO polling after it. Each of the two tries has a number of its own, so that
reports of an abandoned try can be distinguished from those of the current one.
"""

from __future__ import annotations

from enum import Enum, auto

from uploader_cli.core.events import ChannelChanged, ChannelReason, ChannelState, Transport
from uploader_cli.core.record import Record


class Policy(Record, frozen=True):
    """Limits and delays in seconds, except `retries` (docs/protocol.md, section 2)."""

    dial: float = 5.0  # limit of a dial with both transports
    websocket: float = 2.5  # part of it for the websocket
    retries: int = 3  # dials after the first failure or a loss
    retry_delay: float = 1.0  # from a failure to the next dial; first delay of the backoff while polling
    fallback: float = 5.0  # from the start or a loss to HTTP polling
    backoff_max: float = 60.0
    poll: float = 1.0  # least time between two HTTP polls of a session


# --- reports of a try


class Dialled(Record, frozen=True):
    """Try `number` is connected, `latency` seconds after it began."""

    number: int
    latency: float


class Lost(Record, frozen=True):
    """Try `number` failed, or its connection was lost."""

    number: int
    reason: ChannelReason


# --- actions


class Dial(Record, frozen=True):
    """Start try `number` with a new client; it is dropped after `seconds`."""

    number: int
    transport: Transport
    seconds: float


class Drop(Record, frozen=True):
    """End the threads and sockets of try `number`; with `leave`, leave all rooms first."""

    number: int
    leave: bool = False


class JoinAll(Record, frozen=True):
    """Join the rooms of all followed sessions over try `number`: the server never restores rooms."""

    number: int


class Polling(Enum):
    """Start or stop the HTTP polls, or poll each session once: the server does not repeat missed messages."""

    START = auto()
    STOP = auto()
    ONCE = auto()


Action = ChannelChanged | Dial | Drop | JoinAll | Polling  # an event is to be emitted


class _Try(Record, frozen=True):
    """A running try: when it is given up, and when its dial is."""

    number: int
    transport: Transport
    until: float
    dial_until: float


class Machine:
    """The state of the policy; not thread-safe."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.state = ChannelState.CLOSED
        self.ended = False
        self._numbers = 0
        self._since = 0.0  # the start, or the last loss
        self._failures = 0  # dials since then that failed, a loss being the first
        self._backoff = self.policy.retry_delay
        self._try: _Try | None = None
        self._redial_at: float | None = None
        self._connected: _Try | None = None
        self._was_live = False

    @property
    def next_deadline(self) -> float | None:
        """When a `tick` is due at the latest; None if only reports change anything."""
        times = [self._try.until if self._try else None, self._redial_at]
        if self._waiting:
            times.append(self._since + self.policy.fallback)
        return min((time for time in times if time is not None), default=None)

    def start(self, now: float) -> list[Action]:
        if self.state is not ChannelState.CLOSED or self.ended:
            return []
        self._since = now
        return [self._move(ChannelState.CONNECTING, ChannelReason.START), *self._dial(now)]

    def tick(self, now: float) -> list[Action]:
        # The fallback comes first: where a dial ends at the same moment, its failure belongs behind the polls.
        actions: list[Action] = []
        if self._waiting and now >= self._since + self.policy.fallback:
            actions += self._fall_back(ChannelReason.DEADLINE)
        if (tried := self._try) is not None and now >= tried.until:
            actions += [Drop(tried.number), *self._try_failed(tried, now, ChannelReason.TIMEOUT)]
        if self._redial_at is not None and now >= self._redial_at:
            actions += self._dial(now)
        return actions

    def handle(self, now: float, report: Dialled | Lost) -> list[Action]:
        """Handle the report of a try; one of an abandoned try changes nothing."""
        tried = self._try if self._try is not None and self._try.number == report.number else None
        match report:
            case Dialled(number, latency):
                return self._live(tried, latency) if tried else [Drop(number)]
            case Lost(number, reason) if tried:
                return [Drop(number), *self._try_failed(tried, now, reason)]
            case Lost(number, reason) if self._connected is not None and number == self._connected.number:
                self._connected, self._since = None, now
                return [Drop(number), *self._dial_failed(now, reason)]
        return []

    def give_up(self) -> list[Action]:
        """Poll from now on, without another try."""
        numbers = [one.number for one in (self._connected, self._try) if one is not None]
        self._try = self._redial_at = self._connected = None
        polls = [] if self.state is ChannelState.POLLING else self._fall_back(ChannelReason.LOST)
        return [*polls, *map(Drop, numbers)]

    def close(self) -> list[Action]:
        """Disconnect permanently."""
        if self.ended:
            return []
        actions: list[Action] = [Polling.STOP]
        if self._connected is not None:
            actions.append(Drop(self._connected.number, leave=True))
        if self._try is not None:
            actions.append(Drop(self._try.number))
        if self.state is not ChannelState.CLOSED:
            actions.append(self._move(ChannelState.CLOSED, ChannelReason.FINISHED))
        self.ended = True
        self._try = self._redial_at = self._connected = None
        return actions

    @property
    def _waiting(self) -> bool:
        """True while there is neither a socket nor polls."""
        return self.state in (ChannelState.CONNECTING, ChannelState.RECONNECTING)

    def _move(
        self, to: ChannelState, reason: ChannelReason, attempt: int | None = None, latency: float | None = None
    ) -> ChannelChanged:
        connected = self._connected.transport if self._connected is not None else None
        transport = {ChannelState.LIVE: connected, ChannelState.POLLING: Transport.HTTP}.get(to)
        latency_ms = None if latency is None else round(latency * 1000, 1)
        event = ChannelChanged(self.state, to, transport, reason, attempt, latency_ms)
        self.state = to
        return event

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
        actions: list[Action] = []
        if self.state is not ChannelState.POLLING:
            self._failures += 1
            if self._failures <= self.policy.retries:
                self._redial_at = now + self.policy.retry_delay
                return [self._move(ChannelState.RECONNECTING, reason, self._failures)]
            actions = self._fall_back(ChannelReason.RETRIES_EXHAUSTED)
        self._redial_at = now + self._backoff
        self._backoff = min(self._backoff * 2, self.policy.backoff_max)
        return actions

    def _fall_back(self, reason: ChannelReason) -> list[Action]:
        return [self._move(ChannelState.POLLING, reason), Polling.START]

    def _live(self, tried: _Try, latency: float) -> list[Action]:
        """Join all rooms; after a loss, poll for what was missed: the server restores neither."""
        was, self._connected, self._try = self.state, tried, None
        self._failures, self._backoff = 0, self.policy.retry_delay
        reason = ChannelReason.RECOVERED if self._was_live else ChannelReason.CONNECTED
        actions: list[Action] = [self._move(ChannelState.LIVE, reason, latency=latency), JoinAll(tried.number)]
        if self._was_live or was is ChannelState.POLLING:
            actions.append(Polling.ONCE)
        if was is ChannelState.POLLING:
            actions.append(Polling.STOP)
        self._was_live = True
        return actions
