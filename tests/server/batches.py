"""Helpers of the server tests: multipart bodies byte by byte, half-sent requests, and watchers."""

from __future__ import annotations

import asyncio
import json
import queue
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import engineio
import requests
import socketio
import websockets.sync.client
from time_limits import PATIENCE
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

UNKNOWN = "00000000-0000-4000-8000-000000000000"
DEADLINE = PATIENCE
Part = tuple[str, bytes]


def text(name: str, value: str | bytes) -> Part:
    return f'Content-Disposition: form-data; name="{name}"', value.encode() if isinstance(value, str) else value


def file(name: str, data: bytes, *, length: int | None = None, field: str = "files") -> Part:
    more = "" if length is None else f"\r\nContent-Length: {length}"
    disposition = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'
    return f"{disposition}\r\nContent-Type: video/mp4{more}", data


def body_of(parts: list[Part]) -> bytes:
    pieces = [b"--BOUNDARY\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts]
    return b"".join(pieces) + b"--BOUNDARY--\r\n"


def new_session(url: str, expected: int = 1, category: str = "personal") -> str:
    answer = requests.post(
        f"{url}/api/upload/session", json={"category": category, "expectedFiles": expected}, timeout=DEADLINE
    )
    assert answer.status_code == 201, answer.text
    session: str = answer.json()["sessionId"]
    return session


def post_parts(url: str, parts: list[Part], **headers: str) -> requests.Response:
    return requests.post(
        f"{url}/api/upload/batch",
        data=body_of(parts),
        headers={"content-type": "multipart/form-data; boundary=BOUNDARY", **headers},
        timeout=DEADLINE,
    )


def upload(url: str, *files: Part, session: str | None = None, paths: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Upload into a session (a new one by default); the files of the answer."""
    session = session or new_session(url, len(files))
    head = [text("sessionId", session), text("category", "personal"), *(text("relativePath", p) for p in paths)]
    answer = post_parts(url, [*head, *files])
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["files"]
    return listed


def progress(url: str, session: str) -> requests.Response:
    return requests.get(f"{url}/api/upload/progress/{session}", timeout=DEADLINE)


def connected(url: str, source: str = "") -> socket.socket:
    """A connection, from another address of this machine if `source` is one."""
    address = urlsplit(url)
    assert address.hostname is not None
    source_address = (source, 0) if source else None
    connection = socket.create_connection((address.hostname, address.port or 80), source_address=source_address)
    connection.settimeout(DEADLINE)
    return connection


def answered(url: str) -> socket.socket:
    """A connection after the answer to a request; another one where the server closed it before, as idle."""

    def asked() -> socket.socket | None:
        connection, answer = connected(url), b""
        with suppress(ConnectionError):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while piece := connection.recv(65536):
                answer += piece
                if answer.endswith(b"}"):
                    return connection
        connection.close()
        return None

    connection: socket.socket = eventually(asked, "an answer")
    return connection


class HalfSent:
    """A batch request whose body is sent piece by piece."""

    def __init__(self, url: str, body: bytes, *, claimed: int | None = None) -> None:
        self.rest = body
        self.connection = connected(url)
        self.connection.sendall(
            b"POST /api/upload/batch HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=BOUNDARY\r\n"
            b"Content-Length: %d\r\n\r\n" % (len(body) if claimed is None else claimed)
        )

    def send(self, count: int | None = None) -> None:
        count = len(self.rest) if count is None else count
        with suppress(ConnectionError):  # the answer may have come before the end of the body
            self.connection.sendall(self.rest[:count])
        self.rest = self.rest[count:]

    def status(self) -> int:
        """The status of the answer, which may come before the end of the body."""
        return int(self.answer().split(b" ", 2)[1])

    def answer(self) -> bytes:
        """Head and body of the answer; what has come of it where the connection ends."""
        got = b""
        while piece := self.connection.recv(65536):
            got += piece
            head, end, body = got.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if end and (length is None or len(body) >= int(length[1])):
                break
        return got

    def __enter__(self) -> HalfSent:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


HELD = 77.0
"""Value of `processing_seconds` for `held_processing`."""


def held_processing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let a processing of `HELD` seconds last until the returned event is set."""
    over, sleep = threading.Event(), asyncio.sleep

    async def held(seconds: float) -> None:
        while seconds == HELD and not over.is_set():
            await sleep(0.005)
        await sleep(0.0 if seconds == HELD else seconds)

    monkeypatch.setattr(asyncio, "sleep", held)
    return over


def eventually(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait until the condition returns a true value, and return that."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come true within {DEADLINE:.0f} s")


class FromAddress(requests.adapters.HTTPAdapter):
    """Calls from another address of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, source_address=(self._address, 0))


class InOrder(socketio.Client):
    """Handles packets in the order of their arrival, where the library starts a thread for each of them."""

    class _Transport(engineio.Client):
        def _trigger_event(self, event: str, *args: Any, run_async: bool = False, **more: Any) -> Any:
            return super()._trigger_event(event, *args, run_async=False, **more)

    def _engineio_client_class(self) -> type[engineio.Client]:
        return self._Transport


def socket_client(**options: Any) -> InOrder:
    """A client that reads no environment: its threads may outlive the test, and pytest changes it between two."""
    session = requests.Session()
    session.trust_env = False
    return InOrder(handle_sigint=False, reconnection=False, http_session=session, **options)


class Watcher:
    """A Socket.IO client that keeps every `upload-progress` event with the time of its arrival."""

    def __init__(self, url: str, transport: str, auth: dict[str, str] | None = None) -> None:
        self.client = socket_client(request_timeout=DEADLINE)
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.lost = threading.Event()
        self.client.on("upload-progress", self._keep)
        self.client.on("disconnect", self._note_loss)
        self.client.connect(url, transports=[transport], wait_timeout=DEADLINE, auth=auth)

    def _note_loss(self, *_: object) -> None:
        self.lost.set()

    def _keep(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.times.append(time.monotonic())

    def join(self, session: object) -> Any:
        return self.client.call("join-session", session, timeout=DEADLINE)

    def wait(self, condition: Callable[[list[dict[str, Any]]], Any]) -> list[dict[str, Any]]:
        eventually(
            lambda: condition(self.events), f"the awaited event (the last of {len(self.events)}: {self.events[-1:]})"
        )
        return list(self.events)

    def wait_for_end(self) -> list[dict[str, Any]]:
        ends = {"completed", "partial", "cancelled"}
        return self.wait(lambda events: any(e["overallStatus"] in ends and "currentFile" not in e for e in events))


class Listener:
    """Engine.IO by hand over a websocket: events exactly in the order in which the server sent them.

    A thread of its own answers the pings, however long the test is busy elsewhere.
    """

    def __init__(self, url: str) -> None:
        address = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        self._socket = websockets.sync.client.connect(address, open_timeout=DEADLINE, proxy=None).__enter__()
        self._socket.recv(timeout=DEADLINE)
        self.send("40")
        self._socket.recv(timeout=DEADLINE)
        self._packets: queue.Queue[str] = queue.Queue()
        self.closed = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(ConnectionClosed):
            for packet in self._socket:
                if packet == "2":
                    self.send("3")
                else:
                    self._packets.put(str(packet))
        self.closed = True

    def send(self, packet: str) -> None:
        self._socket.send(packet)

    def join(self, session: str) -> None:
        self.send(f'42["join-session",{json.dumps(session)}]')

    def packet(self, timeout: float = DEADLINE) -> str:
        """Return the next packet except pings. Raises TimeoutError."""
        try:
            return self._packets.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None

    def event(self, timeout: float = DEADLINE) -> dict[str, Any]:
        """The next `upload-progress` event. Raises TimeoutError."""
        name, event = json.loads(self.packet(timeout).removeprefix("42"))
        assert name == "upload-progress"
        assert isinstance(event, dict)
        return event

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening(url: str, session: str) -> Iterator[Listener]:
    listener = Listener(url)
    try:
        listener.join(session)
        yield listener
    finally:
        listener.close()


@contextmanager
def watching(
    url: str, transport: str = "websocket", session: str | None = None, auth: dict[str, str] | None = None
) -> Iterator[Watcher]:
    watcher = Watcher(url, transport, auth)
    try:
        if session is not None:
            assert watcher.join(session) == {"ok": True}
        yield watcher
    finally:
        # disconnect() can hang for the length of a poll on the polling transport
        threading.Thread(target=watcher.client.disconnect, daemon=True).start()


OPEN = {"websocket": 101, "polling": 200}
"""The result of `dial` where the server takes the connection, by transport."""


def dial(url: str, transport: str, timeout: float = DEADLINE) -> int | str:
    """Try to connect; return the status of the handshake, `no answer`, or `cut` where the server ends it meanwhile."""
    try:
        if transport == "polling":
            return requests.get(f"{url}/socket.io/?EIO=4&transport=polling", timeout=timeout).status_code
        address = url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
        with websockets.sync.client.connect(address, open_timeout=timeout, proxy=None):
            return 101
    except InvalidStatus as error:
        return error.response.status_code
    except (TimeoutError, requests.Timeout):
        return "no answer"
    except (ConnectionError, EOFError, requests.ConnectionError, InvalidHandshake):
        return "cut"
