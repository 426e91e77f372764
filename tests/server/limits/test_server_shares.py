"""Shares: what one client may hold of sessions, unfinished uploads, joins and connections."""

from __future__ import annotations

import asyncio
import resource
import shlex
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import jwt
import pytest
import requests
from server.batches import (
    DEADLINE,
    FromAddress,
    connected,
    eventually,
    file,
    new_session,
    progress,
    upload,
    watching,
)
from server.tus.tus_client import BODY, TUS, append, concatenate, error, head, metadata, offset_of, part
from server_clock import ServerClock
from serving import inside, running_server

from uploader_server import shares
from uploader_server.config import ServerConfig
from uploader_server.http import connections as limited_connections
from uploader_server.http.connections import Track, Watch, most_connections
from uploader_server.http.memory import Memory
from uploader_server.http.proxies import Proxies
from uploader_server.shares import EMPTY_TTL, SPARED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

SECRET = "s" * 32
BEHIND_PROXY: dict[str, Any] = {"behind_proxy": ("127.0.0.1",), "jwt_secret": SECRET}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each client hold two of each kind, and all together eight."""
    for kind in shares.MOST:
        monkeypatch.setitem(shares.MOST, kind, 8)


def client(address: str = "192.0.2.1", subject: str = "", secret: str = SECRET) -> dict[str, str]:
    """Return headers of a client behind the proxy."""
    headers = {"X-Forwarded-For": address}
    return headers | ({"Authorization": f"Bearer {jwt.encode({'sub': subject}, secret)}"} if subject else {})


def open_session(server: EmbeddedServer, headers: dict[str, str] | None = None) -> requests.Response:
    body = {"category": "personal", "expectedFiles": 1}
    return requests.post(f"{server.url}/api/upload/session", json=body, headers=headers, timeout=DEADLINE)


def create(server: EmbeddedServer, headers: dict[str, str] | None = None, **fields: str) -> requests.Response:
    own = {**TUS, "Upload-Length": "2", "Upload-Metadata": metadata(filename="a", **fields), **(headers or {})}
    return requests.post(f"{server.url}/api/upload/files/", headers=own, timeout=DEADLINE)


@pytest.mark.parametrize("hold", [open_session, create])
def test_client_that_holds_its_share_is_refused_and_others_are_not(hold: Any) -> None:
    with running_server(**BEHIND_PROXY) as server:
        assert [hold(server, client()).status_code for _ in range(2)] == [201, 201]
        refused = hold(server, client())
        assert error(refused) == (429, "SHARE_USED")
        assert int(refused.headers["retry-after"]) > 0
        assert hold(server, client("192.0.2.2")).status_code == 201
        assert [hold(server, client(subject="ann")).status_code for _ in range(3)] == [201, 201, 429]
        assert hold(server, client("192.0.2.2", subject="ann")).status_code == 429, (
            "the subject counts, not the address"
        )
        assert hold(server, client(subject="bob")).status_code == 201


@pytest.mark.parametrize("hold", [open_session, create])
def test_unverified_subject_counts_by_address(hold: Any) -> None:
    with running_server(**BEHIND_PROXY) as server:
        forged = [client(subject=f"user {number}", secret="x" * 32) for number in range(3)]
        assert [hold(server, headers).status_code for headers in forged] == [201, 201, 429]


def test_addresses_of_one_ipv6_network_count_together() -> None:
    with running_server(**BEHIND_PROXY) as server:
        clients = [client(f"2001:db8::{number}") for number in (1, 2, "ffff:0:0:1")]
        assert [open_session(server, headers).status_code for headers in clients] == [201, 201, 429]
        assert open_session(server, client("2001:db8:0:1::1")).status_code == 201
        assert [open_session(server, client(f"::ffff:192.0.2.{n}")).status_code for n in (1, 1, 2)] == [201] * 3
        assert open_session(server, client("192.0.2.1")).status_code == 429


def test_rate_limit_counts_an_ipv6_network_as_one_address() -> None:
    with running_server(rate_limit=2, **BEHIND_PROXY) as server:
        clients = [client(f"2001:db8::{number}") for number in (1, 2, 3)]
        assert [open_session(server, headers).status_code for headers in clients] == [201, 201, 429]
        assert open_session(server, client("2001:db8:0:1::1")).status_code == 201


@pytest.mark.parametrize("hold", [open_session, create])
def test_all_clients_together_have_a_limit(hold: Any) -> None:
    with running_server(**BEHIND_PROXY) as server:
        statuses = [hold(server, client(f"192.0.2.{number}")).status_code for number in range(9)]
        assert statuses == [201] * 8 + [503]


def test_ended_session_frees_its_share() -> None:
    with running_server(max_share=25) as server:
        first, second = new_session(server.url), new_session(server.url)
        upload(server.url, file("a", b"x"), session=first)
        new_session(server.url)
        assert open_session(server).status_code == 429
        requests.post(f"{server.url}/api/upload/cancel/{second}", timeout=DEADLINE)
        new_session(server.url)


def test_used_share_stops_creations_but_nothing_that_frees_it() -> None:
    with running_server() as server:
        one, two = part(server.url, b"ab"), part(server.url, b"cd")
        uploads = [urljoin(server.url, create(server).headers["location"]) for _ in range(2)]
        assert error(create(server)) == (429, "SHARE_USED")
        assert concatenate(server.url, one, two, filename="joined").status_code == 201
        assert head(uploads[0]).status_code == 200
        assert append(uploads[0], 0, b"ab").status_code == 204
        third = create(server, uploadKey="k")
        assert third.status_code == 201
        assert create(server, uploadKey="k").status_code == 200, "a repeated creation"
        assert requests.delete(uploads[1], headers=TUS, timeout=DEADLINE).status_code == 204
        assert create(server).status_code == 201


def test_parts_in_one_file_count_until_they_are_joined(tmp_path: Path) -> None:
    """Also finished ones, which stay in memory; and after a restart."""

    def place(server: EmbeddedServer, key: str, start: int) -> requests.Response:
        fields = metadata(finalKey=key, finalLength="2", partOffset=str(start))
        headers = {**BODY, "Upload-Length": "1", "Upload-Concat": "partial", "Upload-Metadata": fields}
        return requests.post(f"{server.url}/api/upload/files/", data=b"x", headers=headers, timeout=DEADLINE)

    with running_server(root=tmp_path) as server:
        parts = [place(server, "one", start).headers["location"] for start in (0, 1)]
        assert error(place(server, "two", 0)) == (429, "SHARE_USED")
    with running_server(root=tmp_path) as server:
        assert error(place(server, "two", 0)) == (429, "SHARE_USED")
        assert concatenate(server.url, *parts, filename="joined", uploadKey="one").status_code == 201
        (first, second) = (place(server, "two", start) for start in (0, 1))
        assert (first.status_code, second.status_code) == (201, 201)
        assert error(create(server)) == (429, "SHARE_USED")
        assert (
            requests.delete(urljoin(server.url, first.headers["location"]), headers=TUS, timeout=DEADLINE).status_code
            == 204
        )
        assert create(server).status_code == 201


def test_joins_of_one_client_are_limited() -> None:
    with running_server(jwt_secret=SECRET) as server:
        sessions = [new_session(server.url), new_session(server.url)]
        unknown = "9f1b6d0e-0000-4000-8000-000000000000"
        with watching(server.url, session=sessions[0]) as first, watching(server.url, session=sessions[1]) as second:
            assert first.join(sessions[1]) == {"ok": False, "error": "SHARE_USED"}
            assert first.join(sessions[0]) == {"ok": True}, "it has joined this before"
            token = jwt.encode({"sub": "ann"}, SECRET)
            with watching(server.url, auth={"token": token}) as other:
                assert other.join(unknown)["error"] == "SESSION_NOT_FOUND"
            second.client.disconnect()
            assert eventually(
                lambda: first.join(sessions[1]) == {"ok": True}, "a join after the other connection's end"
            )


def test_connections_of_one_client_are_limited(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The refusal is logged once."""
    monkeypatch.setattr("uploader_server.app.most_connections", lambda: 8)
    headers = b"Host: localhost\r\nContent-Length: 9\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
    begun = b"POST /api/upload/session HTTP/1.1\r\n" + headers

    def health(server: EmbeddedServer, headers: dict[str, str]) -> requests.Response:
        return requests.get(f"{server.url}/health", headers=headers, timeout=DEADLINE)

    with running_server(**BEHIND_PROXY) as server, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connected(server.url)).sendall(begun)
        eventually(lambda: health(server, client()).status_code == 429, "the refusal")
        refused = health(server, client())
        assert (error(refused), refused.headers["retry-after"]) == ((429, "SHARE_USED"), "5")
        assert health(server, client("192.0.2.2")).status_code == 200
        assert health(server, client(subject="ann")).status_code == 200
        stack.close()
        eventually(lambda: health(server, client()).status_code == 200, "a free connection")
    assert [record.message for record in caplog.records if "refused" in record.message] == [
        "more connections are refused: '192.0.2.1 holds 2, the share of one client (--max-share)'"
    ]


