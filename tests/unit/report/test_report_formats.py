"""The text of a CSV report."""

from __future__ import annotations

import csv

from uploader_cli.report.formats import CSV_COLUMNS, as_csv
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
