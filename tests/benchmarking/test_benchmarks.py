"""`python -m benchmarks` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.measure import BenchmarkError, until_connected
from serving import REPOSITORY
from time_limits import PATIENCE


def benchmarks(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=REPOSITORY,
        env=environment or None,
        check=False,
    )


@pytest.mark.thorough
def test_benchmark_list_names_each_case() -> None:
    done = benchmarks("--list")
    assert done.returncode == 0
    assert "| single | one file of 4 KiB |" in done.stdout.splitlines()


@pytest.mark.thorough
def test_a_case_prints_a_table_and_what_is_missing(tmp_path: Path) -> None:
    """curl and node are not in this PATH; no files are left."""
    uploader = Path(sys.executable).with_name("uploader")
    done = benchmarks("single", "--runs", "1", "--where", str(tmp_path), PATH=str(uploader.parent))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("| uploader | ") and line.endswith(" | 1 |") for line in lines)
    assert "- curl: is not in PATH" in lines
    assert any(line.startswith("- tus-js-client") for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_case_is_refused() -> None:
    done = benchmarks("singel")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no case singel; --list shows them" in done.stderr


def test_a_command_is_killed_and_measured_at_its_first_connection(tmp_path: Path) -> None:
    script = (
        "import socket, sys, time; from urllib.parse import urlsplit; url = urlsplit(sys.argv[1]); "
        "kept = socket.create_connection((url.hostname, url.port)); time.sleep(60)"
    )
    measured = until_connected([sys.executable, "-c", script], tmp_path, os.environ)
    assert 0 < measured.seconds < 60
    assert measured.cpu > 0


def test_a_command_that_never_connects_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="made no connection"):
        until_connected([sys.executable, "-c", "pass"], tmp_path, os.environ, limit=0.2)
