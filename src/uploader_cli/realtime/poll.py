"""HTTP polls of `/progress` in one thread, one at a time."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from uploader_cli.core.events import PollFailed, SessionMissing

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.events import Event, SessionProgress


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
        self._due: dict[str, float] = {}  # followed session → its next poll
        self._last: dict[str, float] = {}  # the end of its last one
        self._once: set[str] = set()
        self._unknown: set[str] = set()  # answered 404: not polled again before the body is sent
        self._sent: set[str] = set()
        self._thread: threading.Thread | None = None

    def follow(self, session: str) -> None:
        """Poll this session too from now on."""
        with self._changed:
            self._begin(session)
            self._changed.notify()

    def leave(self, session: str) -> None:
        """Stop polling this session."""
        with self._changed:
            self._due.pop(session, None)
            self._last.pop(session, None)
            self._once.discard(session)
            self._unknown.discard(session)
            self._sent.discard(session)

    def body_sent(self, session: str) -> None:
        """Poll the session even after a 404: its body was sent, and the last bytes may still be on their way."""
        with self._changed:
            self._sent.add(session)
            self._changed.notify()

    def start(self) -> None:
        """Poll until `stop`."""
        with self._changed:
            for session in self._due:
                self._begin(session)
            self._polling = True
            self._wake()

    def once(self) -> None:
        """Poll each followed session once more, also after `stop`, except those that the server does not know."""
        with self._changed:
            wanted = self._due.keys() - (self._unknown - self._sent)
            if not self._polling:
                for session in wanted:
                    self._begin(session)
            self._once |= wanted
            self._wake()

    def ask(self, session: str) -> None:
        """Poll this session once more as soon as `interval()` allows, also after `stop`."""
        with self._changed:
            if session in self._due and session not in self._once:
                if not self._polling:
                    self._begin(session)
                self._once.add(session)
                self._wake()

    def stop(self) -> None:
        """Begin no further poll, except those that `once` and `ask` ask for."""
        with self._changed:
            self._polling = False

    def close(self, timeout: float = 0.25) -> None:
        """Begin no further poll and end the thread; waits at most `timeout` seconds for a poll under way."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _begin(self, session: str) -> None:
        """Make the first poll of a session due at once, unless the interval is longer than usual."""
        now = time.monotonic()
        self._due[session] = max(
            self._last.get(session, -math.inf) + self._minimum, now + max(0.0, self._interval() - self._minimum)
        )

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="uploader-poll", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while (session := self._next()) is not None:
            self._poll(session)

    def _next(self) -> str | None:
        """Wait for the next poll that is due and return its session; None once closed."""
        with self._changed:
            while not self._closed:
                wanted = (self._due.keys() if self._polling else self._once) - (self._unknown - self._sent)
                session = min(wanted, key=self._due.__getitem__, default=None)
                if session is None:
                    self._changed.wait()
                    continue
                wait = self._due[session] - time.monotonic()
                if wait <= 0:
                    self._once.discard(session)
                    return session
                self._changed.wait(min(wait, self._minimum))
                if session in self._due:
                    self._due[session] = min(self._due[session], time.monotonic() + self._pause())
        return None

    def _pause(self) -> float:
        return max(self._minimum, self._interval())

    def _poll(self, session: str) -> None:
        self.polls += 1
        found, failure, caught = None, "", None
        try:
            found = self._fetch(session)
        except Exception as error:  # noqa: BLE001 - any failure keeps the last known state until the next poll
            caught, failure = error, (str(error).splitlines() or [""])[0] or type(error).__name__
        with self._changed:
            if self._closed or session not in self._due:
                return
            self._last[session] = now = time.monotonic()
            self._due[session] = now + self._pause()
            if found is None and not failure:
                self._unknown.add(session)
        if failure:
            self._emit(PollFailed(session, failure, caught))
        else:
            self._emit(SessionMissing(session) if found is None else found)
