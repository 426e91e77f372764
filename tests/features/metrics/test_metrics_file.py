"""`--metrics-file`: the numbers of runs as Prometheus reads them."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING

import pytest
from cli.watch.watch_bench import wait_until
from docs_pages import codes, page, rows
from prometheus_client.parser import text_string_to_metric_families
from serving import running_server

from uploader_cli.__main__ import main
from uploader_cli.core import events as ev
from uploader_cli.core.state import ProgressState
from uploader_cli.features.metrics.file import INTERVAL, MetricsFile
from uploader_cli.report.document import RunFacts
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

RUN = "uploader_run_"
UNITS = ("_total", "_bytes", "_files", "_timestamp_seconds", "_duration_seconds", "info", "running", "exit_code")


def samples(path: Path) -> dict[str, float]:
    """Return the values by name and labels, without the prefix and the label that all have; check the conventions."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter", "histogram"), family.name
        full = family.name + "_total" * (family.type == "counter")
        assert full.startswith(RUN)
        assert full.endswith((*UNITS, "paused")), full
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("upload") == path.stem
            assert set(labels) <= {"server", "version", "outcome", "code", "le"}
            name = sample.name.removeprefix(RUN) + "".join(f" {value}" for value in labels.values())
            assert name not in found
            found[name] = sample.value
    return found


