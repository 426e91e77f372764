"""HTTP polls of `/progress`: one thread, one poll at a time, and only while the channel wants them."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from uploader_cli.core.events import PollFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.events import Event, SessionProgress


class Poller:
    """Polls the followed sessions, each at most once in `minimum` seconds and as seldom as `interval()` asks.

    `fetch(session)` makes one HTTP call: None stands for a 404, any exception for a poll that failed. It must be
    bounded in time: `close` can't interrupt it. `interval()` says how many seconds should lie between two polls of a
    session now (infinite: none), is asked again every second, and must not block.
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
        self._last: dict[str, float] = {}  # followed session → end of its last poll
        self._once: set[str] = set()
        self._unknown: set[str] = set()  # answered 404: not asked again before the body is sent (wire contract 2)
        self._sent: set[str] = set()
        self._thread: threading.Thread | None = None

    def follow(self, session: str) -> None:
        """Poll this session too from now on."""
        with self._changed:
            self._last.setdefault(session, time.monotonic() - self._minimum)
            self._changed.notify()

    def leave(self, session: str) -> None:
        """Poll this session no more."""
        with self._changed:
            self._last.pop(session, None)
            self._once.discard(session)
            self._unknown.discard(session)
            self._sent.discard(session)

    def body_sent(self, session: str) -> None:
        """The session's body is out: from now on a 404 stops nothing, its last bytes may still be on their way."""
        with self._changed:
            self._sent.add(session)
            self._changed.notify()

    def start(self) -> None:
        """Poll until `stop`."""
        with self._changed:
            self._polling = True
            self._wake()

    def once(self) -> None:
        """Poll each followed session one time more, whether polling goes on or not; not those that are unknown."""
        with self._changed:
            self._once |= self._last.keys() - (self._unknown - self._sent)
            self._wake()

    def stop(self) -> None:
        """Begin no further poll, except those that `once` asked for."""
        with self._changed:
            self._polling = False

    def close(self, timeout: float = 0.25) -> None:
        """Begin no further poll and end the thread; waits at most `timeout` seconds for a poll under way."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="uploader-poll", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _run(self) -> None:
        while (session := self._next()) is not None:
            self._poll(session)

    def _next(self) -> str | None:
        """The session whose poll is due, waiting for it; None once closed."""
        with self._changed:
            while not self._closed:
                wanted = (self._last.keys() if self._polling else self._once) - (self._unknown - self._sent)
                session = min(wanted, key=self._last.__getitem__, default=None)
                if session is None:
                    self._changed.wait()
                    continue
                # Asked anew each second: room in the call quota comes and goes while we wait.
                wait = self._last[session] + max(self._minimum, self._interval()) - time.monotonic()
                if wait <= 0:
                    self._once.discard(session)
                    return session
                self._changed.wait(min(wait, self._minimum))
        return None

    def _poll(self, session: str) -> None:
        self.polls += 1
        found, failure = None, ""
        try:
            found = self._fetch(session)
        except Exception as error:  # noqa: BLE001 - whatever it is, the last known state stays and the next poll comes
            failure = (str(error).splitlines() or [""])[0] or type(error).__name__
        with self._changed:
            if self._closed or session not in self._last:
                return
            self._last[session] = time.monotonic()
            if found is None and not failure:
                self._unknown.add(session)
        if failure:
            self._emit(PollFailed(session, failure))
        elif found is not None:
            self._emit(found)
