"""The realtime channel of a run: one connection for all sessions, HTTP polls while there is none.

One thread runs the state machine, by steps that the others queue. An error in it ends the connections: the sessions are
polled from then on. Public methods do not block; `close` takes less than 1 s.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from uploader_cli.core.events import ChannelChanged, ChannelReason, ChannelState, ChannelStats
from uploader_cli.core.protocol import parse_progress
from uploader_cli.realtime.policy import Action, Dial, Dialled, Drop, JoinAll, Lost, Machine, Policy, Polling
from uploader_cli.realtime.poll import Poller, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.core.events import CallMade, Event, SessionProgress, Transport
    from uploader_cli.realtime.socket import Connection

EARLY = 0.02  # seconds by which a timer is set before its deadline: timers fire late, and deadlines are promised
CLOSE_WITHIN = 0.8  # most seconds that `close` takes

_log = logging.getLogger("uploader_cli.realtime")


class Channel:
    """Convert the server's messages and polls into events.

    `url` may have a path prefix. `emit(event)` is called from any thread, for one connection in the server's order.
    `fetch(session)` makes one `/progress` call: None for a 404, an exception for a failure. `interval()` returns the
    seconds between two polls (infinite: none). `session_factory()` makes a `requests` session for each try, without
    callable `auth`, and a function that aborts its requests and may be called repeatedly. `headers()` is called in the
    dialling thread and returns the headers of a handshake.
    """

    def __init__(
        self,
        url: str,
        *,
        emit: Callable[[Event], None],
        fetch: Callable[[str], SessionProgress | None],
        session_factory: Callable[[], tuple[Any, Callable[[], None]]],
        interval: Callable[[], float],
        headers: Callable[[], Mapping[str, str]] = dict,
        policy: Policy | None = None,
    ) -> None:
        """Dial nothing before `start`."""
        self._url, self._emit = url, emit
        self._session_factory, self._headers = session_factory, headers
        self._machine = Machine(policy)
        self.poller = Poller(fetch, emit, interval, self._machine.policy.poll)
        self._steps: SimpleQueue[Callable[[float], list[Action]]] = SimpleQueue()
        self.connections: dict[int, Connection] = {}
        self._endings: list[threading.Thread] = []
        self.rooms: dict[str, None] = {}  # ordered
        self.takers: dict[str, Callable[[object], bool]] = {}
        """What takes messages of other names, in a thread of the connection; it returns whether a body is one."""
        self._stats = ChannelStats()  # of the channel's thread
        self._events = 0
        self._counting = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploader-channel", daemon=True)

    def start(self) -> None:
        self._steps.put(self._machine.start)
        self._thread.start()

    def follow(self, session: str) -> None:
        """Join the session's room once connected; poll the session otherwise."""
        self.poller.tell(lambda schedule, now: schedule.follow(now, session))
        self.enter(session)

    def enter(self, room: str) -> None:
        """Join a room that is never polled."""
        self._steps.put(lambda _now: self._enter(room))

    def body_sent(self, session: str) -> None:
        """Poll the session even if the server did not know it before: its body has been sent."""
        self.poller.tell(lambda schedule, _now: schedule.body_sent(session))

    def ask(self, session: str) -> None:
        """Poll the session once, also while there is a connection."""
        self.poller.tell(lambda schedule, now: schedule.ask(now, session))

    def leave(self, room: str) -> None:
        """Leave a room; of a session also stop polling it."""
        self.poller.tell(lambda schedule, _now: schedule.leave(room))
        self._steps.put(lambda _now: self._leave(room))

    def stats(self) -> ChannelStats:
        return replace(self._stats, events=self._events, polls=self.poller.polls)

    def close(self) -> None:
        """Leave the rooms and end all threads and sockets within `CLOSE_WITHIN` seconds. Thread-safe, repeatable."""
        self._closing.set()
        self._steps.put(lambda _now: self._machine.close())
        if self._thread.is_alive():
            self._thread.join(CLOSE_WITHIN)

    # --- in the channel's thread

    def _run(self) -> None:
        try:
            self._follow_machine()
        except Exception as error:  # noqa: BLE001 - it may be a thread that can't be started
            _log.debug("the channel ended: %s", type(error).__name__, exc_info=error)
            self._only_poll()
        self.poller.close(timeout=CLOSE_WITHIN / 4)
        until = time.monotonic() + CLOSE_WITHIN / 2
        for thread in self._endings:
            thread.join(max(0.0, until - time.monotonic()))

    def _follow_machine(self) -> None:
        step: Callable[[float], list[Action]]
        while not self._machine.ended:
            deadline, now = self._machine.next_deadline, 0.0
            try:
                wait = None if deadline is None else max(0.0, deadline - EARLY - time.monotonic())
                step = self._steps.get(timeout=wait)
            except Empty:
                step, now = self._machine.tick, deadline or 0.0
            for action in step(max(now, time.monotonic())):
                self._do(action)

    def _only_poll(self) -> None:
        """End the connections, and poll until the channel is closed."""
        for action in self._machine.give_up():
            with suppress(Exception):  # the polls go on without it
                self._do(action)
        while not self._closing.is_set():
            self._steps.get()
        for action in self._machine.close():
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case ChannelChanged():
                self._changed(action)
            case Dial():
                self._dial(action)
            case Drop(number, leave):
                connection = self.connections.pop(number, None)
                if connection is not None:
                    ending = connection.end(tuple(self.rooms) if leave else None)
                    self._endings = [*(thread for thread in self._endings if thread.is_alive()), ending]
            case JoinAll(number):
                for room in self.rooms:
                    self.connections[number].join(room)
            case Polling.ONCE:
                self.poller.tell(Schedule.once)
            case Polling.START:
                self.poller.tell(Schedule.start)
            case Polling.STOP:
                self.poller.tell(lambda schedule, _now: schedule.stop())

    def _changed(self, event: ChannelChanged) -> None:
        stats = self._stats
        self._stats = replace(
            stats,
            connect_ms=event.latency_ms if stats.connect_ms is None else stats.connect_ms,
            reconnects=stats.reconnects + (event.reason is ChannelReason.RECOVERED),
            fallbacks=stats.fallbacks + (event.to is ChannelState.POLLING),
        )
        self._emit(event)

    def _dial(self, dial: Dial) -> None:
        # Imported here, while the upload starts: it takes 0.14 s.
        from uploader_cli.realtime.socket import Connection

        session, shut = self._session_factory()
        connection = Connection(
            self._url,
            dial,
            session=session,
            shut=shut,
            headers=self._headers,
            report=self._report,
            heard=partial(self._heard, dial.transport),
            called=self._called,
        )
        self.connections[dial.number] = connection
        connection.start()

    def _enter(self, room: str) -> list[Action]:
        self.rooms[room] = None
        for connection in self._live():
            connection.join(room)
        return []

    def _leave(self, room: str) -> list[Action]:
        if room in self.rooms:
            del self.rooms[room]
            for connection in self._live():
                connection.leave(room)
        return []

    def _live(self) -> list[Connection]:
        return [*self.connections.values()] if self._machine.state is ChannelState.LIVE else []

    # --- in the threads of a connection

    def _report(self, report: Dialled | Lost) -> None:
        self._steps.put(lambda now: self._machine.handle(now, report))

    def _called(self, call: CallMade) -> None:
        """Report the dial of a websocket, unless it failed because the channel was closed."""
        if call.error is None or not self._closing.is_set():
            self._emit(call)

    def _heard(self, transport: Transport, name: str, body: object) -> None:
        if self._closing.is_set():
            return
        if name != "upload-progress":
            take = self.takers.get(name)
            if take is not None and take(body):
                self._count()
        elif (event := parse_progress(body, transport)) is not None:
            self._count()
            self._emit(replace(event, received=time.time()))

    def _count(self) -> None:
        with self._counting:
            self._events += 1
