"""A run of weeks with a shortened clock: thousands of files that come and go, and memory that stays flat."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from itertools import count
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from acceptance.soak import Held
from command import ended, start
from serving import server_process
from time_limits import PATIENCE

from uploader_cli.core import events as ev
from uploader_cli.core.plan import LocalFile
from uploader_cli.features.folder.arrivals import Arrivals
from uploader_cli.selection.filters import Filters

if TYPE_CHECKING:
    from pathlib import Path

    from command import Process

ROUNDS, FILES = 36, 100
BASE, AROUND = 12, 5
"""The round after which memory and objects are compared, and of how many rounds the median is taken."""
WITHIN = 1.03
CACHES = 1.10
"""How much memory may grow by the caches of databases, whose sizes are limited."""
DAYS, WALKS_OF_A_DAY = 7, 17_280


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("packs", [True, False])
def test_memory_of_an_unending_run_stays_flat(tmp_path: Path, packs: bool) -> None:
    """Each round is a day: files arrive, are sent and deleted, and the run waits. One object a file would be a leak."""
    (tmp_path / "in").mkdir()
    held: list[Held] = []
    with server_process(packs=packs) as server:
        line = ["upload", "--watch", tmp_path / "in", "-s", server.url, "--settle", "0.2", "--jobs", "2"]
        line += ["--json", "--progress", "none"]  # else stderr, which is not read meanwhile, is full after a month
        how: dict[str, Any] = {"imported": ("acceptance.counted",), "OBJECTS": str(tmp_path / "objects")}
        process = start(*line, "--report", "all.json", home=tmp_path, **how)
        assert process.stdout is not None
        seen = process.stdout.readline()
        for day in range(ROUNDS):
            made = {tmp_path / f"in/{day}/{number:04}.bin" for number in range(FILES)}
            (tmp_path / f"in/{day}").mkdir()
            for path in made:
                path.write_bytes(b"%d" % day)
            left = {str(path) for path in made}
            while left:
                event = json.loads(line := process.stdout.readline())
                seen += line
                if event["type"] == "file.completed":
                    left.remove(event["path"])
            for path in made:
                path.unlink()
            held.append(Held.by(process.pid))
            objects = counted(process, tmp_path / "objects", day + 1)
        done = ended(process, seen, signal.SIGTERM)
    assert done.code == 143
    assert done.finished["completed"] == ROUNDS * FILES
    before, after = Held.usual(held[BASE - AROUND : BASE]), Held.usual(held[-AROUND:])
    more = median(objects[-AROUND:]) - median(objects[BASE - AROUND : BASE])
    print(f"{(ROUNDS - BASE) * FILES} files after the first: {before} → {after}, {more} objects more: {objects}")
    assert more < (ROUNDS - BASE) * FILES / 2
    assert after.memory <= before.memory * CACHES
    assert after.descriptors <= before.descriptors + 1
    assert after.threads <= before.threads + 1


def counted(process: Process, path: Path, times: int) -> list[int]:
    """Ask the process for the number of its objects, and return all numbers once there are so many."""
    process.send_signal(signal.SIGUSR2)
    end = time.monotonic() + PATIENCE
    while not path.exists() or len(lines := path.read_text().splitlines(keepends=True)) < times:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    return [int(line) for line in lines]


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_memory_of_the_walks_of_a_week_stays_flat(tmp_path: Path) -> None:
    """120,960 walks, with a clock that advances when the walk sleeps; a file comes and goes in every tenth of them."""
    now, walks = [0.0], count(1)
    held: list[Held] = []
    arrivals = Arrivals([str(tmp_path)], Filters((), ()), settle=10.0, clock=lambda: now[0], sleep=partial(_add, now))

    def emit(_event: ev.Event) -> None:
        walk = next(walks)
        if walk % 10 == 0:
            (tmp_path / f"{walk}.bin").touch()
        if walk % WALKS_OF_A_DAY == 0:
            held.append(Held.by(os.getpid()))

    arrivals.emit = emit
    for step in arrivals:
        if isinstance(step, LocalFile):
            os.unlink(step.path)
            arrivals.listen([ev.FileSkipped(step.file, step.path, ev.SkipReason.PRESENT)])
        if len(held) == DAYS:
            break
    print(f"{held[0]} → {held[-1]}")
    assert held[-1].memory <= held[0].memory * WITHIN


def _add(now: list[float], seconds: float) -> None:
    now[0] += seconds
