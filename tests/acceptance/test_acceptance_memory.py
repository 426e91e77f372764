"""Memory does not grow with the file: peak resident sizes of client and server, as reported by the kernel."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from acceptance.bench import MIB, Bench, sparse, watched_memory

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1024 * MIB
CLIENT, SERVER = 120 * MIB, 120 * MIB
"""Bytes. The client keeps at most 40 MiB of chunks over all workers."""


def stay_small(directory: Path, size: int, *options: str | int) -> None:
    """Upload one sparse file directly to the server."""
    with Bench(directory, fresh=True) as bench:
        bench.start("upload", sparse(directory / "big.bin", size), *options, server=bench.server.url)
        with watched_memory(bench.client.pid) as client, watched_memory(bench.server.pid) as server:
            done = bench.wait(840)
        stored = (bench.root / "personal/big.bin").stat().st_size
        shutil.rmtree(bench.root)
    seconds, reported = done.finished["seconds"], done.finished["peak_rss"]
    peaks = [f"{name} {peak / MIB:.1f} MiB" for name, peak in (("client", client[-1]), ("server", server[-1]))]
    print(f"{size / GIB:g} GiB {options}: {', '.join(peaks)}, {size / seconds / MIB:.0f} MiB/s")
    assert done.code == 0, done.err
    assert stored == size
    assert 0 < client[-1] < CLIENT
    assert 0 < server[-1] < SERVER
    assert client[-1] - 8 * MIB < reported < CLIENT  # the last reading may be some time before the end, or after it


@pytest.mark.thorough
def test_memory_is_smaller_than_a_file_of_128_mib(tmp_path: Path) -> None:
    """Short form: twice what the client needs, and more than its limit."""
    stay_small(tmp_path, 128 * MIB, "--jobs", 4)


@pytest.mark.thorough
def test_memory_is_smaller_than_a_batch_of_128_mib(tmp_path: Path) -> None:
    """Short form."""
    stay_small(tmp_path, 128 * MIB, "--protocol", "batch")


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_memory_during_a_file_of_10_gib(tmp_path: Path) -> None:
    """The file is sent in four parts, each chunk with its checksum."""
    stay_small(tmp_path, 10 * GIB, "--jobs", 4)


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_memory_during_a_batch_of_2_gib(tmp_path: Path) -> None:
    """The file is sent in one request."""
    stay_small(tmp_path, 2 * GIB, "--protocol", "batch")