def test_connections_of_one_address_have_an_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds where it is less than the share."""
    monkeypatch.setattr(ServerConfig, "max_per_address", 2)
    with running_server() as server:
        assert server.app.tracker.share.each == 2


# Expiry


def test_empty_sessions_and_uploads_expire_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shares.MOST, "sessions", 100)
    monkeypatch.setitem(shares.MOST, "uploads", 100)
    clock = ServerClock(monkeypatch)
    with running_server() as server:
        empty, used, watched = (new_session(server.url) for _ in range(3))
        no_byte, one_byte = (urljoin(server.url, create(server).headers["location"]) for _ in range(2))
        append(one_byte, 0, b"a")
        in_session = urljoin(server.url, create(server, sessionId=used).headers["location"])
        append(in_session, 0, b"a")
        with watching(server.url, session=watched):
            clock.ahead += EMPTY_TTL - 30
            clock.wait_for_sweeps()
            assert set(inside(server).backend.sessions.known) == {empty, used, watched}
            clock.ahead += 60
            clock.wait_for_sweeps()
            assert set(inside(server).backend.sessions.known) == {used, watched}
            assert set(inside(server).backend.tus.open) == {u.rpartition("/")[2] for u in (one_byte, in_session)}
        assert [head(u).status_code for u in (no_byte, one_byte, in_session)] == [410, 200, 200]


@pytest.mark.parametrize("kind", ["sessions", "uploads"])
def test_empty_things_expire_earlier_only_where_the_share_is_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    monkeypatch.setattr(shares, "time", clock)

    def hold(server: EmbeddedServer) -> requests.Response:
        return open_session(server) if kind == "sessions" else create(server)

    def gone(server: EmbeddedServer, made: requests.Response) -> bool:
        if kind == "sessions":
            return progress(server.url, made.json()["sessionId"]).status_code == 404
        return head(urljoin(server.url, made.headers["location"])).status_code == 410

    with running_server() as server:
        first = hold(server)
        clock.ahead += 1
        second = hold(server)
        assert hold(server).status_code == 429
        clock.ahead += SPARED
        assert hold(server).status_code == 201
        assert gone(server, first), "the oldest one"
        assert not gone(server, second)


def test_upload_with_a_byte_does_not_expire_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ServerClock(monkeypatch)
    monkeypatch.setattr(shares, "time", clock)
    with running_server() as server:
        uploads = [urljoin(server.url, create(server).headers["location"]) for _ in range(2)]
        for each in uploads:
            append(each, 0, b"a")
        clock.ahead += 2 * SPARED
        assert create(server).status_code == 429
        assert [offset_of(each) for each in uploads] == [1, 1]


# Restart


def test_shares_continue_after_a_restart(tmp_path: Path) -> None:
    with running_server(root=tmp_path, **BEHIND_PROXY) as server:
        for hold in (open_session, create):
            assert [hold(server, client()).status_code for _ in range(2)] == [201, 201]
    with running_server(root=tmp_path, **BEHIND_PROXY) as server:
        for hold in (open_session, create):
            assert error(hold(server, client())) == (429, "SHARE_USED")
            assert hold(server, client("192.0.2.2")).status_code == 201


# Descriptors


@contextmanager
def server_with_descriptors(limit: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server process with `ulimit -n`."""
    command = f"ulimit -n {limit}; exec {shlex.quote(sys.executable)} -m uploader_server --port 0 --verbose"
    with subprocess.Popen(["sh", "-c", command], stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[4], process
        finally:
            process.kill()


@pytest.mark.thorough
def test_slow_requests_of_one_address_leave_descriptors_for_others() -> None:
    """Each request has a connection and a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4000), hard), hard))
    begun = (
        b"POST /api/upload/files/ HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\nUpload-Length: 90\r\n"
        b"Content-Length: 90\r\nContent-Type: application/offset+octet-stream\r\n\r\nx"
    )
    with server_with_descriptors(1024) as (url, process), ExitStack() as stack:
        for _ in range(600):
            stack.enter_context(connected(url)).sendall(begun)
        with requests.Session() as elsewhere:
            elsewhere.mount("http://", FromAddress("127.0.0.2"))
            answer = elsewhere.post(
                f"{url}/api/upload/files/",
                headers={**TUS, "Upload-Length": "3", "Content-Type": "application/offset+octet-stream"},
                data=b"abc",
                timeout=DEADLINE,
            )
            assert answer.status_code == 201, answer.text
            assert elsewhere.get(urljoin(url, answer.headers["location"]), timeout=DEADLINE).content == b"abc"
        process.kill()
        assert process.stderr is not None
        logged = process.stderr.read()
    assert "WARNING: the limit of file descriptors is 1024: at most 384 connections (see ulimit -n)" in logged
    assert logged.count("ERROR: ") == logged.count("more connections are refused: '127.0.0.1 holds 96, the share") == 1


@pytest.mark.parametrize(("limit", "most"), [(256, 96), (1024, 384), (8448, 4096), (resource.RLIM_INFINITY, 4096)])
def test_number_of_connections_leaves_descriptors(limit: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert most_connections() == most


def test_connections_beyond_a_share_close_none_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while they are still being refused, and the others are idle."""
    monkeypatch.setattr("uploader_server.app.most_connections", lambda: 8)
    monkeypatch.setattr("uploader_server.http.tracking.DRAIN_SECONDS", DEADLINE)
    checks, check = list[int](), Watch.check

    def counted(watch: Watch, *seen: Any) -> None:
        check(watch, *seen)
        checks.append(len(watch.tracks))

    monkeypatch.setattr(Watch, "check", counted)
    begun = b"POST /api/upload/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n"
    with running_server() as server, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connected(server.url)).sendall(begun)
        other = stack.enter_context(connected(server.url, "127.0.0.2"))
        eventually(lambda: checks.count(9) > 2, "checks of all connections")
        other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert other.recv(64).startswith(b"HTTP/1.1 200 ")


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_longest_heads_are_closed_where_all_together_need_too_much_memory() -> None:
    """At the second check: the first one can't know whether a head is complete, and a body follows it."""
    limited: Any = SimpleNamespace(share=SimpleNamespace(each=9, most=9), proxies=Proxies([]))
    memory = Memory()
    memory.most = 8 * (50 << 10)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        watch, connections = Watch(port, limited, memory), []
        for size in (100, 90_000, 60_000):
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE)))
            server_end = stack.enter_context(listener.accept()[0])
            connections[-1].sendall(b"x" * size)
            while size:  # so that the kernel has counted it
                size -= len(server_end.recv(size))
        for open_after_check in ([True, True, True], [True, False, True]):
            watch.check({}, set())
            assert [not is_closed(connection) for connection in connections] == open_after_check
        assert memory.heads == 2 * 60_100


