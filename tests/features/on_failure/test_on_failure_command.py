"""The command that runs when a run needs attention, and its outcome."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from time_limits import PATIENCE

from uploader_cli.core import events as ev
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import ProgressState
from uploader_cli.features.on_failure import attention
from uploader_cli.features.on_failure.attention import OnFailure
from uploader_cli.report.document import RunFacts
from uploader_cli.settings import Settings
from uploader_cli.settings.stored import storable

FACTS = RunFacts("cafe", "1.0", started=0.0)


def run(command: str, code: int | None, *, failed: int = 1, interrupted: Any = lambda: 0, limit: float = 60.0) -> None:
    """A run that ends with `code` (None: with an exception) and has this observer."""
    state, observer = ProgressState(), OnFailure(command, FACTS, interrupted, limit=limit)
    events: list[ev.Event] = [ev.RunStarted("http://x", failed, 0, 1, "tus")]
    for number in range(failed):
        failure = ev.FileFailed(number, f"{number}.mp4", ev.FailureCode.NETWORK, "gone", retryable=True)
        events += [ev.FileSelected(number, f"{number}.mp4", 1), failure]
    if code is not None:
        events.append(ev.RunFinished(code == 0, 0, failed, 0, 0, 0, 1.0, 0.0, code, ev.ChannelStats(), 1))
    for event in events:
        for out in reduce(state, event, 0.0):
            observer.handle(out, state, 0.0)
    observer.close(state, 1.0)


def keeping(path: Path) -> str:
    return f"cat > {shlex.quote(str(path))}"


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 7, None])
def test_on_failure_runs_after_each_end_that_needs_attention(code: int | None, tmp_path: Path) -> None:
    run(keeping(tmp_path / "report"), code)
    report = json.loads((tmp_path / "report").read_text())
    assert (report["run"], report["exit_code"]) == ("cafe", 1 if code is None else code)
    assert [row["path"] for row in report["files"]] == ["0.mp4"]
    assert report["files_left_out"] == 0


@pytest.mark.parametrize("code", [0, 130, 143])
def test_on_failure_does_not_run_after_success_or_interrupt(code: int, tmp_path: Path) -> None:
    run(keeping(tmp_path / "report"), code)
    assert not (tmp_path / "report").exists()


def test_on_failure_lists_some_failed_files_and_counts_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_FAILURES", 3)
    run(keeping(tmp_path / "report"), 3, failed=5)
    report = json.loads((tmp_path / "report").read_text())
    assert (len(report["files"]), report["files_left_out"], report["counts"]["failed"]) == (3, 2, 5)


def test_on_failure_report_conceals_upload_urls(tmp_path: Path) -> None:
    state, observer = ProgressState(), OnFailure(keeping(tmp_path / "report"), FACTS, lambda: 0)
    failure = ev.FileEnded(0, "a.mp4", None, ev.Phase.FAILED, upload_url="https://uploads.example/hunter2")
    observer.handle(failure, state, 0.0)
    observer.close(state, 1.0)
    (row,) = json.loads((tmp_path / "report").read_text())["files"]
    assert "https://uploads.example/" in row["upload_url"]
    assert "hunter2" not in row["upload_url"]


def test_on_failure_command_is_not_stored() -> None:
    settings = Settings(server="http://localhost:1", on_failure="echo s3cret")
    assert storable(settings) == storable(Settings(server="http://localhost:1"))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cat > /dev/null; exit 3", "the command failed with exit code 3"),
        ("exit 0", ""),
        ("no-such-command-of-ours 2> /dev/null", "the command failed with exit code 127"),
    ],
    ids=["fails", "does not read", "is none"],
)
def test_failure_of_the_on_failure_command_is_a_warning(
    command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(command, 3, failed=1000)  # more than a pipe holds
    assert capsys.readouterr().err == (f"warning: --on-failure: {said}\n" if said else "")


def child_that_lasts(path: Path) -> str:
    """A shell that waits for another process, which keeps its stdin open."""
    script = f"import os, time; open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} | cat"


def is_alive(pid: str) -> bool:
    """A zombie is not: the process that inherits it may reap it later."""
    try:
        status = Path("/proc", pid, "stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_slow_on_failure_command_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    run("sleep 600", 3, limit=0.0)
    assert capsys.readouterr().err == "warning: --on-failure: the command was stopped after 0 s\n"


def test_interrupt_ends_the_on_failure_command_and_its_children(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C once it is under way."""
    file = tmp_path / "pid"

    def interrupted() -> int:
        return int(file.exists() and bool(file.read_text()))

    run(child_that_lasts(file), 3, interrupted=interrupted, limit=600.0)
    assert capsys.readouterr().err == "warning: --on-failure: the command was stopped\n"
    until = time.monotonic() + PATIENCE
    while is_alive(file.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_alive(file.read_text())
