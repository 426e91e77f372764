"""The exit codes, each by a run of the command that ends with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from command import finish, start, uploader
from feature_samples import of
from serving import closed_port, running_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


def test_0_when_every_file_is_confirmed(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Exit 0, and the server has the bytes that were sent."""
    files = make_files(**{"a.mp4": 5000, "deep/b c.mp4": b"\0\1\2" * 1000})
    done = uploader("upload", files, "--server", server.url, home=tmp_path)
    assert done.code == 0, done.err
    stored = server.root / "personal" / "files"
    assert (stored / "a.mp4").read_bytes() == (files / "a.mp4").read_bytes()
    assert (stored / "deep" / "b c.mp4").read_bytes() == (files / "deep" / "b c.mp4").read_bytes()
    assert "2 files" in done.err
    assert done.out == ""


def test_2_for_a_missing_path(server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """With one missing path no request is made."""
    files = make_files(**{"a.mp4": 10})
    done = uploader("upload", files, "gone.mp4", "--server", server.url, home=tmp_path)
    assert done.code == 2
    assert "gone.mp4" in done.err
    assert len(server.faults.requests) == 0


def test_2_for_an_empty_selection(server: EmbeddedServer, tmp_path: Path) -> None:
    """A directory without files is not a success."""
    (tmp_path / "empty").mkdir()
    done = uploader("upload", "empty", "--server", server.url, home=tmp_path)
    assert done.code == 2
    assert "nothing to upload" in done.err


def test_3_for_a_retryable_failure(server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """A server that answers only errors is a reason to retry."""
    server.faults.next_answers("POST", "/api/upload/files/", [503] * 10)
    done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--retries", "1", home=tmp_path)
    assert done.code == 3
    assert "a.mp4" in done.err
    assert server.faults.count("POST", "/api/upload/files/") == 2


def test_6_when_the_server_answered_only_an_earlier_run(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Only this run counts; a server that is lost during a run is exit code 3."""
    files = make_files(**{"a.mp4": 10})
    with running_server() as server:
        command = ("upload", files, "-s", server.url, "--retries", "0")
        assert uploader(*command, home=tmp_path).code == 0
    with closed_port(server.url):
        assert uploader(*command, home=tmp_path).code == 6


def test_4_for_a_permanent_failure(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """One file fails inside a 200: it is named, the others are there, exit 4."""
    with running_server(flavour="reference", processing_seconds=0.01, fail_files=("bad*",)) as server:
        files = make_files(**{"good.mp4": 10, "bad.mp4": 11})
        done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert done.code == 4
    assert [event["path"] for event in done.of("file.failed")] == [str(files / "bad.mp4")]
    assert [event["path"] for event in done.of("file.completed")] == [str(files / "good.mp4")]
    assert "bad.mp4" in done.err


def test_4_for_a_refused_session_names_no_other_client(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    server.faults.next_answers("POST", "/api/upload/session", [400])
    done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url, home=tmp_path)
    assert done.code == 4
    assert "exit code 4: the run ended early; not retryable\n" in done.err
    assert "→ to retry once that is corrected: " in done.err


def test_5_without_a_valid_token(server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """A 401 ends the run at once."""
    server.faults.next_answers("POST", "/api/upload/session", [401])
    done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json", home=tmp_path)
    assert done.code == 5
    assert [event["reason"] for event in done.of("file.skipped")] == ["not_tried"]
    assert [event["code"] for event in done.of("warning")] == ["run_ended"]
    assert "UPLOADER_TOKEN" in done.err


@pytest.mark.parametrize("option", ["--token-file", "--token-command", "--header", "pipe"])
def test_5_with_a_token_says_that_this_token_is_refused(
    option: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """A pipe that yields nothing more has no other token."""
    (tmp_path / "token").write_text("wrong-token")
    values = {"--token-file": "token", "--token-command": "echo wrong-token", "--header": "Authorization: Bearer wrong"}
    how: dict[str, Any] = {"home": tmp_path, "constants": {"uploader_cli.settings.bearer.AGAIN_LIMIT": 0.2}}
    with running_server(auth_token="the-right-token") as server:
        command = ["upload", make_files(**{"a.mp4": 10}), "-s", server.url]
        if option == "pipe":
            os.mkfifo(tmp_path / "pipe")
            process = start(*command, "--token-file", "pipe", **how)
            (tmp_path / "pipe").write_text("wrong-token")  # opens once there is a reader
            done = finish(process)
        else:
            done = uploader(*command, option, values[option], **how)
    assert done.code == 5
    assert "→ the server refuses this token: it may have expired or be for another server\n" in done.err


@pytest.mark.parametrize(
    "command", [["upload"], of("fleet", ["import", "--on", "local:1"])], ids=lambda words: words[0]
)
def test_6_when_no_server_answers(command: list[str], make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Nothing listens there, and every file is reported. `--wait-for-server` is for a server that has answered."""
    with closed_port() as port:
        line = (*command, make_files(**{"a.mp4": 10}), "-s", f"127.0.0.1:{port}", "--wait-for-server", "60", "--json")
        done = uploader(*line, home=tmp_path)
    assert done.code == 6
    assert done.finished["exit_code"] == 6
    assert [event["reason"] for event in done.of("file.skipped")] == ["not_tried"]
    assert "in parallel)" not in done.err  # how files travel is not known yet
    assert done.of("run.started")[0]["protocol"] == "auto"


def test_6_when_another_kind_of_server_answers(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Something else answers at that address."""
    done = uploader("upload", make_files(**{"a.mp4": 10}), "-s", server.url + "/elsewhere", home=tmp_path)
    assert done.code == 6
    assert "not as an upload server does" in done.err
