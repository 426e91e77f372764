"""What the server keeps in memory: of requests until they are answered, and of sessions."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import tracemalloc
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests
from server.batches import (
    DEADLINE,
    FromAddress,
    body_of,
    connected,
    eventually,
    file,
    new_session,
    progress,
    text,
    upload,
)
from server.packs.packing import body_of_pack, entry, headers_of, manifest_of, post_pack, send_pack
from server.tus.tus_client import BODY, create, metadata
from serving import ServerProcess, inside, running_server

from uploader_server.batch.intake import Intake
from uploader_server.http.memory import BUDGET, Held, Memory
from uploader_server.storage.categories import Categories
from uploader_server.storage.disk import Disk

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

MIB = 1 << 20
WIDE = "\U0001f600"  # one such character makes each character of a str need 4 bytes
MULTIPART = {"Content-Type": "multipart/form-data; boundary=BOUNDARY"}


class Unfinished(NamedTuple):
    """A request of which only the first bytes of the body are sent."""

    path: str
    headers: dict[str, str]
    body: bytes
    sent: int

    def begin(self, url: str, address: str = "") -> socket.socket:
        """Send it, from another address of this machine; the caller closes the connection."""
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(self.body)}"]
        head = "\r\n".join([*lines, *(f"{name}: {value}" for name, value in self.headers.items()), "", ""])
        connection = connected(url, address)
        with contextlib.suppress(ConnectionError):  # it may be refused before everything was sent
            connection.sendall(head.encode() + self.body[: self.sent])
        return connection


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as server:
        yield server


def pack(url: str, files: list[dict[str, Any]], data: bytes = b"") -> tuple[str, dict[str, str], bytes]:
    body = body_of_pack(manifest_of(new_session(url), {}, files=files), data)
    return "/api/upload/packs", headers_of(None), body


def manifest(url: str, size: int) -> Unfinished:
    """A pack that ends within its manifest."""
    path, headers, body = pack(url, [entry("x" * size, b"")])
    return Unfinished(path, headers, body, size)


def parsed_manifest(url: str, size: int) -> Unfinished:
    """A pack that ends where its data begins. Each of its many paths has a wide character."""
    files = [entry(f"{'x' * 3000}{WIDE}{number}", b"") for number in range(size // 3000)]
    path, headers, body = pack(url, files)
    return Unfinished(path, headers, body, body.index(b'name="data"'))


def data(url: str, size: int) -> Unfinished:
    """A pack that ends within its data."""
    path, headers, body = pack(url, [{**entry("x", b""), "size": size}], b"x" * size)
    return Unfinished(path, headers, body, len(body) - 100)


def texts(url: str, size: int) -> Unfinished:
    parts = [text("sessionId", new_session(url)), text("category", "personal")]
    parts += [text("relativePath", WIDE + "x" * 60_000) for _ in range(size // 60_000)]
    body = body_of([*parts, file("a.mp4", b"")])
    return Unfinished("/api/upload/batch", MULTIPART, body, len(body) - 200)


def names(url: str, size: int) -> Unfinished:
    """A batch of many empty files with long names."""
    parts = [text("sessionId", new_session(url)), text("category", "personal")]
    body = body_of([*parts, *(file("x" * 8000, b"") for _ in range(size // 9000))])
    return Unfinished("/api/upload/batch", MULTIPART, body, len(body) - 200)


def upload_metadata(url: str, size: int) -> Unfinished:
    headers = {**BODY, "Upload-Length": "1", "Upload-Metadata": metadata(filename="a.mp4", more="x" * 5000)}
    return Unfinished("/api/upload/files/", headers, b"x", 0)


def lookup(url: str, size: int) -> Unfinished:
    return Unfinished("/api/upload/lookup", {}, b" " * size, size - 1)


def validation(url: str, size: int) -> Unfinished:
    return Unfinished("/api/upload/validate", {}, b" " * size, size - 1)


def head(url: str, size: int) -> Unfinished:
    heads = {f"X-{number}": "x" * 8000 for number in range(8)}
    return Unfinished("/api/upload/files/", {**BODY, **heads, "Upload-Length": "1"}, b"x", 0)


KINDS = [head, manifest, parsed_manifest, data, texts, names, upload_metadata, lookup, validation]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_unfinished_requests_fill_the_budget_and_not_more(
    shared: EmbeddedServer, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, received = inside(shared).memory, shared.app.tracker.received
    most = 2 * MIB if kind in {upload_metadata, head} else 12 * MIB
    monkeypatch.setattr(memory, "most", most)
    request = kind(shared.url, MIB // 4)
    before = received()
    connections: list[socket.socket] = []
    try:
        refusal = b""
        while not refusal:
            assert len(connections) < 80
            connections.append(request.begin(shared.url))
            sent = before + request.sent * len(connections)
            refusal = answered(connections[-1], until=lambda: received() >= sent)  # noqa: B023 - called at once
            assert memory.used <= most / 2  # of one client
        assert refusal.startswith(b"HTTP/1.1 503 ")
        assert b"SERVER_BUSY" in refusal
        assert b"retry-after: 1" in refusal.lower()
        assert memory.used > most / 4
        if "metrics" in shared.app.parts:
            eventually(lambda: scraped(shared.url) == memory.used)
    finally:
        for connection in connections:
            connection.close()
    eventually(lambda: memory.used == 0, "the end of all requests")
    assert post_pack(shared.url, new_session(shared.url), {"good": b"1"}).status_code == 200


def answered(connection: socket.socket, until: Any) -> bytes:
    """The answer, or nothing once the condition has come true and none is there."""
    connection.settimeout(0.02)

    def answer() -> Any:
        with contextlib.suppress(TimeoutError, ConnectionError):
            return [connection.recv(65536)]
        return [b""] if until() else None

    return bytes(eventually(answer)[0])


def scraped(url: str) -> int:
    """`uploader_held_bytes` of `/metrics`."""
    lines = requests.get(f"{url}/metrics", timeout=DEADLINE).text.splitlines()
    return int(float(next(line for line in lines if line.startswith("uploader_held_bytes ")).split()[1]))


@pytest.mark.parametrize("end", ["disconnect", "refusal"])
def test_what_a_batch_kept_is_freed_when_it_fails(
    shared: EmbeddedServer, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not by a later garbage collection: the budget counts it no more."""
    intakes: list[weakref.ref[Intake]] = []

    def noted(self: Intake, sessions: Any, request: Any) -> None:
        intakes.append(weakref.ref(self))
        create(self, sessions, request)

    create = Intake.__init__
    monkeypatch.setattr(Intake, "__init__", noted)
    request = texts(shared.url, MIB)
    if end == "refusal":
        request = request._replace(sent=len(request.body), body=request.body.replace(b'"category"', b'"sessionId"'))
    gc.disable()
    try:
        with request.begin(shared.url):
            eventually(lambda: bool(intakes), "the request")
        eventually(lambda: intakes[0]() is None, "its end")
    finally:
        gc.enable()


