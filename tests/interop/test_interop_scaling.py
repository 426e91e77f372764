"""The set-up of docs/scaling.md: two @tus/server processes behind nginx share Redis, and a directory or S3."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import random
import re
import signal
import socket
import threading
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from command import start, uploader, workers_of
from docs_pages import ROOT, blocks, page
from interop.light_s3 import BUCKET
from interop.proxies import nginx_http, redis, running
from interop.stores import Store, light_s3, s3
from proxy import Onlooker, Proxy
from serving import free_port
from time_limits import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Sequence

    from command import Process
    from interop.foreign import Node
    from proxy import Request

pytestmark = [pytest.mark.interop, pytest.mark.debian]

CHUNK = 256 << 10
LARGE = 8_000_000
SIZES = [0, *random.Random(1).choices([1000, 20_000, 300_000, 1_000_000], [8, 8, 3, 1], k=195)]
SIZES[100:100] = [LARGE] * 4
assert len(SIZES) == 200
TUS = {"Tus-Resumable": "1.0.0"}


SERVERS = {"moto": s3, "s3": light_s3}


@dataclass
class Cluster:
    """Two processes behind one URL, and their directory, which is empty with the store S3."""

    url: str
    directory: Path
    processes: list[subprocess.Popen[str]]
    start: Callable[[int], subprocess.Popen[str]]
    store: Store | None
    ports: list[int]
    redis: str
    """Its URL."""

    @property
    def endpoint(self) -> str:
        """The creation URL."""
        return f"{self.url}/files"

    def digests(self) -> list[str]:
        """Return the digests of what is stored."""
        return sorted(hashlib.sha256(content).hexdigest() for content in self._stored())

    def _stored(self) -> Iterator[bytes]:
        if self.store is None:
            yield from (path.read_bytes() for path in self.directory.iterdir())
            return
        for listed in self.store.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for key in (one["Key"] for one in listed.get("Contents", ())):
                if not key.endswith(".info"):
                    yield self.store.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


@pytest.fixture
def kind() -> str:
    """The store of the cluster, where a test has no other."""
    return "directory"


@pytest.fixture
def cluster(node: Node, tmp_path: Path, kind: str) -> Iterator[Cluster]:
    """Run the configurations of the page, but for addresses, TLS and the directory."""
    text = {block.language: block.text for block in blocks(page("scaling.md"))}
    script = node.add("server.mjs", (ROOT / "docs/scaling/server.mjs").read_text(encoding="utf-8"))
    directory = tmp_path / "uploads"
    directory.mkdir()
    ports = [free_port(), free_port()]
    config = re.sub("listen 443 ssl;|server_name .*;|ssl_certificate.*;", "", text["nginx"])
    config = config.replace("server {", "server {\n    listen 127.0.0.1:{port};")
    for number, port in enumerate(ports, start=1):
        config = config.replace(f"10.0.0.1{number}:1080", f"127.0.0.1:{port}")
    with contextlib.ExitStack() as stack:
        shared = {"REDIS": stack.enter_context(redis(tmp_path)), "DIRECTORY": str(directory), "HOST": "127.0.0.1"}
        store = stack.enter_context(SERVERS[kind]()) if kind in SERVERS else None
        if store is not None:
            shared |= store.environment | {"BUCKET": BUCKET}

        def started(number: int) -> subprocess.Popen[str]:
            own = os.environ | shared | {"PORT": str(ports[number])}
            return stack.enter_context(running(["node", str(script)], ports[number], env=own))

        processes = [started(number) for number in range(2)]
        yield Cluster(
            stack.enter_context(nginx_http(tmp_path, config)),
            directory,
            processes,
            started,
            store,
            ports,
            shared["REDIS"],
        )


def test_upload_continues_at_the_other_process_after_a_kill(cluster: Cluster, tmp_path: Path) -> None:
    """200 files of mixed sizes, kill -9 of one process in the middle: all are stored once, with equal digests."""
    files = tmp_path / "files"
    files.mkdir()
    for number, size in enumerate(SIZES):
        (files / f"{number:03d}.bin").write_bytes(random.Random(number).randbytes(size))
    options = ("--chunk-size", str(CHUNK), "--jobs", "8", "--json")
    with Proxy(cluster.url, InTheMiddle(cluster)) as proxy:
        done = uploader("upload", files, "--tus-endpoint", f"{proxy.url}/files", *options, home=tmp_path)
    assert (done.code, len(done.of("file.completed"))) == (0, len(SIZES)), done.err
    assert cluster.digests() == sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in files.iterdir())
    assert [process.poll() is None for process in cluster.processes].count(False) == 1


class InTheMiddle(Onlooker):
    """Kills the process that writes a large file, while it waits for the rest of a chunk."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._lock, self._killed = cluster, threading.Lock(), False

    def head(self, request: Request) -> None:
        if int(request.headers.get("upload-offset", 0)) > LARGE // 2:
            request.mark = request.length // 2

    def at_mark(self, request: Request, piece: bytes) -> bytes:
        if request.passed < request.length:
            request.mark = request.length
            return piece
        with self._lock:
            if not self._killed:
                self._killed = True
                kill_writer(self._cluster)
        return piece


