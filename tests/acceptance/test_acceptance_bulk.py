"""A hundred thousand small files: all are stored, in little memory, with a moving view, and none is sent twice."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from acceptance.accidents import CREATION, Moment, Trap
from acceptance.arrivals import Arrivals, log_to
from acceptance.bench import MIB, Bench, make_files, peak_memory, watched_memory
from acceptance.screen import Screen
from acceptance.sent_bytes import created_by, kind_of
from command import start, uploader
from time_limits import SLACK

from uploader_cli.core.jobs import MOST_JOBS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from command import Done, Process

ENDPOINT = "/api/upload/files/"
KIB = 1 << 10
MEMORY = 200 * MIB
FIRST, FRAME = 2.0, 0.2
"""Seconds to the first byte, and from one frame of the live view to the next."""
LONG, SHORT = (100_000, 1_000), (120, 12)
"""Files and directories."""
DEADLINE = 1500.0


class Set:
    """Files of 1 KiB with different contents, and a server that logs requests."""

    def __init__(self, directory: Path, volume: tuple[int, int], seed: int) -> None:
        self.top, self._log = directory / "files", directory / "access.log"
        self.count, directories = volume
        names = (f"{number % directories:04}/{number:06}.mp4" for number in range(self.count))
        self.expected = make_files(self.top, dict.fromkeys(names, KIB), seed)
        """SHA-256 by the path on the server."""
        self.server_options = log_to(self._log)

    def check_stored(self, bench: Bench) -> None:
        """Check that every file is stored once with its bytes, and nothing else."""
        stored = bench.stored()
        assert len(stored) == self.count
        assert stored == self.expected
        assert bench.left_over() == []

    def check_sent_once(self, kills: int) -> Arrivals:
        """Check that each kill resends at most one file per worker."""
        arrivals = Arrivals(self._log)
        print(f"{arrivals.requests - self.count} files resent after {kills} kills")
        assert self.count <= arrivals.requests <= self.count + kills * MOST_JOBS
        assert arrivals.bytes <= KIB * arrivals.requests
        return arrivals


def last_event(done: Done) -> dict[str, Any]:
    """Return `run.finished` without reading hundreds of thousands of lines before it."""
    end: dict[str, Any] = json.loads(done.out[done.out.rindex("\n", 0, -1) :])
    assert end["type"] == "run.finished"
    return end


# --- one run ----------------------------------------------------------------------------------------------------------


def send_all(directory: Path, volume: tuple[int, int], seed: int) -> tuple[dict[str, Any], float, Screen]:
    """Send all in one run with the live view. Return the first event, the seconds to the first byte, the view."""
    files = Set(directory, volume, seed)
    with Bench(directory, None, *files.server_options) as bench:
        with Screen() as screen:
            began = time.time()
            bench.start("upload", files.top, "--progress", "live", server=bench.server.url, terminal=screen.theirs)
            with watched_memory(bench.client.pid) as memory:
                done = bench.wait(DEADLINE)
        server, end = peak_memory(bench.server.pid), last_event(done)
        assert (done.code, end["completed"]) == (0, files.count), screen.last
        files.check_stored(bench)
    first, seconds = files.check_sent_once(kills=0).first - began, end["seconds"]
    print(f"{files.count} files in {seconds:.1f} s, {files.count / seconds:.0f}/s; first byte after {first:.2f} s")
    print(f"client {memory[-1] / MIB:.1f} MiB, server {server / MIB:.1f} MiB at most")
    assert max(memory[-1], end["peak_rss"]) < MEMORY
    assert "all confirmed" in screen.last
    return dict(json.loads(done.out.partition("\n")[0])), first, screen


def usual_gap(screen: Screen) -> float:
    """Return the median of the seconds between frames."""
    gaps = screen.gaps()
    middle, nearly, late = gaps[len(gaps) // 2], gaps[len(gaps) * 99 // 100], sum(gap > FRAME for gap in gaps)
    said = f"median {middle:.3f}, 99 % {nearly:.3f}, longest {gaps[-1]:.3f} s; {late} took more than {FRAME} s"
    print(f"{len(screen.frames)} frames, from one to the next: {said}")
    return middle


@pytest.mark.thorough
def test_bulk_of_small_trees(tmp_path: Path) -> None:
    """Short form."""
    begun, _, _ = send_all(tmp_path, SHORT, seed=1)
    assert begun["files"] == SHORT[0]


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
def test_bulk_of_100000_files(tmp_path: Path) -> None:
    """Sending starts during the walk, when the number of files is still unknown. The view never stops."""
    begun, first, screen = send_all(tmp_path, LONG, seed=2)
    assert 0 < first < FIRST * SLACK
    assert begun["files"] is None
    assert usual_gap(screen) < FRAME
    assert screen.gaps()[-1] < FRAME * SLACK


# --- killed in the middle ---------------------------------------------------------------------------------------------


def kill_twice(directory: Path, volume: tuple[int, int], seed: int) -> Done:
    """Kill the run at seeded moments, repeat the command, then resume; return the output of the last run."""
    source, trap, files = random.Random(seed), Trap(), Set(directory, volume, seed)
    moments = [Moment(CREATION, source.randint(files.count // 10, files.count // 3), source.random()) for _ in range(2)]
    with Bench(directory, trap, *files.server_options) as bench:
        for epoch, moment in enumerate(moments):
            trap.set([moment], bench.kill_client, born=epoch)
            bench.start("upload", files.top, "--progress", "none")
            assert bench.wait(DEADLINE).code == -9
            bench.proxy.epoch += 1
        # Not the creations: a repeated one is a request more, not a file.
        stored = {
            created_by(one) for one in bench.proxy.requests if kind_of(one) == "create" and 200 <= one.status < 300
        }
        bench.start("resume", "--progress", "none")
        with watched_memory(bench.client.pid) as memory:
            done = bench.wait(DEADLINE)
        end = last_event(done)
        print(f"killed at {', '.join(map(str, moments))}; client {memory[-1] / MIB:.1f} MiB at most")
        print(f"then {end['skipped']} were there, {end['completed']} were sent in {end['seconds']:.1f} s")
        assert done.code == 0, done.err
        files.check_stored(bench)
    files.check_sent_once(kills=len(moments))
    assert end["completed"] + end["skipped"] == files.count
    # The receipt is written after the answer: a kill prevents at most that of one file per worker. Such a file is found
    # by its key, and ends as completed.
    assert end["skipped"] >= len(stored) - len(moments) * MOST_JOBS
    assert 0 < memory[-1] < MEMORY
    return done


@pytest.mark.thorough
def test_bulk_of_small_trees_with_two_kills(tmp_path: Path) -> None:
    """Short form: stored files are reported as such, and each file has one end event."""
    done = kill_twice(tmp_path, SHORT, seed=3)
    assert {event["reason"] for event in done.of("file.skipped")} == {"present"}
    ends = [event["path"] for kind in ("file.completed", "file.skipped") for event in done.of(kind)]
    assert len(set(ends)) == len(ends) == SHORT[0]


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
def test_bulk_of_100000_files_with_two_kills(tmp_path: Path) -> None:
    """No stored file is resent."""
    kill_twice(tmp_path, LONG, seed=4)


# --- in shards --------------------------------------------------------------------------------------------------------


def send_in_shards(directory: Path, volume: tuple[int, int], shards: int, seed: int) -> None:
    """Run all shards in parallel in one home; kill one and restart it during or after the others.

    That one is started first: it is killed after its run has begun.
    """
    source, trap, files = random.Random(seed), Trap(), Set(directory, volume, seed)
    reports = [directory / f"shard-{number}.json" for number in range(1, shards + 1)]
    victim, moment = source.randrange(shards), Moment(CREATION, source.randint(1, files.count // shards // 2))
    with Bench(directory, trap, *files.server_options) as bench:
        running: dict[int, Process] = {}

        def begin(number: int) -> None:
            line = ("upload", files.top, "-q", "--shard", f"{number + 1}/{shards}", "--report", reports[number])
            running[number] = start(*line, home=bench.home, UPLOADER_SERVER=bench.proxy.url)

        try:
            trap.set([moment], lambda: running[victim].kill())
            begin(victim)
            while not bench.proxy.count(f"POST {ENDPOINT}") and running[victim].poll() is None:
                time.sleep(0.005)
            for other in range(shards):
                if other != victim:
                    begin(other)
            assert running[victim].wait(DEADLINE) == -9
            running[victim].communicate()
            assert not reports[victim].exists()
            running[victim] = start("resume", "-q", "--report", reports[victim], home=bench.home)
            check_ended(running.values())
        finally:
            for process in running.values():
                process.kill()
        files.check_stored(bench)
    print(f"shard {victim + 1} of {shards} killed at {moment}")
    files.check_sent_once(kills=1)
    check_merged(reports, sorted(files.expected), directory)


def check_ended(running: Iterable[Process]) -> None:
    """Check that all succeed. With `-q` none prints more than a pipe buffers."""
    for process in running:
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said


def check_merged(reports: Sequence[Path], paths: list[str], directory: Path) -> None:
    """Check that the merged report has every file once and is complete."""
    assert uploader("report", "merge", *reports, "-q", "-o", "all.json", home=directory).code == 0
    whole = json.loads((directory / "all.json").read_text())
    print(f"merged: {whole['counts']}, {whole['skips']}, of {[run['counts']['selected'] for run in whole['runs']]}")
    assert sorted(row["relative_path"] for row in whole["files"]) == paths
    assert (whole["ok"], whole["missing"], whole["in_several_shards"]) == (True, [], 0)
    assert whole["counts"]["completed"] + whole["skips"].get("present", 0) == len(paths)


@pytest.mark.thorough
def test_bulk_of_small_trees_in_two_shards(tmp_path: Path) -> None:
    """Short form."""
    send_in_shards(tmp_path, SHORT, 2, seed=5)


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
def test_bulk_of_100000_files_in_four_shards(tmp_path: Path) -> None:
    """Kill one of them during its upload."""
    send_in_shards(tmp_path, LONG, 4, seed=6)