@pytest.mark.parametrize(("head", "least", "most"), [(0, 1.0, 60.0), (300 << 10, 1.0, 60.0), (8 << 20, 0.2, 0.9)])
def test_checks_hurry_while_heads_need_much_memory(
    monkeypatch: pytest.MonkeyPatch, head: int, least: float, most: float
) -> None:
    """3,000 connections with heads of 225 KB took 830 MiB between two checks of a busy machine."""
    limited: Any = SimpleNamespace(busy=dict, began=set)
    watch, delays = Watch(0, limited, Memory()), list[float]()

    def check(*_: object) -> None:
        watch.tracks = {("127.0.0.1", 1): Track(0.0, head=head)}

    async def sleep(seconds: float) -> None:
        delays.append(seconds)
        raise asyncio.CancelledError

    times = iter([10.0, 10.05])
    monkeypatch.setattr(watch, "check", check)
    monkeypatch.setattr(limited_connections, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    monkeypatch.setattr(limited_connections, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch.run())
    assert least <= delays[0] <= most


def test_new_connection_beyond_the_limit_has_time_for_its_request() -> None:
    """It is answered then: a check that finds it for the first time can't know whether its request has begun."""
    limited: Any = SimpleNamespace(share=SimpleNamespace(each=1, most=1), proxies=Proxies([]))
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        watch, connections = Watch(port, limited, Memory()), []
        for _ in range(2):
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE)))
            stack.enter_context(listener.accept()[0])
        for open_after_check in ([True, True], [False, True]):
            watch.check({}, set())
            assert [not is_closed(connection) for connection in connections] == open_after_check


def test_connections_of_all_clients_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle ones are closed, the oldest first; requests beyond it are refused."""
    monkeypatch.setattr("uploader_server.app.most_connections", lambda: 8)
    with running_server(max_share=100, **BEHIND_PROXY) as server, ExitStack() as stack:
        idle = [stack.enter_context(connected(server.url)) for _ in range(4)]
        for number in range(8):
            head = f"POST /api/upload/session HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.{number}\r\n"
            stack.enter_context(connected(server.url)).sendall(f"{head}Content-Length: 9\r\n\r\n".encode())
        for connection in idle:
            connection.settimeout(DEADLINE)
            assert connection.recv(1) == b"", "it is closed"
        refused = requests.get(f"{server.url}/health", headers=client("192.0.2.99"), timeout=DEADLINE)
        assert error(refused) == (503, "SERVER_BUSY")
        assert int(refused.headers["retry-after"]) > 0
