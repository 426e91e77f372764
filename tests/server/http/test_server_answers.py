"""Answers to clients that don't read them: their memory is limited, and so is the time."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

import pytest
import requests
from server.batches import DEADLINE, eventually, new_session
from server.packs.packing import send_pack
from server.tus.tus_client import error
from serving import inside, running_server

from uploader_server.errors import Code
from uploader_server.http.errors import STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

LONG = "/".join(["y" * 250] * 15)


def with_long_progress(server: EmbeddedServer) -> tuple[str, int]:
    """The path of a progress, and its size in bytes, which no buffer of the system holds."""
    session = new_session(server.url, 3000)
    for number in range(3):
        send_pack(server.url, session, [(f"{LONG}/{number}-{one}.txt", b"") for one in range(900)])
    path = f"/api/upload/progress/{session}"
    return path, len(requests.get(server.url + path, timeout=DEADLINE).content)


def unread(url: str, path: str) -> socket.socket:
    """A connection with a request whose answer is not read."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(DEADLINE)
    connection.connect((urlsplit(url).hostname, urlsplit(url).port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True, types=("mp4",), idle_timeout=3.0) as server:
        yield server


@pytest.mark.thorough
def test_answers_that_are_not_read_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(packs=True, types=("mp4",)) as server, ExitStack() as opened:
        path, size = with_long_progress(server)
        memory = inside(server).memory
        assert memory.used == 0
        monkeypatch.setattr(memory, "most", 4 * size + 4096)
        for number in (1, 2):
            opened.enter_context(unread(server.url, path))
            eventually(lambda: memory.used == number * size, "the answer")  # noqa: B023 - called at once
        refused = requests.get(server.url + path, timeout=DEADLINE)
        assert error(refused) == (503, "SERVER_BUSY")
        assert refused.headers["retry-after"] == "1"
        opened.close()
        eventually(lambda: memory.used == 0, "the end of the answers")
        assert len(requests.get(server.url + path, timeout=DEADLINE).content) == size


@pytest.mark.thorough
def test_answer_that_many_clients_share_counts_once(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    path, size = with_long_progress(server)
    memory, together = inside(server).memory, threading.Barrier(4)
    monkeypatch.setattr(memory, "most", 6 * size + 4096)  # for three answers of one client
    sizes: list[int] = []

    def ask() -> None:
        together.wait(DEADLINE)
        sizes.append(len(requests.get(server.url + path, timeout=DEADLINE).content))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(DEADLINE)
    assert sizes == [size] * 4


def test_client_that_does_not_read_its_answer_is_cut_off(server: EmbeddedServer) -> None:
    path, _ = with_long_progress(server)
    with unread(server.url, path) as connection:
        eventually(lambda: inside(server).memory.used > 0, "the answer")
        eventually(lambda: inside(server).memory.used == 0, "the end of the connection")
        eventually(lambda: not server.app.tracker.busy(), "the end of the request")
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: connection.recv(1 << 20), b""))


def test_every_code_of_the_domain_has_a_status() -> None:
    """mypy checks that a refusal has one of these codes."""
    assert set(get_args(Code)) == set(STATUSES)