def test_metrics_file_has_the_numbers_of_the_report(
    make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a retry, a failure and a skipped file, then one that resumes it; the last success is kept."""
    monkeypatch.chdir(tmp_path)
    make_files(**{"a.mp4": 3_000_000, "notes.txt": 1, "bad.mp4": 10})
    (tmp_path / "prom").mkdir()
    file, options = tmp_path / "prom" / "nightly.prom", ["-q", "--metrics-file", "prom/nightly.prom"]
    with running_server(flavour="reference", processing_seconds=0.01, fail_files=("bad*",)) as server:
        assert main(["upload", "files/a.mp4", "-s", server.url, *options]) == 0
        before = samples(file)
        server.faults.next_answers("POST", "/api/upload/batch", [Answer(503, {"Retry-After": "0"})])
        assert main(["upload", "files", "-s", server.url, *options, "--no-resume", "--report", "r.json"]) == 4
        found, report = samples(file), json.loads((tmp_path / "r.json").read_text())
        assert main(["resume", *options]) == 4
        resumed = samples(file)
    assert [path.name for path in file.parent.iterdir()] == ["nightly.prom"]
    counts = {name: found[f"files_total {name}"] for name in ("completed", "failed", "skipped", "cancelled")}
    assert counts == {name: report["counts"][name] for name in counts} == dict(counts, completed=1, failed=1, skipped=1)
    assert (found["failures_total server_failed"], found["failures_total network"]) == (1, 0)
    metrics = report["metrics"]
    assert (found["exit_code"], found["running"], found["selected_files"]) == (4, 0, report["counts"]["selected"])
    assert (found["completed_bytes_total"], found["selected_bytes"]) == (report["bytes"], report["selected_bytes"])
    assert (found["retries_total"], found["requests_total"]) == (metrics["retries"], metrics["calls"])
    assert found["failed_requests_total"] == metrics["failed_calls"] == 1
    buckets = [value for name, value in found.items() if name.startswith("request_duration_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found["request_duration_seconds_count"] > 0
    longest = (metrics["latency_ms"]["max"] + 0.05) / 1000  # the report has tenths of a millisecond
    assert buckets[-1] * longest >= found["request_duration_seconds_sum"] > 0
    # both commands run in this process, whose start is theirs
    assert before["start_timestamp_seconds"] < before["end_timestamp_seconds"] < found["end_timestamp_seconds"]
    success = "last_success_timestamp_seconds"
    assert found[success] == resumed[success] == before[success] == before["end_timestamp_seconds"]
    assert (resumed["files_total skipped"], resumed["files_total failed"]) == (2, 1)


def test_run_without_a_server_leaves_its_exit_code(make_files: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "x.prom"
    files = str(make_files(**{"a.mp4": 10}))
    options = ["-q", "--metrics-file", str(file)]
    assert main(["upload", files, "-s", "127.0.0.1:1", "--wait-for-server", "0", *options]) == 6
    assert (samples(file)["exit_code"], samples(file)["files_total cancelled"]) == (6, 1)


@pytest.mark.thorough
def test_metrics_file_is_whole_at_any_time(tmp_path: Path) -> None:
    """A reader sees each state of a running upload completely, and never another file beside it."""
    file = tmp_path / 'quote".prom'
    writer = MetricsFile(file, "http://localhost", RunFacts("run", "1.0", started=1.0), lambda: 9.0, "tag")
    state = ProgressState()
    writer.refresh(state, 0.0)
    ended, seen = threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            names = {path.name for path in tmp_path.iterdir() if path.suffix == ".prom"}
            seen.append((samples(file)["files_total completed"], names))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 200):
        state.completed = number
        writer.refresh(state, number * INTERVAL)
        writer.refresh(state, number * INTERVAL + 1)  # too early
        if number % 50 == 0:
            wait_until(lambda number=number: seen and seen[-1][0] == number)  # type: ignore[misc]
    ended.set()
    reader.join()
    assert [count for count, _ in seen] == sorted(count for count, _ in seen)
    assert len({count for count, _ in seen}) > 2
    assert all(names == {file.name} for _, names in seen)
    assert (samples(file)["running"], "exit_code" in samples(file)) == (1, False)


def test_metrics_are_written_during_the_run(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The first write is at the start of the run: with an event of a running file the metrics are there."""
    from uploader_cli import upload

    file, seen = tmp_path / "x.prom", []

    def look(event: ev.Event) -> None:
        if isinstance(event, ev.FileProgress) and file.exists():
            seen.append(samples(file))

    files = make_files(**{"a.mp4": 3_000_000})
    result = upload(files, server=server.url, metrics_file=str(file), limit_rate="4M", on_event=look)
    assert result.ok
    assert {(one["running"], one["files_total completed"]) for one in seen} == {(1, 0)}
    assert samples(file)["files_total completed"] == 1


def test_page_names_every_metric_and_its_rules_use_them(tmp_path: Path) -> None:
    file, text = tmp_path / "x.prom", page("operations.md")
    writer = MetricsFile(file, "http://localhost", RunFacts("run", "1.0", started=1.0), lambda: 9.0, "tag")
    state = ProgressState()
    writer.refresh(state, 0.0)
    written = set(re.findall(r"^# TYPE (\S+)", file.read_text(), re.MULTILINE))
    state.outcome = ev.RunFinished(True, 0, 0, 0, 0, 0, 0.0, 0.0, 0, ev.ChannelStats(), 0)
    writer.close(state, 1.0)
    written |= set(re.findall(r"^# TYPE (\S+)", file.read_text(), re.MULTILINE))
    named = {code for row in rows(text) for code in codes(row[0])}
    assert named == written
    assert set(re.findall(RUN + r"\w+", text)) == written


@pytest.mark.parametrize(
    ("name", "words"), [("gone/x.prom", "--metrics-file: no such directory"), ("a.mp4", "suffix .prom, as a.prom")]
)
def test_invalid_name_of_a_metrics_file_is_an_error_before_the_upload(
    server: EmbeddedServer, make_files: Callable[..., Path], name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_files(**{"a.mp4": 10})
    assert main(["upload", str(files), "-s", server.url, "--metrics-file", str(files / name)]) == 2
    assert words in capsys.readouterr().err
    assert len(server.faults.requests) == 0


def test_metrics_file_that_is_also_a_report_is_an_error(
    make_files: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, file = str(make_files(**{"a.mp4": 10})), tmp_path / "x.prom"
    options = ["--metrics-file", str(file), "--report", f"json:{file}"]
    assert main(["upload", files, "-s", "127.0.0.1:1", *options]) == 2
    assert f"{file} would be written twice" in capsys.readouterr().err


def test_lost_metrics_file_is_a_warning(
    server: EmbeddedServer,
    make_files: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uploader_cli.features.metrics.file.output_file.write", full)
    files = str(make_files(**{"a.mp4": 10}))
    assert main(["upload", files, "-s", server.url, "-q", "--metrics-file", str(tmp_path / "x.prom")]) == 0
    warning = f"warning: --metrics-file: {tmp_path}/x.prom could not be written: No space left on device\n"
    assert capsys.readouterr().err == warning
