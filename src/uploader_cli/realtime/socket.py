"""One try at a Socket.IO connection, and the connection. The only import of `socketio`.

python-socketio dials only the first transport, retries on its own, does not limit received data and starts a thread for
each message. So each try is a new client for one transport without reconnection, which can be ended by its sockets.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import engineio  # type: ignore[import-untyped]
import socketio  # type: ignore[import-untyped]

from uploader_cli.core.events import CallMade, ChannelReason
from uploader_cli.realtime.policy import Dial, Dialled, Lost
from uploader_cli.realtime.websocket import WebSocket

GOODBYE = 0.25  # seconds that leaving and disconnecting may take; after that the sockets are shut
GIVE_UP = 10.0  # seconds beyond a try's limit after which its end is not awaited: name resolution can't be interrupted
BURST = 10_000  # most messages in one polling answer; the library's own limit of 16 would end the session
MOST_POLLED = 4 << 20  # most bytes of one decompressed polling answer
LEAST_POLL = 1.0  # seconds that a polling answer without a message takes at least; a sooner one is invalid
_WITH_ATTACHMENTS = {str(socketio.packet.BINARY_EVENT), str(socketio.packet.BINARY_ACK)}

_log = logging.getLogger("uploader_cli.realtime")
_quiet = logging.getLogger("uploader_cli.realtime.engine")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False  # the library logs what events say here, and errors that are none

engineio.payload.Payload.max_decode_packets = BURST


class Connection:
    """Try `dial.number`. Reports `Dialled` where it succeeds, and `Lost` when it fails or ends, from its own threads.

    `session` is a `requests` session for this try alone, closed at its end: it carries the polling transport, and the
    websocket takes TLS settings, proxies and cookies from it. `shut()` makes every request of it that is under way
    fail, and is called repeatedly. `headers()` is called in the dialling thread, for the handshake; they are never
    logged. `heard` gets the names and bodies of the messages, one after the other in the thread that reads, so it must
    not block. `called` gets each dial of a websocket; the session reports its own calls.
    """

    def __init__(
        self,
        url: str,
        dial: Dial,
        *,
        session: Any,
        shut: Callable[[], None],
        headers: Callable[[], Mapping[str, str]],
        report: Callable[[Dialled | Lost], None],
        heard: Callable[[str, object], None],
        called: Callable[[CallMade], None] = lambda _call: None,
    ) -> None:
        """Dial nothing before `start`."""
        self.number, self.transport = dial.number, dial.transport
        self._url, self._limit = url, dial.seconds
        self._session, self._shut, self._headers = session, shut, headers
        self._report, self._heard, self._called = report, heard, called
        self._settled = threading.Event()  # the namespace is connected, or never will be
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.websockets: list[WebSocket] = []
        self._client = self._make_client()

    def start(self) -> None:
        self._spawn(self._dial)

    def join(self, session: str) -> None:
        """Join the room of an upload session; not every server acknowledges that (docs/protocol.md, section 3)."""
        self._send("join-session", session)

    def leave(self, session: str) -> None:
        self._send("leave-session", session)

    def end(self, leaving: tuple[str, ...] | None = None) -> threading.Thread:
        """End the connection, whatever it is doing; with `leaving`, first leave these rooms and disconnect.

        Returns the thread that does this; it ends after all others of this connection.
        """
        thread = threading.Thread(target=self._end, args=(leaving,), name="uploader-socket-end", daemon=True)
        thread.start()
        return thread

    def _make_client(self) -> Any:
        client = _Client(
            reconnection=False,
            handle_sigint=False,
            logger=_quiet,
            engineio_logger=_quiet,
            http_session=self._session,
            request_timeout=self._limit,
            # A redirect would send the credentials to another host; an Origin is for browsers, and behind a TLS proxy
            # servers refuse the one that the library makes up.
            websocket_extra_options={"class_": self._make_websocket, "redirect_limit": 0, "suppress_origin": True},
        )
        client.eio.spawn = self._spawn
        client.on("connect", self._settled.set)
        client.on("connect_error", lambda *_: self._settled.set())
        client.on("disconnect", self._disconnected)
        client.on("*", self._received)  # any message
        return client

    def _make_websocket(self, **options: Any) -> WebSocket:
        made = WebSocket(called=self._called, **options)
        self.websockets.append(made)
        return made

    def _dial(self) -> None:
        began = time.monotonic()
        base, path = _split(self._url)
        try:
            self._client.connect(
                base,
                headers=dict(self._headers()),
                transports=[str(self.transport)],
                socketio_path=path,
                wait=False,  # its own wait takes one second and can't be interrupted
            )
        except Exception as error:  # noqa: BLE001 - libraries raise anything on an invalid answer
            _log.debug("%s: no connection: %s", self.transport, type(error.__context__ or error).__name__)
            late = time.monotonic() - began >= self._limit
            self._report(Lost(self.number, ChannelReason.TIMEOUT if late else ChannelReason.REFUSED))
            return
        self._settled.wait(self._limit)
        if self._ended.is_set():
            return
        if self._client.get_sid() is None or self._client.eio.state != "connected":
            self._report(Lost(self.number, ChannelReason.HANDSHAKE_FAILED))
        else:
            self._report(Dialled(self.number, time.monotonic() - began))

    def _spawn(self, target: Callable[..., object], *args: Any, **kwargs: Any) -> threading.Thread:
        """Start a thread of the client: known, named, and without a traceback when an invalid answer ends it."""

        def run() -> None:
            try:
                target(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the library raises anything on an invalid answer
                _log.debug("%s: ended: %s", self.transport, type(error).__name__)

        thread = threading.Thread(target=run, name="uploader-socket", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _received(self, name: str, *args: object) -> None:
        if args and not self._ended.is_set():
            self._heard(name, args[0])

    def _disconnected(self, reason: str = "") -> None:
        self._settled.set()
        closed = reason == socketio.Client.reason.SERVER_DISCONNECT
        self._report(Lost(self.number, ChannelReason.SERVER_CLOSED if closed else ChannelReason.LOST))

    def _send(self, event: str, session: str) -> None:
        with contextlib.suppress(socketio.exceptions.SocketIOError):  # lost a moment ago: `Lost` is on its way
            self._client.emit(event, session)

    def _end(self, leaving: tuple[str, ...] | None) -> None:
        self._ended.set()
        self._settled.set()
        if leaving is not None:
            self._spawn(self._say_goodbye, leaving).join(GOODBYE)
        give_up = time.monotonic() + self._limit + GIVE_UP
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < give_up:
            self._cut()
            time.sleep(0.01)
        for opened in self.websockets:
            opened.release()
        self._session.close()

    def _say_goodbye(self, leaving: tuple[str, ...]) -> None:
        for session in leaving:
            self.leave(session)
        # `disconnect` stops the writer at once, whatever is queued: so the packet is queued here, after the others.
        self._client.eio.send(socketio.packet.Packet(socketio.packet.DISCONNECT).encode())
        queued, until = self._client.eio.queue, time.monotonic() + 0.8 * GOODBYE
        while queued.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.002)
        self._client.disconnect()

    def _cut(self) -> None:
        """End what reads and writes now; called repeatedly, as a thread between two requests opens a new connection."""
        for opened in self.websockets:
            opened.cut()
        self._shut()
        engine = self._client.eio
        if engine.state == "connected":
            with contextlib.suppress(Exception):  # half connected: its loops stop all the same
                engine.disconnect(abort=True)
        engine.queue.put(None)  # wakes the writer, which would wait for 30 s


class _Queue(queue.Queue[Any]):
    """A queue that nobody waits for after its end (None), which the library's writer drops if it comes with packets."""

    _over = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block and not self._over, timeout)
        self._over = self._over or item is None
        return item


