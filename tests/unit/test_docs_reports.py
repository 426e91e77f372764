"""docs/reports.md names every format and field of a report."""

from __future__ import annotations

from dataclasses import fields

from docs_pages import codes, page, rows, section

from uploader_cli.core.events import FileEnded
from uploader_cli.core.state import ProgressState
from uploader_cli.exit_status import Exit
from uploader_cli.features.reports.read import Report
from uploader_cli.features.reports.show import named_outputs
from uploader_cli.features.shards.merge import Merge
from uploader_cli.report.document import RunFacts, added_by, report_head
from uploader_cli.report.recorder import Recorder, Spool
from uploader_cli.settings import Settings
from uploader_cli.settings.report_files import report_file

PAGE = page("reports.md")
HEAD = report_head(ProgressState(), RunFacts("run", "1.0", started=0.0, added=added_by(Settings())), finished=1.0)


def documented(title: str) -> list[list[str]]:
    """Return the codes in the first cells of the tables of a section."""
    return [[code.rstrip("?") for code in codes(row[0])] for row in rows(section(PAGE, title))]


def test_the_suffixes_are_those_of_the_program() -> None:
    kinds = {suffix: report_file(f"r{suffix}").kind for row in rows(PAGE)[:6] for suffix in codes(row[0])}
    known = {".json": "json", ".csv": "csv", ".xml": "junit", ".md": "markdown", ".html": "html", ".sha256": "sha256"}
    assert kinds == known


def test_the_fields_of_the_head_are_named_in_their_order() -> None:
    named = [field for cell in documented("## JSON") for field in cell]
    assert named[: len(HEAD)] == list(HEAD)
    assert set(HEAD["counts"]) == set(codes(next(row[1] for row in rows(PAGE) if row[0] == "`counts`")))
    words = codes(next(row[1] for row in rows(PAGE) if row[0].startswith("`ok`")))
    assert words == [code.name.lower() for code in Exit]


def test_the_fields_of_a_file_are_named() -> None:
    named = [field for cell in documented("## JSON") for field in cell][len(HEAD) :]
    assert sorted(named) == sorted([*(spec.name for spec in fields(FileEnded)), "path_b64"])


def test_the_fields_of_a_joined_report_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "r.json"
    recorder = Recorder(named_outputs([str(path)], None), RunFacts("run", "1", 0.0), lambda: 1.0)
    recorder.close(ProgressState(), 1.0)
    merge = Merge(Spool())
    merge.add(Report.open(path))
    assert {field for cell in documented("## Joining reports") for field in cell} == set(merge.head("1")) - set(HEAD)
