"""`--report` and `--failed-to`: refused destinations, and the files that failed runs write."""

from __future__ import annotations

import json
import os
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from command import ended, read_until, start
from serving import running_server

from uploader_cli.__main__ import main
from uploader_cli.feature import formats
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

pytestmark = pytest.mark.usefixtures("_there")


@pytest.fixture
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_report_has_the_format_of_its_suffix_or_prefix(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The suffix decides the format, a prefix overrides it, and an existing file is replaced."""
    make_files(**{"a.mp4": 10, "sub/b.mp4": 20})
    (tmp_path / "r.json").write_text("{}")
    names = ["r.json", "r.csv", "csv:report.txt"]
    assert main(["upload", "files", "-s", server.url, "-q", *(f"--report={name}" for name in names)]) == 0
    document = json.loads((tmp_path / "r.json").read_text())
    assert [(row["path"], row["outcome"]) for row in document["files"]] == [
        ("files/a.mp4", "completed"),
        ("files/sub/b.mp4", "completed"),
    ]
    assert (document["counts"]["completed"], document["bytes"], document["exit"]) == (2, 30, "ok")
    assert (tmp_path / "r.csv").read_text().count("\n") == 3
    assert (tmp_path / "r.csv").read_text() == (tmp_path / "report.txt").read_text()
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert left == ["r.csv", "r.json", "report.txt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--report", "gone/r.json"], "no such directory"),
        (["--report", "files"], "unknown report format"),
        (["--report", "json:files"], "is a directory"),
        (["--failed-to", "gone/again.txt"], "no such directory"),
        (["--report", "r.csv", "--failed-to", "./r.csv"], "written twice"),
        (["--report", "r.txt"], "unknown report format"),
        (["--report", "json:"], "must be text"),
        (["--failed-to", "files/a.mp4"], "not the name of a list"),
    ],
)
def test_invalid_report_destination_is_an_error_before_the_upload(
    server: EmbeddedServer,
    make_files: Callable[..., Path],
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_files(**{"a.mp4": 10})
    assert main(["upload", "files", "-s", server.url, *options]) == 2
    assert words in capsys.readouterr().err
    assert len(server.faults.requests) == 0


def test_removed_report_directory_exits_2_and_keeps_the_upload(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The uploads and the other report are complete; exit code 2 names the missing report."""

    make_files(**{"a.mp4": 10})
    real, asked = os.fsync, iter(range(9))

    def full(descriptor: int) -> None:
        if next(asked) == 0:  # of the first report
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main(["upload", "files", "-s", server.url, "--report", "r.json", "--report", "r.csv"]) == 2
    assert (server.root / "personal" / "files" / "a.mp4").is_file()
    assert (tmp_path / "r.csv").is_file()
    assert list(tmp_path.glob("*r.json*")) == []


def test_failed_to_lists_paths_one_a_line(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Plain paths, one a line; an empty list where nothing failed."""
    with running_server(flavour="reference", processing_seconds=0.01, fail_files=("bad*",)) as server:
        make_files(**{"a.mp4": 10, "bad.mp4": 20, "notes.txt": 1})
        assert main(["upload", "files", "-s", server.url, "-q", "--failed-to", "again.txt"]) == 4
        assert (tmp_path / "again.txt").read_text() == "files/bad.mp4\n"
        assert main(["upload", "files/a.mp4", "-s", server.url, "-q", "--failed-to", "again.txt"]) == 0
        assert (tmp_path / "again.txt").read_text() == ""


def test_failed_to_lists_files_that_fail_fast_did_not_start(make_files: Callable[..., Path], tmp_path: Path) -> None:
    with running_server(flavour="reference", processing_seconds=0.01, fail_files=("b*",)) as server:
        make_files(**{f"{name}.mp4": 10 for name in "abcde"})
        assert (
            main(["upload", "files", "-s", server.url, "-q", "-j", "1", "--fail-fast", "--failed-to", "again.jsonl"])
            == 4
        )
    again = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert [row["path"] for row in again] == ["files/b.mp4", "files/d.mp4", "files/e.mp4"]
    assert [row["name"] for row in again] == ["files/b.mp4", "files/d.mp4", "files/e.mp4"]


def test_failed_to_is_nul_separated_for_a_name_with_a_line_break(
    make_files: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No name is lost, and a message says how to read the list."""
    with running_server(flavour="reference", processing_seconds=0.01, fail_files=("*",)) as server:
        make_files(**{"a.mp4": 10, "b\nc.mp4": 10, "d\udcff.mp4": b"d"})
        assert main(["upload", "files", "-s", server.url, "--failed-to", "again.txt"]) == 4
    assert (tmp_path / "again.txt").read_bytes() == b"files/a.mp4\0files/b\nc.mp4\0files/d\xff.mp4\0"
    assert "-0" in capsys.readouterr().err


def test_a_run_that_never_reached_its_server_is_reported(make_files: Callable[..., Path], tmp_path: Path) -> None:
    make_files(**{"a.mp4": 10})
    assert main(["upload", "files", "-s", "127.0.0.1:1", "-q", "--report", "r.json"]) == 6
    document = json.loads((tmp_path / "r.json").read_text())
    assert (document["ok"], document["exit"], document["counts"]["cancelled"]) == (False, "no_server", 1)
    assert (document["files"][0]["outcome"], document["files"][0]["reason"]) == ("cancelled", "not_tried")


@pytest.mark.thorough
def test_a_terminated_run_is_reported(server: EmbeddedServer, tmp_path: Path) -> None:
    """After SIGTERM during a body every file is in the report once, and in the list of files to retry."""
    for name, size in {"a.mp4": 4 << 30, "b.mp4": 10, "c.mp4": 10}.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    options = ("--protocol", "batch", "--json", "--report", "r.json", "--failed-to", "again.txt")
    process = start("upload", "a.mp4", "b.mp4", "c.mp4", "-s", server.url, *options, home=tmp_path)
    seen = read_until(process, "file.progress", lambda event: event["phase"] == "sending")
    done = ended(process, seen, signal.SIGTERM)
    document = json.loads((tmp_path / "r.json").read_text())
    assert done.code == document["exit_code"] == 143
    outcomes = {row["path"]: row["outcome"] for row in document["files"]}
    assert sorted(outcomes) == ["a.mp4", "b.mp4", "c.mp4"]
    assert outcomes["a.mp4"] == "cancelled"
    left = [path for path, outcome in outcomes.items() if outcome != "completed"]
    assert (tmp_path / "again.txt").read_text().splitlines() == left


def test_report_to_a_pipe_is_written_in_place(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """As `--report json:>(jq …)` makes one; a link keeps being one, and a file keeps its mode."""
    make_files(**{"a.mp4": 10})
    target, link = tmp_path / "real.csv", tmp_path / "link.csv"
    target.touch(mode=0o600)
    link.symlink_to(target)
    reader, writer = os.pipe()
    pipe = f"json:/dev/fd/{writer}"
    try:
        assert main(["upload", "files", "-s", server.url, "-q", "--report", pipe, "--report", "link.csv"]) == 0
    finally:
        os.close(writer)
    with os.fdopen(reader) as stream:
        assert json.load(stream)["counts"]["completed"] == 1
    assert link.is_symlink()
    assert "files/a.mp4" in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.feature("plan")
def test_dry_run_writes_no_report(server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path) -> None:
    make_files(**{"a.mp4": 10})
    (tmp_path / "r.json").write_text("of the last run")
    assert main(["upload", "files", "-s", server.url, "-q", "--dry-run", "--report", "r.json"]) == 0
    assert (tmp_path / "r.json").read_text() == "of the last run"


def test_library_writes_the_configured_reports(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And prints nothing."""
    from uploader_cli import Settings, upload
    from uploader_cli.settings.report_files import report_file

    files = make_files(**{"a.mp4": 10})
    settings = Settings(server=server.url, report=(report_file("r.json"),))
    result = upload(files, settings)
    assert (result.ok, result.exit_code, result.report_problems) == (True, 0, ())
    assert json.loads((tmp_path / "r.json").read_text())["run"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uploader_cli.report.output_file.os.fsync", full)
    result = upload(files, settings)
    assert (result.ok, result.exit_code, len(result.report_problems)) == (True, 2, 1)
    assert "r.json could not be written: No space left on device" in result.report_problems[0]


def test_report_of_a_resumed_run_names_the_first_run(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    make_files(**{"a.mp4": 10, "b.mp4": 10})
    server.faults.next_answers("POST", "/api/upload/files/", [None, 503])
    first = ["upload", "files", "-s", server.url, "-q", "--retries", "0", "--jobs", "1", "--report", "1.json"]
    assert main(first) == 3
    assert main(["resume", "-q", "--report", "2.json"]) == 0
    one, two = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (1, 2))
    assert (one["resumed_from"], two["resumed_from"]) == (None, one["run"])
    assert [(row["path"], row["outcome"], row.get("reason")) for row in two["files"]] == [
        ("files/a.mp4", "skipped", "present"),
        ("files/b.mp4", "completed", None),
    ]


@pytest.mark.parametrize("status", [400, 500])
def test_token_quoted_by_the_server_is_masked_everywhere(
    server: EmbeddedServer,
    make_files: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    status: int,
) -> None:
    """Not in a view, the stream, a report or the summary of a job: others read them."""
    token = "a-token-that-is-nobodys-business"
    monkeypatch.setenv("UPLOADER_TOKEN", token)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    make_files(**{"a.mp4": 10})
    said = json.dumps({"error": "ODD", "message": f"not for {token}", "details": f"Authorization: {token}"}).encode()
    server.faults.next_answers("POST", "/api/upload/batch", [Answer(status, {}, said, "after_body")])
    suffixes = [".json", ".csv", *(one.suffix for _, one in formats().values())]
    outputs = [*(f"--report=r{suffix}" for suffix in suffixes), "--failed-to=f.jsonl"]
    options = ("--protocol=batch", "--retries=0", "--json", "--progress=plain", "--state-dir=state", *outputs)
    assert main(["upload", "files", "-s", server.url, *options]) in (3, 4)
    captured = capfd.readouterr()
    written = [path.read_bytes() for path in (*tmp_path.glob("*.*"), *(tmp_path / "state").iterdir())]
    texts = [captured.out.encode(), captured.err.encode(), *written]
    assert sum(b"not for" in text for text in texts) >= 5, "the rest of the sentence is there"
    assert not any(token.encode() in text for text in texts)
