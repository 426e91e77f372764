"""A hundred thousand files on four workers, which are killed at random (`kill -9`): all are stored, none twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from acceptance.bench import MIB, digests, make_files
from command import Done, start, workers_of
from serving import server_process
from time_limits import PATIENCE

if TYPE_CHECKING:
    from command import Process

FILES, LARGE, WORKERS = 100_000, 12, 4
KILL_EVERY = (3.0, 10.0)
"""Seconds from one kill to the next."""
LEAST_KILLS = 3
DEADLINE = 1800.0


@pytest.mark.acceptance
@pytest.mark.timeout(DEADLINE + PATIENCE)
@pytest.mark.parametrize("seed", [1])
def test_import_with_workers_killed_at_random_stores_each_file_once(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    sizes = {f"large/{number:02}.bin": (16 + number) * MIB for number in range(LARGE)}
    sizes |= {f"small/{number % 500:03}/{number:06}.bin": source.randrange(2048) for number in range(FILES)}
    top, root, out = tmp_path / "files", tmp_path / "root", tmp_path / "out"
    expected = make_files(top, sizes, seed)
    with server_process("--root", str(root), packs=True) as server:
        line: tuple[str | Path, ...] = (
            "import",
            top,
            "-s",
            server.url,
            "--on",
            f"local:{WORKERS}",
            "--chunk-size",
            "4M",
            "--json",
        )
        line += ("--wait-for-server", "300")
        with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
            client = start(*line, home=tmp_path, stdout=stdout, stderr=stderr)
        killed = kill_until_the_end(client, out, source)
        done = Done(client.wait(PATIENCE), out.read_text(), out.with_suffix(".err").read_text())
        print(f"{killed} kills, {len(done.of('warning'))} tasks ran again, {done.finished['seconds']} s")
        assert done.code == 0, done.err[-2000:]
        assert killed >= LEAST_KILLS
        assert digests(root / "personal") == expected
        private = root / ".uploader"
        assert [path for name in ("tus", "incoming") for path in (private / name).iterdir()] == []
        assert len(done.of("file.completed")) + len(done.of("file.skipped")) == len(expected)


def kill_until_the_end(client: Process, out: Path, source: random.Random) -> int:
    """Kill a random worker again and again from the first stored file on; return how many were killed."""
    killed, end = 0, time.monotonic() + DEADLINE
    while client.poll() is None and time.monotonic() < end:
        running = workers_of(client.pid) if killed or b"file.completed" in out.read_bytes() else []
        if len(running) > 1:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(source.choice(running), signal.SIGKILL)
                killed += 1
        pause = time.monotonic() + (source.uniform(*KILL_EVERY) if running else 0.1)
        while client.poll() is None and time.monotonic() < pause:
            time.sleep(0.05)
    return killed
