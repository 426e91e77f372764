"""`--log-file`: the run and its calls as JSON lines, in every command that talks to a server, and never a secret."""

from __future__ import annotations

import json
import os
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest
from command import Done, uploader
from serving import running_server

from uploader_cli import upload
from uploader_cli.__main__ import main
from uploader_cli.core.alarms import Alarms
from uploader_cli.run.connections import Connections
from uploader_cli.run.loop import Loop
from uploader_cli.run.views import open_log
from uploader_cli.settings import Settings
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

SESSION = "3f2b8c1e-5d4a-4b6f-9a7e-0c1d2e3f4a5b"


def read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="ascii").splitlines()]


def calls(log: Path) -> list[dict[str, Any]]:
    return [line for line in read(log) if line["event"] == "call"]


@pytest.mark.thorough
def test_log_has_the_run_and_its_calls(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Two runs in one file, distinguished by their ids, which the event stream has too."""
    files, log = make_files(**{"a.mp4": 10}), tmp_path / "run.log"
    runs = [
        uploader("upload", files, "-s", server.url, "--resend", "--json", "--log-file", log, home=tmp_path)
        for _ in range(2)
    ]
    for done in runs:
        mine = [line for line in read(log) if line["run"] == done.finished["run"]]
        assert [line["event"] for line in mine if line["event"] != "call"] == [
            event["type"] for event in done.events if event["type"] not in ("file.progress", "server.message")
        ]
        assert all(line["time"].endswith("Z") and line["level"] == "info" for line in mine)
        made = [line for line in mine if line["event"] == "call"]
        assert {line["request_id"].rpartition("-")[0] for line in made} == {done.finished["run"]}
        session = next(line for line in made if line["url"].endswith("/api/upload/session"))
        assert (session["method"], session["status"], session["error"]) == ("POST", 201, None)
        assert session["seconds"] > 0


def test_server_log_has_the_request_ids(make_files: Files, tmp_path: Path) -> None:
    """Each HTTP call of the client is found in the server's log by its id, with the same path and status."""
    log, access = tmp_path / "run.log", tmp_path / "access.log"
    with running_server(access_log=access, access_log_format="json") as server:
        done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--log-file", log, home=tmp_path)
        assert done.code == 0
    seen = {(line["requestId"], line["method"], line["path"], line["status"]) for line in read(access)}
    made = [line for line in calls(log) if line["status"] is not None and line["url"].startswith("http:")]
    assert {line["method"] for line in made} == {"GET", "POST"}
    for line in made:
        path = line["url"].removeprefix(server.url)
        assert (line["request_id"], line["method"], path, line["status"]) in seen


def test_server_log_has_the_id_of_a_realtime_connection(tmp_path: Path) -> None:
    """A websocket's too, with the time that it took."""
    began, log, access = time.monotonic(), tmp_path / "run.log", tmp_path / "access.log"
    with running_server(access_log=access, access_log_format="json") as server:
        settings = Settings(server=server.url, log_file=log)
        observer = open_log(settings, "cafe")
        assert observer is not None
        loop = Loop([observer], Alarms(stall=settings.stall))
        connections = Connections(settings, loop, "cafe")
        connections.start()
        deadline = time.monotonic() + 60
        while not calls(log) and time.monotonic() < deadline:
            loop.turn()
        connections.close()
    (dial,) = calls(log)[:1]
    assert (dial["url"], dial["status"]) == (f"{server.url.replace('http', 'ws')}/socket.io/", 101)
    assert 0 < dial["seconds"] <= time.monotonic() - began
    assert dial["request_id"].startswith("cafe-")
    assert dial["request_id"] in {line["requestId"] for line in read(access) if line["status"] == 101}


def run(*arguments: str | Path) -> int:
    return main(list(map(str, arguments)))


@pytest.mark.parametrize("command", ["status", "cancel", "delete", "validate"])
def test_calls_of_each_command_are_logged(
    command: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    log, what = tmp_path / "run.log", SESSION
    if command == "validate":
        what = str(make_files(**{"a.mp4": 1}))
    run(command, what, "-s", server.url, "--log-file", log, "--quiet")
    ids = [request.request_id for request in server.faults.requests]
    assert [line["request_id"] for line in calls(log)] == ids
    assert [line["status"] for line in calls(log)] == [request.status for request in server.faults.requests]


def test_the_library_logs_too(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    settings = Settings(server=server.url, log_file=log, state_dir=tmp_path / "state")
    assert upload(make_files(**{"a.mp4": 1}), settings).ok
    assert {line["event"] for line in read(log)} >= {"call", "run.started", "file.completed", "run.finished"}
    assert {line["request_id"] for line in calls(log)} >= {
        request.request_id for request in server.faults.requests if request.path.startswith("/api/upload")
    }


def test_request_ids_of_watch_have_its_run_id(server: EmbeddedServer, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    done = uploader("watch", SESSION, "--wait", "0", "-s", server.url, "--json", "--log-file", log, home=tmp_path)
    assert done.code == 6
    assert {line["run"] for line in read(log)} == {done.finished["run"]}
    assert {line["request_id"].rpartition("-")[0] for line in calls(log)} == {done.finished["run"]}


def test_a_call_without_an_answer_is_a_warning(server: EmbeddedServer, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    server.stop()
    assert run("status", SESSION, "-s", server.url, "--log-file", log, "--log-level", "warning") == 6
    (line,) = read(log)
    assert (line["level"], line["status"]) == ("warning", None)
    assert "refused" in line["error"]


def test_log_has_no_secret_and_mode_600(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Not even one that the server quotes: it fails the session with the token in its words."""
    words = json.dumps({"error": "BROKEN", "message": "can't take hunter2-token or hunter2-key"}).encode()
    server.faults.next_answers(
        "POST", "/api/upload/session", [Answer(400, {"content-type": "application/json"}, words)]
    )
    log = tmp_path / "run.log"
    options = ("-s", server.url, "--log-file", log, "--log-level", "debug", "--header", "X-Api-Key: hunter2-key")
    done: Done = uploader(
        "upload", make_files(**{"a.mp4": 1}), *options, "--retries", "0", home=tmp_path, UPLOADER_TOKEN="hunter2-token"
    )
    assert done.code != 0
    assert "hunter2" not in log.read_text(encoding="ascii")
    assert "***" in log.read_text(encoding="ascii")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_names_and_hints_that_resemble_headers_are_shown(server: EmbeddedServer, tmp_path: Path) -> None:
    said = json.dumps({"error": "NO", "message": "Send a token: Authorization: Bearer …"}).encode()
    server.faults.next_answers("POST", "/api/upload/*", [Answer(400, {"content-type": "application/json"}, said)] * 9)
    named, log = tmp_path / "Basic training.mp4", tmp_path / "run.log"
    named.write_bytes(b"x")
    done = uploader("upload", named, "-s", server.url, "--log-file", log, "--retries", "0", home=tmp_path)
    logged = [line.get("path") for line in read(log) if line["event"] in ("file.failed", "file.skipped")]
    assert logged == [str(named)]
    assert "Send a token: Authorization: Bearer …" in done.err
    assert "***" not in done.err


def test_existing_log_keeps_its_mode_and_lines(server: EmbeddedServer, tmp_path: Path) -> None:
    """The partial line of a killed process is no part of the next one."""
    log = tmp_path / "run.log"
    log.write_text('{"partial": ')
    os.chmod(log, 0o644)
    run("status", SESSION, "-s", server.url, "--log-file", log, "--quiet")
    assert stat.S_IMODE(log.stat().st_mode) == 0o644
    partial, line = log.read_text().splitlines()
    assert (partial, json.loads(line)["event"]) == ('{"partial": ', "call")


@pytest.mark.parametrize("command", ["upload", "status"])
def test_a_log_that_can_t_be_written_is_a_usage_error(
    command: str, server: EmbeddedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = {"upload": __file__, "status": SESSION}[command]
    assert run(command, what, "-s", server.url, "--log-file", tmp_path / "no" / "where") == 2
    assert "--log-file: " in capsys.readouterr().err
    assert not server.faults.requests


def test_upload_continues_when_the_log_disk_is_full(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    done = uploader("upload", make_files(**{"a.mp4": 1}), "-s", server.url, "--log-file", "/dev/full", home=tmp_path)
    assert done.code == 0
    assert "warning: the log file is not complete: No space left on device" in done.err
