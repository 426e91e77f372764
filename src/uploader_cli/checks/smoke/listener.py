"""A live connection that records its events."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from uploader_cli.checks.smoke.verdicts import NotOffered, Prevented
from uploader_cli.core.events import ChannelReason, Transport
from uploader_cli.core.protocol import JsonObject, as_object
from uploader_cli.realtime.policy import Dial, Dialled, Lost
from uploader_cli.realtime.socket import Connection
from uploader_cli.transfer.http import make_session
from uploader_cli.transfer.wire import Sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.checks.smoke.site import Site

DIAL_LIMIT = 5.0
"""Maximum seconds to connect (docs/protocol.md section 2)."""
JOIN_LIMIT = 0.6
"""Seconds to wait for a first message after joining; not all servers send one (docs/protocol.md section 3.7)."""
CUT_LIMIT = 0.5
"""Seconds to wait for the end of a cut connection."""


class Listener:
    """A connection over one transport; a context manager that leaves at the end."""

    def __init__(self, site: Site, transport: Transport) -> None:
        """Does not connect before `dial`."""
        self.events: list[JsonObject] = []
        """The received events, in order; an invalid one is an empty object."""
        sockets = Sockets()
        token = {"Authorization": f"Bearer {site.token}"} if site.token else {}
        self._news: queue.Queue[Dialled | Lost] = queue.Queue()
        self._heard = threading.Condition()
        self._room: str | None = None
        self._over = False
        self._site = site
        self._connection = Connection(
            site.settings.server,
            Dial(1, transport, DIAL_LIMIT),
            session=make_session(site.settings, sockets),
            shut=lambda _session: sockets.shut(),
            headers=lambda: {**site.settings.headers, **token},
            report=self._news.put,
            progress=self._hear,
        )

    def dial(self) -> ChannelReason | None:
        """Connect; return None, or the reason of a failure."""
        self._connection.start()
        try:
            signal = self._news.get(timeout=DIAL_LIMIT + 1)
        except queue.Empty:
            return ChannelReason.TIMEOUT
        return None if isinstance(signal, Dialled) else signal.reason

    def join(self, session: str) -> bool:
        """Join a room and wait a moment for a first message; return whether one arrived."""
        before = len(self.events)
        self._room = session
        self._connection.join(session)
        return self.until(lambda: len(self.events) > before, JOIN_LIMIT)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds, checked after each event; return whether it does."""
        with self._heard:
            return self._heard.wait_for(condition, seconds)

    def cut(self) -> None:
        """End the connection abruptly, like a network failure."""
        ending = self._end(None)
        if ending is not None:
            ending.join(CUT_LIMIT)

    def leave(self) -> None:
        """End the connection properly; `Site.close` waits for it."""
        self._end(() if self._room is None else (self._room,))

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def _hear(self, body: object, _: Transport) -> None:
        with self._heard:
            self.events.append(as_object(body))
            self._heard.notify_all()

    def _end(self, leaving: tuple[str, ...] | None) -> threading.Thread | None:
        if self._over:
            return None
        self._over = True
        ending = self._connection.end(leaving)
        self._site.endings.append(ending)
        return ending


def over_websocket(site: Site) -> ChannelReason | None:
    """Try the websocket: return None, or the reason of a failure. Use with `once`."""
    return _tried(site, Transport.WEBSOCKET)


def over_polling(site: Site) -> ChannelReason | None:
    """Try the polling transport in the same way."""
    return _tried(site, Transport.POLLING)


def _tried(site: Site, transport: Transport) -> ChannelReason | None:
    with Listener(site, transport) as listener:
        reason = listener.dial()
    if reason is ChannelReason.TIMEOUT or reason is None:
        return reason
    if site.call("GET", f"/socket.io/?EIO=4&transport={Transport.POLLING}", limit=DIAL_LIMIT).status == 404:
        raise NotOffered("there is no Socket.IO at /socket.io/ (404)")
    return reason


def best_transport(site: Site) -> Transport:
    """Return the websocket if it works, else polling."""
    if site.once(over_websocket) is None:
        return Transport.WEBSOCKET
    if site.once(over_polling) is None:
        return Transport.POLLING
    raise Prevented("there is no live connection", "websocket", "long-polling")
