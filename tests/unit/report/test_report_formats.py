"""The text of a CSV report, and of a Markdown report with many failures."""

from __future__ import annotations

import csv

from junit_rules import check_junit

from uploader_cli.core.state import ProgressState
from uploader_cli.report.document import RunFacts, report_head
from uploader_cli.report.formats import CSV_COLUMNS, as_csv
from uploader_cli.report.junit import as_junit
from uploader_cli.report.markdown import as_markdown
from uploader_cli.report.recorder import Spool


def test_csv_has_crlf_lower_case_booleans_and_empty_cells() -> None:
    spool = Spool()
    spool.put({"file": 0, "path": "=a,b", "outcome": "failed", "size": 3, "verified": False, "retryable": True})
    header, row, end = "".join(as_csv({}, spool)).split("\r\n")
    assert header == ",".join(CSV_COLUMNS)
    assert row.rstrip(",") == '0,"./=a,b",,,failed,3,,,,,,,,false,,,true'
    assert len(next(csv.reader([row]))) == len(CSV_COLUMNS)
    assert end == ""


def test_csv_has_run_category_and_digest_of_a_run_without_a_list() -> None:
    spool = Spool()
    row = {"file": 0, "path": "a", "outcome": "completed", "size": 1}
    spool.put(row | {"checksum": "sha256:ab"})
    spool.put(row | {"file": 1, "checksum": "sha256:ab", "category": "scenic", "sha256": "cd", "run": "other"})
    lines = "".join(as_csv({"run": "this", "category": "personal"}, spool)).splitlines()
    found = [[row[name] for name in ("run", "category", "sha256")] for row in csv.DictReader(lines)]
    assert found == [["this", "personal", "ab"], ["other", "scenic", "cd"]]


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