def test_pack_without_room_is_refused_before_its_data(shared: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside(shared).memory, "most", 10 * MIB)
    request = data(shared.url, 3 * MIB)
    only_manifest = request._replace(sent=request.body.index(b"x" * 1000))
    with request.begin(shared.url):
        eventually(lambda: inside(shared).memory.used > 2 * MIB)
        with only_manifest.begin(shared.url) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 503 ")


def test_download_of_a_large_file_keeps_one_piece(shared: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside(shared).memory, "most", 2 * MIB)
    content = os.urandom(3 * MIB)
    upload(shared.url, file("large.mp4", content))
    for _ in range(3):
        answer = requests.get(f"{shared.url}/uploads/personal/large.mp4", timeout=DEADLINE)
        assert answer.content == content
    assert inside(shared).memory.used == 0


@pytest.mark.thorough
def test_each_client_leaves_as_much_as_it_keeps(shared: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """So slow requests of a few clients lock nobody out."""
    memory, received = inside(shared).memory, shared.app.tracker.received
    monkeypatch.setattr(memory, "most", 8 * MIB)
    request = data(shared.url, MIB // 8)
    connections: list[socket.socket] = []
    try:
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            refusal = b""
            while not refusal:
                assert len(connections) < 80
                sent = received() + request.sent
                connections.append(request.begin(shared.url, address))
                refusal = answered(connections[-1], until=lambda: received() >= sent)  # noqa: B023 - called at once
        kept = sorted(memory.clients.values(), reverse=True)  # about 4, 2 and 1 MiB
        free = memory.most - memory.used
        assert kept[2] < kept[1] < kept[0] <= memory.most / 2
        assert MIB / 2 < kept[2] <= free
        with requests.Session() as other:
            other.mount("http://", FromAddress("127.0.0.9"))
            body = {"category": "personal", "expectedFiles": 1}
            created = other.post(f"{shared.url}/api/upload/session", json=body, timeout=DEADLINE)
        assert created.status_code == 201
    finally:
        for connection in connections:
            connection.close()
    eventually(lambda: not memory.clients, "the end of all requests")


def test_request_that_never_fits_is_told_so(shared: EmbeddedServer) -> None:
    """Not 503: the client would repeat it for ever."""
    many = b'{"category":"personal","files":[' + b"1," * (2 * MIB - 100) + b"1]}"
    assert requests.post(f"{shared.url}/api/upload/lookup", data=many, timeout=DEADLINE).status_code == 413
    wide = json.dumps({"category": "personal", "files": [{"relativePath": WIDE * 300_000, "size": 1}]})
    assert requests.post(f"{shared.url}/api/upload/lookup", data=wide, timeout=DEADLINE).status_code == 200


def test_open_session_keeps_no_files_that_are_recorded(shared: EmbeddedServer) -> None:
    """The progress lists them from the database, in order."""
    session = new_session(shared.url, 9)
    upload(shared.url, file("a.mp4", b"1"), file("b.mp4", b"2"), session=session)
    create(shared.url, 1, b"3", filename="c.mp4", sessionId=session)
    send_pack(shared.url, session, {"d.mp4": b"4"})
    upload(shared.url, file("e.mp4", b"5"), file("../" + "x" * 300, b"6"), session=session)
    shown = progress(shared.url, session).json()
    assert [one["originalName"][:5] for one in shown["files"]] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "../xx"]
    assert (shown["completedFiles"], shown["failedFiles"], shown["overallStatus"]) == (5, 1, "uploading")
    assert not inside(shared).backend.sessions.known[session].files


@pytest.mark.thorough
@pytest.mark.feature("server/metrics")
def test_long_names_stay_neither_in_memory_nor_in_answers(tmp_path: Path) -> None:
    """Packs with one name of 4 MB each, and unfinished requests for several times the budget."""
    server = ServerProcess("--root", str(tmp_path), packs=True, fresh=True)
    try:
        before = resident(server.pid)
        session = new_session(server.url, 100)
        for number in range(3):
            (refused,) = send_pack(server.url, session, {f"{number}{'x' * (4 * MIB - 1000)}": b""})
            assert refused["error"] == "INVALID_PATH"
        assert len(progress(server.url, session).content) < 3 * 1000
        connections = []
        for kind in (manifest, texts):
            request = kind(server.url, 3 * MIB)
            connections += [request.begin(server.url) for _ in range(24)]
        eventually(lambda: scraped(server.url) > BUDGET / 4)
        assert scraped(server.url) <= BUDGET / 2  # of one client
        assert resident(server.pid) - before < 2 * BUDGET  # the allocator keeps freed memory, too
        for connection in connections:
            connection.close()
        eventually(lambda: scraped(server.url) == 0, "the end of all requests")
    finally:
        server.stop()


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux flushes them at once")
def test_flush_of_very_many_deep_directories_needs_little_memory(tmp_path: Path) -> None:
    """The paths of all directories of such a pack have 75 million characters."""
    disk = Disk(tmp_path, Categories(tmp_path, ()), durable=True)
    deep = [f"{tmp_path}/{number}/{'d/' * 1500}x.mp4" for number in range(33)]
    tracemalloc.start()
    try:
        disk.names(deep)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
        disk.close()


def resident(pid: int) -> int:
    """Bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_answer_that_several_requests_share_counts_once() -> None:
    """Until the last of them is over."""
    memory, body = Memory(), b"a" * 100
    with Held(memory) as last:
        with Held(memory) as first:
            for held in (first, last):
                held.keep_answer(body, must_fit=True)
                assert (memory.used, memory.clients) == (100, {"": 100})
        assert memory.used == 100
    assert (memory.used, memory.clients, memory.answers) == (0, {}, {})


def test_marks_of_sessions_are_read_when_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart and beyond the limit; a file that is sent again counts once all the same."""
    monkeypatch.setattr("uploader_server.sessions.MOST_MARKS", 1)
    with running_server(root=tmp_path, packs=True) as server:
        sessions = [new_session(server.url, 9) for _ in range(2)]
        for session in sessions:
            assert post_pack(server.url, session, {"a": session.encode(), "b": b"2"}).status_code == 200
        known = inside(server).backend.sessions.known
        assert [known[session].counted is None for session in sessions] == [True, False]
    with running_server(root=tmp_path, packs=True) as server:
        known = inside(server).backend.sessions.known
        assert [known[session].counted for session in sessions] == [None, None]
        for session in sessions:
            assert post_pack(server.url, session, {"a": session.encode(), "c": b"3"}).status_code == 200
            assert progress(server.url, session).json()["completedFiles"] == 3
