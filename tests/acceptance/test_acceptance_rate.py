"""`--limit-rate`, measured outside of the client: the bytes that arrive per interval stay within the limit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from acceptance.bench import MIB, Bench, sparse
from proxy import Onlooker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TUS = ("--protocol", "tus", "--jobs", 4, "--chunk-size", MIB)
BATCH = ("--protocol", "batch")


def rates(arrivals: Sequence[tuple[float, int]], seconds: float) -> list[float]:
    """Return bytes per second in intervals of the given length, one from every tenth of a second."""
    began, ended = arrivals[0][0], arrivals[-1][0]
    found = []
    while began + seconds <= ended:
        found.append(sum(count for when, count in arrivals if began <= when < began + seconds) / seconds)
        began += 0.1
    return found


class Arrivals(Onlooker):
    """Notes when how many bytes come from the client."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, int]] = []

    def passing(self, piece: bytes, *, to_server: bool) -> bytes:
        if to_server:
            self.pieces.append((time.monotonic(), len(piece)))
        return piece


def arrivals_of(
    directory: Path, options: tuple[str | int, ...], rate: int, seconds: float
) -> tuple[float, list[tuple[float, int]]]:
    """Upload four files in parallel for so long; return when the client was started, and what arrived when."""
    files = directory / "files"
    files.mkdir()
    for number in range(4):
        sparse(files / f"{number}.bin", int(rate * seconds / 4))
    with Bench(directory, arriving := Arrivals()) as bench:
        began = time.monotonic()
        bench.start("upload", files, *options, "--limit-rate", rate)
        done = bench.wait()
        arrivals = sorted(arriving.pieces)
    assert done.code == 0, done.err
    return began, arrivals


@pytest.mark.thorough
def test_rate_limit_over_a_short_upload(tmp_path: Path) -> None:
    """Short form: the whole upload takes no less time, but for the limiter's credit of 0.2 s."""
    rate = 4 * MIB
    began, arrivals = arrivals_of(tmp_path, TUS, rate, 2.5)
    assert sum(count for _, count in arrivals) <= rate * (arrivals[-1][0] - began + 0.3)


@pytest.mark.acceptance
@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [TUS, BATCH], ids=["tus", "batch"])
@pytest.mark.parametrize("rate", [2 * MIB, 20 * MIB])
def test_rate_limit_over_ten_seconds(tmp_path: Path, options: tuple[str | int, ...], rate: int) -> None:
    """The rate is within 5 %, shared by all workers."""
    seconds = 10.0
    _, arrivals = arrivals_of(tmp_path, options, rate, seconds + 1)
    measured = [found / rate for found in rates(arrivals, seconds)]
    print(f"{options} over {seconds:g} s: {min(measured):.3f} to {max(measured):.3f} of the limit")
    assert 0.95 <= min(measured) <= max(measured) <= 1.05
