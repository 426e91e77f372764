"""The channel against a real Socket.IO server with faults, with the policy's seconds shortened."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import engineio
import pytest
from client.realtime.realtime_bench import (
    SCALED,
    SILENT_SERVER,
    SILENT_WEBSOCKET,
    Bench,
    ServerProcess,
    progress,
    wait_until,
)
from time_limits import PATIENCE, SLACK

from uploader_cli.core.events import ChannelState, Transport
from uploader_cli.realtime.channel import EARLY
from uploader_cli.realtime.policy import Policy
from uploader_cli.realtime.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SESSION = "2ba25c4c-a0ea-4983-89fc-cf63711e7de2"
OTHER = "f5bbc724-9786-4ec1-bdcd-8721d5a32c47"
MESSAGE = {
    "sessionId": SESSION,
    "timestamp": "2026-11-24T23:44:04.034Z",
    "overallStatus": "uploading",
    "totalProgress": 3,
    "currentFile": {"id": "1", "originalName": "good.mp4", "progress": 5, "status": "uploading"},
    "message": "…",
}

PROMISED = 1.0
"""Seconds after `close` in which every thread has ended."""


@pytest.fixture(scope="module")
def process() -> Iterator[ServerProcess]:
    process = ServerProcess()
    yield process
    process.stop()


@pytest.fixture
def server(process: ServerProcess) -> Iterator[ServerProcess]:
    yield process
    process(websocket="ok", polling="ok")
    process(kill=True)
    process(seen=True)


@pytest.fixture
def bench(server: ServerProcess) -> Iterator[Callable[..., Bench]]:
    """Create channels, and close each within a second in any state."""
    made: list[Bench] = []

    def make(url: str = server.url, policy: Policy = SCALED, **options: Any) -> Bench:
        made.append(Bench(url, policy, **options))
        return made[-1]

    yield make
    for one in made:
        gone_within_a_second(one)


def gone_within_a_second(bench: Bench) -> None:
    began = time.monotonic()
    bench.channel.close()
    assert time.monotonic() - began < PROMISED * SLACK
    wait_until(lambda: not bench.left_running(), PROMISED * SLACK - (time.monotonic() - began), bench.left_running)


def open_sockets() -> set[str]:
    """Return the numbers of the sockets of this process, where the system lists them."""
    gc.collect()
    files = set[str]()
    for entry in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):  # the directory's own descriptor is closed by now
            files.add(os.readlink(entry))
    return {name for name in files if name.startswith("socket:")}


def lose(server: ServerProcess, bench: Bench) -> None:
    """Cut the connections until the channel has noticed: on the polling transport there may be none for a moment."""
    before = len(bench.moves())
    while len(bench.moves()) == before:
        server(kill=True)
        with suppress(AssertionError):
            wait_until(lambda: len(bench.moves()) > before, 3.0)


def dials(server: ServerProcess, *tokens: str | None) -> list[dict[str, Any]]:
    """Return the dials with these tokens since the server was asked last."""
    return [item for item in server(seen=True) if "dial" in item and item["token"] in tokens]


def test_live_on_the_websocket(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    """Connected and joined with the bare id; messages for the session arrive as parsed events."""
    one = bench().start(SESSION)
    one.reach("live")
    wait_until(lambda: {"join": SESSION} in server(seen=True))
    before = time.time()
    server(emit=[SESSION, MESSAGE, {"no": "message"}, "nonsense", MESSAGE])
    wait_until(lambda: len(one.heard()) == 2)
    assert one.story() == ["connecting start", "live websocket connected"]
    assert one.heard()[0].source is Transport.WEBSOCKET
    assert one.heard()[0].files[0].name == "good.mp4"
    assert all(before <= (message.received or 0.0) <= time.time() for message in one.heard())
    assert one.fetched == []
    stats = one.channel.stats()
    assert (stats.events, stats.polls, stats.reconnects, stats.fallbacks) == (2, 0, 0, 0)
    assert stats.connect_ms == one.moves()[-1].latency_ms
    assert stats.connect_ms is not None
    assert 0 < stats.connect_ms < 1000 * PATIENCE


@pytest.mark.parametrize("fault", ["refuse", "hang", "drip", "nonsense", "mute", "deny"])
def test_refused_websocket_falls_back_to_long_polling(
    server: ServerProcess, bench: Callable[..., Bench], fault: str
) -> None:
    """Live by long polling within one dial, before the websocket's time limit where that is refused."""
    server(websocket=fault)
    refused = fault in ("refuse", "nonsense", "deny")
    one = bench(policy=SCALED if refused else SILENT_WEBSOCKET).start(SESSION)
    one.reach("live")
    assert one.story() == ["connecting start", "live polling connected"]
    assert one.when("live") < (SCALED.websocket if refused else SCALED.dial)
    wait_until(lambda: {"join": SESSION} in server(seen=True))
    server(emit=[SESSION, MESSAGE])
    wait_until(lambda: len(one.heard()) == 1)
    assert one.heard()[0].source is Transport.POLLING


