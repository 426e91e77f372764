"""A server fault costs retries, and the report has its outcome."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from command import ended, read_until, start, uploader
from serving import ServerProcess, server_process
from time_limits import PATIENCE
from tus_services import Dying, Keyed, Service

from uploader_server.faults import Answer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

PATIENT = ("--wait-for-server", str(PATIENCE))


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


def outage(tmp_path: Path, rate: str, *options: str) -> tuple[subprocess.Popen[str], ServerProcess, str]:
    """Start an upload of 12 files, kill the server after the first one; return process, server and the lines seen."""
    files = tmp_path / "files"
    files.mkdir()
    for number in range(12):
        (files / f"{number:02}.mp4").write_bytes(bytes([number]) * 100_000)
    server = ServerProcess("--root", str(tmp_path / "root"))
    process = start(
        "upload", files, "-s", server.url, "--json", "--limit-rate", rate, "-j", "2", *options, home=tmp_path
    )
    seen = read_until(process, "file.completed")
    server.kill()
    return process, server, seen


@pytest.mark.thorough
def test_outage_is_waited_out_without_a_failed_file(tmp_path: Path) -> None:
    process, server, seen = outage(tmp_path, "200K", "--retries", "0", *PATIENT)
    seen += read_until(process, "warning", lambda event: event["code"] == "unreachable")
    with server_process("--root", str(tmp_path / "root"), "--port", str(urlsplit(server.url).port)):
        done = ended(process, seen)
        assert done.code == 0, done.err
    assert len(done.of("file.completed")) == 12
    stored = [path.read_bytes() for path in sorted((tmp_path / "root" / "personal" / "files").iterdir())]
    assert stored == [bytes([number]) * 100_000 for number in range(12)]


@pytest.mark.thorough
def test_untried_files_of_an_outage_are_summarised_and_listed(tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    process, _, seen = outage(tmp_path, "50K", "--wait-for-server", "0", "--failed-to", str(again))
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


PAGE = {"Content-Type": "text/html"}
GATEWAY = {"502": Answer(502), "503": Answer(503), "504": Answer(504, PAGE), "500 with a page": Answer(500, PAGE)}
"""Answers of a gateway whose server is down."""


@pytest.mark.parametrize("answer", GATEWAY.values(), ids=GATEWAY)
def test_answers_of_a_gateway_are_waited_out_as_a_refused_connection_is(
    answer: Answer, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    server.faults.next_answers("POST", "/api/upload/files/", [None, answer])
    server.faults.next_answers("GET", "/health", [None, answer, answer])
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    options = ("--json", "--retries", "0", "-j", "1", *PATIENT)
    done = uploader("upload", files, "-s", server.url, *options, home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 2)
    assert [event["code"] for event in done.of("warning")] == ["unreachable", "recovered"]


def test_outage_of_a_tus_server_behind_a_gateway_is_waited_out(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(10))
    with Service() as service:
        service.gateway = {1: 502, 2: 503, 3: 504}
        options = ("--tus-endpoint", service.url, "--json", "--retries", "0", *PATIENT)
        done = uploader("upload", tmp_path / "a.bin", *options, home=tmp_path)
    assert (done.code, done.finished["completed"]) == (0, 1)
    assert [event["code"] for event in done.of("warning")] == ["unreachable", "recovered"]


@pytest.mark.parametrize("tus", [True, False], ids=["tus", "sessions"])
def test_gateway_without_a_server_ends_the_run_after_the_first_contact(tus: bool, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(10))
    with Service() as service:
        service.gateway = dict.fromkeys(range(20), 502)
        where = ("--tus-endpoint", service.url) if tus else ("-s", service.url.removesuffix("/files/"))
        no_socket = {"uploader_cli.run.connections.DIAL_AFTER": PATIENCE}
        done = uploader("upload", tmp_path / "a.bin", *where, "--json", home=tmp_path, constants=no_socket)
        asked = len(service.requests)
    assert (done.code, asked) == (3, 6 if tus else 3)


def test_file_that_ends_the_server_three_times_fails_and_no_other_one_does(tmp_path: Path) -> None:
    """The server is restarted each time; files that were being sent meanwhile are stored."""
    files = tmp_path / "files"
    files.mkdir()
    for name in "abc":
        (files / name).write_bytes(name.encode() * 100)
    with Dying("b") as service:
        options = ("--tus-endpoint", service.url, "--json", "-j", "3", "--chunk-size", "64K", *PATIENT)
        done = uploader("upload", files, *options, home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, done.finished["completed"]) == (3, 2)
    assert (failed["path"], failed["code"], failed["retryable"]) == (str(files / "b"), "network", True)
    assert "the server went down each of 3 times" in failed["message"]
    assert service.deaths == 3


@pytest.mark.parametrize("readable", [True, False])
def test_creation_whose_answer_was_lost_is_found_by_its_key(readable: bool, tmp_path: Path) -> None:
    """The server has all bytes: nothing is sent again, and a reading tells whether the file is stored."""
    (tmp_path / "a.bin").write_bytes(b"a" * 1000)
    with Keyed() as service:
        service.readable = readable
        command = ("upload", "a.bin", "--tus-endpoint", service.url, "--json")
        done = uploader(*command, home=tmp_path, UPLOADER_BYTES_AT_CREATION="yes")
        assert (done.code, done.finished["completed"]) == ((0, 1) if readable else (4, 0))
        assert bytes(service.only.content) == b"a" * 1000
        assert [method for method, _ in service.requests].count("PATCH") == 0
