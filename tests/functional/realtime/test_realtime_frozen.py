"""Both sides notice a frozen peer or a dead link without FIN or RST."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests
from fakes import Clock
from functional.realtime.realtime_bench import Bench, wait_until
from relays import Relay, address
from serving import running_server
from websocket import WebSocketTimeoutException

from uploader_server.realtime.rooms import HEARTBEAT

if TYPE_CHECKING:
    import socket

LIMIT = 10.0
"""Seconds within which both sides are to notice, with the bundled server's own heartbeat."""
HANGING = 60.0


class Freezer(Relay):
    """Forwards both ways until it is frozen: the connections stay open without any data."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        super().__init__(target)

    def _connect(self, client: socket.socket) -> tuple[socket.socket, socket.socket]:
        client, upstream = super()._connect(client)
        return _Icy(client, self.flowing), _Icy(upstream, self.flowing)  # type: ignore[return-value]

    def close(self) -> None:
        self.flowing.set()
        super().close()


class _Icy:
    def __init__(self, sock: socket.socket, flowing: threading.Event) -> None:
        self._sock, self._flowing = sock, flowing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, piece: bytes) -> None:
        self._flowing.wait()
        self._sock.sendall(piece)

    def shutdown(self, how: int) -> None:
        self._flowing.wait()
        self._sock.shutdown(how)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_client_and_server_notice_a_frozen_connection(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """The client recovers, the server drops the connection; here with a quick heartbeat."""
    monkeypatch.setattr("uploader_server.realtime.rooms.HEARTBEAT", {"bundled": (1, 1)})
    with running_server(websocket="off" if transport == "polling" else None) as server:
        relay = Freezer(address(server.url))
        bench = Bench(f"http://127.0.0.1:{relay.port}").start()
        known = server.app.state.realtime.server.eio.sockets
        try:
            bench.reach("live", within=HANGING)
            assert bench.moves()[-1].transport == transport
            wait_until(lambda: any(not one.closed for one in list(known.values())), HANGING)
            relay.flowing.clear()
            bench.reach("reconnecting", within=HANGING)
            assert "reconnecting lost 1" in bench.story()
            wait_until(lambda: all(one.closed for one in list(known.values())), HANGING)
        finally:
            bench.channel.close()
            relay.close()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_client_whose_events_were_dropped_polls_and_joins_again(
    monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """While it reads nothing, the server keeps a part of the events and then closes the connection."""
    # Without a heartbeat: the client must not find out first that nothing arrives.
    monkeypatch.setattr("uploader_server.realtime.rooms.HEARTBEAT", {"bundled": (HANGING, HANGING)})
    with running_server(websocket="off" if transport == "polling" else None) as server:
        answer = requests.post(
            f"{server.url}/api/upload/session", json={"category": "personal", "expectedFiles": 1}, timeout=HANGING
        )
        session = answer.json()["sessionId"]
        relay = Freezer(address(server.url))
        bench = Bench(f"http://127.0.0.1:{relay.port}").start(session)
        realtime, loop = server.app.state.realtime, server.faults.loop
        assert loop is not None
        event = {"sessionId": session, "overallStatus": "uploading", "totalProgress": 1, "message": "x" * (16 << 10)}
        try:
            wait_until(bench.heard, HANGING)  # it has joined
            relay.flowing.clear()
            for _ in range(64 * 32):
                asyncio.run_coroutine_threadsafe(realtime.emit(session, event), loop).result(HANGING)
            relay.flowing.set()
            bench.reach("live", times=2, within=HANGING)
            assert bench.story()[2] in {"reconnecting server_closed 1", "reconnecting lost 1"}
            wait_until(lambda: session in dict(bench.fetched), HANGING)
            counted = requests.get(f"{server.url}/metrics", timeout=HANGING).text
            assert 'uploader_refused_connections_total{reason="slow"} 1.0' in counted
        finally:
            bench.channel.close()
            relay.close()


def test_client_notices_a_frozen_connection_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the heartbeat that the server announced; each read of the frozen link takes its timeout on a fake clock."""
    clock = Clock(0.0)
    with running_server() as server:
        bench = Bench(server.url).start()
        try:
            bench.reach("live", within=HANGING)
            (connection,) = bench.channel._connections.values()
            (opened,) = connection._websockets

            def frozen(_: int) -> bytes:
                timeout = opened.gettimeout()
                assert timeout is not None
                clock.pass_(timeout)
                raise WebSocketTimeoutException

            monkeypatch.setattr(opened.frame_buffer, "recv", frozen)  # after the next ping
            bench.reach("reconnecting", within=HANGING)
            noticed = clock.now
        finally:
            bench.channel.close()
    assert bench.story()[2] == "reconnecting lost 1"
    assert HEARTBEAT["bundled"][0] < noticed <= LIMIT
