"""The bytes of a CSV report."""

from __future__ import annotations

from uploader_cli.report.formats import COLUMNS, as_csv
from uploader_cli.report.spool import Spool


def test_csv_has_crlf_lower_case_booleans_and_empty_cells() -> None:
    spool = Spool()
    spool.put({"file": 0, "path": "=a,b", "outcome": "failed", "size": 3, "verified": False, "retryable": True})
    header, row, end = "".join(as_csv({}, spool)).split("\r\n")
    assert header == ",".join(COLUMNS)
    assert row == '0,"./=a,b",,,failed,3,,,,,,,,false,,,true,,,,,'
    assert end == ""
