"""One analysis on the server (docs/protocol.md section 4): the call, its time limit, and its progress.

The response to the call decides. Until it arrives, progress comes from the messages in the analysis's Socket.IO room,
else from polls of its status, else it is estimated from the time.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.events import Event
from uploader_cli.core.masking import mask
from uploader_cli.core.protocol import JsonObject, error_sentence
from uploader_cli.features.analysis.events import AnalysisMessage
from uploader_cli.features.analysis.messages import (
    AnalysisStatus,
    analysis_data,
    parse_analysis,
    parse_analysis_status,
)
from uploader_cli.features.analysis.stages import Kind
from uploader_cli.realtime.channel import Channel
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.pacer import Stop

CALLS = {
    Kind.CONTENT: "/api/ai/analyze/content",
    Kind.FUSION: "/api/ai/analyze/fusion",
    Kind.MUSIC: "/api/ai/generate/music-prompt",
}
LIMITS: Mapping[Kind, float] = {Kind.CONTENT: 180.0, Kind.FUSION: 300.0, Kind.MUSIC: 300.0}
"""Seconds for one call."""
QUIET = 2.0
"""Seconds without a message after which the status is polled."""
AFTER_AN_ERROR = 5.0
"""Seconds to wait for the response after a message that reports a failure."""
SLACK = 5.0
"""Seconds that the HTTP call waits longer than the limit, so that the limit ends it."""
HEAD_START = 0.1
"""Seconds between joining the room and the call: the server does not acknowledge a join."""
DRAIN = 0.25
"""Seconds before leaving the room: late messages would be taken for those of the next analysis."""
GATEWAY = (502, 504)
"""Statuses of a proxy whose own time limit is over."""
MOST_UNKNOWN = 3
"""404 responses after which the status is no longer polled."""
MISSES = 3
"""Polls without a response after which a lost analysis is given up."""
TICK = 0.1
STATUS_LIMIT = 5.0
"""Seconds for an answer about the status."""
MOST_ASSUMED = 95.0
"""Percentage that an estimate approaches at the limit of a call."""
REPORT = 1000
"""A result may be as large as the answer about so many files."""
OFF = "ANALYSES_OFF"
"""The code of a server that answers no analyses."""


class AnalysisFailed(errors.UploaderError):
    """An analysis gave no result; the uploaded files are not affected (docs/protocol.md section 4)."""

    code = FailureCode.SERVER_FAILED

    def __init__(self, message: str, *, retryable: bool) -> None:
        """`retryable`: the server failed during the analysis, rather than refusing it."""
        super().__init__(message)
        self.retryable = retryable


class Analyst:
    """Runs one analysis after the other, and takes the messages of their rooms."""

    def __init__(
        self,
        make_api: Callable[[], Api],
        emit: Callable[[Event], None],
        stop: Stop,
        channel: Channel,
        limits: Mapping[Kind, float] = LIMITS,
    ) -> None:
        """`make_api` returns a client for one thread."""
        self._make_api, self._emit, self._stop, self._channel, self._limits = make_api, emit, stop, channel, limits
        self._listening = False
        self._heard, self._is_quiet = 0.0, True
        self._failed: tuple[float, str] | None = None
        self._status: _Status | None = None
        channel.takers |= {"analysis:progress": self.hear, "analysis:error": partial(self.hear, failed=True)}

    def shut(self) -> None:
        """End a running poll, from another thread."""
        if self._status is not None:
            self._status.close()

    def hear(self, body: object, *, failed: bool = False) -> bool:
        """Process a message, from any thread; return whether it is one.

        It names no session: only one analysis runs at a time.
        """
        message = parse_analysis(body, failed=failed)
        if message is not None and self._listening:
            self._heard, self._is_quiet = time.monotonic(), False
            self._take(message)
        return message is not None

    def analyse(self, kind: Kind, asked: Mapping[str, object]) -> JsonObject:
        """Return the result. Raises `UploaderError`, and `Interrupted` at once when stopped."""
        session = str(uuid.uuid4())
        self._failed, self._heard, self._is_quiet, self._listening = None, time.monotonic(), True, True
        self._channel.enter(session)
        try:
            self._stop.sleep(HEAD_START)
            return self._supervised(kind, session, {**asked, "sessionId": session})
        finally:
            if not self._stop.is_set():
                time.sleep(DRAIN)
            self._listening = False
            self._channel.leave(session)

    def _supervised(self, kind: Kind, session: str, asked: dict[str, object]) -> JsonObject:
        """Call in another thread, so that this one sees the time limit, an interrupt and silence."""
        api, limit = self._make_api(), self._limits[kind]
        began, done = time.monotonic(), threading.Event()
        deadline, body, failure = began + limit, list[object](), list[BaseException]()

        def call() -> None:
            try:
                body.append(_called(api, CALLS[kind], asked, limit + SLACK))
            except BaseException as error:  # noqa: BLE001 - raised below
                failure.append(error)
            finally:
                done.set()

        self._status = status = _Status(self._make_api(), session)
        threading.Thread(target=call, name="uploader-analysis-call", daemon=True).start()
        try:
            while not done.wait(TICK):
                self._stop.checkpoint()
                now = time.monotonic()
                if api.budget.pause_left():
                    deadline = now + limit  # the call waits for the server's rate limit: nothing was sent yet
                if now >= deadline:
                    raise errors.TimedOut(f"the server did not finish it in {limit:g} s", body_sent=True)
                if self._failed is not None and now >= self._failed[0] + AFTER_AN_ERROR:
                    raise AnalysisFailed(self._failed[1] or "the server stopped it", retryable=True)
                if now - self._heard >= QUIET:
                    self._take(status.message(now, assumed(now - began, limit)))
            if failure:
                result = self._after_failure(failure[0], status, deadline)
                if result is None:
                    raise failure[0]
                return result
        finally:
            api.shut()
            status.close()
        data = analysis_data(body[0])
        if data is None:
            reason = mask(error_sentence(body[0])) or (self._failed[1] if self._failed else "")
            raise AnalysisFailed(reason or "the server's answer has no result", retryable=False)
        return data

    def _after_failure(self, error: BaseException, status: _Status, deadline: float) -> JsonObject | None:
        """Return the result of an analysis of which only the response was lost, or None.

        The server continues after a lost connection or a proxy's timeout, so the status is polled until `deadline`.
        """
        lost = isinstance(error, errors.ConnectionLost) or getattr(error, "status", 0) in GATEWAY
        if not lost and (not isinstance(error, errors.AnswerError) or not self._is_quiet):
            return None
        misses = 0
        while time.monotonic() < deadline:
            found = status.poll()
            self._take(found.message if found is not None else None)
            misses += found is None
            if not lost or misses == MISSES or (found is not None and not found.running):
                return found.data if found is not None else None
            self._stop.sleep(status.interval())
        return None

    def _take(self, message: AnalysisMessage | None) -> None:
        if message is None:
            return
        if message.failed and self._failed is None:
            self._failed = (time.monotonic(), message.message)
        self._emit(message)


def assumed(elapsed: float, limit: float) -> float:
    """Estimate the percentage of a silent server: fast at first, at most 95 near `limit` (seconds)."""
    return MOST_ASSUMED * (1 - math.exp(-4 * max(0.0, elapsed) / limit))


def _called(api: Api, path: str, asked: dict[str, object], limit: float) -> object:
    """Return the answer to the call for an analysis; `limit` is in seconds."""
    try:
        return api.accepted("POST", path, json=asked, read_timeout=limit, files=REPORT)
    except errors.NotFound as error:
        if error.error != OFF:
            raise
        text = f"this server answers no analyses ({error.status} {OFF}): start it with --analyses"
        raise errors.NotFound(text, status=error.status, error=OFF) from error


class _Status:
    """Polls the status of one analysis, no more often than the rate limit allows."""

    def __init__(self, api: Api, session: str) -> None:
        """`api` belongs to this object, which closes it."""
        self._api, self._session, self.interval = api, session, api.budget.poll_interval
        self._due, self._unknown, self._answered = 0.0, 0, False

    def message(self, now: float, guess: float) -> AnalysisMessage | None:
        """Return the server's status, or `guess` (percent) if it never reported one; None if no poll is due."""
        if now < self._due:
            return None
        found = self.poll()
        self._due = time.monotonic() + self.interval()
        message = found.message if found is not None else None
        self._answered = self._answered or message is not None
        return message if self._answered else AnalysisMessage(guess, assumed=True)

    def poll(self) -> AnalysisStatus | None:
        """Poll once; None without a response, and where the server does not know the analysis."""
        if self._unknown < MOST_UNKNOWN:
            try:
                path = f"/api/ai/analysis/{self._session}/status"
                asked = self._api.accepted("GET", path, patient=False, read_timeout=STATUS_LIMIT, files=REPORT)
                return parse_analysis_status(asked)
            except errors.NotFound:
                self._unknown += 1
            except errors.UploaderError:
                pass
        return None

    def close(self) -> None:
        """End a running poll, from any thread, and close the connection."""
        self._api.shut()
        self._api.close()
