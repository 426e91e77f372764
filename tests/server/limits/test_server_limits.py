"""Limits of the realtime side for one client, and their release: connections, joins, frozen peers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import requests
import websockets.sync.client
from fakes import Clock
from server.batches import (
    DEADLINE,
    HELD,
    UNKNOWN,
    HalfSent,
    body_of,
    connected,
    eventually,
    file,
    held_processing,
    listening,
    new_session,
    progress,
    text,
    watching,
)
from server.packs.packing import body_of_pack, half_sent, manifest_of, send_pack
from server.tus.tus_client import create, created, error
from server_clock import ServerClock
from serving import inside, running_server
from websockets.exceptions import InvalidStatus

from uploader_server.app import create_app
from uploader_server.config import ServerConfig
from uploader_server.faults import Answer
from uploader_server.http.errors import refuse
from uploader_server.http.middleware import RateLimit
from uploader_server.shares import MOST

if TYPE_CHECKING:
    from uploader_server.serving import EmbeddedServer


def sockets(server: EmbeddedServer) -> dict[str, Any]:
    known: dict[str, Any] = inside(server).realtime.server.eio.sockets
    return known


def address(server: EmbeddedServer) -> str:
    return server.url.replace("http", "ws", 1) + "/socket.io/?EIO=4&transport=websocket"


def test_connections_of_one_address_are_limited_on_both_transports() -> None:
    with running_server(max_connections=2) as server:
        polling = f"{server.url}/socket.io/?EIO=4&transport=polling"
        opened = requests.get(polling, timeout=DEADLINE).text
        with websockets.sync.client.connect(address(server), proxy=None):
            answer = requests.get(polling, timeout=DEADLINE)
            assert (answer.status_code, answer.json()["error"]) == (429, "SHARE_USED")
            assert int(answer.headers["retry-after"]) > 0
            with pytest.raises(InvalidStatus) as refused:
                websockets.sync.client.connect(address(server), proxy=None)
            assert refused.value.response.status_code == 429
            sid = json.loads(opened[1:])["sid"]
            own = requests.post(f"{polling}&sid={sid}", data="40", timeout=DEADLINE)
            assert own.status_code == 200  # an open connection continues
        eventually(lambda: requests.get(polling, timeout=DEADLINE).status_code == 200, "a place that is free again")


def test_concurrent_creations_add_no_more_files_than_a_session_may_have() -> None:
    with running_server(max_files=3) as server, ThreadPoolExecutor(8) as pool:
        session, other = new_session(server.url, 3), new_session(server.url, 3)
        more = [pool.submit(create, server.url, 9, sessionId=session, filename=str(n)) for n in range(8)]
        assert sorted(call.result().status_code for call in more) == [201] * 3 + [400] * 5
        assert create(server.url, 9, sessionId=other, filename="a", uploadKey="k").status_code == 201
        moved = create(server.url, 9, sessionId=session, filename="a", uploadKey="k")
        assert error(moved) == (400, "TOO_MANY_FILES")
        assert [progress(server.url, one).json()["totalFiles"] for one in (session, other)] == [3, 3]
        assert len(progress(server.url, other).json()["files"]) == 1  # it stays there


def test_concurrent_packs_store_no_more_files_than_a_session_may_have() -> None:
    with running_server(packs=True, max_files=3) as server, ExitStack() as opened:
        session = new_session(server.url, 3)
        bodies = [body_of_pack(manifest_of(session, {f"{n}/a": b"x", f"{n}/b": b"x"}), b"xx") for n in range(4)]
        packs = [
            opened.enter_context(half_sent(server.url, body, sent=len(body) - 9, key=str(n)))
            for n, body in enumerate(bodies)
        ]
        requests_of = inside(server).backend.sessions.known[session].requests
        eventually(lambda: len(requests_of) == len(packs), "all packs")
        for pack, body in zip(packs, bodies, strict=True):
            pack.sendall(body[-9:])
        answers = [pack.recv(12) for pack in packs]
        assert sorted(answers) == [b"HTTP/1.1 200", *[b"HTTP/1.1 400"] * 3]
        assert progress(server.url, session).json()["completedFiles"] == 2
        send_pack(server.url, session, {"c": b"x"})


def test_zero_is_no_limit() -> None:
    with running_server(max_connections=0, max_joins=0) as server:
        for _ in range(5):
            assert requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE).status_code == 200
        session = new_session(server.url)
        with watching(server.url, session=session):
            pass


def emit(server: EmbeddedServer, session: str, megabytes: int) -> None:
    """Send events of 16 KiB to the watchers of a session."""
    realtime, loop = inside(server).realtime, server.faults.loop
    assert loop is not None
    for number in range(64 * megabytes):
        event = {"sessionId": session, "number": number, "message": "x" * (16 << 10)}
        asyncio.run_coroutine_threadsafe(realtime.emit(session, event), loop).result(DEADLINE)


def waiting(server: EmbeddedServer) -> int:
    """The bytes of events that wait to be sent."""
    queued = [packet for known in sockets(server).values() for packet in known.queue._queue]  # noqa: SLF001
    return sum(len(packet.data) for packet in queued if packet and packet.data)


def dropped(server: EmbeddedServer) -> bool:
    counted = 'uploader_refused_connections_total{reason="slow"} 1.0'
    return counted in requests.get(f"{server.url}/metrics", timeout=DEADLINE).text


MOST_WAITING = 10 << 20
"""Bytes of events for a watcher that doesn't read, at most."""
HANDSHAKE = (
    b"GET /socket.io/?EIO=4&transport=websocket%b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(packet: str) -> bytes:
    """Return a masked frame of a websocket."""
    return bytes([0x81, 0x80 | len(packet), 0, 0, 0, 0]) + packet.encode()


@pytest.mark.parametrize(
    ("upgraded", "latency"),
    [(True, 0.0), *(pytest.param(False, latency, marks=pytest.mark.thorough) for latency in (0.0, 1.0))],
)
@pytest.mark.feature("server/metrics")
def test_websocket_that_does_not_read_is_dropped(
    monkeypatch: pytest.MonkeyPatch, upgraded: bool, latency: float
) -> None:
    monkeypatch.setattr("uploader_server.realtime.rooms.GRACE", 0.1, raising=False)
    # Else a slow machine ends the connection by its heartbeat.
    monkeypatch.setattr("uploader_server.realtime.rooms.HEARTBEAT", {"bundled": (1000, 1000)})
    with running_server(latency_ms=latency) as server, connected(server.url) as deaf:
        session = new_session(server.url)
        opened = requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE).text
        sid = json.loads(opened[1:])["sid"]
        deaf.sendall(HANDSHAKE % (f"&sid={sid}".encode() if upgraded else b""))
        assert deaf.recv(1024).startswith(b"HTTP/1.1 101 ")
        for packet in ["2probe", "5"] if upgraded else []:
            deaf.sendall(frame(packet))
        for packet in ("40", f'42["join-session","{session}"]'):
            deaf.sendall(frame(packet))
        with listening(server.url, session) as reads:
            reads.event()  # it has joined
            eventually(lambda: joined(server, session) == 2, "both joins")
            for _ in range(32):
                emit(server, session, 1)
                assert [reads.event()["number"] for _ in range(64)] == [*range(64)]
            assert waiting(server) < MOST_WAITING
            assert dropped(server)
        eventually(lambda: running(server) == [], "the end of both requests")
        with suppress(ConnectionResetError):
            while deaf.recv(1 << 20):
                pass


