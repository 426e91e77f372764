"""HTTP polls of `/progress` in one thread, one at a time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from uploader_cli.core.events import Event, PollFailed, SessionMissing, SessionProgress


@dataclass(slots=True)
class _Session:
    id: str
    due: float = 0.0
    ended: float = -math.inf  # the last poll
    once: bool = False  # poll it also while polling is off
    body_sent: bool = False
    muted: bool = False  # not polled: after a 404, until its body is sent


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
        minimum: float = 1.0,
    ) -> None:
        self.polls = 0
        """Calls made so far."""
        self._fetch, self._emit, self._interval, self._minimum = fetch, emit, interval, minimum
        self._changed = threading.Condition()
        self._polling = self._closed = False
        self._sessions: dict[str, _Session] = {}
        self._thread: threading.Thread | None = None

    def follow(self, session: str) -> None:
        """Poll this session too from now on."""
        with self._changed:
            self._schedule(self._sessions.setdefault(session, _Session(session)))
            self._changed.notify()

    def leave(self, session: str) -> None:
        """Stop polling this session."""
        with self._changed:
            self._sessions.pop(session, None)

    def body_sent(self, session: str) -> None:
        """Poll the session even after a 404: its body was sent, and the last bytes may still be on their way."""
        with self._changed:
            if found := self._sessions.get(session):
                found.body_sent, found.muted = True, False
                self._changed.notify()

    def start(self) -> None:
        """Poll until `stop`."""
        with self._changed:
            for session in self._sessions.values():
                self._schedule(session)
            self._polling = True
            self._wake()

    def once(self) -> None:
        """Poll each followed session once more, also after `stop`, except those that the server does not know."""
        with self._changed:
            for session in self._sessions.values():
                if not session.muted:
                    self._request(session)
            self._wake()

    def ask(self, session: str) -> None:
        """Poll this session once more as soon as `interval()` allows, also after `stop`."""
        with self._changed:
            if found := self._sessions.get(session):
                self._request(found)
                self._wake()

    def stop(self) -> None:
        """Begin no further poll, except those that `once` and `ask` ask for."""
        with self._changed:
            self._polling = False

    def close(self, timeout: float = 0.25) -> None:
        """Begin no further poll and end the thread; waits at most `timeout` seconds for a running poll."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _schedule(self, session: _Session) -> None:
        """Make the first poll of a session due at once, unless the interval is longer than usual."""
        longer = max(0.0, self._interval() - self._minimum)
        session.due = max(session.ended + self._minimum, time.monotonic() + longer)

    def _request(self, session: _Session) -> None:
        if not session.once and not self._polling:
            self._schedule(session)
        session.once = True

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="uploader-poll", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while (session := self._next()) is not None:
            self._poll(session)

    def _next(self) -> _Session | None:
        """Wait for the next poll that is due and return its session; None once closed."""
        with self._changed:
            while not self._closed:
                wanted = [one for one in self._sessions.values() if not one.muted and (self._polling or one.once)]
                session = min(wanted, key=lambda one: one.due, default=None)
                if session is None:
                    self._changed.wait()
                    continue
                wait = session.due - time.monotonic()
                if wait <= 0:
                    session.once = False
                    return session
                self._changed.wait(min(wait, self._minimum))
                session.due = min(session.due, time.monotonic() + self._pause())
        return None

    def _pause(self) -> float:
        return max(self._minimum, self._interval())

    def _poll(self, session: _Session) -> None:
        self.polls += 1
        found, failure, caught = None, "", None
        try:
            found = self._fetch(session.id)
        except Exception as error:  # noqa: BLE001 - any failure keeps the last known state until the next poll
            caught, failure = error, (str(error).splitlines() or [""])[0] or type(error).__name__
        with self._changed:
            if self._closed or self._sessions.get(session.id) is not session:
                return
            session.ended = time.monotonic()
            session.due = session.ended + self._pause()
            session.muted = found is None and not failure and not session.body_sent
        if failure:
            self._emit(PollFailed(session.id, failure, caught))
        else:
            self._emit(SessionMissing(session.id) if found is None else found)