def test_burst_over_long_polling_is_delivered(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    server(websocket="refuse")
    one = bench().start(SESSION)
    one.reach("live")
    wait_until(lambda: {"join": SESSION} in server(seen=True))
    server(burst=[SESSION, MESSAGE, 300])
    wait_until(lambda: len(one.heard()) == 300, told=lambda: len(one.heard()))
    assert one.channel.stats().events == 300
    assert one.story()[-1] == "live polling connected"


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_burst_arrives_in_order_without_a_thread_for_each_message(
    server: ServerProcess, bench: Callable[..., Bench], transport: str
) -> None:
    if transport == "polling":
        server(websocket="refuse")
    one = bench().start(SESSION)
    one.reach("live")
    wait_until(lambda: {"join": SESSION} in server(seen=True))
    threads = threading.active_count()
    numbers = list(range(500))
    server(emit=[SESSION, *(MESSAGE | {"message": str(number)} for number in numbers)])
    wait_until(lambda: len(one.heard()) == 500, told=lambda: len(one.heard()))
    assert [int(message.message) for message in one.heard()] == numbers
    assert one.most_threads <= threads


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_hung_socket_is_replaced_by_polls_at_the_deadline(
    server: ServerProcess, bench: Callable[..., Bench], fault: str
) -> None:
    server(websocket=fault, polling=fault)
    one = bench(policy=SILENT_SERVER).start(SESSION)
    one.reach("polling")
    story = one.story()  # the first attempt ends at the deadline, too: perhaps just before it
    assert story in (
        ["connecting start", *tried, "polling http deadline"] for tried in ([], ["reconnecting timeout 1"])
    )
    assert one.when("polling") >= SILENT_SERVER.fallback - EARLY
    wait_until(lambda: len(one.fetched) >= 3)
    assert all(later[1] - earlier[1] >= SCALED.poll for earlier, later in pairwise(one.fetched))
    assert one.channel.stats().fallbacks == 1


def test_refused_three_retries_then_polls_then_back_to_live(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    """The whole cycle: reconnecting 1 2 3, polling, live: joined again, reconciled once, no further poll."""
    server(websocket="refuse", polling="refuse")
    one = bench().start(SESSION, OTHER)
    one.reach("polling")
    assert one.story()[1:] == [
        "reconnecting refused 1",
        "reconnecting refused 2",
        "reconnecting refused 3",
        "polling http retries_exhausted",
    ]
    assert [item["dial"] for item in dials(server, one.token)][:8] == ["websocket", "polling"] * 4
    wait_until(lambda: len(one.fetched) >= 2)
    server(websocket="ok", polling="ok")
    one.reach("live")
    wait_until(lambda: one.story()[-1] == "live websocket connected")
    back = one.when("live")

    def later() -> list[str]:
        return [polled for polled, at in list(one.fetched) if at >= back]

    wait_until(lambda: set(later()) == {SESSION, OTHER})
    time.sleep(4 * SCALED.poll)
    assert len(later()) <= 3, "one more may have begun before"
    joins: list[dict[str, Any]] = []
    wait_until(lambda: joins.extend(item for item in server(seen=True) if "join" in item) or len(joins) > 1)
    assert {item["join"] for item in joins} == {SESSION, OTHER}


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_lost_connection_is_noticed_and_restored(
    server: ServerProcess, bench: Callable[..., Bench], transport: str
) -> None:
    if transport == "polling":
        server(websocket="refuse")
    one = bench().start(SESSION)
    one.reach("live")
    wait_until(lambda: {"join": SESSION} in server(seen=True))
    lose(server, one)
    one.reach("live", times=2)
    assert one.story()[2:] == ["reconnecting lost 1", f"live {transport} recovered"]
    wait_until(lambda: {"join": SESSION} in server(seen=True))
    wait_until(lambda: len(one.fetched) == 1)
    assert one.channel.stats().reconnects == 1


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_reconnect_after_the_server_disconnects(
    server: ServerProcess, bench: Callable[..., Bench], transport: str
) -> None:
    if transport == "polling":
        server(websocket="refuse")
    one = bench().start(SESSION)
    one.reach("live")
    server(close=True)
    one.reach("live", times=2)
    assert one.story()[2:] == ["reconnecting server_closed 1", f"live {transport} recovered"]
    wait_until(lambda: len(engineio.base_client.connected_clients) == 1)  # the library keeps what is not disconnected


def test_reconnect_after_each_restart_of_the_server(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    one = bench().start(SESSION)
    for times in (1, 2, 3):
        one.reach("live", times=times)
        lose(server, one)
        one.reach("reconnecting", times=times)
    one.reach("live", times=4)
    stats, latencies = one.channel.stats(), [move.latency_ms for move in one.moves() if move.to is ChannelState.LIVE]
    assert (stats.reconnects, stats.connect_ms) == (3, latencies[0])


def test_sessions_are_joined_and_left_on_one_connection(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    one = bench().start()
    one.reach("live")
    one.channel.follow(SESSION)
    one.channel.follow(OTHER)
    one.channel.leave(SESSION)
    seen_ = []
    wait_until(lambda: seen_.extend(server(seen=True)) or {"leave": SESSION} in seen_)
    assert [item for item in seen_ if "join" in item] == [{"join": SESSION}, {"join": OTHER}]
    lose(server, one)
    one.reach("live", times=2)
    again: list[Any] = []
    wait_until(lambda: again.extend(server(seen=True)) or {"join": OTHER} in again)
    assert {"join": SESSION} not in again
    assert len([item for item in seen_ if item.get("token") == one.token]) == 1


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_close_leaves_the_sessions_and_disconnects(
    server: ServerProcess, bench: Callable[..., Bench], transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is the time for it."""
    monkeypatch.setattr("uploader_cli.realtime.channel.CLOSE_WITHIN", PATIENCE)
    monkeypatch.setattr("uploader_cli.realtime.socket.GOODBYE", PATIENCE)
    if transport == "polling":
        server(websocket="refuse")
    one = bench().start(SESSION, OTHER)
    one.reach("live")
    seen_: list[Any] = []
    wait_until(lambda: seen_.extend(server(seen=True)) or {"join": OTHER} in seen_)
    gone_within_a_second(one)
    last_words: list[dict[str, Any]] = [{"leave": SESSION}, {"leave": OTHER}, {"gone": True}]
    wait_until(lambda: seen_.extend(server(seen=True)) or all(word in seen_ for word in last_words))
    assert one.story()[-1] == "closed finished"
    told = len(one.events)
    server(emit=[SESSION, MESSAGE])
    one.channel.close()
    assert len(one.events) == told


CLOSING: dict[str, tuple[dict[str, str], str]] = {
    "connecting, websocket hangs": ({"websocket": "hang", "polling": "hang"}, "connecting"),
    "connecting, websocket drips": ({"websocket": "drip", "polling": "drip"}, "connecting"),
    "connecting, polling hangs": ({"websocket": "refuse", "polling": "hang"}, "connecting"),
    "connecting, polling drips": ({"websocket": "refuse", "polling": "drip"}, "connecting"),
    "connecting, no namespace": ({"websocket": "mute", "polling": "mute"}, "connecting"),
    "connecting, polling without namespace": ({"websocket": "refuse", "polling": "mute"}, "connecting"),
    "live on the websocket": ({}, "live"),
    "live on polling": ({"websocket": "refuse"}, "live"),
    "reconnecting": ({"websocket": "refuse", "polling": "refuse"}, "reconnecting"),
    "polling, dials hang": ({"websocket": "hang", "polling": "hang"}, "polling"),
    "polling, dials drip": ({"websocket": "drip", "polling": "drip"}, "polling"),
}


@pytest.mark.parametrize("name", CLOSING)
def test_close_in_any_state_leaves_no_thread_and_no_socket(
    server: ServerProcess, bench: Callable[..., Bench], name: str
) -> None:
    """No thread, daemon threads included, and no socket: within one second."""
    modes, state = CLOSING[name]
    server(websocket="ok", polling="ok")
    server(**modes or {"websocket": "ok"})
    sockets = open_sockets()
    one = bench(policy=SILENT_SERVER if state == "polling" else SCALED).start(SESSION)
    one.reach(state)
    time.sleep(0.15)
    gone_within_a_second(one)
    assert open_sockets() <= sockets
    assert one.story()[-1] == "closed finished"


def test_websocket_keeps_its_descriptor_until_release(server: ServerProcess) -> None:
    """The library closes it during a read, which would then wait for the next file with the same descriptor."""
    opened = WebSocket(called=lambda _call: None)
    opened.connect(f"ws://127.0.0.1:{server.port}/socket.io/?transport=websocket&EIO=4")
    number = opened.fileno()
    opened.shutdown()
    assert opened.fileno() == number
    opened.release()
    assert opened.sock is None


def test_close_before_start(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.channel.close()
    one.start(SESSION)
    wait_until(lambda: not one.left_running())
    assert one.events == []


@contextmanager
def full_backlog() -> Iterator[int]:
    """A port that drops all packets, as a black hole on the way would."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())
            fill.append(filler)
        try:
            yield listener.getsockname()[1]
        finally:
            for filler in fill:
                filler.close()


def test_close_ends_a_dial_that_gets_no_answer(bench: Callable[..., Bench]) -> None:
    """The websocket's connection is not even made; closing ends the thread that waits for it."""
    with full_backlog() as port:
        one = bench(f"http://127.0.0.1:{port}").start(SESSION)
        one.reach("connecting")
        time.sleep(0.3)
        assert one.story() == ["connecting start"]
        gone_within_a_second(one)


def test_no_server_at_the_address(bench: Callable[..., Bench]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        one = bench(f"http://127.0.0.1:{free.getsockname()[1]}").start(SESSION)
        one.reach("polling")
    assert one.story()[-1] == "polling http retries_exhausted"


def test_failed_poll_is_reported_and_polling_continues(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    server(websocket="refuse", polling="refuse")
    one = bench()

    def fail(_session: str) -> None:
        raise ConnectionError("the server hung up")

    one.answer = fail
    one.start(SESSION)
    wait_until(lambda: len(one.failed_polls()) >= 2)
    one.answer = lambda session: progress(session, 50.0)
    wait_until(lambda: (one.events[-1][1]) == progress(SESSION, 50.0))


def test_unknown_session_is_not_polled_before_its_body_is_sent(
    server: ServerProcess, bench: Callable[..., Bench]
) -> None:
    server(websocket="refuse", polling="refuse")
    one = bench()
    one.answer = lambda _session: None
    one.start(SESSION)
    one.reach("polling")
    wait_until(lambda: one.fetched)
    time.sleep(4 * SCALED.poll)
    assert len(one.fetched) == 1
    one.channel.body_sent(SESSION)
    wait_until(lambda: len(one.fetched) >= 3)


def test_poll_interval_grows_where_few_calls_are_left(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    server(websocket="refuse", polling="refuse")
    one = bench(interval=lambda: 5 * SCALED.poll)
    one.start(SESSION)
    wait_until(lambda: len(one.fetched) >= 2)
    assert one.fetched[1][1] - one.fetched[0][1] >= 5 * SCALED.poll


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_handshake_has_fresh_headers_each_time(
    server: ServerProcess, bench: Callable[..., Bench], transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    if transport == "polling":
        server(websocket="refuse")
    fresh = iter(f"secret-{number}" for number in range(100))
    one = bench(headers=lambda: {"X-Token": next(fresh)}).start()
    one.reach("live")
    lose(server, one)
    one.reach("live", times=2)
    arrived = [item["token"] or "" for item in server(seen=True) if "dial" in item]
    tokens = [token for token in arrived if token.startswith("secret")]
    assert len(tokens) >= 2
    assert tokens == [f"secret-{number}" for number in range(len(tokens))]
    assert "secret" not in caplog.text


def test_a_path_prefix_is_kept(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    one = bench(server.url + "/prefix/").start(SESSION)
    one.reach("live")
    assert {item["path"] for item in dials(server, one.token)} == {"/prefix/socket.io/"}


def test_redirected_handshake_sends_no_credentials(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    """A websocket handshake answered with a redirect fails; nothing is sent to where it points."""
    target = server.url.replace("http", "ws") + "/socket.io/?transport=websocket&EIO=4"
    with scripted_server(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode()) as (port, _):
        one = bench(f"http://127.0.0.1:{port}", headers=lambda: {"X-Token": "secret"}).start()
        one.reach("polling")
        assert dials(server, None, "secret") == []


@contextmanager
def scripted_server(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Answers every request with these bytes and closes. Yields its port and the requests."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        asked.append(connection.recv(65536))
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_nothing_is_printed_and_no_signal_handler_is_installed(
    server: ServerProcess, bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    import signal

    before = signal.getsignal(signal.SIGINT)
    one = bench().start(SESSION)
    one.reach("live")
    lose(server, one)
    one.reach("live", times=2)
    gone_within_a_second(one)
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr() == ("", "")


def test_websocket_uses_the_proxy_of_the_session_only(
    server: ServerProcess, bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    """The session has the proxy of the environment; the websocket must use the same."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        with subtests.test(name=name):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    one = bench(server.url.replace("127.0.0.1", "localhost")).start()
    one.reach("live")
    assert one.story()[-1] == "live websocket connected"


@pytest.mark.thorough
def test_a_proxy_is_asked_for_a_tunnel(server: ServerProcess, bench: Callable[..., Bench]) -> None:
    with scripted_server(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n") as (port, asked):
        bench("http://server.test:80", proxy=f"http://127.0.0.1:{port}").start()
        wait_until(lambda: asked)
        assert asked[0].startswith(b"CONNECT server.test:80 ")
