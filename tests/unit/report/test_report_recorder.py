"""The recorder of report rows: its memory is bounded, and its errors never fail an upload."""

from __future__ import annotations

import json
import sqlite3
import tracemalloc
from functools import partial
from pathlib import Path

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import Phase
from uploader_cli.core.state import ProgressState
from uploader_cli.feature import formats
from uploader_cli.report.document import RunFacts
from uploader_cli.report.recorder import Recorder, Spool
from uploader_cli.report.run_files import outputs, settled
from uploader_cli.settings import Settings
from uploader_cli.settings.report_files import report_file

FACTS = RunFacts("run", "1.0", started=0.0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recorder(*names: str, failed_to: str | None = None) -> Recorder:
    settings = Settings(report=tuple(map(report_file, names)), failed_to=Path(failed_to) if failed_to else None)
    return Recorder(outputs(settings, {}), FACTS, lambda: 9.0)


def play(observer: Recorder, files: int) -> None:
    state = ProgressState()
    for number in range(files):
        path = f"some/directory/file-{number:07d}.bin"
        ended = partial(ev.FileEnded, number, path, 10, session=f"session {number // 100}", attempts=1, seconds=1.0)
        if number % 10:
            end = ended(outcome=Phase.COMPLETED, bytes=10, server_id="id", location="/x", verified=True)
        else:
            code = ev.FailureCode.NETWORK
            end = ended(outcome=Phase.FAILED, code=code, message="gone", retryable=True, relative_path=path)
        observer.handle(end, state, 2.0)
    observer.close(state, 3.0)


def peak_of(files: int) -> tuple[int, int]:
    """Return the peak of memory while so many files are reported, and the bytes of the JSON report."""
    suffixes = [".json", ".csv", *(one.suffix for _, one in formats().values())]
    observer = recorder(*(f"{files}{suffix}" for suffix in suffixes), failed_to=f"{files}.jsonl")
    tracemalloc.start()
    try:
        play(observer, files)
        return tracemalloc.get_traced_memory()[1], Path(f"{files}.json").stat().st_size
    finally:
        tracemalloc.stop()


@pytest.mark.thorough
def test_memory_does_not_grow_with_the_rows(place: Path) -> None:
    """All formats together need less for 1,000 further rows than a tenth of what these add to the JSON report."""
    peak_of(1)  # what is allocated once, as caches and modules
    (few, small), (many, large) = peak_of(2000), peak_of(3000)  # before 2,000 rows the buffers of files are not full
    assert len(json.loads((place / "3000.json").read_text())["files"]) == 3000
    assert (place / "3000.jsonl").read_text().count("\n") == 300
    assert many - few < (large - small) / 10


def test_a_full_disk_fails_the_report_and_not_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Spool, "put", full)
    observer = recorder("r.json")
    play(observer, 3)
    assert not (place / "r.json").exists()
    assert len(observer.notices.problems) == 1
    assert (settled(0, [observer.notices]), settled(4, [observer.notices])) == (2, 4)
    assert "disk is full" in capsys.readouterr().err


def test_report_without_files_is_complete(place: Path) -> None:
    """Nothing was selected in time, or the run failed at once."""
    play(recorder("r.json", "r.csv", failed_to="again.csv"), 0)
    assert json.loads((place / "r.json").read_text())["files"] == []
    assert (place / "r.csv").read_text().count("\n") == 1
    assert (place / "again.csv").read_text() == "path,path_b64,name,category,sha256\n"


def test_the_order_is_that_in_which_files_were_found(place: Path) -> None:
    state, observer = ProgressState(), recorder("r.json")
    for number in (2, 0, 1):
        observer.handle(ev.FileEnded(number, f"{number}", None, Phase.SKIPPED), state, 1.0)
    observer.close(state, 2.0)
    assert [row["path"] for row in json.loads((place / "r.json").read_text())["files"]] == ["0", "1", "2"]
