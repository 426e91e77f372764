"""A server fault costs retries, and the report has its outcome."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from command import ended, read_until, start, uploader
from serving import ServerProcess, server_process
from time_limits import PATIENCE

from uploader_server.faults import Answer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


def test_run_continues_degraded_after_a_server_fault(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """One file fails after its retries and needs attention; the other one is stored."""
    report = tmp_path / "report.json"
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503, {"Retry-After": "0"})] * 2)
    options = ("-s", server.url, "--json", "--report", report, "--retries", "1", "-j", "1")
    done = uploader("upload", make_files(**{"a.mp4": 10, "b.mp4": 10}), *options, home=tmp_path)
    assert done.code == 3
    assert (done.finished["completed"], done.finished["failed"]) == (1, 1)
    head = json.loads(report.read_text(encoding="utf-8"))
    assert head["metrics"] == done.finished["metrics"]
    (incident,) = [incident for incident in head["incidents"]["kept"] if incident["kind"] == "transfer"]
    assert (incident["ending"], incident["times"]) == ("needs_person", 1)
    assert incident["text"].startswith("server_error: ")
    assert head["started"] <= incident["ts"] <= head["finished"]


def outage(tmp_path: Path, *options: str) -> tuple[subprocess.Popen[str], ServerProcess, str]:
    """Start an upload of 12 files, kill the server after the first one; return process, server and the lines seen."""
    files = tmp_path / "files"
    files.mkdir()
    for number in range(12):
        (files / f"{number:02}.mp4").write_bytes(bytes([number]) * 100_000)
    server = ServerProcess("--root", str(tmp_path / "root"))
    process = start(
        "upload", files, "-s", server.url, "--json", "--limit-rate", "400K", "-j", "2", *options, home=tmp_path
    )
    seen = read_until(process, "file.completed")
    server.kill()
    return process, server, seen


def test_outage_is_waited_out_without_a_failed_file(tmp_path: Path) -> None:
    process, server, seen = outage(tmp_path, "--retries", "0", "--wait-for-server", str(PATIENCE))
    seen += read_until(process, "warning", lambda event: event["code"] == "unreachable")
    with server_process("--root", str(tmp_path / "root"), "--port", str(urlsplit(server.url).port)):
        done = ended(process, seen)
        assert done.code == 0, done.err
    assert len(done.of("file.completed")) == 12
    stored = [path.read_bytes() for path in sorted((tmp_path / "root" / "personal" / "files").iterdir())]
    assert stored == [bytes([number]) * 100_000 for number in range(12)]


def test_untried_files_of_an_outage_are_summarised_and_listed(tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    process, _, seen = outage(tmp_path, "--wait-for-server", "0", "--failed-to", str(again))
    done = ended(process, seen)
    untried = [event for event in done.of("file.skipped") if event["reason"] == "not_tried"]
    assert done.code == 3
    assert len(untried) == done.finished["cancelled"] >= 8
    assert len(done.of("file.failed")) <= 2
    assert done.finished["completed"] + done.finished["failed"] + done.finished["cancelled"] == 12
    assert done.finished["skipped"] == 0
    assert len(again.read_text().splitlines()) == 12 - done.finished["completed"]
    assert f"{len(untried)} not tried" in done.err
    assert "08.mp4" not in done.err