def kill_writer(cluster: Cluster) -> None:
    """Kill the process that has a large file open."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for process in cluster.processes:
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    file = descriptor.readlink()
                    if file.parent == cluster.directory and LARGE // 2 < file.stat().st_size < LARGE:
                        process.kill()
                        process.wait(PATIENCE)
                        return
    raise AssertionError("no process wrote a large file")


STORES = pytest.mark.parametrize("kind", ["directory", "moto", "s3"])


@STORES
def test_repeated_creation_finds_the_first_upload(cluster: Cluster) -> None:
    """Also at the other process, and with a body, as nginx repeats it; the bytes of the first one are kept."""
    metadata = {"Upload-Metadata": f"uploadKey {b64encode(b'0123456789abcdef' * 2).decode()}"}
    create = TUS | metadata | {"Upload-Length": "6"}
    body = {"Content-Type": "application/offset+octet-stream"}
    first = requests.post(cluster.endpoint, b"abc", headers=create | body, timeout=PATIENCE)
    url = f"{cluster.url}{first.headers['location']}"
    for process in cluster.processes:
        again = requests.post(cluster.endpoint, headers=create, timeout=PATIENCE)
        with_body = requests.post(cluster.endpoint, b"abc", headers=create | body, timeout=PATIENCE)
        assert (first.status_code, again.status_code, with_body.status_code) == (201, 201, 201)
        assert first.headers["location"] == again.headers["location"] == with_body.headers["location"]
        assert requests.head(url, headers=TUS, timeout=PATIENCE).headers["upload-offset"] == "3"
        if process is cluster.processes[0]:
            process.kill()
            process.wait(PATIENCE)
    requests.patch(url, b"def", headers=TUS | body | {"Upload-Offset": "3"}, timeout=PATIENCE)
    requests.post(cluster.endpoint, b"abcdef", headers=create | body, timeout=PATIENCE)
    assert cluster.digests() == [hashlib.sha256(b"abcdef").hexdigest()]
    assert requests.delete(url, headers=TUS, timeout=PATIENCE).status_code == 204
    assert cluster.digests() == []


@pytest.mark.parametrize("kind", ["moto", "s3"])
def test_parts_that_a_killed_process_did_not_join_are_joined_at_the_next_request(cluster: Cluster) -> None:
    created = requests.post(cluster.endpoint, headers=TUS | {"Upload-Length": "6"}, timeout=PATIENCE)
    assert cluster.store is not None
    client, key = cluster.store.client, created.headers["location"].rpartition("/")[2]
    (upload,) = client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload["UploadId"], PartNumber=1, Body=b"abcdef")
    for _ in range(2):
        found = requests.head(f"{cluster.url}{created.headers['location']}", headers=TUS, timeout=PATIENCE)
        assert found.headers["upload-offset"] == "6"
        assert cluster.digests() == [hashlib.sha256(b"abcdef").hexdigest()]


@pytest.mark.parametrize("kind", ["s3"])
def test_process_that_has_lost_its_lock_stores_nothing(cluster: Cluster) -> None:
    """It stands still in the middle of a request, and the other one continues the upload."""
    data, (slow, other) = random.Random(7).randbytes(12_000_000), cluster.ports
    created = requests.post(cluster.endpoint, headers=TUS | {"Upload-Length": str(len(data))}, timeout=PATIENCE)
    path, body = created.headers["location"], TUS | {"Content-Type": "application/offset+octet-stream"}

    def sent(offset: int, end: int) -> int:
        headers, url = body | {"Upload-Offset": str(offset)}, f"http://127.0.0.1:{other}{path}"
        answer = requests.patch(url, data[offset:end], headers=headers, timeout=PATIENCE)
        return int(answer.headers["upload-offset"])

    words = {**body, "Host": "files.example", "Upload-Offset": "0", "Content-Length": "1000000"}
    head = "\r\n".join([f"PATCH {path} HTTP/1.1", *(f"{name}: {value}" for name, value in words.items()), "", ""])
    with socket.create_connection(("127.0.0.1", slow), PATIENCE) as connection:
        connection.sendall(head.encode() + data[:500_000])
        while not is_locked(cluster, path):
            time.sleep(0.1)
        time.sleep(1)  # it has begun to write
        cluster.processes[0].send_signal(signal.SIGSTOP)
        offset = sent(0, 5_500_000)  # waits until the lock has expired
        cluster.processes[0].send_signal(signal.SIGCONT)
        connection.sendall(data[500_000:1_000_000])
        assert connection.recv(100).startswith(b"HTTP/1.1 423 ")
    while offset < len(data):
        offset = sent(offset, len(data))
    assert cluster.digests() == [hashlib.sha256(data).hexdigest()]


def is_locked(cluster: Cluster, path: str) -> bool:
    with socket.create_connection(("127.0.0.1", int(cluster.redis.rpartition(":")[2])), PATIENCE) as connection:
        connection.sendall(f"EXISTS lock:{path.rpartition('/')[2]}\r\n".encode())
        return connection.recv(100) == b":1\r\n"


WORKERS, JOBS = 4, 2
KILL_SERVER_EVERY, KILL_WORKER_EVERY = 5.0, 15.0
"""Seconds."""


LONG = [pytest.mark.acceptance, pytest.mark.timeout(7200)]


@pytest.mark.feature("fleet")
@pytest.mark.parametrize(
    ("kind", "how", "files", "large"),
    [
        pytest.param("s3", signal.SIGKILL, 200, 2, marks=LONG),
        ("directory", signal.SIGTERM, 200, 2),
        pytest.param("s3", signal.SIGKILL, 20_000, 20, marks=LONG),
        pytest.param("directory", signal.SIGKILL, 20_000, 20, marks=LONG),
    ],
)
def test_import_survives_kills_of_servers_workers_and_driver(
    cluster: Cluster, tmp_path: Path, files: int, large: int, how: signal.Signals
) -> None:
    """One server at a time is killed, or stopped in order: each file is stored once, with its digest."""
    source, expected = random.Random(5), []
    for number in range(files + large):
        path = tmp_path / "files" / f"{number % 100:02}" / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data := source.randbytes(30_000_000 if number >= files else source.randrange(1, 3000)))
        expected.append(hashlib.sha256(data).hexdigest())
    line: tuple[str, ...] = (
        "import",
        "files",
        "--tus-endpoint",
        cluster.endpoint,
        "--on",
        f"local:{WORKERS}",
        "--json",
    )
    # S3 stores whole parts of 5 MiB only, and one has to arrive between two kills.
    line += ("--json", "-j", str(JOBS), "--chunk-size", "5M", "--limit-rate", "40M", "--wait-for-server", "300")
    over = threading.Event()
    killer = threading.Thread(target=kill_servers, args=(cluster, how, over))
    killer.start()
    try:
        client = started_import(line, tmp_path)
        killed = kill_workers(client, tmp_path / "out", files // 3) + WORKERS  # with the driver
        client.kill()
        client.wait(PATIENCE)
        client = started_import(line, tmp_path)
        killed += kill_workers(client, tmp_path / "out", math.inf)
    finally:
        over.set()
        killer.join()
    assert client.returncode == 0, (tmp_path / "err").read_text()[-2000:]
    found = Counter(cluster.digests())
    assert [found[digest] for digest in expected] == [1] * len(expected)
    assert found.total() - len(expected) <= killed  # unfinished uploads


def started_import(line: Sequence[object], home: Path) -> Process:
    with (home / "out").open("wb") as stdout, (home / "err").open("wb") as stderr:
        return start(*line, home=home, stdout=stdout, stderr=stderr)


def kill_servers(cluster: Cluster, how: signal.Signals, over: threading.Event) -> None:
    """Kill the processes in turn, the next one only when the last one is back."""
    for number in itertools.cycle(range(2)):
        if over.wait(KILL_SERVER_EVERY):
            return
        cluster.processes[number].send_signal(how)
        cluster.processes[number].wait(PATIENCE)
        cluster.processes[number] = cluster.start(number)


def kill_workers(client: Process, out: Path, most: float) -> int:
    """Kill a worker now and then, from the first stored file until `most` are stored; return how many."""
    due, killed = 0.0, 0
    while client.poll() is None and (stored := out.read_bytes().count(b"file.completed")) < most:
        time.sleep(0.1)
        if not stored or time.monotonic() < due:
            continue
        if due and len(pids := workers_of(client.pid)) > 1:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(random.choice(pids), signal.SIGKILL)
                killed += 1
        due = time.monotonic() + KILL_WORKER_EVERY
    return killed
