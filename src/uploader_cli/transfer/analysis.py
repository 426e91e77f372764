"""One analysis on the server (wire contract 4): the call, its time limit, and what is learnt while it is under way.

The answer to the call is the authority. Until it comes there are events from the room, else answers about the status,
else a guess by time.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Protocol

from uploader_cli import errors
from uploader_cli.core.events import AnalysisMessage
from uploader_cli.core.protocol import JsonObject, analysis_data, error_sentence
from uploader_cli.core.stages import Kind, assumed
from uploader_cli.settings import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from uploader_cli.core.events import Event
    from uploader_cli.core.protocol import AnalysisStatus
    from uploader_cli.transfer.api import Api
    from uploader_cli.transfer.pacing import Stop

CALLS = {
    Kind.CONTENT: "/api/ai/analyze/content",
    Kind.FUSION: "/api/ai/analyze/fusion",
    Kind.MUSIC: "/api/ai/generate/music-prompt",
}
LIMITS: Mapping[Kind, float] = {Kind.CONTENT: 180.0, Kind.FUSION: 300.0, Kind.MUSIC: 300.0}
"""Seconds for one call."""
QUIET = 2.0
"""Seconds without an event after which the status is asked for."""
AFTER_AN_ERROR = 5.0
"""Seconds in which the answer must come once the room was told that the analysis failed."""
SLACK = 5.0
"""Seconds that the call itself is patient for longer, so that the limit is what ends it."""
HEAD_START = 0.1
"""Seconds that the word to join gets before the call: nothing acknowledges it (wire contract 3.7)."""
DRAIN = 0.25
"""Seconds before the room is left: last events come after the answer, and would be taken for the next analysis'."""
GATEWAY = (502, 504)
"""Answers of something between us and the server."""
MOST_UNKNOWN = 3
"""Answers of 404 after which the status is not asked for any more."""
MISSES = 3
"""Questions without an answer after which a lost analysis is given up."""
TICK = 0.1


class Room(Protocol):
    """The one connection's rooms. No call may block."""

    def enter(self, room: str) -> None:
        """Join, before the call."""

    def quit(self, room: str) -> None:
        """Leave, after it."""


