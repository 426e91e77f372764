"""A journal that can't be written or stays locked: the upload and its report continue."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import Done, ended, environment, finish, read_confirmed, start, uploader
from serving import running_server
from time_limits import PATIENCE, SLACK

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

KIB = 1 << 10
FULL = 100_000
"""Bytes beyond which no file of the client can grow: its journal meets that after some files."""
PROMISED = 2.0
"""Seconds to the end after Ctrl-C."""


def with_a_full_disk(*arguments: str | Path, home: Path) -> Done:
    """Run the command where no file can grow beyond `FULL` bytes."""
    variables = environment(home)
    variables.pop("COVERAGE_PROCESS_CONFIG", None)  # its data file could not be written
    process = subprocess.Popen(
        [sys.executable, "-m", "uploader_cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=variables,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL)),
    )
    return finish(process)


@pytest.mark.parametrize("flavour", ["bundled", pytest.param("reference", marks=pytest.mark.thorough)])
def test_full_state_directory_in_the_middle_is_one_warning(flavour: str, make_files: Files, tmp_path: Path) -> None:
    """Every file has an end event, the list of failed files is complete, and the exit code concerns the files alone."""
    files = make_files(**{f"{number:03}.mp4": 10 for number in range(80)}, **{"bad.mp4": 10})
    with running_server(flavour=flavour, processing_seconds=0.001, fail_files=("bad*",), rate_limit=0) as server:
        options = ("-s", server.url, "-j", "1", "--failed-to", tmp_path / "failed.txt", "--json")
        done = with_a_full_disk("upload", files, *options, home=tmp_path)
        stored = list((server.root / "personal").rglob("*.mp4"))
    assert done.code == done.finished["exit_code"] == 4
    (warning,) = done.of("warning")
    assert warning["code"] == "journal"
    assert "--state-dir" in warning["text"]
    assert {event["path"] for event in done.of("file.completed")} == {str(path) for path in files.glob("0*")}
    assert [event["path"] for event in done.of("file.failed")] == [str(files / "bad.mp4")]
    assert (tmp_path / "failed.txt").read_text() == f"{files / 'bad.mp4'}\n"
    assert len(stored) == 80


def locked(home: Path) -> closing[sqlite3.Connection]:
    """Another program that keeps the journal for itself."""
    holder = sqlite3.connect(home / "state" / "uploader" / "journal.sqlite3", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return closing(holder)


def wait_for_journal(process: subprocess.Popen[str]) -> None:
    """Return when the process has its journal open."""
    until = time.monotonic() + PATIENCE
    while not any(name.endswith("journal.sqlite3") for name in open_files(process.pid)):
        assert time.monotonic() < until, "the journal was never opened"
        time.sleep(0.01)
    time.sleep(0.2)  # what comes next waits for the lock


def open_files(pid: int) -> list[str]:
    """The paths of what a process has open."""
    paths = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in between
            paths.append(str(link.readlink()))
    return paths


@pytest.mark.thorough
def test_ctrl_c_during_a_run_with_a_locked_journal_ends_in_time(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": 640 * KIB})
    options = ("-s", server.url, "--chunk-size", "16K", "--limit-rate", "40K", "--json")
    process = start("upload", files, *options, home=tmp_path)
    seen = read_confirmed(process, 16 * KIB)
    with locked(tmp_path):
        time.sleep(0.5)  # the next chunk ends, and its record waits
        began = time.monotonic()
        done = ended(process, seen, signal.SIGINT)
    assert time.monotonic() - began < PROMISED * SLACK
    assert (done.code, done.finished["cancelled"]) == (130, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("command", "number", "code"),
    [("upload", signal.SIGINT, 130), ("upload", signal.SIGTERM, 143), ("resume", signal.SIGINT, 130)],
)
def test_interrupt_while_a_locked_journal_is_opened_ends_in_time(
    command: str, number: int, code: int, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": 10})
    upload = ("upload", files, "-s", server.url)
    server.faults.next_answers("POST", "/api/upload/files/", [400])
    assert uploader(*upload, home=tmp_path).code == 4
    with locked(tmp_path):
        process = start(*(upload if command == "upload" else ["resume"]), home=tmp_path)
        wait_for_journal(process)
        began = time.monotonic()
        done = ended(process, "", number)
    assert time.monotonic() - began < PROMISED * SLACK
    assert done.code == code
