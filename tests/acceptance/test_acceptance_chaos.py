"""Through a network that cuts, loses, resets, refuses, stalls and spoils: the run completes, and tells no lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bench import Bench
from chaos import CUT, FAULTS, FLIP, LOST, STALL, Chaos
from volumes import LONG, SHORT

if TYPE_CHECKING:
    from pathlib import Path

    from command import Done
    from volumes import Volume


def survived(directory: Path, volume: Volume, chaos: Chaos, *options: str | int, server: tuple[str, ...] = ()) -> Done:
    """Everything is stored once, with equal bytes; every fault was met, and reported where it cost an attempt."""
    files = directory / "files"
    expected = volume.make(files, 1)
    with Bench(directory, chaos, *server) as bench:
        bench.start("upload", files, *options)
        done = bench.wait(600)
        assert done.code == 0, done.err
        assert done.finished["completed"] == len(done.of("file.completed")) == len(expected)
        assert bench.stored() == expected
        assert bench.left_over() == []
    assert chaos.left == []
    costly = [fault for fault in chaos.done.values() if fault != STALL]
    print(f"{len(chaos.done)} faults, {len(done.of('file.retry'))} retries, {done.finished['seconds']} s")
    assert len(done.of("file.retry")) >= len(costly)
    return done


def tus(directory: Path, volume: Volume, seed: int, *, times: int, stall: float) -> None:
    chaos = Chaos(FAULTS, times, seed, kinds=("create", "patch"), every=4, stall=stall)
    done = survived(directory, volume, chaos, "--protocol", "tus", "--chunk-size", volume.chunk)
    assert [request.status for request in chaos.hit_by(FLIP)] == [460] * times
    assert all(event["verified"] for event in done.of("file.completed"))


def batch(directory: Path, volume: Volume, seed: int, *, times: int, stall: float) -> None:
    """Nothing in a batch would notice a flipped bit but `--verify`, so that none is flipped."""
    faults = [fault for fault in FAULTS if fault != FLIP]
    chaos = Chaos(faults, times, seed, kinds=("batch",), every=2, stall=stall)
    done = survived(directory, volume, chaos, "--protocol", "batch", server=("--max-files", "2"))
    assert [request.status for request in chaos.hit_by(LOST)] == [200] * times
    assert [request.status for request in chaos.hit_by(CUT)] == [0] * times
    assert not done.of("file.failed")


@pytest.mark.parametrize("seed", [6])
def test_a_bad_network(tmp_path: Path, seed: int) -> None:
    """Short form: each fault twice."""
    tus(tmp_path, SHORT, seed, times=2, stall=1.0)


@pytest.mark.parametrize("seed", [7])
def test_a_bad_network_in_batch_mode(tmp_path: Path, seed: int) -> None:
    """Short form: each fault once."""
    batch(tmp_path, SHORT, seed, times=1, stall=1.0)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [41, 42, 43])
def test_a_very_bad_network(tmp_path: Path, seed: int) -> None:
    """Each fault ten times; stalls of 10 s."""
    tus(tmp_path, LONG, seed, times=10, stall=10.0)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [51, 52])
def test_a_very_bad_network_in_batch_mode(tmp_path: Path, seed: int) -> None:
    """Each fault five times; stalls of 10 s."""
    batch(tmp_path, LONG, seed, times=5, stall=10.0)
