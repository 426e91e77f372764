"""The clients of one run; `transfer` and `realtime` never import each other and meet here."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from uploader_cli.core.events import AnalysisMessage, ChannelStats, SessionLeft, SessionProgress
from uploader_cli.core.last_heard import LastHeard
from uploader_cli.realtime.channel import Channel
from uploader_cli.transfer.api import Api
from uploader_cli.transfer.http import make_session
from uploader_cli.transfer.pacing import Stop
from uploader_cli.transfer.wire import Sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.events import Event
    from uploader_cli.run.loop import Loop
    from uploader_cli.settings import Settings

DRAIN = 0.25
"""Seconds to listen after the end: final events may follow the response by 18 ms (docs/protocol.md section 3.8)."""


DIAL_AFTER = 0.1
"""Seconds after which an upload connects Socket.IO: a shorter run needs no channel, whose import takes as long."""


@dataclass(slots=True)
class Connections:
    """The clients of one run: for uploads, polls and the realtime channel."""

    settings: Settings
    loop: Loop
    run: str = ""
    """The run ID, which prefixes the IDs of requests."""
    stop: Stop = field(default_factory=Stop)
    last_heard: LastHeard = field(default_factory=LastHeard)
    api: Api = field(init=False)
    polls: Api = field(init=False)
    channel: Channel | None = field(init=False, default=None)
    """None for a tus endpoint, which has no Socket.IO."""
    on_analysis: Callable[[AnalysisMessage], None] = lambda _event: None
    """Called with messages of an analysis, in a thread of the channel."""
    _dial_at: float = math.inf
    _leaving: deque[tuple[float, str]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.api = Api(self.settings, self.loop.emit, self.stop, run=self.run)
        self.polls = self.api.another()
        if not self.settings.tus_endpoint:
            self.channel = self._make_channel()

    def _make_channel(self) -> Channel:
        def session() -> tuple[Any, Callable[[], None]]:
            sockets = Sockets()
            return make_session(self.settings, sockets, self.api.request_ids), sockets.shut

        return Channel(
            self.settings.server,
            emit=self._heard,
            fetch=self.polls.progress,
            interval=self.api.budget.poll_interval,
            session_factory=session,
            headers=lambda: self.api.request_ids.added({**self.settings.headers, **self.api.authorization()}),
        )

    # None of these methods blocks.

    def follow(self, session: str) -> None:
        """Follow an upload session once the channel is connected."""
        if self.channel is not None:
            self.channel.follow(session)

    def body_sent(self, session: str) -> None:
        """Poll the session from now on, even if the server does not know it yet."""
        if self.channel is not None:
            self.channel.body_sent(session)

    def ask(self, session: str) -> None:
        """Poll the session once over HTTP, even while the socket is connected."""
        if self.channel is not None:
            self.channel.ask(session)

    def leave(self, session: str) -> None:
        """Stop following the session in `DRAIN` seconds, after its last messages."""
        self._leaving.append((time.monotonic() + DRAIN, session))

    def enter(self, room: str) -> None:
        """Follow an analysis."""
        if self.channel is not None:
            self.channel.enter(room)

    def quit(self, room: str) -> None:
        """Stop following an analysis."""
        if self.channel is not None:
            self.channel.leave(room)

    def another_api(self) -> Api:
        """Return a client for another thread."""
        return self.api.another()

    def tend(self) -> None:
        """Connect or stop following sessions when due; called every frame in the loop's thread."""
        if time.monotonic() >= self._dial_at:
            self._dial_at = math.inf
            self.start()
        while self._leaving and self._leaving[0][0] <= time.monotonic():
            _, session = self._leaving.popleft()
            if self.channel is not None:
                self.channel.leave(session)
            self.last_heard.forget(session)
            self.loop.apply(SessionLeft(session))

    def _heard(self, event: Event) -> None:
        if isinstance(event, AnalysisMessage):
            self.on_analysis(event)
            return
        if isinstance(event, SessionProgress):
            self.last_heard.note(event)
        self.loop.emit(event)

    def start(self) -> None:
        """Connect in the background."""
        if self.channel is not None:
            self.channel.start()

    def start_soon(self) -> None:
        """Connect in `DIAL_AFTER` seconds, unless the run has ended by then."""
        self._dial_at = time.monotonic() + DIAL_AFTER

    def stats(self) -> ChannelStats:
        """Return the statistics of the channel."""
        return self.channel.stats() if self.channel is not None else ChannelStats()

    def drain_seconds(self) -> float:
        """Return how long to listen after the end: 0 if the channel was never live."""
        return DRAIN if self.stats().connect_ms is not None else 0.0

    def close(self) -> None:
        """Close the channel and all connections and end their threads, in less than a second."""
        self.polls.shut()
        if self.channel is not None:
            self.channel.close()
        self.polls.close()
        self.api.close()