def test_second_websocket_of_a_connection_is_refused() -> None:
    with running_server() as server, connected(server.url) as first, connected(server.url) as second:
        opened = requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE).text
        handshake = HANDSHAKE % f"&sid={json.loads(opened[1:])['sid']}".encode()
        for connection, status in ((first, b"101"), (second, b"400")):
            connection.sendall(handshake)
            assert connection.recv(1024).startswith(b"HTTP/1.1 " + status)


def joined(server: EmbeddedServer, session: str) -> int:
    rooms = inside(server).realtime.server.manager.rooms.get("/", {})
    return len(rooms.get(f"session:{session}", {}))


@pytest.fixture
def no_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_server.realtime.rooms.HEARTBEAT", {"bundled": (1000, 1000)})


@pytest.mark.thorough
@pytest.mark.usefixtures("no_pings")
def test_watcher_that_does_not_poll_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events are dropped: the next poll gets the reason and the end of the connection."""
    monkeypatch.setattr("uploader_server.realtime.rooms.GRACE", DEADLINE, raising=False)
    with running_server() as server:
        session, watcher = new_session(server.url), Poller(server)
        watcher.join(session)
        emit(server, session, 16)
        assert waiting(server) < MOST_WAITING
        event, end = watcher.poll()
        name, body = json.loads(event.removeprefix("42"))
        assert (name, body["error"], end) == ("connection-dropped", "TOO_SLOW", "1")
        assert "/api/upload/progress/" in body["message"]
        assert joined(server, session) == 0


@pytest.mark.thorough
@pytest.mark.usefixtures("no_pings")
def test_an_answer_to_a_poll_is_small_enough_for_clients() -> None:
    with running_server() as server:
        session, watcher = new_session(server.url), Poller(server)
        watcher.join(session)
        emit(server, session, 4)
        received = 0
        while received < 4 * 64:
            packets = watcher.poll()
            assert sum(map(len, packets)) < 1 << 20
            received += len(packets)


@pytest.mark.thorough
@pytest.mark.usefixtures("no_pings")
@pytest.mark.feature("server/metrics")
def test_longest_backlog_is_dropped_when_all_together_are_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_server.realtime.backlog.MOST_IN_TOTAL", 4 << 20)
    with running_server() as server:
        sessions = [new_session(server.url) for _ in range(3)]
        watchers = [Poller(server) for _ in sessions]
        for watcher, session in zip(watchers, sessions, strict=True):
            watcher.join(session)
        sharing = [Poller(server) for _ in range(6)]
        for watcher in sharing:
            watcher.join(sessions[0])
        emit(server, sessions[0], 1)  # the events of a session are kept once for all its watchers
        assert not dropped(server)
        emit(server, sessions[1], 2)
        emit(server, sessions[2], 2)
        assert dropped(server)
        assert [joined(server, session) for session in sessions] == [7, 0, 1]


class Poller:
    """A client by long polling, which polls only when it is told to, and answers no pings."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._url = f"{server.url}/socket.io/?EIO=4&transport=polling"
        opened = requests.get(self._url, timeout=DEADLINE).text
        self._url += f"&sid={json.loads(opened[1:])['sid']}"
        self.send("40")
        self.poll()

    def send(self, packet: str) -> None:
        assert requests.post(self._url, data=packet, timeout=DEADLINE).status_code == 200

    def join(self, session: str) -> None:
        self.send(f'420["join-session","{session}"]')
        while not self.poll()[-1].startswith("430"):
            pass

    def poll(self) -> list[str]:
        """Return the waiting packets except pings."""
        answer = requests.get(self._url, timeout=DEADLINE)
        assert answer.status_code == 200
        return [packet for packet in answer.text.split("\x1e") if packet != "2"]


