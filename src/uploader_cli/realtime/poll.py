"""HTTP polls of `/progress` in one thread, one at a time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from uploader_cli.core.events import Event, PollFailed, SessionMissing, SessionProgress


class _Session(Struct):
    id: str
    due: float = 0.0
    ended: float = -math.inf  # the last poll
    once: bool = False  # poll it also while polling is off
    body_sent: bool = False
    muted: bool = False  # not polled: after a 404, until its body is sent


class Schedule:
    """When each session is polled: a state machine without clock and thread; not thread-safe.

    Its methods get the time (seconds of any clock that never goes back). A session is polled at most once per `minimum`
    and per `interval()` seconds (infinite: no poll).
    """

    def __init__(self, interval: Callable[[], float], minimum: float) -> None:
        self.minimum = minimum
        self._interval = interval
        self._polling = False
        self.sessions: dict[str, _Session] = {}

    @property
    def wants_polls(self) -> bool:
        """Whether any session is to be polled."""
        return self._polling or any(session.once for session in self.sessions.values())

    def follow(self, now: float, session: str) -> None:
        self._first(now, self.sessions.setdefault(session, _Session(session)))

    def leave(self, session: str) -> None:
        self.sessions.pop(session, None)

    def body_sent(self, session: str) -> None:
        """Poll the session even after a 404: its body was sent, and the last bytes may still be on their way."""
        if found := self.sessions.get(session):
            found.body_sent, found.muted = True, False

    def start(self, now: float) -> None:
        for session in self.sessions.values():
            self._first(now, session)
        self._polling = True

    def once(self, now: float) -> None:
        """Poll each followed session once more, also after `stop`, except those that the server does not know."""
        for session in self.sessions.values():
            if not session.muted:
                self._request(now, session)

    def ask(self, now: float, session: str) -> None:
        """Poll this session once more as soon as `interval()` allows, also after `stop`."""
        if found := self.sessions.get(session):
            self._request(now, found)

    def stop(self) -> None:
        """Begin no further poll, except those that `once` and `ask` ask for."""
        self._polling = False

    def next(self, now: float) -> tuple[str | None, float]:
        """Return the session whose poll begins now, or None and the seconds until the next call (infinite: no poll)."""
        wanted = [one for one in self.sessions.values() if not one.muted and (self._polling or one.once)]
        session = min(wanted, key=lambda one: one.due, default=None)
        if session is None:
            return None, math.inf
        session.due = min(session.due, now + self._pause())  # the interval may have changed since
        if session.due > now:
            return None, min(session.due - now, self.minimum)
        session.once = False
        return session.id, 0.0

    def polled(self, now: float, session: str, *, missing: bool) -> bool:
        """Note the end of a poll, with `missing` of a 404; return False if the session was left meanwhile."""
        found = self.sessions.get(session)
        if found is None:
            return False
        found.ended = now
        found.due = now + self._pause()
        found.muted = missing and not found.body_sent
        return True

    def _first(self, now: float, session: _Session) -> None:
        """Make the first poll of a session due at once, unless the interval is longer than usual."""
        longer = max(0.0, self._interval() - self.minimum)
        session.due = max(session.ended + self.minimum, now + longer)

    def _request(self, now: float, session: _Session) -> None:
        if not session.once and not self._polling:
            self._first(now, session)
        session.once = True

    def _pause(self) -> float:
        return max(self.minimum, self._interval())


class Poller:
    """Poll the followed sessions, each at most once per `minimum` and per `interval()` seconds.

    `fetch(session)` makes one bounded HTTP call: None for a 404, an exception for a failure. `interval()` must not
    block; it is called after each poll and every second (infinite: no poll).
    """

    def __init__(
        self,
        fetch: Callable[[str], SessionProgress | None],
        emit: Callable[[Event], None],
        interval: Callable[[], float],
        minimum: float,
    ) -> None:
        self.polls = 0
        """Calls made so far."""
        self._fetch, self._emit = fetch, emit
        self.schedule = Schedule(interval, minimum)
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def tell(self, change: Callable[[Schedule, float], None]) -> None:
        """Change the schedule, from any thread: `change` gets it and the time."""
        with self._changed:
            change(self.schedule, time.monotonic())
            if self._thread is None and not self._closed and self.schedule.wants_polls:
                self._thread = threading.Thread(target=self._run, name="uploader-poll", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self, timeout: float = 0.25) -> None:
        """Begin no further poll and end the thread; waits at most `timeout` seconds for a running poll."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (session := self._next()) is not None:
            self._poll(session)

    def _next(self) -> str | None:
        """Wait for the next poll that is due and return its session; None once closed."""
        with self._changed:
            while not self._closed:
                session, wait = self.schedule.next(time.monotonic())
                if session is not None:
                    return session
                self._changed.wait(None if wait == math.inf else wait)
        return None

    def _poll(self, session: str) -> None:
        self.polls += 1
        found, failure, caught = None, "", None
        try:
            found = self._fetch(session)
        except Exception as error:  # noqa: BLE001 - any failure keeps the last known state until the next poll
            caught, failure = error, (str(error).splitlines() or [""])[0] or type(error).__name__
        with self._changed:
            missing = found is None and not failure
            if self._closed or not self.schedule.polled(time.monotonic(), session, missing=missing):
                return
        if failure:
            self._emit(PollFailed(session, failure, caught))
        else:
            self._emit(SessionMissing(session) if found is None else found)
