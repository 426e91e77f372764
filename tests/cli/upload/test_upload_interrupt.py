"""Interrupts: what is reported, what is left on the server, and how long the end takes."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING

import pytest
from command import Done, ended, read_until, start
from serving import running_server
from time_limits import SLACK

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

PROMISED = 2.0
"""Seconds to the end after Ctrl-C."""


def interrupted(process: subprocess.Popen[str], seen: str, *signals: int) -> tuple[Done, float]:
    """Send signals, wait for the end; the whole run and the seconds it took to end."""
    began = time.monotonic()
    done = ended(process, seen, *signals)
    return done, time.monotonic() - began


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def stored(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and ".uploader" not in path.parts]


def test_130_after_ctrl_c(server: EmbeddedServer, tmp_path: Path) -> None:
    """In the middle of a body: nothing is stored, every file is accounted for, the end comes in time."""
    big, other = sparse(tmp_path / "big.mp4", 4 << 30), sparse(tmp_path / "other.mp4", 10)
    process = start("upload", big, other, "-s", server.url, "--protocol", "batch", "--json", home=tmp_path, free=True)
    seen = read_until(process, "file.progress", lambda event: event["phase"] == "sending")
    done, seconds = interrupted(process, seen, signal.SIGINT)
    assert done.code == 130
    assert seconds < PROMISED * SLACK
    finished = done.finished
    assert (finished["exit_code"], finished["completed"], finished["cancelled"]) == (130, 0, 2)
    assert done.of("file.progress")[-1]["phase"] == "cancelled"
    assert done.of("session.finished")[-1]["status"] == "cancelled"
    assert "interrupted" in done.err
    assert stored(server.root) == []


@pytest.mark.thorough
def test_143_after_sigterm(server: EmbeddedServer, tmp_path: Path) -> None:
    """SIGTERM does the same, with its own code."""
    process = start(
        "upload", sparse(tmp_path / "big.mp4", 4 << 30), "-s", server.url, "--json", home=tmp_path, free=True
    )
    seen = read_until(process, "file.progress", lambda event: event["phase"] == "sending")
    done, seconds = interrupted(process, seen, signal.SIGTERM)
    assert (done.code, done.finished["exit_code"]) == (143, 143)
    assert seconds < PROMISED * SLACK


@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_cancel_from_another_terminal_ends_the_upload_with_4(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, protocol: str
) -> None:
    source = make_files(**{"small.bin": 10, "big.bin": 4 << 20})
    limits = ["--limit-rate", "256K", "--protocol", protocol]
    process = start("upload", source, "-s", server.url, *limits, "--json", home=tmp_path, free=True)
    seen = read_until(process, "file.progress", lambda event: event["phase"] == "sending")
    created = [event for event in map(json.loads, seen.splitlines()) if event["type"] == "session.created"]
    session = created[0]["session"]
    cancelled = start("cancel", session, "-s", server.url, home=tmp_path, free=True)
    assert ended(cancelled, "").code == 0
    done = ended(process, seen)
    assert (done.code, done.finished["failed"], done.of("file.retry")) == (4, 0, [])
    assert done.finished["cancelled"] == 2 - done.finished["completed"] > 0
    assert [event["text"] for event in done.of("warning")] == [
        "the run ended early: the session was cancelled by another client"
    ]
    assert done.of("session.finished")[-1]["status"] == "cancelled"


def test_a_second_ctrl_c_stops_at_once(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """During a minute of processing the second Ctrl-C does not wait; files that may be stored are reported."""
    with running_server(flavour="reference", processing_seconds=60.0) as server:
        process = start("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json", home=tmp_path, free=True)
        seen = read_until(process, "file.progress", lambda event: event["phase"] == "processing")
        done, seconds = interrupted(process, seen, signal.SIGINT, signal.SIGINT)
    assert done.code == 130
    assert seconds < PROMISED * SLACK
    assert "may_be_stored" in [event["code"] for event in done.of("warning")]


@pytest.mark.thorough
def test_ctrl_c_while_the_server_processes(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """The first Ctrl-C waits a moment for the answer."""
    with running_server(flavour="reference", processing_seconds=60.0) as server:
        process = start("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json", home=tmp_path, free=True)
        seen = read_until(process, "file.progress", lambda event: event["phase"] == "processing")
        done, seconds = interrupted(process, seen, signal.SIGINT)
    assert done.code == 130
    assert seconds < PROMISED * SLACK


@pytest.mark.thorough
def test_cancel_on_interrupt(subtests: pytest.Subtests, server: EmbeddedServer, tmp_path: Path) -> None:
    """The session is cancelled on the server only on request."""
    big = sparse(tmp_path / "big.mp4", 4 << 30)
    for options, cancels in (((), 0), (("--cancel-on-interrupt",), 1)):
        with subtests.test(options=options, cancels=cancels):
            process = start("upload", big, "-s", server.url, "--json", *options, home=tmp_path, free=True)
            seen = read_until(process, "file.progress", lambda event: event["phase"] == "sending")
            done, _ = interrupted(process, seen, signal.SIGINT)
            assert done.code == 130
            assert server.faults.count("POST", "/api/upload/cancel/*") == cancels


def test_ctrl_c_during_the_wait_before_a_retry(server: EmbeddedServer, tmp_path: Path) -> None:
    """A long Retry-After does not delay the end."""
    from uploader_server.faults import Answer

    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503, {"Retry-After": "600"})])
    process = start("upload", sparse(tmp_path / "a.mp4", 10), "-s", server.url, "--json", home=tmp_path, free=True)
    seen = read_until(process, "file.retry")
    done, seconds = interrupted(process, seen, signal.SIGINT)
    assert (done.code, done.finished["cancelled"]) == (130, 1)
    assert seconds < PROMISED * SLACK