def test_joins_of_one_connection_are_limited() -> None:
    with running_server(max_joins=2) as server:
        first, second, third = (new_session(server.url) for _ in range(3))
        with watching(server.url, session=first) as watcher, watching(server.url, session=third):
            assert watcher.join(second) == {"ok": True}
            assert watcher.join(third) == {"ok": False, "error": "TOO_MANY_JOINS"}
            assert watcher.join(first.upper()) == {"ok": True}  # it is in there already
            watcher.client.call("leave-session", second, timeout=DEADLINE)
            assert watcher.join(third) == {"ok": True}


def test_joins_of_all_connections_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST, "joins", 2)
    with running_server(max_share=100) as server, watching(server.url) as watcher:
        first, second = new_session(server.url), new_session(server.url)
        with watching(server.url, session=first) as other:
            assert watcher.join(first) == {"ok": True}
            assert watcher.join(second) == {"ok": False, "error": "SHARE_USED"}
            other.client.call("leave-session", first, timeout=DEADLINE)
            assert watcher.join(second) == {"ok": True}
            assert other.join(first) == {"ok": False, "error": "SHARE_USED"}
            watcher.client.disconnect()
            assert eventually(lambda: other.join(first) == {"ok": True}, "a join below the limit")


def test_joins_of_unknown_sessions_count_for_the_limit() -> None:
    """Such joins are how session ids would be guessed."""
    with running_server(max_joins=3) as server, watching(server.url) as watcher:
        errors = [watcher.join(str(uuid.uuid4()))["error"] for _ in range(5)]
        assert errors == ["SESSION_NOT_FOUND"] * 3 + ["TOO_MANY_JOINS"] * 2


