"""The realtime channel of a run: one connection for all sessions, HTTP polls while there is none.

One thread runs the state machine; the others queue signals. Public methods do not block; `close` takes less than 1 s.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from uploader_cli.core.events import ChannelChanged, ChannelReason, ChannelState, ChannelStats
from uploader_cli.core.protocol import parse_analysis, parse_progress
from uploader_cli.realtime.policy import Machine, Policy
from uploader_cli.realtime.poll import Poller
from uploader_cli.realtime.signals import (
    Action,
    Close,
    Dial,
    Drop,
    Emit,
    HangUp,
    JoinAll,
    Reconcile,
    Signal,
    Start,
    StartPolling,
    StopPolling,
    Tick,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.core.events import CallMade, Event, SessionProgress, Transport
    from uploader_cli.realtime.socket import Connection

EARLY = 0.02
"""Seconds by which a timer is set before its deadline: timers fire late, and deadlines are promised."""
CLOSE_WITHIN = 0.8
"""Most seconds that `close` takes."""


@dataclass(frozen=True, slots=True)
class _Follow:
    session: str


@dataclass(frozen=True, slots=True)
class _Leave:
    session: str


class Channel:
    """Convert the server's messages and polls into events.

    `url` may have a path prefix. `emit(event)` is called from any thread, for one connection in the server's order.
    `fetch(session)` makes one `/progress` call: None for a 404, an exception for a failure. `interval()` returns the
    seconds between two polls (infinite: none). `session_factory()` makes a `requests` session for each try, without
    callable `auth`; `shut(session)` aborts its requests and may be called repeatedly. `headers`, or what it returns in
    the dialling thread, are sent with each handshake.
    """

    def __init__(
        self,
        url: str,
        *,
        emit: Callable[[Event], None],
        fetch: Callable[[str], SessionProgress | None],
        session_factory: Callable[[], Any],
        shut: Callable[[Any], None],
        interval: Callable[[], float] | None = None,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Dial nothing before `start`."""
        self._url, self._emit = url, emit
        self._session_factory, self._shut = session_factory, shut
        self._headers: Callable[[], Mapping[str, str]] = headers if callable(headers) else lambda: headers or {}
        self._machine = Machine(policy)
        minimum = self._machine.policy.poll
        self._poller = Poller(fetch, emit, interval or (lambda: minimum), minimum)
        self._queue: SimpleQueue[Signal | _Follow | _Leave] = SimpleQueue()
        self._connections: dict[int, Connection] = {}
        self._endings: list[threading.Thread] = []
        self._rooms: dict[str, None] = {}  # ordered
        self._events = 0
        self._connect_ms: float | None = None
        self._reconnects = self._fallbacks = 0
        self._closing = threading.Event()
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="uploader-channel", daemon=True)

    def start(self) -> None:
        """Connect in the background."""
        self._queue.put(Start())
        self._thread.start()

    def follow(self, session: str) -> None:
        """Join the session's room once connected; poll the session otherwise."""
        self._poller.follow(session)
        self._queue.put(_Follow(session))

    def enter(self, room: str) -> None:
        """Join a room that is never polled: an analysis (docs/protocol.md, section 4)."""
        self._queue.put(_Follow(room))

    def body_sent(self, session: str) -> None:
        """Poll the session even if the server did not know it before: its body has been sent."""
        self._poller.body_sent(session)

    def ask(self, session: str) -> None:
        """Poll the session once, also while there is a connection."""
        self._poller.ask(session)

    def leave(self, session: str) -> None:
        """Leave the session's room and stop polling it."""
        self._poller.leave(session)
        self._queue.put(_Leave(session))

    def stats(self) -> ChannelStats:
        """Return the channel in numbers, so far."""
        return ChannelStats(self._connect_ms, self._events, self._poller.polls, self._reconnects, self._fallbacks)

    def close(self) -> None:
        """Leave the rooms and end all threads and sockets within `CLOSE_WITHIN` seconds. Thread-safe, repeatable."""
        self._closing.set()
        self._queue.put(Close())
        if self._thread.is_alive():
            self._thread.join(CLOSE_WITHIN)

    def _run(self) -> None:
        machine, ended = self._machine, False
        while not ended:
            deadline = machine.next_deadline
            now = 0.0
            try:
                wait = None if deadline is None else max(0.0, deadline - EARLY - time.monotonic())
                signal = self._queue.get(timeout=wait)
            except Empty:
                signal, now = Tick(), deadline or 0.0
            match signal:
                case _Follow(session):
                    self._joined(session)
                case _Leave(session):
                    self._left(session)
                case _:
                    ended = isinstance(signal, Close)
                    for action in machine.handle(max(now, time.monotonic()), signal):
                        self._do(action)
        self._finish()

    def _do(self, action: Action) -> None:
        match action:
            case Emit(event):
                self._tell(event)
            case Dial():
                self._dial(action)
            case Drop(number):
                self._end(number)
            case HangUp(number):
                self._end(number, tuple(self._rooms))
            case JoinAll(number):
                for session in self._rooms:
                    self._connections[number].join(session)
            case Reconcile():
                self._poller.once()
            case StartPolling():
                self._poller.start()
            case StopPolling():
                self._poller.stop()

    def _tell(self, event: ChannelChanged) -> None:
        if event.to is ChannelState.LIVE:
            self._connect_ms = event.latency_ms if self._connect_ms is None else self._connect_ms
        self._reconnects += event.reason is ChannelReason.RECOVERED
        self._fallbacks += event.to is ChannelState.POLLING
        self._emit(event)

    def _dial(self, dial: Dial) -> None:
        # Imported here, while the upload starts: it takes 0.14 s.
        from uploader_cli.realtime.socket import Connection

        connection = Connection(
            self._url,
            dial,
            session=self._session_factory(),
            shut=self._shut,
            headers=self._headers,
            report=self._queue.put,
            progress=self._heard,
            analysis=self._analysed,
            called=self._called,
        )
        self._connections[dial.number] = connection
        connection.start()

    def _end(self, number: int, leaving: tuple[str, ...] | None = None) -> None:
        connection = self._connections.pop(number, None)
        if connection is not None:
            self._endings = [*(thread for thread in self._endings if thread.is_alive()), connection.end(leaving)]

    def _joined(self, session: str) -> None:
        self._rooms[session] = None
        self._live(lambda connection: connection.join(session))

    def _left(self, session: str) -> None:
        if session in self._rooms:
            del self._rooms[session]
            self._live(lambda connection: connection.leave(session))

    def _live(self, then: Callable[[Connection], None]) -> None:
        if self._machine.state is ChannelState.LIVE:
            for connection in self._connections.values():
                then(connection)

    def _heard(self, body: object, transport: Transport) -> None:
        """Pass on a message of a session's room. The thread that reads the connection calls this, in order."""
        event = parse_progress(body, transport)
        if event is None or self._closing.is_set():
            return
        with self._counting:
            self._events += 1
        self._emit(replace(event, received=time.time()))

    def _called(self, call: CallMade) -> None:
        """Report the dial of a websocket, unless it failed because the channel was closed."""
        if call.error is None or not self._closing.is_set():
            self._emit(call)

    def _analysed(self, body: object, failed: bool) -> None:
        event = parse_analysis(body, failed=failed)
        if event is None or self._closing.is_set():
            return
        with self._counting:
            self._events += 1
        self._emit(event)

    def _finish(self) -> None:
        self._poller.close(timeout=CLOSE_WITHIN / 4)
        until = time.monotonic() + CLOSE_WITHIN / 2
        for thread in self._endings:
            thread.join(max(0.0, until - time.monotonic()))