class _Engine(engineio.Client):  # type: ignore[misc]
    """Engine.IO whose reader handles the messages itself, in order; the library starts a thread for each."""

    spawn: Callable[..., threading.Thread]
    _heard = True  # whether the last poll was answered with a message, ping or close
    _polled = 0.0

    def create_queue(self, *args: Any, **kwargs: Any) -> _Queue:
        return _Queue(*args, **kwargs)

    def start_background_task(self, target: Callable[..., object], *args: Any, **kwargs: Any) -> Any:
        """Handle messages at once, in order; start a thread for the reader and the writer."""
        if target != self.handlers.get("message"):
            return self.spawn(target, *args, **kwargs)
        try:
            target(*args, **kwargs)
            self._heard = True
        except Exception as error:  # noqa: BLE001 - a message that can't be read is no message
            _log.debug("ignored: %s", type(error).__name__)
        return None

    def _receive_packet(self, pkt: Any) -> None:
        """Handle a packet without attachments: upload servers send none."""
        if not (pkt.binary or (isinstance(pkt.data, str) and pkt.data[:1] in _WITH_ATTACHMENTS)):
            self._heard = self._heard or pkt.packet_type in (engineio.packet.PING, engineio.packet.CLOSE)
            super()._receive_packet(pkt)

    def _send_request(
        self, method: str, url: str, headers: Any = None, body: Any = None, timeout: float | None = None
    ) -> Any:
        """Make a polling request; return its answer, or a string after a failure or an answer that is too large.

        A poll after one that was answered at once without a message fails, too: the policy decides when to go on.
        """
        if method == "GET" and self.state == "connected":
            now = time.monotonic()
            if not self._heard and now - self._polled < LEAST_POLL:
                return "an answer without a message"
            self._heard, self._polled = False, now
        try:
            with self.http.request(method, url, headers=headers, data=body, timeout=timeout, stream=True) as answer:
                content = b""
                for piece in answer.iter_content(64 << 10):
                    content += piece
                    if len(content) > MOST_POLLED:
                        return f"more than {MOST_POLLED} bytes"
                answer._content = content  # noqa: SLF001
                return answer
        except Exception as error:  # noqa: BLE001 - the session is not ours, and neither are its errors
            return str(error) or type(error).__name__

    def disconnect(self, abort: bool = False, reason: str | None = None) -> None:
        """Disconnect; do not wait for the reader in the reader's own thread."""
        super().disconnect(abort or threading.current_thread() is self.read_loop_task, reason)


class _Client(socketio.Client):  # type: ignore[misc]
    def _engineio_client_class(self) -> type[_Engine]:
        return _Engine


def _split(url: str) -> tuple[str, str]:
    """Split `https://host/prefix` into the origin and the path of Socket.IO below the prefix."""
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    return f"{parts.scheme}://{parts.netloc}", f"{prefix}/socket.io" if prefix else "socket.io"