def test_rejoins_on_one_socket_stay_below_the_join_limit() -> None:
    with running_server(max_joins=10) as server, watching(server.url) as watcher:
        session = new_session(server.url)
        for _ in range(30):
            assert watcher.join(session) == {"ok": True}
            assert watcher.client.call("leave-session", session, timeout=DEADLINE) == {"ok": True}
        realtime = inside(server).realtime
        assert list(inside(server).joins.joined.values()) == [set()]
        rooms = realtime.server.manager.rooms["/"]
        assert [room for room in rooms if str(room).startswith("session:")] == []
        watcher.client.disconnect()
        eventually(lambda: inside(server).joins.joined == {}, "the end of the connection")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_a_frozen_peer_is_noticed(monkeypatch: pytest.MonkeyPatch, transport: str) -> None:
    """By the heartbeat, here a quick one: after an interval and twice what a pong may take."""
    monkeypatch.setattr("uploader_server.realtime.rooms.HEARTBEAT", {"bundled": (1, 0.4)})
    monkeypatch.setattr("uploader_server.realtime.strict.CONNECT_WITHIN", 1000.0)
    with running_server() as server:
        if transport == "polling":
            requests.get(f"{server.url}/socket.io/?EIO=4&transport=polling", timeout=DEADLINE)
        else:
            frozen = websockets.sync.client.connect(address(server), proxy=None, ping_interval=None).__enter__()
        eventually(lambda: len(sockets(server)) == 1, "the connection")
        eventually(lambda: all(s.closed for s in sockets(server).values()), "its end")
        if transport == "websocket":
            frozen.close()


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop that doesn't wait: its clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        selector: Any = self._selector  # type: ignore[attr-defined]
        select = selector.select

        def skip(timeout: float | None) -> Any:
            self.now += timeout or 0.0
            return select(None if timeout is None else 0)

        selector.select = skip

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("kind", ["websocket", "http"])
def test_server_notices_a_frozen_link_within_ten_seconds(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """From the last message of a client on, by the server's own heartbeat, on a clock that skips the waits."""
    app = create_app(ServerConfig(), scripted=False)
    transport = b"websocket" if kind == "websocket" else b"polling"
    scope = {"type": kind, "method": "GET", "path": "/socket.io/", "query_string": b"EIO=4&transport=" + transport}
    scope |= {"headers": [(b"upgrade", b"websocket")] if kind == "websocket" else []}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1)}
    arrived = [{"type": "websocket.connect" if kind == "websocket" else "http.request"}]
    monkeypatch.setattr("uploader_server.realtime.strict.CONNECT_WITHIN", 1000.0)

    async def receive() -> Any:
        return arrived.pop(0) if arrived else await asyncio.Future()

    async def send(_: Any) -> None:
        """Lose a message."""

    async def frozen() -> float:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        for module in ("async_socket", "base_socket"):
            monkeypatch.setattr(f"engineio.{module}.time", SimpleNamespace(time=loop.time))
        monkeypatch.setattr(app.state.realtime.server, "ended", lambda _: ended.set())
        began, serving = loop.time(), asyncio.create_task(app(scope, receive, send))
        await asyncio.wait_for(ended.wait(), 60)
        serving.cancel()
        return loop.time() - began

    try:
        with asyncio.Runner(loop_factory=SkippingLoop) as runner:
            assert 2.0 < runner.run(frozen()) <= 10.0
    finally:
        app.close()


