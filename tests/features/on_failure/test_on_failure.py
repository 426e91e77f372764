"""`--on-failure` as a user has it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from command import uploader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer


def test_on_failure_command_gets_the_report_on_stdin(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """Its output goes to stderr after the summary; its own failure is only a warning."""
    server.faults.fail_files.append("bad*")
    files = make_files(**{"bad.mp4": 10, "ok.mp4": 9})
    command = ("--on-failure", "cat > report.json; echo called; exit 9")
    done = uploader("upload", files, "-s", server.url, "--protocol", "batch", "--json", *command, home=tmp_path)
    assert done.code == done.finished["exit_code"] == 4
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["run"], report["exit"], report["server"]) == (done.finished["run"], "failed_for_good", server.url)
    assert report["counts"] == {"selected": 2, "completed": 1, "failed": 1, "skipped": 0, "cancelled": 0}
    (row,) = report["files"]
    assert row["path"].endswith("bad.mp4")
    assert (row["size"], row["code"], row["retryable"]) == (10, "server_failed", False)
    assert row["session"] == done.of("session.created")[0]["session"]
    assert report["metrics"] == done.finished["metrics"]
    assert done.err.splitlines()[-2:] == ["called", "warning: --on-failure: the command failed with exit code 9"]
    assert command[1] not in done.err


def test_on_failure_command_does_not_run_after_success(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    done = uploader(
        "upload", make_files(**{"a.mp4": 1}), "-s", server.url, "--on-failure", "touch called", home=tmp_path
    )
    assert done.code == 0
    assert not (tmp_path / "called").exists()
