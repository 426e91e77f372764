"""Very many files, a very large one, and a day of the server, as in `nox -s endurance`."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from acceptance.bench import MIB, bytes_read, sparse, watched_memory
from acceptance.sink import Sink
from acceptance.soak import Held
from command import start
from server_clock import ServerClock
from serving import ServerProcess, running_server

from uploader_cli import Settings, upload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 1024 * MIB
HOURS = 2 * 3600.0
MEMORY = 200 * MIB


def run_to_end(*arguments: str | Path, home: Path) -> dict[str, Any]:
    """Return `run.finished`, with the client's highest resident size (`memory`) and the bytes that it `read`."""
    out = home / "out.jsonl"
    with out.open("wb") as file:
        client = start(*arguments, "--json", home=home, stdout=file, fresh=True)
        with watched_memory(client.pid) as memory, watched_memory(client.pid, bytes_read) as read:
            _, err = client.communicate(timeout=HOURS)
    assert client.returncode == 0, err
    with out.open("rb") as file:
        file.seek(-min(out.stat().st_size, 1 << 16), os.SEEK_END)
        last: dict[str, Any] = json.loads(file.read().splitlines()[-1])
    assert last["type"] == "run.finished"
    return {**last, "memory": memory[-1], "read": read[-1]}


# --- a million files --------------------------------------------------------------------------------------------------


def content(number: int) -> bytes:
    """Return 1 KiB that no other file has."""
    return b"%08d" % number * 128


def files_below(top: Path | str) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(top):
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(entry.path)
        else:
            yield entry


def size_of(top: Path) -> int:
    return sum(entry.stat().st_size for entry in files_below(top))


@pytest.mark.acceptance
@pytest.mark.timeout(2 * HOURS)
def test_million_files_and_a_repetition_that_sends_none(tmp_path: Path) -> None:
    """Each file is stored once with its bytes. The memory of neither side grows with their number."""
    count = 1_000_000
    for number in range(count):
        below = tmp_path / f"files/{number // 1000:03}"
        if number % 1000 == 0:
            below.mkdir(parents=True)
        (below / f"{number:06}.bin").write_bytes(content(number))
    server = ServerProcess("--root", str(tmp_path / "root"), "--durability", "none", packs=True, fresh=True)
    try:
        with watched_memory(server.pid) as servers:
            command = ("upload", tmp_path / "files", "-s", server.url)
            first = run_to_end(*command, home=tmp_path)
            second = run_to_end(*command, home=tmp_path)
    finally:
        server.kill()
    for name, run in (("first", first), ("second", second)):
        print(f"{name} run: {run['seconds']:.0f} s, client {run['memory'] / MIB:.0f} MiB at most")
    print(f"server {servers[-1] / MIB:.0f} MiB at most, database {size_of(tmp_path / 'root/.uploader') / MIB:.0f} MiB")
    print(f"journal {size_of(tmp_path / 'state') / MIB:.0f} MiB")
    assert (first["completed"], first["skipped"]) == (count, 0)
    assert (second["completed"], second["skipped"]) == (0, count)
    seen = set()
    for entry in files_below(tmp_path / "root/personal"):
        with open(entry.path, "rb") as file:
            assert file.read() == content(int(entry.name.partition(".")[0]))
        seen.add(entry.name)
    assert len(seen) == count
    assert max(first["memory"], second["memory"]) < MEMORY
    assert servers[-1] < 2 * MEMORY


# --- one file of 100 GiB ----------------------------------------------------------------------------------------------


def send_to_sink(directory: Path, size: int, kills: int) -> None:
    """Kill the client `kills` times on its way through a sparse file, then resume. No byte is sent or read twice."""
    began, peaks = time.monotonic(), []
    with Sink() as sink:
        path = sparse(directory / "large.bin", size)
        for number in range(1, kills + 1):
            client = start("upload", path, "--tus-endpoint", sink.url, "-q", home=directory, fresh=True)
            with watched_memory(client.pid) as memory:
                sink.wait_for(size * number // (kills + 1), HOURS)
                client.kill()
                client.communicate()
            peaks.append(memory[-1])
        end = run_to_end("resume", home=directory)
        print(f"{size / GIB:g} GiB in {time.monotonic() - began:.0f} s with {kills} kills")
        print(f"client {max(*peaks, end['memory']) / MIB:.0f} MiB at most")
        assert (end["completed"], sink.creations) == (1, 1)
        assert (sink.offset, sink.refused) == (size, 0)
        assert end["read"] < size  # the server gives out no file, so that there is nothing to compare it with
        assert max(*peaks, end["memory"]) < MEMORY


def test_file_of_256_mib_with_a_kill_is_sent_once(tmp_path: Path) -> None:
    """Short form."""
    send_to_sink(tmp_path, 256 * MIB, kills=1)


@pytest.mark.acceptance
@pytest.mark.timeout(2 * HOURS)
def test_file_of_100_gib_with_three_kills_is_sent_once(tmp_path: Path) -> None:
    """The server drops the bytes, so that the test needs no disk."""
    send_to_sink(tmp_path, 100 * GIB, kills=3)


# --- a day ------------------------------------------------------------------------------------------------------------


@pytest.mark.acceptance
@pytest.mark.timeout(HOURS)
def test_days_with_a_session_each_minute_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock advances by a minute after each upload. Every tenth minute something is left unfinished."""
    day, held = 24 * 60, []
    clock = ServerClock(monkeypatch)
    with (
        running_server(root=tmp_path / "root", durability="none", remembered_requests=0) as server,
        requests.Session() as http,
    ):
        settings = Settings(server=server.url, state_dir=tmp_path / "state")
        creation = {"Tus-Resumable": "1.0.0", "Upload-Length": "10", "Content-Type": "application/offset+octet-stream"}
        for minute in range(2 * day):  # the sessions of the first one have expired at the end of the second
            path = tmp_path / f"{minute:04}.mp4"
            path.write_bytes(b"%04d" % minute * 25)
            assert upload([path], settings).exit_code == 0
            path.unlink()
            if minute % 10 == 0:
                asked = {"category": "personal", "expectedFiles": 1}
                http.post(f"{server.url}/api/upload/session", json=asked, timeout=60).raise_for_status()
                files = f"{server.url}/api/upload/files/"
                http.post(files, headers=creation, data=b"some", timeout=60).raise_for_status()
            clock.ahead += 60
            held.append(Held.by(os.getpid()))
        base, end = Held.usual(held[day - 20 : day]), Held.usual(held[-20:])
        print(f"after a day {base}; after two {end}")
        clock.ahead += 8 * 24 * 3600  # sessions and unfinished uploads expire
        clock.wait_for_sweeps()
        activity = http.get(f"{server.url}/api/activity", timeout=60).json()
        left = [*(tmp_path / "root/.uploader/tus").iterdir(), *(tmp_path / "root/.uploader/incoming").iterdir()]
    assert len(list((tmp_path / "root/personal").iterdir())) == 2 * day
    assert (activity["sessions"], left) == ([], [])
    assert end.memory <= 1.1 * base.memory
    assert end.threads <= base.threads + 2
    assert end.descriptors <= base.descriptors + 2