def test_a_session_is_not_swept_right_after_a_long_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time to live restarts at the end of a request, also of an aborted one."""
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        session = new_session(server.url)
        backend: Any = inside(server).backend
        body = body_of([text("sessionId", session), text("category", "personal"), file("a", b"x" * 1000)])
        with HalfSent(server.url, body) as request:
            request.send(500)
            eventually(lambda: backend.sessions.known[session].requests, "the request")
            clock.ahead += server.config.session_ttl + 1
            clock.wait_for_sweeps()
        eventually(lambda: not backend.sessions.known[session].requests, "its end")
        clock.wait_for_sweeps()
        assert session in backend.sessions.known
        clock.ahead += server.config.session_ttl + 1
        eventually(lambda: session not in backend.sessions.known, "the expiry")


def test_a_session_is_not_swept_while_a_resumable_upload_is_processed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte has arrived and no request is reading, but the session is in use."""
    clock, processed = ServerClock(monkeypatch), held_processing(monkeypatch)
    with running_server(processing_seconds=HELD) as server:
        session = new_session(server.url)
        with ThreadPoolExecutor(1) as client:
            storing = client.submit(created, server.url, 3, b"abc", sessionId=session, filename="a.mp4")
            backend: Any = inside(server).backend
            eventually(lambda: [one.offset for one in list(backend.tus.open.values())] == [3], "the bytes")
            clock.ahead += server.config.session_ttl + 1
            clock.wait_for_sweeps()
            processed.set()
            storing.result(DEADLINE)
        assert progress(server.url, session).json()["overallStatus"] == "completed"


def test_ended_sessions_are_swept_from_memory_and_disk() -> None:
    with running_server(session_ttl=0.2) as server:
        session = new_session(server.url)
        requests.post(f"{server.url}/api/upload/session/{session}/finish", timeout=DEADLINE)
        backend: Any = inside(server).backend
        eventually(lambda: backend.sessions.known == {}, "the sweep")
        assert inside(server).store.sessions(9) == []


SERVE_AND_TELL = """
import sys
from uploader_server import __main__, serving

class Runner(serving.Runner):
    def close(self):
        print(self.app.state.faults, [name for name in sys.modules if "simulation" in name], flush=True)
        super().close()

serving.Runner = Runner
sys.exit(__main__.main(["--port", "0"]))
"""


@pytest.mark.thorough
def test_server_process_without_faults_records_no_requests_and_imports_no_simulation() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE_AND_TELL], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[4]
        for _ in range(4):
            progress(url, UNKNOWN)
        server.send_signal(signal.SIGTERM)
        assert server.stdout.read() == "None []\n"


def test_only_the_last_requests_are_recorded() -> None:
    with running_server(remembered_requests=2) as server:
        for _ in range(4):
            progress(server.url, UNKNOWN)
        assert len(server.faults.requests) == 2
        server.faults.next_answers("GET", "/health", [Answer(418)])
        assert requests.get(f"{server.url}/health", timeout=DEADLINE).status_code == 418


def test_rate_limit_window_ends_at_the_announced_reset() -> None:
    clock = Clock(100.0)
    limit = RateLimit(2, 30.0, clock)
    clock.pass_(10.0)
    assert [limit.spend("a")[0] for _ in range(2)] == [True, True]
    clock.pass_(12.5)
    passes, headers = limit.spend("a")
    assert (passes, headers["retry-after"], headers["x-ratelimit-reset"]) == (False, "18", "140")
    clock.pass_(10.0)
    assert limit.spend("b")[0]
    assert len(limit.counts) == 2, "the window of a, which began later than the limit, has not ended"
    clock.pass_(7.5)
    assert limit.spend("a") == (
        True,
        {"x-ratelimit-limit": "2", "x-ratelimit-remaining": "1", "x-ratelimit-reset": "170"},
    )


def test_packets_that_end_after_their_connection_was_closed_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as server:
        path = "/socket.io/?EIO=4&transport=polling"
        opened = json.loads(requests.get(server.url + path, timeout=DEADLINE).text[1:])
        with connected(server.url) as half:
            half.sendall(
                f"POST {path}&sid={opened['sid']} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n4".encode()
            )
            eventually(lambda: any(seen.received for seen in running(server)), "half of the packet")
            requests.post(f"{server.url}{path}&sid={opened['sid']}", data="1", timeout=DEADLINE)  # close
            half.sendall(b"0")
            assert half.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def running(server: EmbeddedServer) -> list[Any]:
    """Return the requests under way."""
    tracker: Any = server.app.tracker
    return list(tracker.busy().values())


def test_websocket_that_is_refused_after_its_client_has_gone_is_no_error() -> None:
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "websocket.http.response.body":
            raise RuntimeError("ASGI flow error: Connection already upgraded")  # as granian has it

    scope = {"type": "websocket", "extensions": {"websocket.http.response": {}}}
    asyncio.run(refuse(403, scope, receive, send))
    assert sent == ["websocket.http.response.start", "websocket.http.response.body"]
