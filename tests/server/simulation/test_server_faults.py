"""Faults of Socket.IO, latency, scripted responses, and the log of requests."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
import socketio
import websockets.sync.client
from server.batches import (
    DEADLINE,
    OPEN,
    UNKNOWN,
    dial,
    eventually,
    file,
    new_session,
    progress,
    socket_client,
    upload,
    watching,
)
from serving import running_server
from websockets.exceptions import ConnectionClosed

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

TRANSPORTS = ["websocket", "polling"]


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def uploads(server: EmbeddedServer) -> bool:
    (known,) = upload(server.url, file("through faults", b"x"))
    return bool(known["status"] == "completed")


@pytest.mark.parametrize(("mode", "expected"), [("off", 404), ("refuse", 403), ("hang", "no answer")])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_realtime_acts_on_both_transports(mode: str, expected: int | str, transport: str) -> None:
    with running_server(realtime=mode) as server:
        assert dial(server.url, transport, 0.3 if mode == "hang" else DEADLINE) == expected
        assert uploads(server)


@pytest.mark.parametrize(("mode", "expected"), [("off", 404), ("refuse", 403), ("hang", "no answer")])
def test_websocket_acts_on_that_transport_alone(mode: str, expected: int | str) -> None:
    with running_server(websocket=mode) as server:
        assert dial(server.url, "websocket", 0.3 if mode == "hang" else DEADLINE) == expected
        session = new_session(server.url)
        with watching(server.url, "polling", session) as watcher:
            upload(server.url, file("polled", b"x"), session=session)
            watcher.wait_for_end()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_kill_after_closes_for_good(transport: str) -> None:
    with running_server() as server, watching(server.url, transport) as watcher:
        server.faults.set_realtime("kill-after:0.5")
        dial(server.url, transport)  # from which the time counts
        assert watcher.lost.wait(DEADLINE)
        assert dial(server.url, transport) == 403
        time.sleep(0.6)
        assert dial(server.url, transport) == 403
        assert uploads(server)


@pytest.mark.thorough
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_flap_goes_down_and_comes_up_again(transport: str) -> None:
    with running_server() as server:
        with watching(server.url, transport) as watcher:
            server.faults.set_realtime("flap:0.5")
            dial(server.url, transport)  # from which the time counts
            assert watcher.lost.wait(DEADLINE)
        eventually(lambda: dial(server.url, transport) == 403, "the unavailable period")
        eventually(lambda: dial(server.url, transport) == OPEN[transport], "the available period")
        eventually(lambda: dial(server.url, transport) == 403, "the next one")
        assert uploads(server)


@pytest.mark.parametrize("mode", ["kill-after:0.5", "flap:0.5"])
def test_a_websocket_fault_leaves_polling_alone(mode: str) -> None:
    with (
        running_server() as server,
        watching(server.url, "polling") as polling,
        watching(server.url, "websocket") as watcher,
    ):
        server.faults.set_websocket(mode)
        dial(server.url, "websocket")  # from which the time counts
        assert watcher.lost.wait(DEADLINE)
        session = new_session(server.url)
        assert polling.join(session) == {"ok": True}
        assert not polling.lost.is_set()


def test_cut_websocket_gets_no_close_frame(server: EmbeddedServer) -> None:
    address = server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"
    with websockets.sync.client.connect(address, proxy=None) as connection:
        connection.recv(timeout=DEADLINE)
        server.faults.set_realtime("refuse")
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=DEADLINE)
    assert caught.value.rcvd is None


def test_a_hanging_poll_is_cut(server: EmbeddedServer) -> None:
    opened = requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE).text
    query = f"EIO=4&transport=polling&sid={json.loads(opened[1:])['sid']}"
    outcomes: list[int | str] = []

    def poll() -> None:
        try:
            outcomes.append(requests.get(f"{server.url}/socket.io/?{query}", timeout=DEADLINE).status_code)
        except requests.ConnectionError:
            outcomes.append("cut")

    polling = threading.Thread(target=poll)
    polling.start()
    time.sleep(0.1)  # let it reach the server; too early is as good: it is refused then
    server.faults.set_realtime("off")
    polling.join()
    assert outcomes in (["cut"], [404])  # 200 would be the next ping of an open connection
    server.faults.set_realtime(None)
    answer = requests.get(f"{server.url}/socket.io/?{query}", timeout=DEADLINE)
    assert answer.status_code == 400  # the connection is not known any more


def test_realtime_can_change_while_the_server_runs(server: EmbeddedServer) -> None:
    assert dial(server.url, "polling") == 200
    server.faults.set_realtime("off")
    assert dial(server.url, "polling") == 404
    server.faults.set_websocket("refuse")
    server.faults.set_realtime(None)
    assert (dial(server.url, "polling"), dial(server.url, "websocket")) == (200, 403)
    with pytest.raises(ValueError, match="flap:S"):
        server.faults.set_realtime("sometimes")


def test_mode_change_ends_a_hanging_handshake(server: EmbeddedServer) -> None:
    server.faults.set_realtime("hang")
    results: list[Any] = []

    def wait() -> None:
        client = socket_client(request_timeout=10 * DEADLINE)
        try:
            client.connect(server.url, transports=["websocket"], wait_timeout=10 * DEADLINE)
        except socketio.exceptions.ConnectionError as error:
            results.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    time.sleep(0.2)
    server.faults.set_realtime("refuse")
    waiting.join(DEADLINE)
    assert len(results) == 1


def test_latency_is_added_to_every_request() -> None:
    with running_server(latency_ms=150) as server:
        began = time.monotonic()
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200
        assert time.monotonic() - began >= 0.15


def test_latency_delays_a_burst_only_once(server: EmbeddedServer) -> None:
    """Fifty events in a burst arrive 0.4 s late, not 20 s."""
    session = new_session(server.url, 50)
    with watching(server.url, "websocket", session) as watcher:
        server.faults.latency = 0.4
        upload(server.url, *(file(f"late {n}", b"x") for n in range(50)), session=session)
        answered = time.monotonic()
        watcher.wait_for_end()
        assert watcher.times[-1] - answered < 10
        began = time.monotonic()
        watcher.client.call("leave-session", session, timeout=DEADLINE)
        assert time.monotonic() - began >= 0.4


def statuses(count: int, call: Callable[[], requests.Response]) -> list[int]:
    return [call().status_code for _ in range(count)]


def test_answers_can_be_scripted(server: EmbeddedServer) -> None:
    late = Answer(429, headers={"Retry-After": "7"}, body=b"{}")
    server.faults.next_answers("GET", "/api/upload/progress/*", [503, None, late])
    answers = [progress(server.url, UNKNOWN) for _ in range(4)]
    assert [a.status_code for a in answers] == [503, 404, 429, 404]
    assert answers[2].headers["retry-after"] == "7"
    assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 200


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (Answer(503), False),
        (Answer(503, when="after_body"), False),
        (Answer(503, when="after_store"), True),
        (Answer(close=True), False),
        (Answer(close=True, when="after_store"), True),
        (Answer(after_bytes=100), False),
    ],
)
def test_a_batch_can_fail_at_any_point(server: EmbeddedServer, answer: Answer, stored: bool) -> None:
    session = new_session(server.url)
    server.faults.next_answers("POST", "/api/upload/batch", [answer])
    if answer.close or answer.after_bytes is not None:
        with pytest.raises(requests.ConnectionError):
            upload(server.url, file("fragile", b"x" * 1000), session=session)
    else:
        with pytest.raises(AssertionError):
            upload(server.url, file("fragile", b"x" * 1000), session=session)
    assert (server.root / "personal/fragile").exists() is stored
    assert server.faults.count("POST", "/api/upload/batch") == 1


def test_the_log_keeps_times_and_statuses(server: EmbeddedServer) -> None:
    before = server.faults.requests
    for _ in range(2):
        progress(server.url, UNKNOWN)
        time.sleep(0.05)
    polls = [r for r in server.faults.requests if r.path.startswith("/api/upload/progress/")]
    assert [(r.method, r.status) for r in polls] == [("GET", 404)] * 2
    assert before == [], "it can be read while other requests arrive"
    assert polls[1].time - polls[0].time >= 0.05
    assert dial(server.url, "websocket") == 101
    eventually(lambda: server.faults.count("WEBSOCKET", "/socket.io/"), "the logged websocket")


def test_the_access_log_has_a_line_for_each_request(tmp_path: Path) -> None:
    with running_server(access_log=tmp_path / "access.log") as server:
        progress(server.url, UNKNOWN)
        requests.get(f"{server.url}/health", timeout=DEADLINE)
    lines = [line.split() for line in (tmp_path / "access.log").read_text().splitlines()]
    assert [line[1:4] for line in lines] == [
        ["GET", f"/api/upload/progress/{UNKNOWN}", "404"],
        ["GET", "/health", "200"],
    ]
    assert all(line[0].endswith("Z") and line[4].endswith("ms") for line in lines)