class Analyst:
    """Has the server analyse something, one thing after the other. `hear` takes what the room says, in any thread."""

    def __init__(
        self,
        make_api: Callable[[], Api],
        emit: Callable[[Event], None],
        stop: Stop,
        room: Room,
        limits: Mapping[Kind, float] | None = None,
    ) -> None:
        """`make_api` gives a client of its own to each thread that calls."""
        self._make_api, self._emit, self._stop, self._room = make_api, emit, stop, room
        self._limits = limits or LIMITS
        self._listening = False
        self._heard, self._is_quiet = 0.0, True
        self._failed: tuple[float, str] | None = None
        self._status: Status | None = None

    def shut(self) -> None:
        """End what holds up an interrupt, from another thread."""
        if self._status is not None:
            self._status.close()

    def hear(self, event: AnalysisMessage) -> None:
        """An event of the room. It names no session (wire contract 2): only one analysis is under way at a time."""
        if not self._listening:
            return
        self._heard, self._is_quiet = time.monotonic(), False
        if event.failed and self._failed is None:
            self._failed = (self._heard, event.message)
        self._emit(event)

    def analyse(self, kind: Kind, asked: Mapping[str, object]) -> JsonObject:
        """Its result, `data` of the answer. Raises errors of the tree; `Interrupted` at once when stopped."""
        session = str(uuid.uuid4())
        self._failed, self._heard, self._listening = None, time.monotonic(), True
        self._is_quiet = True
        self._room.enter(session)
        try:
            self._stop.sleep(HEAD_START)
            return self._supervised(kind, session, {**asked, "sessionId": session})
        finally:
            if not self._stop:
                time.sleep(DRAIN)
            self._listening = False
            self._room.quit(session)

    def _supervised(self, kind: Kind, session: str, asked: dict[str, object]) -> JsonObject:
        """Call in a thread of its own, so that a limit, an interrupt or silence is noticed here."""
        api, limit = self._make_api(), self._limits[kind]
        call = _Call(lambda: api.analyse(CALLS[kind], asked, limit + SLACK))
        began = time.monotonic()
        deadline = began + limit
        self._status = status = Status(self._make_api(), session)
        call.start()
        try:
            while not call.done.wait(TICK):
                self._stop.check()
                now = time.monotonic()
                if api.budget.pause_left():
                    deadline = now + limit  # nothing was sent yet: the server's rate limit is waited for
                if now >= deadline:
                    raise errors.TimedOut(f"the server did not finish it in {limit:g} s", body_sent=True)
                if self._failed is not None and now >= self._failed[0] + AFTER_AN_ERROR:
                    raise errors.AnalysisFailed(self._failed[1] or "the server gave it up", retryable=True)
                if now - self._heard >= QUIET:
                    self._take(status.ask(now, assumed(now - began, limit)))
            if call.error is not None:
                kept = self._afterwards(call.error, status, deadline)
                if kept is not None:
                    return kept
        finally:
            api.shut()
            status.close()
        return self._result(call)

    def _afterwards(self, error: BaseException, status: Status, deadline: float) -> JsonObject | None:
        """What the status tells once the call has failed: where it ended, or the result where only the answer was lost.

        The server goes on when the line breaks, or when a proxy's patience ends (502, 504): so do we, until `deadline`.
        """
        lost = isinstance(error, errors.ConnectionLost) or getattr(error, "status", 0) in GATEWAY
        if not lost and (not isinstance(error, errors.AnswerError) or not self._is_quiet):
            return None
        misses = 0
        while time.monotonic() < deadline:
            found = status.look()
            self._take(found.message if found is not None else None)
            misses += found is None
            if not lost or misses == MISSES or (found is not None and not found.running):
                return found.data if found is not None else None
            self._stop.sleep(status.interval)
        return None

    def _take(self, message: AnalysisMessage | None) -> None:
        """Pass on what the status says."""
        if message is None:
            return
        if message.failed and self._failed is None:
            self._failed = (time.monotonic(), message.message)
        self._emit(message)

    def _result(self, call: _Call) -> JsonObject:
        """The data of the answer. What the call raised is raised again."""
        if call.error is not None:
            raise call.error
        data = analysis_data(call.body)
        if data is None:
            said = mask(error_sentence(call.body)) or (self._failed[1] if self._failed else "")
            raise errors.AnalysisFailed(said or "the server's answer holds no result", retryable=False)
        return data


class _Call:
    """A request in a daemon thread; `done` once there is `body` or `error`."""

    def __init__(self, request: Callable[[], object]) -> None:
        self.done = threading.Event()
        self.body: object = None
        self.error: BaseException | None = None
        self._request = request

    def start(self) -> None:
        threading.Thread(target=self._run, name="uploader-analysis-call", daemon=True).start()

    def _run(self) -> None:
        try:
            self.body = self._request()
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            self.error = error
        finally:
            self.done.set()


class Status:
    """Ask for the status of one analysis: as seldom as the rate limit asks, and no more once the server denies it."""

    def __init__(self, api: Api, session: str) -> None:
        """`api` belongs to this object, which closes it; `session` is the id that was chosen for the analysis."""
        self._api, self._session = api, session
        self._due = 0.0
        self._unknown = 0
        self._answered = False

    @property
    def interval(self) -> float:
        """Seconds between two calls now."""
        return self._api.budget.poll_interval()

    def ask(self, now: float, guess: float) -> AnalysisMessage | None:
        """Return what the server says; `guess` (percent) where it never said anything; None where no call is due."""
        if now < self._due:
            return None
        found = self.look()
        self._due = time.monotonic() + self.interval
        message = found.message if found is not None else None
        self._answered = self._answered or message is not None
        if message is None and not self._answered:
            return AnalysisMessage(guess, assumed=True)
        return message

    def look(self) -> AnalysisStatus | None:
        """Call once; None without an answer, and where the server does not know the analysis."""
        if self._unknown >= MOST_UNKNOWN:
            return None
        try:
            return self._api.analysis_status(self._session)
        except errors.NotFound:
            self._unknown += 1
        except errors.UploaderError:
            pass
        return None

    def close(self) -> None:
        """End a running call, from any thread, and close the connection."""
        self._api.shut()
        self._api.close()
