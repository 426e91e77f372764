"""A hundred thousand files on four workers, which are killed at random (`kill -9`): all are stored, none twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from bench import MIB, Bench, make_files
from command import uploader
from patience import PATIENCE

FILES, LARGE, WORKERS = 100_000, 12, 4
KILL_EVERY = (2.0, 8.0)
"""Seconds from one kill to the next."""
LEAST_KILLS = 5
DEADLINE = 1800.0


def workers_of(pid: int) -> list[int]:
    """Return the worker processes that a command has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.acceptance
@pytest.mark.timeout(DEADLINE + PATIENCE)
@pytest.mark.parametrize("seed", [1])
def test_import_with_workers_killed_at_random_stores_each_file_once(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    sizes = {f"large/{number:02}.bin": (16 + number) * MIB for number in range(LARGE)}
    sizes |= {f"small/{number % 500:03}/{number:06}.bin": source.randrange(2048) for number in range(FILES)}
    top = tmp_path / "files"
    expected = make_files(top, sizes, seed)
    with Bench(tmp_path) as bench:
        bench.start("import", top, "--on", f"local:{WORKERS}", "--chunk-size", "4M", server=bench.server.url)
        killed = kill_until_the_end(bench, source)
        done = bench.wait()
        print(f"{killed} kills, {len(done.of('warning'))} warnings, {done.finished['seconds']} s")
        assert done.code == 0, done.err[-2000:]
        assert killed >= LEAST_KILLS
        assert bench.stored() == expected
        assert bench.left_over() == []
        ends = len(done.of("file.completed")) + len(done.of("file.skipped"))
        assert ends == len(expected)
        again = uploader("upload", top, "-s", bench.server.url, "--skip-existing", "--json", home=bench.home)
        assert (again.code, again.finished["completed"]) == (0, 0)


def kill_until_the_end(bench: Bench, source: random.Random) -> int:
    """Kill a random worker again and again while the client runs; return how many were killed."""
    assert bench.client is not None
    killed, end = 0, time.monotonic() + DEADLINE
    wait_for_output(bench, end)
    while bench.client.poll() is None and time.monotonic() < end:
        if running := workers_of(bench.client.pid):
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(source.choice(running), signal.SIGKILL)
                killed += 1
        pause = time.monotonic() + source.uniform(*KILL_EVERY)
        while bench.client.poll() is None and time.monotonic() < pause:
            time.sleep(0.05)
    return killed


def wait_for_output(bench: Bench, end: float) -> None:
    """Wait until the first file has ended."""
    while not bench._out.read_bytes().count(b"file.completed") and time.monotonic() < end:
        time.sleep(0.1)
