"""Both sides notice a frozen peer or a dead link without FIN or RST."""

from __future__ import annotations

import asyncio
import threading

import pytest
import requests
from client.realtime.realtime_bench import Bench, wait_until
from fakes import Clock
from proxy import Onlooker, Proxy
from serving import inside, running_server
from websocket import WebSocketTimeoutException

from uploader_server.realtime.rooms import HEARTBEAT

LIMIT = 10.0
"""Seconds within which both sides are to notice, with the bundled server's own heartbeat."""
HANGING = 60.0


class Freezer(Onlooker):
    """Lets everything pass until it is frozen: the connections stay open without any data."""

    def __init__(self) -> None:
        self.flowing = threading.Event()
        self.flowing.set()

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        self.flowing.wait()
        return piece

    def closing(self) -> None:
        self.flowing.wait()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_client_and_server_notice_a_frozen_connection(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """The client recovers, the server drops the connection; here with a quick heartbeat."""
    monkeypatch.setattr("uploader_server.realtime.rooms.HEARTBEAT", {"bundled": (1, 1)})
    with running_server(websocket="off" if transport == "polling" else None) as server:
        relay = Proxy(server.url, freezer := Freezer())
        bench = Bench(relay.url).start()
        known = inside(server).realtime.server.eio.sockets
        try:
            bench.reach("live", within=HANGING)
            assert bench.moves()[-1].transport == transport
            wait_until(lambda: any(not one.closed for one in list(known.values())), HANGING)
            freezer.flowing.clear()
            bench.reach("reconnecting", within=HANGING)
            assert "reconnecting lost 1" in bench.story()
            wait_until(lambda: all(one.closed for one in list(known.values())), HANGING)
        finally:
            bench.channel.close()
            freezer.flowing.set()
            relay.close()


@pytest.mark.thorough
@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.feature("server/metrics")
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
        relay = Proxy(server.url, freezer := Freezer())
        bench = Bench(relay.url).start(session)
        realtime, loop = inside(server).realtime, server.faults.loop
        assert loop is not None
        event = {"sessionId": session, "overallStatus": "uploading", "totalProgress": 1, "message": "x" * (16 << 10)}
        try:
            wait_until(bench.heard, HANGING)  # it has joined
            freezer.flowing.clear()
            for _ in range(64 * 32):
                asyncio.run_coroutine_threadsafe(realtime.emit(session, event), loop).result(HANGING)
            freezer.flowing.set()
            bench.reach("live", times=2, within=HANGING)
            assert bench.story()[2] in {"reconnecting server_closed 1", "reconnecting lost 1"}
            wait_until(lambda: session in dict(bench.fetched), HANGING)
            counted = requests.get(f"{server.url}/metrics", timeout=HANGING).text
            assert 'uploader_refused_connections_total{reason="slow"} 1.0' in counted
        finally:
            bench.channel.close()
            freezer.flowing.set()
            relay.close()


def test_client_notices_a_frozen_connection_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the heartbeat that the server announced; each read of the frozen link takes its timeout on a fake clock."""
    clock = Clock(0.0)
    with running_server(patient=False) as server:
        bench = Bench(server.url).start()
        try:
            bench.reach("live", within=HANGING)
            (connection,) = bench.channel.connections.values()
            (opened,) = connection.websockets

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
