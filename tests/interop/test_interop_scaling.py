"""The set-up of docs/scaling.md: two @tus/server processes behind nginx share a directory and Redis."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from command import ended, read_until, start
from docs_pages import blocks, page
from interop.proxies import free_port, nginx_http, redis, running
from time_limits import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from interop.foreign import Node

pytestmark = [pytest.mark.interop, pytest.mark.debian]

CHUNK = 256 << 10
LARGE = 8_000_000
SIZES = [0, *random.Random(1).choices([1000, 20_000, 300_000, 1_000_000], [8, 8, 3, 1], k=195)]
SIZES[100:100] = [LARGE] * 4
assert len(SIZES) == 200
TUS = {"Tus-Resumable": "1.0.0"}


@dataclass
class Cluster:
    """Two processes behind one URL, and their directory."""

    url: str
    directory: Path
    processes: list[subprocess.Popen[str]]

    @property
    def endpoint(self) -> str:
        """The creation URL."""
        return f"{self.url}/files"


@pytest.fixture
def cluster(node: Node, tmp_path: Path) -> Iterator[Cluster]:
    """Run the configurations of the page, but for addresses, TLS and the directory."""
    text = {block.language: block.text for block in blocks(page("scaling.md"))}
    script, directory = node.add("server.mjs", text["js"]), tmp_path / "uploads"
    ports = [free_port(), free_port()]
    config = re.sub("listen 443 ssl;|server_name .*;|ssl_certificate.*;", "", text["nginx"])
    config = config.replace("server {", "server {\n    listen 127.0.0.1:{port};")
    for number, port in enumerate(ports, start=1):
        config = config.replace(f"10.0.0.1{number}:1080", f"127.0.0.1:{port}")
    with contextlib.ExitStack() as stack:
        shared = {"REDIS": stack.enter_context(redis(tmp_path)), "DIRECTORY": str(directory), "HOST": "127.0.0.1"}
        processes = [
            stack.enter_context(running(["node", str(script)], port, env=os.environ | shared | {"PORT": str(port)}))
            for port in ports
        ]
        yield Cluster(stack.enter_context(nginx_http(tmp_path, config)), directory, processes)


def digests(directory: Path) -> list[str]:
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir())


def test_upload_continues_at_the_other_process_after_a_kill(cluster: Cluster, tmp_path: Path) -> None:
    """200 files of mixed sizes, kill -9 of one process in the middle: all are stored once, with equal digests."""
    files = tmp_path / "files"
    files.mkdir()
    for number, size in enumerate(SIZES):
        (files / f"{number:03d}.bin").write_bytes(random.Random(number).randbytes(size))
    options = ("--tus-endpoint", cluster.endpoint, "--chunk-size", str(CHUNK), "--limit-rate", "30M", "--json")
    process = start("upload", files, *options, "--jobs", "8", home=tmp_path)
    seen = read_until(process, "file.progress", lambda event: event["size"] == LARGE and event["confirmed"] > CHUNK)
    cut = kill_while_it_writes_a_large_file(cluster)
    done = ended(process, seen)
    assert done.code == 0, done.err
    assert len(done.of("file.completed")) == len(SIZES)
    assert digests(cluster.directory) == digests(files)
    assert cut.stat().st_size == LARGE


def kill_while_it_writes_a_large_file(cluster: Cluster) -> Path:
    """Kill the process that has a large file open, and return that file."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for process in cluster.processes:
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed meanwhile
                    file = descriptor.readlink()
                    if file.parent == cluster.directory and CHUNK < file.stat().st_size < LARGE:
                        process.kill()
                        return file
    raise AssertionError("no process wrote a large file")


def test_repeated_creation_finds_the_first_upload(cluster: Cluster) -> None:
    """Also at the other process; the bytes of the first one are kept."""
    metadata = {"Upload-Metadata": f"uploadKey {b64encode(b'0123456789abcdef' * 2).decode()}"}
    create = TUS | metadata | {"Upload-Length": "6"}
    body = {"Content-Type": "application/offset+octet-stream"}
    first = requests.post(cluster.endpoint, b"abc", headers=create | body, timeout=PATIENCE)
    for process in cluster.processes:
        again = requests.post(cluster.endpoint, headers=create, timeout=PATIENCE)
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.headers["location"] == again.headers["location"]
        found = requests.head(f"{cluster.url}{again.headers['location']}", headers=TUS, timeout=PATIENCE)
        assert found.headers["upload-offset"] == "3"
        if process is cluster.processes[0]:
            process.kill()
            process.wait(PATIENCE)
    assert len(list(cluster.directory.iterdir())) == 1
