"""`uploader` uploads to @tus/server without checksums and concatenation, which cuts every third PATCH."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import requests
from command import start, uploader
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from interop.foreign import Node

pytestmark = pytest.mark.interop

KIB = 1 << 10
NAMED = f"filename {base64.b64encode(b'named.bin').decode()}"
CHUNK = 256 * KIB
JOBS = 4
LARGE = {f"large{number}.bin": (4 + number) * CHUNK + number for number in range(5)}
SMALL = {"empty.bin": 0, "small.bin": 1000, "one chunk.bin": CHUNK}


@dataclass
class TusServer:
    """A running @tus/server: its URL, its files and its counts."""

    url: str
    directory: Path

    @property
    def endpoint(self) -> str:
        """The creation URL."""
        return f"{self.url}/files"

    def counts(self) -> dict[str, int]:
        """Return the requests by method, the cut PATCH requests (`broken`), and the received bytes (`patched`)."""
        counts: dict[str, int] = requests.get(f"{self.url}/counts", timeout=PATIENCE).json()
        return counts

    def stored(self) -> list[tuple[str, str]]:
        """Return the name and SHA-256 of each complete file, sorted."""
        infos = [json.loads(path.read_text()) for path in self.directory.glob("*.json")]
        found = [(info["metadata"]["filename"], self.directory / info["id"], info["size"]) for info in infos]
        return sorted((name, sha256(path)) for name, path, size in found if path.stat().st_size == size)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def running(node: Node, directory: Path, cuts: list[int]) -> Iterator[TusServer]:
    process = node.start("tus_node_server.mjs", str(directory), json.dumps(cuts))
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        port = process.stdout.readline().strip()
        assert port, process.stderr.read()
        yield TusServer(f"http://127.0.0.1:{port}", directory)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def tus_server(node: Node, tmp_path: Path) -> Iterator[TusServer]:
    """Start a server that cuts PATCH requests after a seeded number of bytes, the first one after none."""
    directory = tmp_path / "store"
    directory.mkdir()
    cuts = [0, *(random.Random(3).randrange(CHUNK) for _ in range(30))]
    with running(node, directory, cuts) as server:
        yield server


@pytest.fixture
def files(make_file: Callable[[str, int], Path]) -> list[Path]:
    return [make_file(name, size) for name, size in (LARGE | SMALL).items()]


def expected(files: list[Path]) -> list[tuple[str, str]]:
    return sorted((path.name, sha256(path)) for path in files)


def options(tus_server: TusServer) -> list[str]:
    return ["--tus-endpoint", tus_server.endpoint, "--chunk-size", str(CHUNK), "--jobs", str(JOBS), "--json"]


def test_upload_completes_when_every_third_patch_is_cut(
    tus_server: TusServer, files: list[Path], tmp_path: Path
) -> None:
    """Each file is stored once and verified; each cut resends at most one chunk."""
    done = uploader("upload", *files, *options(tus_server), "--verify", home=tmp_path)
    assert done.code == 0, done.err
    assert tus_server.stored() == expected(files)
    assert {event["verified"] for event in done.of("file.completed")} == {True}
    assert len(done.of("file.completed")) == len(files)
    counts = tus_server.counts()
    assert counts["broken"] == counts["PATCH"] // 3 >= 10
    assert len(done.of("file.retry")) == counts["broken"]
    assert counts["POST"] == len(files)
    assert counts["patched"] <= sum(LARGE.values()) + counts["broken"] * CHUNK


def kill_in_the_middle(process: subprocess.Popen[str]) -> None:
    """Kill the client when a file is within a chunk after its first one."""
    assert process.stdout is not None
    events = map(json.loads, process.stdout)
    in_the_middle = any(0 < event["confirmed"] < event["sent"] for event in events if event["type"] == "file.progress")
    process.kill()
    process.communicate()
    assert in_the_middle, "it ended before that"


def test_resume_after_kills(tus_server: TusServer, files: list[Path], tmp_path: Path) -> None:
    """After two kills the last resume completes all files, stores none twice and resends little."""
    slow = ["--limit-rate", "1M"]
    kill_in_the_middle(start("upload", *files, *options(tus_server), *slow, home=tmp_path))
    kill_in_the_middle(start("resume", "--json", *slow, home=tmp_path))
    done = uploader("resume", "--json", "--limit-rate", "none", home=tmp_path)
    assert done.code == 0, done.err
    assert tus_server.stored() == expected(files)
    assert max(event["offset"] for event in done.of("file.started")) > 0
    counts = tus_server.counts()
    assert counts["POST"] <= len(files) + 2 * JOBS  # a creation interrupted by a kill may be repeated
    assert counts["patched"] <= sum((LARGE | SMALL).values()) + (counts["broken"] + 2 * JOBS) * CHUNK


def test_standard_input_and_existing_upload_survive_cuts(
    tus_server: TusServer, make_file: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """The length of the first is sent with its last chunk; the second one was created by somebody else."""
    piped, named = make_file("piped.bin", 7 * CHUNK + 3), make_file("named.bin", 6 * CHUNK + 5)
    with subprocess.Popen(["cat", piped], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        command = ("upload", "-", "--name", "piped.bin", *options(tus_server), "--verify")
        done = uploader(*command, home=tmp_path, stdin=cat.stdout)
    assert done.code == 0, done.err
    assert (done.of("file.completed")[0]["verified"], len(done.of("file.retry")) > 0) == (True, True)
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(named.stat().st_size), "Upload-Metadata": NAMED}
    url = requests.post(tus_server.endpoint, headers=headers, timeout=PATIENCE).headers["Location"]
    before = tus_server.counts()
    done = uploader("upload", named, "--upload-url", url, "--chunk-size", str(CHUNK), home=tmp_path)
    assert done.code == 0, done.err
    after = tus_server.counts()
    assert [after[method] - before[method] for method in ("OPTIONS", "POST", "DELETE")] == [0, 0, 0]
    assert tus_server.stored() == expected([piped, named])
