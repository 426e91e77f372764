"""A channel and a server that sends without end: reads are bounded, and progress is polled."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
import time
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest
from client.realtime.realtime_bench import SCALED, Bench, wait_until
from scripted_server import Peer, ScriptedServer
from time_limits import PATIENCE

from uploader_cli.core.events import SessionProgress
from uploader_cli.realtime import websocket
from uploader_cli.realtime.socket import LEAST_POLL, MOST_POLLED

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

SESSION = "2ba25c4c-a0ea-4983-89fc-cf63711e7de2"
OPEN = b'0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'
BUFFERS = 12 << 20
"""Bytes that the kernel takes for a connection before anybody reads them, at most."""


def frame(payload: bytes, first: int = 0x81) -> bytes:
    length = len(payload)
    return bytes([first, *([length] if length < 126 else [126, *length.to_bytes(2, "big")])]) + payload


def endless_frame() -> Iterator[bytes]:
    yield bytes([0x81, 127]) + (1 << 62).to_bytes(8, "big")
    while True:
        yield b"4" * 65536


def endless_fragments() -> Iterator[bytes]:
    yield frame(b"42", 0x01)
    while True:
        yield frame(b"x" * 16_000, 0x00) * 4


def progress_of(percent: int) -> bytes:
    body = {"sessionId": SESSION, "overallStatus": "uploading", "totalProgress": percent}
    return frame(f"42{json.dumps(['upload-progress', body])}".encode())


def attachments() -> Iterator[bytes]:
    yield frame(b'4599999999-["upload-progress",{"_placeholder":true,"num":0}]')
    yield frame(b"attachment", 0x82)
    yield progress_of(3)


def dripping_frame() -> Iterator[bytes]:
    yield bytes([0x81, 120])
    while True:
        time.sleep(0.05)
        yield b"x"


def fragments_between_pings() -> Iterator[bytes]:
    yield frame(b"42", 0x01)
    while True:
        time.sleep(0.05)
        yield frame(b"", 0x89)


def endless_poll() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000000\r\n\r\n"
    while True:
        yield b"4" * 65536


def compressed_poll() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4000000000000\r\n\r\n"
    piece = gzip.compress(bytes(1 << 24))
    while True:
        yield piece


def polled(body: bytes) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)])


class Attacker:
    """Answers one transport as Engine.IO does, until the session is joined; then it sends `pieces` as long as it can.

    With `at_once` it sends them in place of the first packet. The other transport is refused.
    """

    def __init__(self, pieces: object, transport: str, *, at_once: bool = False) -> None:
        self._pieces, self._transport, self._at_once = pieces, transport, at_once
        self.sent: list[int] = []
        """Bytes that were sent in each attack that has ended."""

    def __enter__(self) -> Self:
        self._server = ScriptedServer(self._serve).__enter__()
        self.url = self._server.url
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.__exit__(*error)

    def _serve(self, peer: Peer) -> None:
        while True:
            line, headers, _ = peer.request()
            if f"transport={self._transport}" not in line:
                peer.answer(403)
            elif self._transport == "websocket":
                self._serve_websocket(peer.sock, headers["sec-websocket-key"])
                return
            else:
                self._serve_poll(peer, line)

    def _serve_websocket(self, sock: socket.socket, key: str) -> None:
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
        upgrade = "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade"
        sock.sendall(f"{upgrade}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        if not self._at_once:
            sock.sendall(frame(OPEN))
            sock.recv(1024)
            sock.sendall(frame(b'40{"sid":"b"}'))
            sock.recv(1024)  # the join
        self._attack(sock)

    def _serve_poll(self, peer: Peer, line: str) -> None:
        if line.startswith("POST"):
            peer.answer(200, b"ok")
        elif self._at_once or "sid=" in line:
            self._attack(peer.sock)
        else:
            peer.answer(200, OPEN + b'\x1e40{"sid":"b"}')

    def _attack(self, sock: socket.socket) -> None:
        self.sock, sent = sock, 0
        try:
            for piece in self._pieces():  # type: ignore[operator]
                sock.sendall(piece)
                sent += len(piece)
        finally:
            self.sent.append(sent)


@pytest.mark.parametrize(
    ("pieces", "transport"),
    [
        (endless_frame, "websocket"),
        pytest.param(endless_fragments, "websocket", marks=pytest.mark.thorough),
        (endless_poll, "polling"),
        pytest.param(compressed_poll, "polling", marks=pytest.mark.thorough),
    ],
)
def test_endless_first_packet_ends_the_dial(pieces: object, transport: str) -> None:
    with Attacker(pieces, transport, at_once=True) as server:
        bench = Bench(server.url, SCALED).start(SESSION)
        try:
            bench.reach("polling")
            wait_until(lambda: len(bench.fetched) >= 2)
        finally:
            bench.channel.close()
        assert bench.story()[-2] == "polling http retries_exhausted"
        wait_until(lambda: len(server.sent) >= 4)
        assert max(server.sent) < MOST_POLLED + BUFFERS


@pytest.mark.parametrize(
    ("pieces", "transport"),
    [
        (endless_frame, "websocket"),
        pytest.param(endless_fragments, "websocket", marks=pytest.mark.thorough),
        (endless_poll, "polling"),
        pytest.param(compressed_poll, "polling", marks=pytest.mark.thorough),
    ],
)
def test_endless_message_ends_the_connection_and_progress_is_polled(pieces: object, transport: str) -> None:
    with Attacker(pieces, transport) as server:
        bench = Bench(server.url, SCALED).start(SESSION)
        try:
            bench.reach("live", times=2)
            wait_until(lambda: bench.fetched and server.sent)
        finally:
            bench.channel.close()
        assert bench.story()[1:3] == [f"live {transport} connected", "reconnecting lost 1"]
        assert max(server.sent) < MOST_POLLED + BUFFERS


@pytest.mark.parametrize("body", [b"", b"6", b"9", b"4", b"42[", b"42{}\x1e6", b'451-["upload-progress",{}]'])
def test_polling_answers_without_a_message_end_the_connection(body: bytes) -> None:
    """They come at once: the next polls are those of another connection, after the delay of the policy."""
    with Attacker(polled(body), "polling") as server:
        began = time.monotonic()
        bench = Bench(server.url, SCALED).start(SESSION)
        try:
            bench.reach("live", times=3)
            polls, took = len(server.sent), time.monotonic() - began
        finally:
            bench.channel.close()
        moves = [move.rstrip(" 0123456789") for move in bench.story()]
        first = moves.index("live polling connected")  # answers of earlier dials came before their handshakes were over
        assert moves[first + 1] == "reconnecting lost"
        dials = 1 + sum(move.startswith("reconnecting") for move in moves)
        assert polls <= dials + took / LEAST_POLL, "an answer that takes as long is no invalid one"


@pytest.mark.parametrize("pieces", [dripping_frame, fragments_between_pings])
def test_slow_message_is_abandoned_at_the_deadline(
    pieces: Callable[[], Iterator[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow() -> Iterator[bytes]:
        monkeypatch.setattr(websocket, "MESSAGE_TIME", 0.3)  # not before: the messages of the handshake may take longer
        yield from pieces()

    with Attacker(slow, "websocket") as server:
        bench = Bench(server.url, SCALED).start(SESSION)
        try:
            bench.reach("reconnecting")
        finally:
            bench.channel.close()
        assert bench.story()[1:3] == ["live websocket connected", "reconnecting lost 1"]


def test_time_between_messages_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a ping, which is no message."""
    ahead, over = 0.0, threading.Event()
    monkeypatch.setattr(websocket, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead))

    def heard(percent: int) -> bool:
        return any(isinstance(event, SessionProgress) and event.percent == percent for _, event in bench.events)

    def messages() -> Iterator[bytes]:
        nonlocal ahead
        for percent in (1, 2, 3):
            yield frame(b"", 0x89)
            server.sock.recv(1024)  # the pong: the ping was read
            ahead += 2 * websocket.MESSAGE_TIME
            yield progress_of(percent)
            wait_until(partial(heard, percent))
        over.wait(PATIENCE)

    with Attacker(messages, "websocket") as server:
        bench = Bench(server.url, SCALED).start(SESSION)
        try:
            wait_until(partial(heard, 3))
        finally:
            over.set()
            bench.channel.close()
        assert bench.story()[1:-1] == ["live websocket connected"]


def test_attachments_are_not_collected() -> None:
    """A message that announces millions of attachments is ignored, and the next message is received."""
    over = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield from attachments()
        over.wait(PATIENCE)

    with Attacker(pieces, "websocket") as server:
        bench = Bench(server.url, SCALED).start(SESSION)
        try:
            wait_until(bench.heard)
        finally:
            over.set()
            bench.channel.close()
        assert bench.story()[1:-1] == ["live websocket connected"]
