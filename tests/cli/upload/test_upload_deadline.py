"""`--deadline`: an orderly, resumable stop after a given time."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from command import environment, uploader
from serving import running_server

from uploader_cli import Settings, Uploader

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


def files_of(tmp_path: Path, count: int = 6) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    for number in range(count):
        (directory / f"{number}.mp4").write_bytes(bytes([number]) * 300_000)
    return directory


@pytest.mark.thorough
@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_deadline_stops_in_order_and_the_run_resumes(server: EmbeddedServer, tmp_path: Path, protocol: str) -> None:
    """Exit code 3; running files are cancelled, untried ones skipped; the next run sends the rest.

    No file may be running at the deadline: the start of the run takes as long as the machine needs.
    """
    files = files_of(tmp_path)
    options = ("-s", server.url, "--no-pack", "-j", "1", "--protocol", protocol)
    slow = ("--limit-rate", "150K", "--deadline", "3s", "--failed-to", "rest.jsonl", "--json")
    done = uploader("upload", files, *options, *slow, home=tmp_path)
    assert done.code == 3, done.err
    finished = done.finished
    assert finished["exit_code"] == 3
    assert finished["completed"] + finished["cancelled"] == 6
    assert (finished["failed"], finished["skipped"]) == (0, 0)
    untried = [event for event in done.of("file.skipped") if event["reason"] == "not_tried"]
    running = finished["cancelled"] - len(untried)
    assert running in ((0, 1) if protocol == "tus" else (0, 6))  # a batch has all files
    assert [event["code"] for event in done.of("warning")].count("deadline") == 1
    assert 2.5 <= finished["seconds"] < 20
    assert len((tmp_path / "rest.jsonl").read_text().splitlines()) == finished["cancelled"]
    (line,) = [line for line in done.err.splitlines() if "the deadline" in line]
    assert line.startswith("■ stopped at the deadline of 3.0 s (--deadline): ")
    assert "to resume: uploader resume, or the same command again" in done.err
    rest = uploader("upload", files, *options, "--json", home=tmp_path)
    assert rest.code == 0, rest.err
    stored = {file.name: file.read_bytes() for file in server.root.rglob("*.mp4")}
    assert stored == {f"{number}.mp4": bytes([number]) * 300_000 for number in range(6)}


def test_deadline_ends_a_wait_for_the_server(tmp_path: Path, server: EmbeddedServer) -> None:
    """A rate limit of ten minutes does not outlast the deadline."""
    server.faults.add("status:session:429,retry-after=600")
    done = uploader("upload", files_of(tmp_path, 1), "-s", server.url, "--deadline", "3", home=tmp_path)
    assert done.code == 3, done.err
    assert "■ stopped at the deadline of 3.0 s (--deadline): 0 of 1 file stored" in done.err


def test_deadline_before_the_first_answer_is_exit_code_6(tmp_path: Path) -> None:
    """The server never answered in this run, of which nothing is left to be resumed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = uploader("upload", files_of(tmp_path, 1), "-s", address, "--deadline", "1", home=tmp_path)
    assert done.code == 6, done.err
    assert "■ stopped at the deadline of 1.0 s (--deadline): 0 of 1 file stored" in done.err
    assert "exit code 6: the server never answered" in done.err
    assert "uploader resume" not in done.err


@pytest.mark.thorough
def test_permanent_failure_outranks_the_deadline(tmp_path: Path) -> None:
    with running_server(types=("mp4",)) as server:
        files, refused = files_of(tmp_path), tmp_path / "named.exe"
        refused.write_bytes(b"refused")
        options = ("-s", server.url, "--limit-rate", "50K", "--deadline", "6")  # the server tells its types before that
        done = uploader("upload", refused, files, *options, home=tmp_path)
    assert done.code == 4, done.err
    assert "stopped at the deadline of 6.0 s" in done.err


@pytest.mark.thorough
def test_run_within_its_deadline_is_not_affected(server: EmbeddedServer, tmp_path: Path) -> None:
    done = uploader("upload", files_of(tmp_path), "-s", server.url, "--deadline", "1h30m", "--json", home=tmp_path)
    assert done.code == 0, done.err
    assert done.of("warning") == []
    assert json.loads(done.out.splitlines()[-1])["ok"]


def test_deadline_of_a_library_call(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = Settings(server=server.url, state_dir=tmp_path / "state", limit_rate=50_000, deadline=3.0)
    result = Uploader(settings).upload([files_of(tmp_path)])
    assert not result.ok
    assert result.exit_code == 3


@pytest.mark.parametrize("raw", ["0", "-1", "10x", "1m1h", "m", ""])
def test_invalid_deadline_is_a_usage_error(raw: str, tmp_path: Path) -> None:
    done = uploader("upload", tmp_path, "-s", "localhost:1", f"--deadline={raw}", home=tmp_path)
    assert done.code == 2
    assert "--deadline: must be " in done.err
    assert "a number of seconds (or 10m, 1h30m), more than 0" in done.err


def test_time_of_the_shell_before_the_command_does_not_count(server: EmbeddedServer, tmp_path: Path) -> None:
    """A shell replaces itself by its last command, whose process has begun when the shell began."""
    files = files_of(tmp_path, 1)
    command = shlex.join([sys.executable, "-m", "uploader_cli", "upload", str(files), "-s", server.url, "--json"])
    began = time.monotonic()
    shell = ["sh", "-c", f"sleep 1; exec {command}"]
    done = subprocess.run(shell, env=environment(tmp_path), capture_output=True, text=True, check=True, cwd=tmp_path)
    finished = json.loads(done.stdout.splitlines()[-1])
    assert finished["seconds"] <= time.monotonic() - began - 1.0
