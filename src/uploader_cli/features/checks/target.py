"""The checked server, and live connections to it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping

from uploader_cli.core.events import ChannelReason, Transport
from uploader_cli.core.origins import trusts
from uploader_cli.core.protocol import JsonObject, as_object
from uploader_cli.features.checks.common_client import CommonClient
from uploader_cli.realtime.policy import Dial, Dialled, Lost
from uploader_cli.realtime.socket import Connection
from uploader_cli.settings import Settings
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.bodies import Body
from uploader_cli.transfer.connection import Sockets
from uploader_cli.transfer.credentials import SESSION_SECRET, new_secret
from uploader_cli.transfer.http_client import HttpClient
from uploader_cli.transfer.requests_session import make_session

JOIN_LIMIT = 0.6  # seconds to wait for a first message, which not all servers send (docs/protocol.md section 3.7)
CUT_LIMIT = 0.5  # maximum seconds for a cut connection to end
END_LIMIT = 1.0  # maximum seconds for all live connections to end
DOWN_OR_BUSY = (502, 503, 504)  # statuses of proxies for a server that is down or busy
_FREE = ("/health", "/uploads/", "/socket.io/")


class CheckedServer:
    """A server with the settings and the token for it, and the number of counted requests."""

    def __init__(self, settings: Settings, token: str | None = None) -> None:
        """Does not connect yet."""
        self.settings, self.token = settings, token
        self.http = CommonClient(settings)
        self.ours = HttpClient(settings, self.http.request_ids)
        self.clients: list[HttpClient] = [self.http, self.ours]
        """What has connections; checks may add a client of their own."""
        self.secret = {SESSION_SECRET: new_secret()}
        """The header that protects the sessions of this run; other servers ignore it."""
        self.calls = 0
        self.endings: list[threading.Thread] = []  # threads that end live connections

    @property
    def option(self) -> str:
        """What names the server: the flag, variable or config key that the user has given."""
        return self.http.option

    def url(self, where: str) -> str:
        return where if "://" in where else self.settings.server + where

    @property
    def own_authorization(self) -> bool:
        """Whether `--header` sets one."""
        return any(name.lower() == "authorization" for name in self.settings.headers)

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def send(
        self,
        method: str,
        url: str,
        *,
        json: object = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
        limit: float,
        early: bool = False,
        by: HttpClient | None = None,
    ) -> Answer:
        """Send a request; `limit` is in seconds. Raises `NetworkError`.

        `token`: None for none, empty for our own. Another server gets neither it nor the secret of the sessions.
        `early`: there may be an answer before the end of the body, or an interim one. Only our client notices these.
        `by` is one of `clients` that sends it instead.
        """
        own = self.authorization if token == "" else {"Authorization": f"Bearer {token}"} if token else {}
        if not trusts(self.settings.target_url, url):
            own = {}
        elif method == "POST" and not self.settings.tus_endpoint:
            own = own | self.secret
        own = own | dict(headers or {})
        client = by or (self.ours if early else self.http)
        return client.request(method, url, json=json, body=body, headers=own, read_timeout=limit)

    def counts(self, url: str) -> bool:
        """Return whether a request counts towards a rate limit (docs/protocol.md section 3.11)."""
        return not url.removeprefix(self.settings.server).startswith(_FREE)

    def shut(self) -> None:
        """End all requests, also those of other threads."""
        for client in self.clients:
            client.shut()

    def close(self) -> None:
        """End all connections, also those of abandoned checks."""
        until = time.monotonic() + END_LIMIT
        for ending in self.endings:
            ending.join(max(0.0, until - time.monotonic()))
        self.shut()
        for client in self.clients:
            client.close()


class Listener:
    """A live connection over one transport that records its events; a context manager that leaves at the end."""

    def __init__(self, target: CheckedServer, transport: Transport, limit: float) -> None:
        """`limit` is the maximum of seconds to connect. Does not connect before `dial`."""
        self.events: list[JsonObject] = []  # the received events, in order; an invalid one is an empty object
        self.latency = 0.0  # seconds to connect
        sockets = Sockets()
        self._target, self._limit = target, limit
        self._news: queue.Queue[Dialled | Lost] = queue.Queue()
        self._heard = threading.Condition()
        self._rooms: tuple[str, ...] | None = None  # None until it is connected
        self._connection = Connection(
            target.settings.server,
            Dial(1, transport, limit),
            session=make_session(target.http, sockets),
            shut=sockets.shut,
            headers=lambda: {**target.settings.headers, **target.authorization},
            report=self._news.put,
            heard=self._hear,
        )

    def dial(self, grace: float = 0.0) -> ChannelReason | None:
        """Connect; return None, or the reason of a failure, which may arrive up to `grace` seconds after the limit."""
        self._connection.start()
        try:
            signal = self._news.get(timeout=self._limit + grace)
        except queue.Empty:
            return ChannelReason.TIMEOUT
        if not isinstance(signal, Dialled):
            return signal.reason
        self.latency, self._rooms = signal.latency, ()
        return None

    def join(self, session: str) -> bool:
        """Join a room and wait a moment for a first message; return whether one arrived."""
        before = len(self.events)
        self._rooms = (session,)
        self._connection.join(session)
        return self.until(lambda: len(self.events) > before, JOIN_LIMIT)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds, checked after each event; return whether it does."""
        with self._heard:
            return self._heard.wait_for(condition, seconds)

    def cut(self) -> None:
        """End the connection abruptly, like a network failure."""
        self._end(None).join(CUT_LIMIT)

    def leave(self) -> None:
        """End the connection properly; `CheckedServer.close` waits for it."""
        self._end(self._rooms)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def _hear(self, name: str, body: object) -> None:
        if name != "upload-progress":  # a session's room may get messages of analyses as well
            return
        with self._heard:
            self.events.append(as_object(body))
            self._heard.notify_all()

    def _end(self, leaving: tuple[str, ...] | None) -> threading.Thread:
        ending = self._connection.end(leaving)
        self._target.endings.append(ending)
        return ending
