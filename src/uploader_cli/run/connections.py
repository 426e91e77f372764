"""The clients of a run or a command; `transfer` and `realtime` never import each other and meet here."""

from __future__ import annotations

import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from uploader_cli import errors, signals
from uploader_cli.core.events import (
    ChannelChanged,
    ChannelReason,
    Event,
    PollFailed,
    RunWarning,
    SessionLeft,
    SessionMissing,
    SessionProgress,
    WarningCode,
)
from uploader_cli.core.last_heard import LastHeard
from uploader_cli.core.state import ProgressState
from uploader_cli.realtime.channel import Channel
from uploader_cli.run.loop import Loop
from uploader_cli.run.views import open_log
from uploader_cli.settings import OPTIONS, Settings
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.connection import Sockets
from uploader_cli.transfer.pacer import Stop

DRAIN = 0.25
"""Seconds to listen after the end: final events may follow the response by 18 ms (docs/protocol.md section 3.8)."""
DIAL_AFTER, SHORT = 0.3, 1.0
"""Seconds after which an upload connects Socket.IO, and those that it has to take in all, as far as is known by then:
the import of the library takes 0.3 s of CPU time, for which the files of a short run would wait."""


class Connections:
    """The clients of one run: for uploads, polls and the realtime channel. No method but `close` blocks."""

    def __init__(self, settings: Settings, loop: Loop, run: str = "") -> None:
        """`run` is the run ID, which prefixes the IDs of requests."""
        self.stop, self.last_heard = Stop(), LastHeard()
        self._loop = loop
        self._began = math.inf
        self._unanswered = False  # whether the last poll failed
        self._leaving = deque[tuple[float, str]]()
        self.api = api = Api(settings, loop.emit, self.stop, run=run)
        self._polls = api.another()

        def session() -> tuple[Any, Callable[[], None]]:
            from uploader_cli.transfer.requests_session import make_session

            sockets = Sockets()
            return make_session(api, sockets), sockets.shut

        self.channel = Channel(
            settings.server,
            emit=self.heard,
            fetch=self._polls.progress,
            interval=api.budget.poll_interval,
            session_factory=session,
            headers=lambda: api.request_ids.added({**settings.headers, **api.authorization()}),
        )
        self.follow, self.body_sent = self.channel.follow, self.channel.body_sent

    def start(self) -> None:
        """Connect in the background, except for a tus endpoint, which has no Socket.IO."""
        if self.api.server:
            self.api.pacer.delays.follow_channel()
            self.channel.start()

    def start_soon(self, *, at_once: bool) -> None:
        """Connect in the next frame, or (not `at_once`) when the run turns out to be no short one."""
        self._began = -math.inf if at_once else time.monotonic()

    def _is_due(self, state: ProgressState) -> bool:
        now = time.monotonic()
        lasted, left = now - self._began, state.eta(now)
        return lasted >= DIAL_AFTER and (left is None or lasted + left >= SHORT)

    def leave(self, session: str) -> None:
        """Stop following the session in `DRAIN` seconds, after its last messages."""
        self._leaving.append((time.monotonic() + DRAIN, session))

    def tend(self, state: ProgressState) -> None:
        """Connect or stop following sessions when due; called every frame in the loop's thread."""
        if self._is_due(state):
            self._began = math.inf
            self.start()
        while self._leaving and self._leaving[0][0] <= time.monotonic():
            _, session = self._leaving.popleft()
            self.channel.leave(session)
            self.last_heard.forget(session)
            self._loop.emit(SessionLeft(session))  # behind its end, which a slow machine has not applied yet

    def heard(self, event: Event) -> None:
        """Take an event of the channel, from any of its threads."""
        if isinstance(event, SessionProgress):
            self.last_heard.note(event)
        self._tell_pacer(event)
        self._loop.emit(event)

    def _tell_pacer(self, event: Event) -> None:
        """Let the channel's return end the back-offs: a connection again, or an answered poll after one that failed."""
        returned = isinstance(event, ChannelChanged) and event.reason is ChannelReason.RECOVERED
        if isinstance(event, PollFailed):
            self._unanswered = True
        elif self._unanswered and isinstance(event, SessionProgress | SessionMissing):
            self._unanswered, returned = False, True
        if returned:
            self.api.pacer.delays.channel_returned()

    def drain_seconds(self) -> float:
        """Return how long to listen after the end: 0 if the channel was never live."""
        return DRAIN if self.channel.stats().connect_ms is not None else 0.0

    def close(self) -> None:
        """Close the channel and all connections and end their threads, in less than a second."""
        self._polls.shut()
        self.channel.close()
        self._polls.close()
        self.api.close()


def caution(settings: Settings, emit: Callable[[Event], None]) -> None:
    """Warn of insecure settings before anything is sent."""
    if settings.insecure and settings.target_url.startswith("https:"):
        text = "certificates are not verified (--insecure): others on the network can read and change the data"
        emit(RunWarning(WarningCode.INSECURE, text))
    if settings.upload_url and not settings.trusted_url:
        host = settings.target_url.rstrip("/")
        text = f"the token and the headers are not sent to {host}: if they are for it, add --tus-endpoint {host}"
        emit(RunWarning(WarningCode.TOKEN_WITHHELD, text))
    if settings.token_withheld:
        text = f"the token is not sent: {settings.distrust}"
        text += f"; set {OPTIONS[settings.target_option].variable} or the server in your user config"
        emit(RunWarning(WarningCode.TOKEN_WITHHELD, text))


@contextmanager
def client(settings: Settings, session: str = "", emit: Callable[[Event], None] = lambda _event: None) -> Iterator[Api]:
    """Yield a client for a command with few requests; its events go to the log file and to `emit`.

    A 404 means that `session` is unknown.
    """
    run_id = secrets.token_hex(8)
    with signals.unwinding(), ExitStack() as closing:
        log = open_log(settings, run_id)
        if log:
            closing.callback(log.close)

        def tell(event: Event) -> None:
            if log:
                log.handle(event)
            emit(event)

        caution(settings, tell)
        api = Api(settings, tell, Stop(), run=run_id)
        closing.callback(api.close)
        try:
            yield api
        except errors.NotFound:
            if not session:
                raise
            raise errors.SessionUnknown(
                f"session {session} is unknown to {settings.server}",
                hint="some servers forget a session a few seconds after its files are processed",
            ) from None
