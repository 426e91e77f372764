"""The formats of reports that the feature adds: how they are chosen, and their text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from junit_rules import check_junit

from uploader_cli.__main__ import main
from uploader_cli.core.state import ProgressState
from uploader_cli.features.reports.junit import as_junit
from uploader_cli.features.reports.markdown import as_markdown
from uploader_cli.report.document import RunFacts, report_head
from uploader_cli.report.recorder import Spool
from uploader_cli.settings.report_files import report_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.serving import EmbeddedServer


@pytest.mark.parametrize(
    ("written", "kind", "path"),
    [
        ("r.xml", "junit", "r.xml"),
        ("r.md", "markdown", "r.md"),
        ("junit:/dev/fd/3", "junit", "/dev/fd/3"),
    ],
)
def test_format_is_that_of_the_suffix_or_the_prefix(written: str, kind: str, path: str) -> None:
    assert report_file(written) == (kind, Path(path))


def test_each_report_has_the_format_of_its_suffix_or_prefix(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(**{"a.mp4": 10, "sub/b.mp4": 20})
    names = ["r.json", "r.xml", "r.md", "junit:report.txt"]
    options = ["--dest", "trips", *(f"--report={name}" for name in names)]
    assert main(["upload", "files", "-s", server.url, "-q", *options]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["counts"]["completed"] == 2
    assert (tmp_path / "r.xml").read_text() == (tmp_path / "report.txt").read_text()
    assert len(list(check_junit((tmp_path / "r.xml").read_text()).iter("testcase"))) == 2
    assert "2 files uploaded" in (tmp_path / "r.md").read_text()
    assert "(personal/trips)" in (tmp_path / "r.md").read_text()


def test_junit_report_without_files_is_complete() -> None:
    head = report_head(ProgressState(), RunFacts("run", "1.0", started=0.0), finished=2.5)
    assert "<testsuites>\n</testsuites>" in "".join(as_junit(head, Spool()))


def test_junit_time_of_suites_is_that_of_the_run() -> None:
    spool = Spool()
    for number in range(4):
        spool.put({"file": number, "path": "a", "outcome": "completed", "session": "s", "seconds": 2.0})
    head = report_head(ProgressState(), RunFacts("run", "1.0", started=0.0), finished=2.5) | {"seconds": 2.5}
    (suite,) = check_junit("".join(as_junit(head, spool)))
    assert (suite.get("time"), [case.get("time") for case in suite.iter("testcase")]) == ("2.500", ["2.000"] * 4)


def test_markdown_names_the_first_50_failures_and_counts_the_others() -> None:
    spool = Spool()
    for number in range(52):
        spool.put({"file": number, "path": f"{number}|.mp4", "outcome": "failed", "code": "network", "message": "gone"})
    spool.put({"file": 52, "path": "x" * 400, "outcome": "completed", "stored_as": "x"})
    head = report_head(ProgressState(), RunFacts("run", "1.0", started=0.0), finished=1.0)
    head["counts"]["failed"], head["renamed"] = 52, 1
    shown = "".join(as_markdown(head, spool))
    assert "· run run ·" in shown
    assert shown.count("gone") == 50
    assert r"49\|.mp4" in shown
    assert "50" not in shown.partition(r"49\|.mp4")[2]
    assert "… and 2 more." in shown
    assert f"| {'x' * 299}… | x |" in shown
