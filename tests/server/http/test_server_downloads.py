"""Downloads of stored files: sizes, ranges, files that change meanwhile, and clients that end."""

from __future__ import annotations

import asyncio
import errno
import http.client
import os
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests
from server.batches import DEADLINE, eventually
from serving import inside, running_server

from uploader_server.http import answers
from uploader_server.http.answers import LARGEST_PIECE, PIECE, PacedSend
from uploader_server.http.files import UNWATCHED, Download
from uploader_server.http.memory import Held, Memory
from uploader_server.pace import Pace
from uploader_server.storage.categories import OpenFile
from uploader_server.storage.disk import in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message

    from uploader_server.serving import EmbeddedServer

UNSENT = 64 << 20  # bytes that no buffer of the system holds


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server() as server:
        yield server


def put(server: EmbeddedServer, name: str, content: bytes) -> str:
    """Store a file; return its URL."""
    (server.root / "personal" / name).write_bytes(content)
    return f"{server.url}/uploads/personal/{name}"


def begun(url: str) -> http.client.HTTPResponse:
    """A response whose body is not read; it has the connection."""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), DEADLINE) as connection:
        connection.sendall(f"GET {urlsplit(url).path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def descriptors(path: Path) -> int:
    """Number of descriptors of this process, which has the server, for a file."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{name}").removesuffix(" (deleted)") == str(path)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "size",
    [0, 1, PIECE - 1, PIECE, PIECE + 1, PIECE + LARGEST_PIECE, 3 * LARGEST_PIECE + 5, UNWATCHED, UNWATCHED + 1],
)
def test_download_has_the_bytes_of_the_file(server: EmbeddedServer, size: int) -> None:
    content = os.urandom(size)
    url = put(server, f"{size}.bin", content)
    with requests.Session() as session:  # one connection: no answer has more or less than its length
        for _ in range(2):
            assert session.get(url, timeout=DEADLINE).content == content
        assert session.head(url, timeout=DEADLINE).headers["content-length"] == str(size)
        if size > 1:
            part = session.get(url, headers={"Range": f"bytes=1-{size - 2}"}, timeout=DEADLINE)
            assert (part.status_code, part.content) == (206, content[1:-1])
            assert session.get(url, headers={"Range": "bytes=-1"}, timeout=DEADLINE).content == content[-1:]
        assert session.get(url, headers={"Range": f"bytes={size}-"}, timeout=DEADLINE).status_code == 416


def test_concurrent_downloads_have_their_own_bytes(server: EmbeddedServer) -> None:
    contents = {put(server, f"own-{number}.bin", bytes([number]) * (4 * LARGEST_PIECE)): number for number in range(6)}
    with ThreadPoolExecutor(12) as pool:
        for url, got in [(url, pool.submit(requests.get, url, timeout=DEADLINE)) for _ in range(3) for url in contents]:
            assert set(got.result().content) == {contents[url]}


@pytest.mark.parametrize("change", ["deleted", "replaced", "linked", "longer"])
def test_download_goes_on_with_the_file_that_was_opened(server: EmbeddedServer, tmp_path: Path, change: str) -> None:
    path, content = server.root / "personal" / f"{change}.bin", os.urandom(1 << 20) * (UNSENT >> 20)
    response = begun(put(server, path.name, content))
    assert response.read(1000) == content[:1000]
    if change == "longer":
        with path.open("ab") as file:
            file.write(b"more")
    else:
        path.unlink()
    if change == "replaced":
        path.write_bytes(bytes(UNSENT))
    if change == "linked":
        (tmp_path / "secret").write_bytes(bytes(UNSENT))
        path.symlink_to(tmp_path / "secret")
    assert response.read() == content[1000:]
    path.unlink(missing_ok=True)


def test_file_that_becomes_shorter_ends_the_connection(server: EmbeddedServer) -> None:
    path = server.root / "personal" / "shorter.bin"
    response = begun(put(server, path.name, bytes(UNSENT)))
    os.truncate(path, UNSENT // 2)
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    eventually(lambda: descriptors(path) == 0, "the end of the download")
    path.unlink()


def test_client_that_disconnects_ends_the_download(server: EmbeddedServer) -> None:
    path = server.root / "personal" / "dropped.bin"
    url = put(server, path.name, b"")
    os.truncate(path, 1 << 40)  # to read it all would take minutes
    for _ in range(3):
        response = begun(url)
        assert response.read(1000) == bytes(1000)
        assert descriptors(path) > 0
        response.close()
    eventually(lambda: descriptors(path) == 0, "the end of the downloads")
    eventually(lambda: inside(server).memory.used == 0, "the release of their memory")
    path.unlink()


class Reader:
    """A client of `Download`: takes each piece after `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.pieces: list[int] = []
        self._seconds = seconds

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(self._seconds)
            self.pieces.append(len(message["body"]))

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError


def pieces(path: Path, reader: Reader, memory: Memory) -> list[int]:
    """Download a file; return the sizes of the pieces that the ASGI server gets."""
    fd = os.open(path, os.O_RDONLY)
    scope: dict[str, Any] = {"type": "http", "method": "GET", "headers": []}
    with Held(memory, "client") as held:
        send = scope["answer"] = PacedSend(scope, held, Pace(0, 60.0, 60.0), reader.send)
        asyncio.run(Download("a", OpenFile(fd, os.fstat(fd)), {})(scope, reader.receive, send))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert memory.used == 0
    return reader.pieces


def test_pieces_are_large_for_a_client_that_reads_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(PIECE + 3 * LARGEST_PIECE))
    monkeypatch.setattr(answers, "QUICK", 60.0)
    assert pieces(path, Reader(), Memory()) == [PIECE, LARGEST_PIECE, LARGEST_PIECE, LARGEST_PIECE]
    monkeypatch.setattr(answers, "QUICK", 0.0)
    assert set(pieces(path, Reader(0.001), Memory())) == {PIECE}


def test_pieces_stay_small_without_room_in_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memory = tmp_path / "file", Memory()
    path.write_bytes(bytes(PIECE + 3 * LARGEST_PIECE))
    monkeypatch.setattr(answers, "QUICK", 60.0)
    memory.most = 16 << 20
    assert set(pieces(path, Reader(), memory)) == {PIECE}


def reading_threads(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Download a file that no read without waiting is supported for; return which reads the event loop made."""
    read, loop, found = os.preadv, threading.get_ident(), list[bool]()

    def preadv(fd: int, buffers: list[bytearray], offset: int, flags: int = 0, /) -> int:
        if flags:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        found.append(threading.get_ident() == loop)
        return read(fd, buffers, offset)

    with monkeypatch.context() as patches:
        patches.setattr(os, "preadv", preadv)
        assert sum(pieces(path, Reader(), Memory())) == path.stat().st_size
    return found


def test_file_on_a_disk_is_read_in_threads_where_the_system_can_not_say_whether_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(PIECE + LARGEST_PIECE))
    monkeypatch.setattr("uploader_server.http.files.in_memory", lambda _: False)
    assert set(reading_threads(path, monkeypatch)) == {False}


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="no file system in memory")
def test_file_in_memory_is_read_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_memory(os.stat("/proc").st_dev)
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(PIECE + LARGEST_PIECE))
        file.flush()
        assert set(reading_threads(Path(file.name), monkeypatch)) == {True}
